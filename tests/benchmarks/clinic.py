"""What each diagnosis of lesson 13 looks like, measured: every one is made, and bugs.txt says the same.

    OMP_NUM_THREADS=1 python tests/benchmarks/clinic.py              what is not in clinic.json yet
    OMP_NUM_THREADS=1 python tests/benchmarks/clinic.py "no clamp"   this one, whether it is stored or not
    OMP_NUM_THREADS=1 python tests/benchmarks/clinic.py --show F     and what a learner would see, in the folder F

A mistake is made in the patients' code as the catalogues write it. Where it spoils the training, a network is trained
with it as the healthy one was, and kept in work/clinic. All together take about a quarter of an hour on one quiet core.
"""

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import bench
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ddpm_course import doctor, plots
from ddpm_course.classifier import classify, features
from ddpm_course.classroom.editions import ROOT
from ddpm_course.clinic.code import (
    FUNCTIONS,
    T,
    Told,
    changed,
    changes_of,
    make_samples,
    network,
    pictures,
    with_parts,
)
from ddpm_course.clinic.patients import SCALE
from ddpm_course.data import ASSETS, CLASS_NAMES
from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.doctor.samples import roughness, steepness
from ddpm_course.exercises import lesson01
from ddpm_course.exercises.edits import wrong_function
from ddpm_course.exercises.written import USUAL, sources
from ddpm_course.files import write_atomically
from ddpm_course.metrics import frechet_distance, nearest_neighbours
from ddpm_course.pixels import to_unit_range
from ddpm_course.schedules import Schedule
from ddpm_course.training.checkpoints import load_checkpoint, save_checkpoint
from ddpm_course.unet import UNet

RESULTS = Path(__file__).with_name("clinic.json")
KEPT = ROOT / "work" / "clinic"
STEPS, LONG, PEAK = 400, 1500, 4e-3  # the healthy network has LONG; "nothing, 400 steps" is for the short ones
FEW = 36  # training images of the network that knows them by heart
DROPOUT = 0.1


@dataclass(frozen=True)
class Case:
    """How a diagnosis is made.

    changes:  of the patients' functions: a mistake of the catalogue, or the change itself
    network:  a file of assets/patients; "" for one that is trained with these changes and options
    options:  of that training
    dropout:  how much of it is left on
    half:     ᾱ is computed in bfloat16
    bytes_as: a mistake of lesson 01's to_uint8, through which the samples go
    """

    changes: dict[str, str] = field(default_factory=dict)
    network: str = "healthy"
    options: dict = field(default_factory=dict)
    sampler: str = "ancestral"
    dropout: float = 0.0
    half: bool = False
    bytes_as: str = ""


def sampling(sampler: str = "ancestral", bytes_as: str = "", **changes: str) -> Case:
    return Case(changes, sampler=sampler, bytes_as=bytes_as)


def training(network: str = "", dropout: float = 0.0, half: bool = False, peak=PEAK, data=slice(None), shuffled=False,
             steps=STEPS, **changes: str) -> Case:  # fmt: skip
    return Case(
        changes, network, dict(peak=peak, data=data, shuffled=shuffled, steps=steps), dropout=dropout, half=half
    )


ROWS = ("i = torch.arange(dim) ; frequencies = 10_000.0 ** (-2 * i / dim) ; "
        "return torch.where((t % 2 == 0)[:, None], sin, cos)")  # fmt: skip

