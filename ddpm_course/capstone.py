"""The capstone of lesson 06: train and sample with the functions in a student's my_ddpm.py, and score the result.

    python -m ddpm_course.capstone --minutes 10 --checkpoint state

The file is completed first: what is missing in it, or no longer passes its check, is filled in with the course's own
version, marked "given". Then it runs by itself, without ddpm_course, and makes the schedule, the network, the training
and the samples. What is left to this module is what no exercise asks for: data, budget, averaging, and the score.
"""

import argparse
import copy
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import colab
from .arguments import number, whole
from .checks import library
from .data import load_images
from .diffusion import GaussianDiffusion
from .exercises.written import Exercise
from .files import write_atomically
from .metrics import features, frechet_distance
from .modes import fast_mode, saving
from .nets import device_of
from .plots import show_images, style
from .samplers import generate, spaced_timesteps
from .schedules import Schedule
from .training import Run, best_device, load_pretrained
from .training.devices import Team
from .training.loop import run_training
from .training.state import Keeper, digest
from .training.step import Training

PARTS = (
    *("to_model_range", "to_uint8", "q_sample", "cosine_alpha_bars", "betas_from_alpha_bars"),
    *("sinusoidal_embedding", "attention", "space_to_depth", "skip_channels", "residual_forward", "unet_forward"),
    *("simple_loss", "training_step", "training_loop"),
    *("estimate_x0", "reverse_variance", "posterior_step", "ancestral_loop"),
)
T = 1000
BATCH = 64
LR = 4e-3
T_AROUND = 0.4, 1.3  # as `train` draws t, but for the factor alpha_bar in the error of the noise, made up for here
SAVE_MINUTES = 1.0
FAST_STEPS = 3
REAL = 24_000  # training images that are bundled


@dataclass
class Result:
    """What a capstone run made. Printing it shows the score.

    mine:    the parts that the student wrote;  missing: why each of the others is the course's
    steps:   of training;  losses: (step, mean loss since the entry before)
    images:  (N, 1, 28, 28) uint8, made with the student's sampler
    scores:  Fréchet distances, lower is better: noise, untrained, yours, bundled, real
    """

    mine: list[str]
    missing: dict[str, str]
    minutes: float
    steps: int
    losses: list[tuple[int, float]]
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
        lines = [f"Fréchet distance, {len(self.images)} images each (lower is better)"]
        for name, value in self.scores.items():
            lines.append(f"  {name:<10} {value:8.2f}  {'█' * max(1, round(4 * math.log2(1 + value)))}")
        lines.append(f"parts that are yours: {len(self.mine)} of {len(PARTS)}")
        return "\n".join([*lines, f"quality: {self.quality} of 100"])


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
    raises  ValueError for numbers that do not fit (samples from 65 to 24,000, as many as there are real images; steps
            from 1 to 1,000), or another training's checkpoint; RuntimeError, in a sentence, if one of the functions
            fails at its work

    The notebook's stop button (or Ctrl-C) ends the training early: what there is by then is drawn and scored.
    """
    budget = number("minutes", minutes, 0, above=True)
    samples = whole("samples", samples, 65, REAL, ", the number of real images")
    steps, seed = whole("steps", steps, 1, T), whole("seed", seed, 0, 2**63 - 2)  # the next seed is used too
    widths = widths if isinstance(widths, Sequence) else [widths]
    widths = tuple(whole("every one of widths", width, 1) for width in widths)
    if not widths or any(width % 8 for width in widths):
        raise ValueError(f"widths must be multiples of 8, one for each level, got {widths}")
    if fast_mode():
        samples, steps = 70, 2
    path = Path(os.path.expanduser(path or colab.own_folder() / colab.LIBRARY))
    my, mine, missing = load(path)
    _announce(path.name, mine, missing)

    schedule = my["Schedule"](my["betas_from_alpha_bars"](my["cosine_alpha_bars"](T)))
    torch.manual_seed(seed)
    net = my["MyUNet"](channels=1, widths=widths)
    images, _ = load_images(limit=1000 if fast_mode() else None)
    code = hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "the course's"
    # minutes as they were given, which is how states that exist are called
    about = dict(functions=code, minutes=minutes, widths=widths, seed=seed, t_around=T_AROUND, images=digest(images))
    trained = train_with(my, net, schedule, images, budget, seed, checkpoint, about)
    drawn = draw(my, trained.ema.net, schedule, samples, steps, seed)

    torch.manual_seed(seed + 1)
    untrained = my["MyUNet"](channels=1, widths=widths)
    untrained.to(device_of(trained.ema.net))  # where the functions are known to work
    bundled, diffusion, _ = load_pretrained()
    device = device_of(bundled)
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
    result = Result(mine, missing, budget, trained.step, trained.losses, my["to_uint8"](drawn), scores)
    if save and saving():
        hand_in(result, colab.own_folder())
    return result


@cache
def reference() -> Tensor:
    """Features of the held-out images, computed once: what every set is compared with."""
    images, _ = load_images(split="test", limit=500 if fast_mode() else None)
    return features(images)


def load(path: str | Path = colab.LIBRARY) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Run a my_ddpm.py, completed so that every part is in it: the student's where they pass their check.

    returns  its names; the parts that are the student's; and for each of the others why it is not
    """
    path = Path(os.path.expanduser(path))
    text, missing, written = library.HEADER, {}, {}
    if path.is_file():
        try:
            text = library.read(path)
            written = library.execute(text, path.name)
        except (library.CannotSave, OSError) as reason:
            print(f"{str(reason)[:1].upper()}{str(reason)[1:]}")
            text, missing = library.HEADER, dict.fromkeys(PARTS, "the file does not run")
    given = library.given_names(text)
    for name in PARTS:
        if name in given:
            missing[name] = "given, not yours yet"
        elif name not in written:
            missing.setdefault(name, "not here yet")
        elif not _works(library.BY_NAME[name], written[name], written.get("Schedule", Schedule)):
            missing[name] = "does not pass its check"
        if name in missing:
            text = library.add(text, library.BY_NAME[name], library.BY_NAME[name].reference, given=True)
            if missing[name] == "does not pass its check":  # nor may what uses it have passed
                written = library.execute(text, path.name)
    return library.execute(text, path.name), [name for name in PARTS if name not in missing], missing


