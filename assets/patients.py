"""Train the networks of lesson 13's patients, with their mistakes in the code that trains them. On one core each takes
about a minute.

    python assets/patients.py [NAMES] [--out FOLDER]      into assets/patients/; all of them unless names are given
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_course.clinic.code import FUNCTIONS, T, Told, changed, changes_of, loss_by_t, network, pictures
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import Schedule
from ddpm_course.training import learning_rate, save_checkpoint
from ddpm_course.training.batches import Batches
from ddpm_course.training.optimizer import Muon

HERE = Path(__file__).parent
BATCH, PEAK, HALF_LIFE = 32, 4e-3, 138
STEPS = {"healthy": 1500, "pixels": 1500, "target": 300, "chain": 800, "mixing": 800}
POINTS = 50  # of the stored curve of losses
NETWORKS = {  # a network: the function that is wrong in its training, and how
    "healthy": None,
    "pixels": ("prepare_pixels", "unrepaired"),
    "target": ("train_once", "unrepaired"),
    "chain": ("chain_betas", "unrepaired"),
    "mixing": ("add_noise", "unrepaired"),
}


def train(name: str, out: Path) -> None:
    parts = dict(FUNCTIONS)
    if wrong := NETWORKS[name]:
        place, mistake = wrong
        for part in ("prepare_pixels", "chain_betas", "train_once"):
            if part == place or (part, place) == ("train_once", "add_noise"):
                parts[part] = changed(part, place, changes_of(place, mistake))
    weights, diffusion, about = trained(parts, STEPS[name], name)
    kept = {name: weights["average"]}
    if name == "healthy":
        kept |= {"raw": weights["raw"], "unwarmed": weights["unwarmed"]}
    for file, values in kept.items():
        save_checkpoint(out / file, holding(network(), values).half(), diffusion, **about)


def trained(
    parts: dict[str, Callable],
    steps: int,
    name: str,
    *,
    net: nn.Module | None = None,
    schedule: Schedule | None = None,
    data: tuple[Tensor, Tensor] | None = None,
    peak: float = PEAK,
) -> tuple[dict[str, list[Tensor]], GaussianDiffusion, dict]:
    """Weights of a training ("average", "raw", and "unwarmed", an average without warm-up), and what is told about it.

    parts: the functions of the patients' code by their names, the wrong one among them
    data:  all garments and their labels unless given
    """
    images, labels = data or pictures(None)
    schedule = schedule or Schedule(parts["chain_betas"](T))
    net, generator = net or network(), torch.Generator().manual_seed(0)
    net = net.to(memory_format=torch.channels_last)
    ask = net if parts["time_code"] is FUNCTIONS["time_code"] else Told(net, parts["time_code"])
    optimizer, batches = Muon(net, peak), Batches(len(images), BATCH, "cpu", generator)
    average, unwarmed = ([p.detach().clone() for p in net.parameters()] for _ in range(2))
    losses, start = [], time.perf_counter()
    for n in range(steps):
        rows = next(batches)
        y = torch.where(torch.rand(BATCH, generator=generator) < 0.1, 10, labels[rows])
        x0 = parts["prepare_pixels"](images[rows])
        t = schedule.sample_t(BATCH, generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(n, steps, peak)
        losses.append(float(parts["train_once"](lambda x, t, y=y: ask(x, t, y), schedule, optimizer, x0, t, noise)))
        with torch.no_grad():
            now = list(net.parameters())
            torch._foreach_lerp_(average, now, 1 - FUNCTIONS["average_keeps"](n + 1, HALF_LIFE))
            torch._foreach_lerp_(unwarmed, now, 1 - 0.5 ** (1 / 693))
        if n % 100 == 99:
            print(
                f"{name}: step {n + 1}, loss {sum(losses[-100:]) / 100:.3f}, {time.perf_counter() - start:.0f} s",
                flush=True,
            )
    x0, times = parts["prepare_pixels"](images[-400:]), [max(1, round(T * (i + 0.5) / 20)) for i in range(20)]
    about = dict(
        command=f"python assets/patients.py {name}",
        steps=steps,
        losses=[round(sum(piece) / len(piece), 4) for piece in split(losses, POINTS)],
        times=times,
        by_t=[round(x, 4) for x in loss_by_t(parts["train_once"], ask, schedule, x0, labels[-400:], times)],
    )
    weights = dict(average=average, raw=[p.detach() for p in net.parameters()], unwarmed=unwarmed)
    return weights, GaussianDiffusion(schedule, "noise"), about


def holding(net: nn.Module, values: list[Tensor]) -> nn.Module:
    """The network with these weights."""
    with torch.no_grad():
        for mine, theirs in zip(net.parameters(), values, strict=True):
            mine.copy_(theirs)
    return net


def split(values: list[float], pieces: int) -> list[list[float]]:
    n = len(values)
    return [values[n * i // pieces : n * (i + 1) // pieces] for i in range(pieces)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the networks of lesson 13's patients.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}; all unless given")
    parser.add_argument("--out", type=Path, default=HERE / "patients")
    args = parser.parse_args()
    for name in args.names or NETWORKS:
        train(name, args.out)