CASES = {
    "pixels in [0, 1]": training("pixels", prepare_pixels="unrepaired"),
    "pixels 0 to 255": training(prepare_pixels="bytes"),
    "no clamp": sampling(draw="not_clipped", bytes_as="no_clamp"),  # where estimates are clipped, no clamp is needed
    "variance for the root": training("mixing", add_noise="unrepaired"),
    "alpha for alpha bar": training(add_noise="alpha_for_alpha_bar"),
    "betas of a longer chain": training("chain", chain_betas="unrepaired"),
    "betas backwards": training(steps=LONG, chain_betas="falling"),
    "a table in half precision": training(half=True),
    "t never arrives": training(steps=LONG, time_code="return torch.zeros(len(t), dim)"),
    "codes over the rows": training(time_code=ROWS),
    "dropout left on": training(dropout=DROPOUT),
    "noise drawn again": training("target", train_once="unrepaired"),
    "a sum for the mean": training(train_once='loss = F.mse_loss(predicted, noise, reduction="sum")'),
    "another target": training(train_once="target_x0"),
    "a sign turned around": training(train_once="target_with_sign"),
    "noise in the last step": sampling(draw="if s > 0 => if s >= 0", ancestral_move="large_to_the_end"),
    "the loop ends early": sampling(draw="stops_early"),
    "told the wrong t": sampling(draw="told_s"),
    "no noise in the steps": sampling(draw="no_noise"),
    "all steps for one": sampling(ancestral_move="unrepaired"),
    "clipped to [0, 1]": sampling(draw="clipped_to_0_1"),
    "the same noise for all": sampling(draw="same_noise_for_all"),
    "no warm-up of the average": Case({"average_keeps": "unrepaired"}, "unwarmed"),
    "learning rate too high": training(peak=60 * PEAK),
    "learning rate too low": training(peak=PEAK / 20, steps=LONG),
    "learnt by heart": training(data=slice(FEW), steps=LONG),
    "a root missing in DDIM": sampling("DDIM", ddim_move="unrepaired"),
    "guidance turned around": sampling(steer="unrepaired"),
    "labels mixed up": training(shuffled=True, steps=LONG),
    "nothing": Case(),
    "nothing, 400 steps": training(),  # the control of the trainings
    "patient 9": sampling(draw="stops_early and same_noise_for_all"),
}


# ---- the thirty, made


def parts_of(case: Case) -> dict:
    """The patients' functions, with the case's changes."""
    parts = dict(FUNCTIONS)
    for place, change in case.changes.items():
        known = {mistake.id for mistake in FUNCTIONS[place].exercise.mistakes}
        change = changes_of(place, change) if change in known or " and " in change else change
        parts[place] = changed(place, place, change)
        if place == "add_noise":
            parts["train_once"] = changed("train_once", place, change)
    if parts["draw"] is not FUNCTIONS["draw"]:
        parts["draw"] = with_parts(parts["draw"], ancestral_move=parts["ancestral_move"])
    return parts


def schedule_of(case: Case, parts: dict) -> Schedule:
    schedule = Schedule(parts["chain_betas"](T))
    if case.half:
        schedule.alpha_bar = schedule.alpha.bfloat16().cumprod(0)
    return schedule


def mixed(labels: Tensor) -> Tensor:
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(4))]


def network_of(name: str, case: Case, parts: dict) -> tuple[UNet, dict]:
    """The network, and what is told about its training; trained if it isn't there yet."""
    if case.network:
        net, _, about = load_checkpoint(ASSETS / "patients" / case.network, "cpu")
        return net.float(), about
    file = KEPT / name.replace(" ", "_")
    if not file.with_suffix(".safetensors").exists():
        sys.path.insert(0, str(ROOT / "assets"))
        import patients  # assets/patients.py

        images, labels = (x[case.options["data"]] for x in pictures(None))
        if case.options["shuffled"]:
            labels = mixed(labels)
        weights, diffusion, about = patients.trained(
            parts, case.options["steps"], name, net=network(case.dropout), schedule=schedule_of(case, parts), data=(images, labels),
            peak=case.options["peak"],
        )  # fmt: skip
        save_checkpoint(file, patients.holding(network(case.dropout), weights["average"]), diffusion, **about)
    net, _, about = load_checkpoint(file, "cpu")
    return net, about


