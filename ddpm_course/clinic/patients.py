"""The ten patients: what each of them has, what it shows, and what it does once its code is repaired (lesson 13)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..data import ASSETS
from ..diffusion import GaussianDiffusion
from ..modes import fast_mode
from ..schedules import Schedule
from ..training.checkpoints import load_checkpoint
from .bugs import ALL
from .code import FUNCTIONS, T, Told, changed, changes_of, make_samples, network, pictures


@dataclass(frozen=True)
class Card:
    """What is written down of a patient.

    says:      what its owner says
    function:  the one of the patients' code that is ill, or is looked at
    mistakes:  of the catalogue of lesson 13, made in it
    bugs:      the diagnosis, one name or two
    network:   a file of assets/patients
    sampler:   "ancestral" or "DDIM"
    path:      probes that lead to the diagnosis
    seen:      what it shows, where that is not what its one bug does
    unlike:    why it is not some other bug, where the facts of bugs.txt don't say it
    """

    says: str
    function: str
    mistakes: tuple[str, ...]
    bugs: tuple[str, ...]
    network: str = "healthy"
    sampler: str = "ancestral"
    path: tuple[str, ...] = ()
    seen: dict[str, str] | None = None
    unlike: dict[str, str] = field(default_factory=dict)

    @property
    def shows(self) -> dict[str, str]:
        return self.seen or ALL[self.bugs[0]].seen

    @property
    def finds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(probe for bug in self.bugs for probe in ALL[bug].finds))


CARDS = {  # 0 is the one that the lesson treats itself
    0: Card(
        "The loss looks fine, but there is no black in my samples.",
        "draw", ("clipped_to_0_1",), ("clipped to [0, 1]",), path=("range of the data", "a short sampling"),
    ),
    1: Card(
        "The loss is as low as in the tutorial, but all my samples are pale.",
        "prepare_pixels", ("unrepaired",), ("pixels in [0, 1]",), network="pixels", path=("range of the data",),
    ),
    2: Card(
        "The pictures are good. I just never get the garments that I ask for.",
        "steer", ("unrepaired",), ("guidance turned around",), path=("use of labels", "right labels"),
    ),
    3: Card(
        "It has been training for hours, and it draws nothing but noise.",
        "train_once", ("unrepaired",), ("noise drawn again",), network="target", path=("level of the loss",),
    ),
    4: Card(
        "Training went well. What comes out is grey.",
        "ancestral_move", ("unrepaired",), ("all steps for one",),
        path=("a short sampling",),
    ),
    5: Card(
        "The loss has hardly moved during the last half of the training. Is it stuck?",
        "time_code", (), ("nothing",), path=("error by t", "a short sampling"),
    ),
    6: Card(
        "I went from 1,000 steps to 100 to be faster. Since then it draws patchwork.",
        "chain_betas", ("unrepaired",), ("betas of a longer chain",), network="chain", path=("signal left at T",),
    ),
    7: Card(
        "It has begun to draw something. I suppose that I have to train it longer?",
        "average_keeps", ("unrepaired",), ("no warm-up of the average",), network="unwarmed",
        path=("averaged weights",),
    ),
    8: Card(
        "With my old sampler the same network was fine. This one is said to be better.",
        "ddim_move", ("unrepaired",), ("a root missing in DDIM",), sampler="DDIM",
        path=("a short sampling",),
    ),
    9: Card(
        "I wrote the sampler myself, and I have already mended one bug in it.",
        "draw", ("stops_early", "same_noise_for_all"), ("the loop ends early", "the same noise for all"),
        path=("variety of the samples", "noise in the samples"),
        seen={"grid": "both", "loss": "usual", "by t": "usual", "pixels": "spread"},
        unlike={
            "noise in the last step": "It would look much the same. But the noise of this sampler has the variance β̃, "
            "which is 0 in the last step, so noise that is added there would be none."
        },
    ),
    10: Card(
        "There is always some grain left, whichever sampler I take.",
        "add_noise", ("unrepaired",), ("variance for the root",), network="mixing", path=("noise in the samples",),
    ),
}  # fmt: skip
TRAINED = ("prepare_pixels", "train_once", "chain_betas", "average_keeps", "add_noise")  # these change the network
SCALE = 2.0


class Model:
    """A patient's network, its schedule, and what its code makes of them, with one function exchanged."""

    def __init__(self, card: Card, function: Callable, file: str):
        self.card, self.parts = card, FUNCTIONS | {card.function: function}
        net, self.diffusion, self.about = load_checkpoint(ASSETS / "patients" / file, "cpu")
        self.net = Told(net, self.parts["time_code"]).eval()

    @property
    def schedule(self) -> Schedule:
        return self.diffusion.schedule

    @cached_property
    def labels(self) -> Tensor:
        return torch.arange(10).repeat(1 if fast_mode() else 3)

    @cached_property
    def samples(self) -> Tensor:
        """(30, 1, 16, 16) three of each class, one in fast mode, from the same noise with every patient."""
        return make_samples(self.net, self.schedule, self.labels, self.parts, self.card.sampler, SCALE, seed=3)

    @cached_property
    def images(self) -> Tensor:
        """(N, 1, 16, 16) the pictures as the patient's code prepares them."""
        return self.parts["prepare_pixels"](pictures()[0])