def _works(exercise: Exercise, function: Any, schedule_class: type) -> bool:
    """Does a part pass its check, but for digits that only float64 has? Checks did not always ask for those."""
    cases = [case for case in exercise.cases if not case.gpu]
    asked = replace(exercise, make_cases=lambda: cases, any_float=True)
    return library.verdict_on(asked, function, schedule_class).solved


class AnswersNoise(nn.Module):
    """Lets a network learn v and answers with the noise that follows from it, which the student's functions ask for.

    noise = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v (Salimans and Ho, 2022, section 4). The best answer at large t,
    nearly x_t itself, need then not be learned. The error of the noise is alpha_bar times that of v.
    """

    def __init__(self, net: nn.Module, schedule: Any):
        super().__init__()
        self.net, self.diffusion = net, GaussianDiffusion(schedule, predicts="v")

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.diffusion.decode(self.net(x, t), x, t)[1]


class StudentTraining(Training):
    """The training of the course, with the student's functions in a step: data, batches, average and state are shared.

    my: the names of the student's file
    """

    def __init__(self, my: dict, net: nn.Module, schedule, images: Tensor, seed: int, device: torch.device):
        super().__init__(
            net, GaussianDiffusion(schedule), images, None, Team(device), batch_size=BATCH, lr=LR, ema_decay=0.995,
            seed=seed,
        )  # fmt: skip
        self.my, self.answering = my, AnswersNoise(net, schedule)
        self.schedule = copy.copy(schedule)  # the student's loop asks it for t
        self.schedule.sample_t = partial(Schedule.sample_t, schedule, around=T_AROUND)
        # Wherever the student's code calls the optimizer: gradients are clipped before it, the average moves after it.
        self.optimizer.register_step_pre_hook(self._clip)
        self.optimizer.register_step_post_hook(lambda *_: self.run.ema.update(net))

    def _clip(self, *_) -> None:
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)

    def step(self, lr: float) -> None:
        """The student's training_loop, over one batch. What it returns may be on the device, and stays there."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x0 = self.my["to_model_range"](self.images[next(self.batches)])
        losses = self.my["training_loop"](self.answering, self.schedule, self.optimizer, [x0], self.generator)
        loss = torch.as_tensor(losses[0], dtype=torch.float32, device=self.device)
        self.run.unread.append(loss.detach().reshape(()))
        self.run.step += 1


def train_with(
    my: dict[str, Any],
    net: nn.Module,
    schedule: Any,
    images: Tensor,
    minutes: float,
    seed: int,
    checkpoint: str | Path | None = None,
    about: dict[str, Any] | None = None,
) -> Run:
    """Train with the student's training_loop, on a GPU if there is one and the functions work there.

    Each attempt trains a copy of `net`. Where `checkpoint` holds the state of a training that is `about` the same, it
    goes on, with the number of steps that was planned.
    """
    team = Team(best_device())
    # Outside of the attempts: a state that does not fit is no fault of the functions.
    keeper = Keeper(checkpoint, about or {}, SAVE_MINUTES, team)

    def train_on(device: torch.device) -> Run:
        training = StudentTraining(my, copy.deepcopy(net), schedule, images, seed, device)
        training.run.steps = FAST_STEPS if fast_mode() else None
        print(f"training on {device}")
        return run_training(training, minutes, keeper)

    run = _where_it_works(train_on, team.device, "training")
    if not run.losses:  # stopped before the first report: nothing worth drawing from
        raise KeyboardInterrupt
    first, last = run.losses[0][1], run.losses[-1][1]
    print(f"trained {run.step:,} steps, loss {first:.2f} at first, {last:.3f} at the end")
    return run


def _where_it_works(work: Callable[[torch.device], Any], device: torch.device, what: str) -> Any:
    """work(device), on the CPU if it fails on a GPU; RuntimeError, in a sentence, if it fails there too.

    What fails on a GPU alone: RuntimeError, for tensors on two devices; TypeError, for float64 on Apple's or NumPy on
    any; ValueError, for a t elsewhere than the data. A loss that explodes would do so on the CPU too.
    """
    try:
        return work(device)
    except (RuntimeError, TypeError, ValueError, FloatingPointError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if device.type == "cpu" or isinstance(error, FloatingPointError):
            raise RuntimeError(f"{what} stopped: {reason}") from None
    print(f"your functions do not work on {device} yet ({reason}); {what} on the CPU")
    return _where_it_works(work, torch.device("cpu"), what)


def draw(my: dict[str, Any], net: nn.Module, schedule, n: int, steps: int, seed: int, chunk: int = 100) -> Tensor:
    """(n, 1, 28, 28) on the CPU: samples from the student's ancestral_loop, `chunk` at a time.

    They are drawn where the network is; if the functions fail there, on the CPU, where the network then stays.
    """
    net.eval()
    answering = AnswersNoise(net, schedule)

    def on(device: torch.device) -> Tensor:
        net.to(device)
        generator = torch.Generator(device).manual_seed(seed)
        made = []
        for size in [min(chunk, n - start) for start in range(0, n, chunk)]:
            x_T = torch.randn(size, 1, 28, 28, device=device, generator=generator)
            made.append(my["ancestral_loop"](answering, schedule, x_T, spaced_timesteps(T, steps), generator).cpu())
        return torch.cat(made)

    return _where_it_works(on, device_of(net), "sampling")


def hand_in(result: Result, folder: str | Path = ".") -> None:
    """Write capstone.json and capstone.png."""
    facts = {"parts": result.mine, "missing": result.missing, "minutes": result.minutes, "steps": result.steps}
    scores = {name: round(value, 3) for name, value in result.scores.items()}
    facts |= {"samples": len(result.images), "frechet_distance": scores, "quality": result.quality}
    folder, picture = Path(os.path.expanduser(folder)), io.BytesIO()
    title = f"Drawn by {colab.LIBRARY}: Fréchet distance {result.distance:.1f} after {result.steps:,} steps of training"
    with style():
        show_images(result.images[:50], columns=10, title=title).savefig(picture, format="png", bbox_inches="tight")
    write_atomically(folder / "capstone.json", json.dumps(facts, indent=2) + "\n")
    write_atomically(folder / "capstone.png", picture.getvalue())
    where = "beside your notebook" if folder == Path() else f"in the folder {colab.named(folder)}"
    print(f"capstone.json and capstone.png are {where}")


def _announce(name: str, mine: list[str], missing: dict[str, str]) -> None:
    if not mine and set(missing.values()) == {"not here yet"}:
        print(f"There is no {name} with any of the {len(PARTS)} parts here: all of them are the course's.")
        return
    print(f"{name}: {len(mine)} of {len(PARTS)} parts are yours.")
    for part, why in missing.items():
        print(f"  {part} (exercise {library.BY_NAME[part].number}): {why}; the course's stands in")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and sample with your my_ddpm.py, and score the samples.")
    parser.add_argument("path", nargs="?", default=colab.LIBRARY, help="the file (default: %(default)s)")
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