def examined(name: str) -> tuple[doctor.Patient, Tensor, dict]:
    """The model as the doctor is handed it, with 100 samples, ten of each class; its training images as bytes; and what
    is told of its training."""
    case = CASES[name]
    parts = parts_of(case)
    net, about = network_of(name, case, parts)
    net = Told(net, parts["time_code"]).train(case.dropout > 0)
    schedule = schedule_of(case, parts)
    samples = make_samples(net, schedule, torch.arange(10).repeat(10), parts, case.sampler, SCALE, seed=3)
    if case.bytes_as:
        mistakes = {mistake.id: mistake.variants[0].change for mistake in lesson01.to_uint8.exercise.mistakes}
        to_bytes = wrong_function("to_uint8", mistakes[case.bytes_as], sources(lesson01.__name__), USUAL)
        samples = to_unit_range(to_bytes(samples))
    images, labels = pictures()
    raw = {"healthy": "raw", "unwarmed": "raw"}.get(case.network)
    raw = raw and load_checkpoint(ASSETS / "patients" / raw, "cpu")[0].float()
    diffusion = GaussianDiffusion(schedule, "noise")
    if case.options.get("shuffled"):
        labels = mixed(labels)
    if case.options.get("data", slice(None)) != slice(None):
        images, labels = (x[case.options["data"]] for x in pictures(None))
    prepared = parts["prepare_pixels"](images)
    return doctor.admit(net, diffusion, prepared, labels, samples, about["losses"], raw=raw), images, about


# ---- what is seen, in numbers


def share(true: Tensor) -> float:
    return float(true.float().mean())


def large(x: Tensor) -> Tensor:
    """28 x 28 pixels, for the classifier."""
    return interpolate(x, (28, 28), mode="bilinear").clamp(-1, 1)


def curves(about: dict) -> dict[str, float]:
    """Of the losses: the first and the last, and the largest rise above the least so far. Of those by t: the smallest
    t's, its neighbours', the middle one's and the largest one's."""
    losses, by_t = torch.tensor(about["losses"]), torch.tensor(about["by_t"])
    return dict(
        first=losses[0], last=losses[-3:].mean(), jump=(losses[1:] / losses.cummin(0).values[:-1]).max(),
        small_t=by_t[0], next_t=by_t[1:4].mean(), middle_t=by_t[9], large_t=by_t[-1],
    )  # fmt: skip


def values(samples: Tensor, prepared: Tensor) -> dict[str, float]:
    """Shares of the pixels, of samples and of the training images as the patient's code prepares them."""
    return dict(
        dark=share(samples < -0.2), black=share(samples < -0.9), bright=share(samples > 0.9),
        outside=share(samples.abs() > 1.01), images_dark=share(prepared < -0.2),
    )  # fmt: skip


def grid(samples: Tensor, images: Tensor) -> dict[str, float]:
    """What is seen of 100 samples, ten of each class in the order of the classes; images are the training's, as bytes.

    grain:    second differences of neighbouring pixels
    edges:    first differences, squared, beside those of garments
    contrast: the standard deviation, likewise
    ends:     the share of pixels that are quite black or quite white
    near:     the distance to the nearest training image, beside that between garments
    copies:   the share of samples for which that is less than a quarter
    same:     the share of pairs within a class that are the same
    asked:    the share in which the classifier sees the class that was asked for
    """
    garments = to_unit_range(pictures()[0])
    x, labels = samples.clamp(-1, 1), torch.arange(len(samples)) % 10
    near = nearest_neighbours(x.flatten(1), to_unit_range(images).flatten(1))[0][:, 0]
    usual = nearest_neighbours(garments[:200].flatten(1), garments.flatten(1), 2)[0][:, 1].median()
    far = torch.pdist(garments[:500].flatten(1)).mean()
    apart = torch.cat([torch.pdist(x[labels == k].flatten(1)) for k in range(10)])
    return dict(
        grain=roughness(x), edges=steepness(x) / steepness(garments), contrast=x.std() / garments.std(),
        ends=share(x.abs() > 0.97), near=near.mean() / usual, copies=share(near < 0.25 * usual),
        same=share(apart < 0.02 * far), asked=share(classify(large(x)) == labels),
        frechet=frechet_distance(features(large(x)), features(large(garments))),
    )  # fmt: skip