def ill(card: Card) -> Model:
    """The patient as it came."""
    if not card.mistakes:
        return Model(card, FUNCTIONS[card.function], card.network)
    broken = changed(card.function, card.function, changes_of(card.function, *card.mistakes))
    return Model(card, broken, card.network)


def treated(card: Card, function: Callable) -> Model:
    """The patient with a repaired function: trained again, if that is where it was ill, as the course has done."""
    model = Model(card, function, "healthy" if card.function in TRAINED else card.network)
    if card.function == "chain_betas":
        model.diffusion = GaussianDiffusion(Schedule(function(T)), "noise")
    return model


def trial(card: Card, function: Callable) -> str:
    """A few seconds with a function of the training, in a sentence; empty for one of the sampling."""
    if card.function == "prepare_pixels":
        x = function(pictures()[0])
        return f"the pictures now lie between {x.min():.1f} and {x.max():.1f}"
    if card.function == "chain_betas":
        left = float(Schedule(function(T)).alpha_bar[-1])
        return f"{left:.2g} of the signal's variance is left at T = {T}"
    if card.function == "average_keeps":
        left = 1.0
        for n in range(1, 1501):
            left *= function(n)
        return f"after 1,500 updates the average holds {left:.1%} of its random start"
    if card.function == "train_once":
        losses = _first_losses(function)
        first, last = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
        return f"within {len(losses)} steps the loss went from {first:.2f} to {last:.2f}"
    if card.function == "add_noise":
        schedule = Schedule(FUNCTIONS["chain_betas"](T))
        ones = torch.ones(8)
        spread = function(schedule, 0 * ones, 30, ones).mean()
        return f"the noise in x_30 has a standard deviation of {spread:.2f}, and √(1 - ᾱ_30) is " + (
            f"{(1 - schedule.alpha_bar[30]).sqrt():.2f}"
        )
    return ""


def _first_losses(step: Callable) -> list[float]:
    """40 losses of a new network, or ten in fast mode."""
    schedule, net, generator = Schedule(FUNCTIONS["chain_betas"](T)), network(), torch.Generator().manual_seed(0)
    optimizer, losses = torch.optim.Adam(net.parameters(), lr=4e-3), []
    x0 = FUNCTIONS["prepare_pixels"](pictures()[0])
    for _ in range(10 if fast_mode() else 40):
        rows = torch.randint(len(x0), (32,), generator=generator)
        t = schedule.sample_t(32, generator=generator)
        noise = torch.randn(32, *x0.shape[1:], generator=generator)
        losses.append(float(step(net, schedule, optimizer, x0[rows], t, noise)))
    return losses
