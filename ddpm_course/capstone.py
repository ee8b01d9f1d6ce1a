"""The capstone of lesson 06: train and sample with the functions in a student's my_ddpm.py, and score the result.

    python -m ddpm_course.capstone --minutes 10 --checkpoint state

The file is completed first: what is missing in it, or no longer passes its check, is filled in with the course's own
version, marked "given". Then it runs by itself, without ddpm_course, and makes the schedule, the network, the training
and the samples. What is left to this module is what no exercise asks for: data, budget, averaging, and the score.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import colab
from .checkpoints import StateFile
from .checks import library
from .data import load_images
from .metrics import features, frechet_distance
from .plots import show_images
from .samplers import device_of, generate, spaced_timesteps
from .schedules import Schedule
from .training import EMA, best_device, fast_mode, learning_rate, load_pretrained, unbroken

PARTS = (
    *("to_model_range", "to_uint8", "q_sample", "cosine_alpha_bars", "betas_from_alpha_bars"),
    *("sinusoidal_embedding", "attention", "space_to_depth", "skip_channels", "residual_forward", "unet_forward"),
    *("simple_loss", "training_step", "training_loop"),
    *("estimate_x0", "reverse_variance", "posterior_step", "ancestral_loop"),
)
T = 1000
BATCH = 64
LR = 4e-3
WARM_STEPS = 3  # slower than those after them; all there are in fast mode
SAVE_SECONDS = 60


@dataclass
class Result:
    """What a capstone run made. Printing it shows the score.

    mine:    the parts that the student wrote;  missing: why each of the others is the course's
    steps:   of training;  losses: one a step
    images:  (N, 1, 28, 28) uint8, made with the student's sampler
    scores:  Fréchet distances, lower is better: noise, untrained, yours, bundled, real
    """

    mine: list[str]
    missing: dict[str, str]
    minutes: float
    steps: int
    losses: list[float]
    images: Tensor
    scores: dict[str, float]

    @property
    def distance(self) -> float:
        return self.scores["yours"]

    @property
    def quality(self) -> int:
        """Where the distance lies between noise, 0, and as many real images, 100, on a logarithmic scale."""
        noise, real = self.scores["noise"], self.scores["real"]
        return round(100 * min(1.0, max(0.0, math.log(noise / self.distance) / math.log(noise / real))))

    def __str__(self) -> str:
        bars = [
            f"  {name:<10} {value:8.2f}  {'█' * max(1, round(4 * math.log2(1 + value)))}"
            for name, value in self.scores.items()
        ]
        table = [f"Fréchet distance, {len(self.images)} images each (lower is better)", *bars]
        return "\n".join(
            [*table, f"parts that are yours: {len(self.mine)} of {len(PARTS)}", f"quality: {self.quality} of 100"]
        )


def run(
    minutes: float = 1.0,
    *,
    path: str | Path | None = None,
    samples: int = 200,
    steps: int = 40,
    widths: tuple[int, ...] = (32, 64),
    seed: int = 0,
    save: bool = True,
    checkpoint: str | Path | None = None,
) -> Result:
    """Train for `minutes` with the functions in `path`, draw `samples` in `steps` steps each, and score them.

    path:       by default the my_ddpm.py that the checks save. What is missing in it is named, and the course's version
                taken
    save:       leave capstone.json and capstone.png beside the default my_ddpm.py (never under nbgrader, nor with
                DDPM_COURSE_SAVE=0)
    checkpoint: a file or folder for the state of the training, as for `training.train`: written every minute and when
                you stop it, and where it holds this training already, with the same functions, the training goes on
                from it
    raises  ValueError for fewer than 65 samples, a budget that is not positive, or another training's checkpoint;
            RuntimeError, in a sentence, if one of the functions fails at its work

    The notebook's stop button (or Ctrl-C) ends the training early: what there is by then is drawn and scored.
    """
    if minutes <= 0:
        raise ValueError(f"minutes must be more than 0, got {minutes:g}")
    if samples <= 64:
        raise ValueError(f"the score needs more than 64 samples, got {samples}")
    if fast_mode():
        samples, steps = 70, 2
    path = Path(path or colab.own_folder() / library.NAME)
    my, mine, missing = load(path)
    _announce(Path(path).name, mine, missing)

    schedule = my["Schedule"](my["betas_from_alpha_bars"](my["cosine_alpha_bars"](T)))
    torch.manual_seed(seed)
    net = my["MyUNet"](channels=1, widths=widths)
    images, _ = load_images(limit=1000 if fast_mode() else None)
    file = None
    if checkpoint is not None:
        code = hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "the course's"
        file = StateFile(checkpoint, dict(functions=code, minutes=minutes, widths=widths, seed=seed))
    ema, losses = train(my, net, schedule, images, minutes, seed, file)
    drawn = draw(my, ema.net, schedule, samples, steps, seed)

    torch.manual_seed(seed + 1)
    untrained = my["MyUNet"](channels=1, widths=widths).to(device_of(ema.net))  # where the functions are known to work
    bundled, diffusion, _ = load_pretrained()
    device = next(bundled.parameters()).device
    y = torch.arange(samples, device=device) % 10
    generator = torch.Generator(device).manual_seed(seed)
    contestants = {
        "noise": torch.randn(samples, 1, 28, 28, generator=torch.Generator().manual_seed(seed)),
        "untrained": draw(my, untrained, schedule, samples, min(steps, 5), seed),
        "yours": drawn,
        "bundled": generate(bundled, diffusion, drawn.shape, min(steps, 25), y=y, generator=generator, progress=False),
        "real": images[:samples],
    }
    scores = {name: frechet_distance(x, reference()) for name, x in contestants.items()}
    result = Result(mine, missing, minutes, len(losses), losses, my["to_uint8"](drawn), scores)
    if save and "NBGRADER_EXECUTION" not in os.environ and os.environ.get("DDPM_COURSE_SAVE") != "0":
        hand_in(result, colab.own_folder())
    return result


@cache
def reference() -> Tensor:
    """Features of the held-out images, computed once: what every set is compared with."""
    images, _ = load_images(split="test", limit=500 if fast_mode() else None)
    return features(images)


def load(path: str | Path = library.NAME) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Complete a my_ddpm.py and run it.

    returns  its names; the parts that are the student's; and for each of the others why it is not
    """
    text, mine, missing = complete(path)
    return library.execute(text, Path(path).name), mine, missing