# What each word means: the first one whose rule holds. n are the numbers, h those of a healthy training as long.
RULES = {
    "grid": {
        "pale": lambda n, h: n["dark"] < 0.02,
        "noise": lambda n, h: n["edges"] > 5 and n["grain"] > 0.5,
        "specks": lambda n, h: n["edges"] > 5,
        "harsh": lambda n, h: n["ends"] > 0.7,
        "copies": lambda n, h: n["near"] < 0.6,
        "both": lambda n, h: n["same"] > 0.9 and n["grain"] > 1.4 * h["grain"],
        "alike": lambda n, h: n["same"] > 0.9,
        "flat": lambda n, h: n["same"] > 0.2,
        "half": lambda n, h: n["near"] > 1.9 and n["grain"] > 0.15,
        "patchy": lambda n, h: n["near"] > 1.9,
        "grain": lambda n, h: n["grain"] > 1.4 * h["grain"],
        "others": lambda n, h: n["asked"] < 0.15,
        "dull": lambda n, h: n["contrast"] < 0.92,
        "garments": lambda n, h: True,
    },
    "loss": {
        "huge": lambda n, h: n["first"] > 1000,
        "stays": lambda n, h: n["last"] > 0.9,
        "jumps": lambda n, h: n["jump"] > 1.8,
        "high": lambda n, h: n["last"] > 1.5 * h["last"],
        "usual": lambda n, h: True,
    },
    "by t": {
        "other": lambda n, h: n["small_t"] > 2,
        "stays": lambda n, h: n["large_t"] > 0.9,
        "rises": lambda n, h: n["large_t"] > 2 * n["small_t"],
        "wide": lambda n, h: n["middle_t"] > 0.05,
        "one": lambda n, h: n["small_t"] > 0.95,
        "low": lambda n, h: n["small_t"] < 0.25,
        "usual": lambda n, h: True,
    },
    "pixels": {
        "no black": lambda n, h: n["dark"] < 0.02 < n["images_dark"],
        "none black": lambda n, h: n["dark"] < 0.02,
        "ends": lambda n, h: n["bright"] > 0.15,
        "spread": lambda n, h: n["outside"] > 0.05,
        "middle": lambda n, h: n["black"] < 0.15,
        "usual": lambda n, h: True,
    },
}


def word(view: str, n: dict[str, float], h: dict[str, float]) -> str:
    return next(word for word, holds in RULES[view].items() if holds(n, h))


def words(name: str) -> dict[str, str]:
    """What the stored numbers of a diagnosis say, beside those of a healthy network."""
    stored = read()
    short = not CASES[name].network and stored[name]["steps"] <= STEPS
    healthy = stored["nothing, 400 steps" if short else "nothing"]["numbers"]
    return {view: word(view, stored[name]["numbers"], healthy) for view in RULES}


def row(name: str, show: Path | None = None) -> dict:
    patient, images, about = examined(name)
    found = [probe.name for probe in doctor.PROBES if doctor.ask(patient, probe.name).state == "suspicious"]
    if show:
        show.mkdir(parents=True, exist_ok=True)
        figure = plots.symptoms(patient.samples[:30], CLASS_NAMES, about["losses"], about["times"], about["by_t"],
                                patient.images, title=name, alt=name)  # fmt: skip
        figure.savefig(show / f"{name.replace(' ', '_')}.png", dpi=100)
    seen = curves(about) | values(patient.samples, patient.images) | grid(patient.samples, images)
    seen = {key: float(f"{float(value):.3g}") for key, value in seen.items()}
    return dict(name=name, steps=about["steps"], finds=found, numbers=seen)


def read() -> dict[str, dict]:
    return bench.read(RESULTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="diagnoses; what is not stored yet unless given")
    parser.add_argument("--show", type=Path, help="a folder for what a learner would see")
    args = parser.parse_args()
    if unknown := set(args.names) - set(CASES):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(CASES)}")
    for name in args.names or CASES:
        if args.names or name not in read():
            results = read() | {name: row(name, args.show)}
            print(json.dumps(results[name]), flush=True)
            lines = [json.dumps(results[job], ensure_ascii=False) for job in CASES if job in results]
            write_atomically(RESULTS, "[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