def complete(path: str | Path = library.NAME) -> tuple[str, list[str], dict[str, str]]:
    """The text of a my_ddpm.py with every part in it, the student's where they pass their check. See `load`."""
    path = Path(path)
    exercises = {exercise.name: exercise for exercise in library.exercises()}
    text, missing, written = library.HEADER, {}, {}
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
            written = library.execute(text, path.name)
        except (library.CannotSave, UnicodeError) as reason:
            print(f"{str(reason)[:1].upper()}{str(reason)[1:]}")
            text, missing = library.HEADER, dict.fromkeys(PARTS, "the file does not run")
    given = library.given_names(text)
    for name in PARTS:
        if name in given:
            missing[name] = "given, not yours yet"
        elif name not in written:
            missing.setdefault(name, "not here yet")
        elif not exercises[name].check(written[name], written.get("Schedule", Schedule)).solved:
            missing[name] = "does not pass its check"
        if name in missing:
            text = library.add(text, exercises[name], exercises[name].reference, given=True)
            if missing[name] == "does not pass its check":  # nor may what uses it have passed
                written = library.execute(text, path.name)
    return text, [name for name in PARTS if name not in missing], missing


def train(
    my: dict[str, Any],
    net: nn.Module,
    schedule,
    images: Tensor,
    minutes: float,
    seed: int,
    file: StateFile | None = None,
) -> tuple[EMA, list[float]]:
    """Train with the student's training_loop, on a GPU if there is one and the functions work there.

    Each attempt trains a copy of `net`. The loop gets 25 batches at a time. The learning rate, the clipping of
    gradients and the average of the weights hang on the optimizer's own step, so they work in whatever way the loop is
    written. Where `file` holds a state the training goes on from it, with the number of steps that was planned, in
    another order of the images.
    """
    if file:
        file.load()  # a state that does not fit is an error of its own, not one of the functions

    def on(device: torch.device) -> tuple[EMA, list[float]]:
        own = copy.deepcopy(net).to(device, memory_format=torch.channels_last)
        return _train(my, own, schedule, images.to(device), minutes, seed, file)

    return _where_it_works(on, best_device(), "training")


def _where_it_works(work: Callable[[torch.device], Any], device: torch.device, what: str) -> Any:
    """work(device), on the CPU if it fails on a GPU; RuntimeError, in a sentence, if it fails there too.

    What fails on a GPU alone: RuntimeError, for tensors on two devices; TypeError, for float64 on Apple's or NumPy on
    any; ValueError, for a t elsewhere than the data. A loss that explodes would do so on the CPU too.
    """
    failures = (RuntimeError, TypeError, ValueError)
    try:
        if device.type != "cpu":
            try:
                return work(device)
            except failures as error:
                print(f"your functions do not work on {device} yet ({_first_line(error)}); {what} on the CPU")
        return work(torch.device("cpu"))
    except (*failures, FloatingPointError) as error:
        raise RuntimeError(f"{what} stopped: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _train(my, net, schedule, images, minutes, seed, file) -> tuple[EMA, list[float]]:
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR / 50)
    ema, planned, losses = EMA(net), [WARM_STEPS if fast_mode() else None], []
    parts = dict(net=net, ema=ema, optimizer=optimizer)
    if file and (state := file.load()):
        for name, part in parts.items():
            part.load_state_dict(state[name])
        planned, losses = [state["planned"]], state["losses"]
        done = "nothing is left to do (to train again, delete it or give another checkpoint=)"
        here = done if len(losses) == planned[0] else f"step {len(losses):,} of {planned[0]:,}"
        print(f"going on from {file.path}: {here}")
    generator = torch.Generator(images.device).manual_seed(seed + len(losses))
    batches = _batches(my["to_model_range"], images, generator)

    def before(*_) -> None:
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(ema.updates, planned[0], LR)

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda *_: ema.update(net))
    net.train()

    started = saved_at = time.perf_counter()
    try:
        while planned[0] is None or len(losses) < planned[0]:
            with unbroken():  # an interrupt comes between the loop's turns, where weights, average and count agree
                count = WARM_STEPS if not losses else min(25, (planned[0] or math.inf) - len(losses))
                some = my["training_loop"](net, schedule, optimizer, [next(batches) for _ in range(count)], generator)
                if not losses:
                    measured_from = time.perf_counter()
                elif planned[0] is None:
                    pace = (time.perf_counter() - measured_from) / count
                    left = minutes * 60 - (time.perf_counter() - started)
                    planned[0] = len(losses) + count + max(0, round(left / pace))
                    plan = f"{minutes:g} minutes are {planned[0]:,} steps"
                    print(f"training on {images.device}, {1 / pace:.1f} steps/s: {plan}")
                losses += [float(loss) for loss in some]
                if not all(map(math.isfinite, losses[-count:])):
                    raise FloatingPointError(f"the loss is not finite any more after step {len(losses)}")
                overdue = time.perf_counter() - saved_at >= SAVE_SECONDS
                if file and planned[0] is not None and (overdue or len(losses) == planned[0]):
                    _keep(file, parts, planned[0], losses)
                    saved_at = time.perf_counter()
    except KeyboardInterrupt:
        if not losses or planned[0] is None:  # nothing worth drawing from
            raise
        here = ", and with checkpoint= the same call could go on from here"
        if file:
            here = ", and the same call goes on from here" if _keep(file, parts, planned[0], losses) else ""
        print(f"stopped after {len(losses):,} of {planned[0]:,} steps: the network is used as it is{here}")
    last = sum(losses[-25:]) / len(losses[-25:])
    print(f"trained {len(losses):,} steps, loss {losses[0]:.2f} at first, {last:.3f} at the end")
    return ema, losses


def _keep(file: StateFile, parts: dict, planned: int, losses: list[float]) -> bool:
    """Write the state; whether that worked. A full disk costs the state, not the training."""
    try:
        file.save({name: part.state_dict() for name, part in parts.items()} | dict(planned=planned, losses=losses))
    except OSError as error:
        print(f"the state of step {len(losses):,} could not be written ({error})")
        return False
    return True


def _batches(to_model_range: Callable, images: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(len(images), device=images.device, generator=generator)
        for rows in order[: len(images) // BATCH * BATCH].split(BATCH):
            yield to_model_range(images[rows])


def draw(my: dict[str, Any], net: nn.Module, schedule, n: int, steps: int, seed: int, chunk: int = 100) -> Tensor:
    """(n, 1, 28, 28) on the CPU: samples from the student's ancestral_loop, `chunk` at a time.

    They are drawn where the network is; if the functions fail there, on the CPU, where the network then stays.
    """
    net.eval()

    def on(device: torch.device) -> Tensor:
        net.to(device)
        generator = torch.Generator(device).manual_seed(seed)
        made = []
        for size in [min(chunk, n - start) for start in range(0, n, chunk)]:
            x_T = torch.randn(size, 1, 28, 28, device=device, generator=generator)
            made.append(my["ancestral_loop"](net, schedule, x_T, spaced_timesteps(T, steps), generator).cpu())
        return torch.cat(made)

    return _where_it_works(on, device_of(net), "sampling")


def hand_in(result: Result, folder: str | Path = ".") -> None:
    """Write capstone.json and capstone.png, whole under other names first."""
    facts = {"parts": result.mine, "missing": result.missing, "minutes": result.minutes, "steps": result.steps}
    scores = {name: round(value, 3) for name, value in result.scores.items()}
    facts |= {"samples": len(result.images), "frechet_distance": scores, "quality": result.quality}
    folder = Path(folder)
    partial = folder / ".capstone.partial"
    partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / "capstone.json")
    title = f"Fréchet distance {result.distance:.1f} after {result.steps:,} steps"
    show_images(result.images[:50], columns=10, title=title).savefig(partial, format="png", bbox_inches="tight")
    partial.replace(folder / "capstone.png")
    where = "beside your notebook" if folder == Path() else f"in the folder {colab.named(folder)}"
    print(f"capstone.json and capstone.png are {where}")


def _announce(name: str, mine: list[str], missing: dict[str, str]) -> None:
    if not mine and set(missing.values()) == {"not here yet"}:
        print(f"There is no {name} with any of the {len(PARTS)} parts here: all of them are the course's.")
        return
    print(f"{name}: {len(mine)} of {len(PARTS)} parts are yours.")
    numbers = {exercise.name: exercise.number for exercise in library.exercises()}
    for part, why in missing.items():
        print(f"  {part} (exercise {numbers[part]}): {why}; the course's stands in")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and sample with your my_ddpm.py, and score the samples.")
    parser.add_argument("path", nargs="?", default=library.NAME, help="the file (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40, help="of sampling")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="file for the state of the training; goes on from it if it exists")
    try:
        print(run(**vars(parser.parse_args())))
    except (ValueError, RuntimeError) as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
