"""The checks of lesson 01: bytes and back, one step, the whole chain, its variance."""

import torch
from torch import Tensor

from .. import diffusion, pixels
from ..schedules import Schedule
from . import answers
from .cases import EIGHT, FIVE, Entries, and_broadcasting, normal, on_gpu, step_cases, step_mistakes, weighted
from .records import Case, Exercise, Mistake, Seed

RANGE = "lesson 01, 'To and from [−1, 1]'"
SCALING = "lesson 01, 'Scaling the noise'"
PIXEL = "lesson 01, 'One pixel by hand'"
CHAIN = "lesson 01, 'The whole chain'"
VARIANCE = "lesson 01, 'The variance of the chain'"


def _range_cases() -> list[Case]:
    levels = torch.arange(256, device="cpu", dtype=torch.float32)
    wiggle = normal((2, 3, 8, 8), 5)
    nearby = (torch.arange(384, device="cpu") * 37 % 256).reshape(2, 3, 8, 8) + wiggle.clamp(
        -1, 1
    ) * 0.4  # not near a half
    beyond = torch.tensor([-3.0, -1.6, -1.21, -1.05, -0.5, 0.25, 0.9, 1.03, 1.3, 1.7, 2.5], device="cpu")
    plan = [
        ("all 256 levels", levels / 127.5 - 1),
        ("images (2, 3, 8, 8) between the levels", (nearby / 127.5 - 1).clamp(-1, 1)),
        ("values from -3 to 2.5", beyond),
        (
            "images (1, 1, 2, 4) beyond the range",
            torch.tensor([-1.3, -1.1, 1.1, 1.2, 0.1, 0.7, -2.0, 2.0]).reshape(1, 1, 2, 4),
        ),
    ]
    cases = []
    for label, x in plan:
        exact = (x + 1) * 127.5
        facts = {
            "for values outside [-1, 1]": x.abs() > 1,
            "for values above 1": x > 1,
            "for values below -1": x < -1,
            "for values that lie between two levels": (exact - exact.round()).abs() > 1e-3,
        }
        cases.append(Case(label, (x,), facts))
    return cases + on_gpu(cases[1])


to_uint8 = Exercise(
    "1.1",
    "to_uint8",
    pixels.to_uint8,
    _range_cases,
    stub='''
def to_uint8(x):
    """Floats, meant to lie in [-1, 1], to uint8 values 0...255, whatever the shape.

    What lies outside is clamped to the nearest end; what lies between two levels
    goes to the nearer one.

    x:       (...) float
    returns  (...) uint8
    """
    raise NotImplementedError  # your code here
''',
    first="undo x / 127.5 - 1, then think about 1.2 and about 100.7 before you cast with .to(torch.uint8).",
    tolerance=1e-6,
    mistakes=[
        Mistake(
            "no_clamp",
            "Values outside [-1, 1] wrap around: a pixel a little too bright turns black. Clamp before you cast "
            f"({RANGE}).",
            lambda x: ((x + 1) * 127.5).round().to(torch.uint8),
            lambda x: ((x + 1) * 127.5 + 0.5).to(torch.uint8),
        ),
        Mistake(
            "no_rounding",
            "The cast cuts off what stands behind the point: 100.9 becomes 100, and the image darkens. Round before "
            f"you cast ({RANGE}).",
            lambda x: ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8),
            lambda x: (x * 127.5 + 127.5).clamp(0, 255).to(torch.uint8),
        ),
        Mistake(
            "no_clamp_no_rounding",
            "Two things are missing before the cast: clamp, or values outside [-1, 1] wrap around; and round, or 100.9 "
            f"becomes 100 ({RANGE}).",
            lambda x: ((x + 1) * 127.5).to(torch.uint8),
            lambda x: (x * 127.5 + 127.5).to(torch.uint8),
        ),
        Mistake(
            "rounded_up",
            f"You round up. Go to the nearer level: round, not ceil ({RANGE}).",
            lambda x: ((x + 1) * 127.5).clamp(0, 255).ceil().to(torch.uint8),
        ),
        Mistake(
            "clamped_to_0_1",
            f"You clamp to [0, 1], and everything darker than middle grey is lost. The range is [-1, 1] ({RANGE}).",
            lambda x: (x.clamp(0, 1) * 255).round().to(torch.uint8),
            lambda x: (x.clamp(0, 1) * 255).to(torch.uint8),
            lambda x: ((x.clamp(0, 1) + 1) * 127.5).round().to(torch.uint8),
            lambda x: ((x.clamp(0, 1) + 1) * 127.5).to(torch.uint8),
        ),
        Mistake(
            "clamped_too_early",
            f"You clamp to [-1, 1] after scaling to 0...255, and almost nothing is left. Clamp first ({RANGE}).",
            lambda x: ((x + 1) * 127.5).clamp(-1, 1).round().to(torch.uint8),
            lambda x: ((x + 1) * 127.5).clamp(0, 1).round().to(torch.uint8),
        ),
        Mistake(
            "rounded_too_early",
            f"You round before scaling, which leaves three grey levels. Scale, then round ({RANGE}).",
            lambda x: ((x.clamp(-1, 1).round() + 1) * 127.5).to(torch.uint8),
            lambda x: ((x.clamp(-1, 1).round() + 1) * 127.5).round().to(torch.uint8),
        ),
        Mistake(
            "width_128",
            f"Half of 255 is 127.5, not 128: the levels do not come back where they were ({RANGE}).",
            lambda x: ((x + 1) * 128).clamp(0, 255).round().to(torch.uint8),
            lambda x: ((x + 1) * 128).clamp(0, 255).to(torch.uint8),
            lambda x: (x * 127.5 + 128).clamp(0, 255).round().to(torch.uint8),
        ),
        Mistake(
            "width_127",
            f"Half of 255 is 127.5, not 127: 1 must become 255 ({RANGE}).",
            lambda x: ((x + 1) * 127).clamp(0, 255).round().to(torch.uint8),
            lambda x: ((x + 1) * 127).clamp(0, 255).to(torch.uint8),
            lambda x: (x.clamp(-1, 1) * 127 + 127).round().to(torch.uint8),
        ),
        Mistake(
            "around_128",
            f"-1 must become 0, and yours becomes 1: multiply by 127.5 and add 127.5 ({RANGE}).",
            lambda x: (x.clamp(-1, 1) * 127 + 128).round().to(torch.uint8),
            lambda x: (x.clamp(-1, 1) * 127 + 128).to(torch.uint8),
        ),
        Mistake(
            "width_255",
            f"Moving up by 1 makes the range [0, 2], so scale by 255/2, not by 255 ({RANGE}).",
            lambda x: ((x + 1) * 255).clamp(0, 255).round().to(torch.uint8),
            lambda x: ((x.clamp(-1, 1) + 1) * 255).round().to(torch.uint8),
            lambda x: ((x + 1) * 255).round().to(torch.uint8),
        ),
        Mistake(
            "upside_down",
            f"Black has become white: -1 must go to 0 and 1 to 255 ({RANGE}).",
            lambda x: ((1 - x) * 127.5).clamp(0, 255).round().to(torch.uint8),
        ),
        Mistake(
            "scaled_by_content",
            "You stretch from the smallest value to the largest, so the same value means another grey in every batch "
            f"({RANGE}).",
            lambda x: ((x - x.min()) / (x.max() - x.min()) * 255).round().to(torch.uint8),
            lambda x: ((x - x.min()) / (x.max() - x.min()) * 255).to(torch.uint8),
        ),
    ],
)


def _one_step(e: Entries) -> tuple[Tensor, Tensor]:
    return e.alpha.sqrt(), e.beta.sqrt()


q_step = Exercise(
    "1.2",
    "q_step",
    diffusion.q_step,
    lambda: step_cases(first=1),
    stub='''
def q_step(schedule, x, t, noise):
    """Draw x_t from q(x_t | x_{t-1}), Ho et al. (2020), eq. 2: one step of the chain.

    schedule:  has the table schedule.beta, (T+1,) in float64 on the CPU
    x:         (B, ...) data at noise level t - 1 in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     same shape as x, standard normal
    returns    (B, ...) in float32, on the device of x
    """
    raise NotImplementedError  # your code here
''',
    first="take one int t. Which two numbers do x and the noise get multiplied by, so that the variance stays 1?",
    linear=("x", "noise"),
    mistakes=and_broadcasting(
        [
            Mistake(
                "noise_variance",
                f"Your noise is scaled by β_t: its *variance* must be β_t, so scale by √β_t ({SCALING}).",
                weighted(lambda e: (e.alpha.sqrt(), e.beta)),
            ),
            Mistake(
                "signal_not_rooted",
                "You shrink x by 1 - β_t. The *variance* shrinks by 1 - β_t, so x shrinks by its root, √(1 - β_t) "
                f"({SCALING}).",
                weighted(lambda e: (e.alpha, e.beta.sqrt())),
            ),
            Mistake(
                "no_roots",
                f"1 - β_t and β_t are shares of the *variance*. x and the noise are scaled by their roots ({SCALING}).",
                weighted(lambda e: (e.alpha, e.beta)),
            ),
            Mistake(
                "no_shrinking",
                "You add noise without shrinking x, so the variance grows with every step. Scale x by √(1 - β_t) "
                f"({SCALING}).",
                weighted(lambda e: (1, e.beta.sqrt())),
            ),
            Mistake(
                "no_shrinking_noise_variance",
                "Two things: scale the noise by √β_t, because β_t is its variance; and shrink x by √(1 - β_t), or the "
                f"variance grows with every step ({SCALING}).",
                weighted(lambda e: (1, e.beta)),
            ),
            Mistake(
                "swapped",
                "The two factors are swapped: one step keeps nearly all of x, √(1 - β_t), and adds little noise, √β_t "
                f"({SCALING}).",
                weighted(lambda e: _one_step(e)[::-1]),
            ),
            Mistake(
                "noise_unscaled",
                f"The noise comes in at full size in every step. Scale it by √β_t ({SCALING}).",
                weighted(lambda e: (e.alpha.sqrt(), 1)),
            ),
            Mistake(
                "noise_forgotten",
                f"You shrink x and add nothing. The noise, scaled by √β_t, is missing ({PIXEL}).",
                weighted(lambda e: (e.alpha.sqrt(), 0)),
            ),
            Mistake(
                "noise_subtracted",
                "You subtract the noise. The distribution is the same, but not the sample: add the `noise` you are "
                f"given ({PIXEL}).",
                weighted(lambda e: (e.alpha.sqrt(), -e.beta.sqrt())),
            ),
            Mistake(
                "noise_before_shrinking",
                f"Your noise is shrunk together with x. √(1 - β_t) belongs to x alone ({SCALING}).",
                weighted(lambda e: (e.alpha.sqrt(), (e.alpha * e.beta).sqrt())),
            ),
            Mistake(
                "one_minus_root",
                f"1 - √β_t is not √(1 - β_t): take the root last, of the variance that is left ({SCALING}).",
                weighted(lambda e: (1 - e.beta.sqrt(), e.beta.sqrt())),
            ),
            Mistake(
                "beta_as_deviation",
                f"You treat β_t as a standard deviation. It is a variance: √(1 - β_t) x + √β_t ε ({SCALING}).",
                weighted(lambda e: ((1 - e.beta**2).sqrt(), e.beta)),
            ),
            Mistake(
                "growing",
                f"You scale x by √(1 + β_t), which makes it grow. It must shrink: √(1 - β_t) ({SCALING}).",
                weighted(lambda e: ((1 + e.beta).sqrt(), e.beta.sqrt())),
            ),
            Mistake(
                "alpha_bar_for_alpha",
                "You take t steps at once, with ᾱ_t. One step goes from x_{t-1} to x_t: 1 - β_t and β_t alone "
                f"({CHAIN}).",
                weighted(lambda e: (e.alpha_bar.sqrt(), (1 - e.alpha_bar).sqrt())),
            ),
            *step_mistakes(_one_step, "x", PIXEL),
        ]
    ),
)


def _chain_cases() -> list[Case]:
    plan = [(EIGHT, (4, 1, 4, 4)), (FIVE, (2, 3, 4, 5)), (EIGHT, (30,)), (FIVE, (1, 1, 5, 5))]
    cases = []
    for seed, (betas, shape) in enumerate(plan):
        t = torch.arange(len(betas.values) + 1).reshape((-1,) + (1,) * len(shape))
        facts = {"at t = 0": t == 0, "at t = T": t == len(betas.values), "from t = 1 on": t > 0, "from t = 2 on": t > 1}
        facts |= {
            "for images": len(shape) == 4,
            "for data of shape (B,)": len(shape) == 1,
            "for a schedule with T = 5": betas is FIVE,
        }
        cases.append(
            Case(f"x0 of shape {shape}, T = {len(betas.values)}", (betas, normal(shape, 50 + seed), Seed(seed)), facts)
        )
    return cases


def _run(schedule: Schedule, x0: Tensor, draw, *, steps=None, step=diffusion.q_step) -> list[Tensor]:
    """Every x of a chain whose noise comes from draw()."""
    xs = [x0]
    for t in steps or range(1, schedule.T + 1):
        xs.append(step(schedule, xs[-1], t, draw()))
    return xs


def _chain(make):
    """A wrong `diffuse` from make(schedule, x0, draw) -> tensors, which are stacked."""

    def function(schedule: Schedule, x0: Tensor, generator: torch.Generator) -> Tensor:
        made = make(schedule, x0, lambda: torch.randn(x0.shape, generator=generator))
        return torch.stack(made) if isinstance(made, list) else made

    return function


def _repeat(noise: Tensor):
    return lambda: noise


def _no_generator(schedule: Schedule, x0: Tensor, generator: torch.Generator) -> Tensor:
    return torch.stack(_run(schedule, x0, lambda: torch.randn_like(x0)))


def _all_at_once(schedule: Schedule, x0: Tensor, generator: torch.Generator) -> Tensor:
    noises = iter(torch.randn((schedule.T, *x0.shape), generator=generator))
    return torch.stack(_run(schedule, x0, lambda: next(noises)))


def _one_noise_for_all_images(schedule: Schedule, x0: Tensor, generator: torch.Generator) -> Tensor:
    return torch.stack(_run(schedule, x0, lambda: torch.randn(x0.shape[1:], generator=generator).expand(x0.shape)))


diffuse = Exercise(
    "1.3",
    "diffuse",
    answers.diffuse,
    _chain_cases,
    stub='''
def diffuse(schedule, x0, generator):
    """Run the whole chain, with q_step, and keep every x_t.

    schedule:   steps t = 1...schedule.T
    x0:         (B, ...) clean data
    generator:  for the noise: torch.randn(x0.shape, generator=generator), once a step,
                in the order t = 1...T
    returns     (T+1, B, ...) x_0 first, x_T last
    """
    raise NotImplementedError  # your code here
''',
    first="keep a list that begins with x0; in each step draw noise, call q_step on its last entry, and append.",
    mistakes=[
        Mistake(
            "no_x0",
            f"x_0 itself is missing: the list begins with clean data and has T + 1 entries ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, draw)[1:]),
        ),
        Mistake(
            "no_last_step",
            f"x_T is missing: range(1, T) ends at T - 1. Go to range(1, T + 1) ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, draw)[:-1]),
        ),
        Mistake(
            "counts_from_0",
            f"Your loop runs over 0...T-1. The steps are t = 1...T; t = 0 is clean data ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, draw, steps=range(s.T))),
            _chain(lambda s, x0, draw: _run(s, x0, draw, steps=range(s.T))[1:]),
            _chain(lambda s, x0, draw: _run(s, x0, draw, steps=range(s.T + 1))[1:]),
            _chain(lambda s, x0, draw: _run(s, x0, draw, steps=range(s.T + 1))),
        ),
        Mistake(
            "last_alone",
            f"You return x_T alone. Keep every x_t on the way, x_0 first ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, draw)[-1]),
        ),
        Mistake(
            "always_from_x0",
            f"Every step starts from x_0 again. Each starts from the x that the one before made ({CHAIN}).",
            _chain(lambda s, x0, draw: [x0, *(diffusion.q_step(s, x0, t, draw()) for t in range(1, s.T + 1))]),
        ),
        Mistake(
            "closed_form",
            "You jump from x_0 to every t. Each x_t has the right distribution, but neighbours do not belong to one "
            f"path: repeat q_step ({CHAIN}).",
            _chain(lambda s, x0, draw: [x0, *(diffusion.q_sample(s, x0, t, draw()) for t in range(1, s.T + 1))]),
        ),
        Mistake(
            "same_noise_every_step",
            f"The noise is drawn once and used in every step. Draw inside the loop ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, _repeat(draw()))),
        ),
        Mistake(
            "same_noise_every_image",
            f"One noise serves all images. Draw it with the shape of the whole batch, x0.shape ({CHAIN}).",
            _one_noise_for_all_images,
        ),
        Mistake(
            "no_generator",
            "You draw from the global random state. Pass the generator on: "
            f"torch.randn(x0.shape, generator=generator) ({CHAIN}).",
            _no_generator,
        ),
        Mistake(
            "drawn_at_once",
            "You draw the noise of all steps at once, which gives other numbers. Draw once a step, in order "
            f"({CHAIN}).",
            _all_at_once,
        ),
        Mistake(
            "overwritten",
            "All entries are the same tensor, overwritten in each step. Make a new one: x = q_step(...), or append "
            f"x.clone() ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, draw)[-1:] * (s.T + 1)),
        ),
        Mistake(
            "backwards",
            f"The entries are in reverse: x_0 comes first ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, draw)[::-1]),
        ),
        Mistake(
            "steps_backwards",
            f"The steps run from T down to 1. The chain begins with step 1 ({CHAIN}).",
            _chain(lambda s, x0, draw: _run(s, x0, draw, steps=range(s.T, 0, -1))),
        ),
        Mistake(
            "stacked_along_1",
            f"The batch comes first and t second. Stack along axis 0 ({CHAIN}).",
            _chain(lambda s, x0, draw: torch.stack(_run(s, x0, draw), dim=1)),
        ),
        Mistake(
            "concatenated",
            f"cat lengthens the batch. stack makes the new axis that t needs ({CHAIN}).",
            _chain(lambda s, x0, draw: torch.cat(_run(s, x0, draw))),
        ),
        Mistake(
            "appended_before_step",
            f"You append x before the step, so x_0 is there twice, and x_T is missing ({CHAIN}).",
            _chain(lambda s, x0, draw: [x0, *_run(s, x0, draw)[:-1]]),
        ),
    ],
)


def _variance_cases() -> list[Case]:
    pairs = [(0.25, 0.02), (2.5, 0.1), (1.0, 0.3), (0.0, 0.4), (4.0, 0.5), (0.6, 0.9)]
    cases = [
        Case(f"variance = {v}, beta = {b}", (v, b), {"for numbers": True, "where the variance is not 1": v != 1.0})
        for v, b in pairs
    ]
    variances, betas = torch.tensor([0.3, 1.0, 2.0], device="cpu"), torch.tensor([0.2, 0.05, 0.6], device="cpu")
    facts = {"for tensors": True, "where the variance is not 1": variances != 1}
    cases.append(Case("tensors of shape (3,)", (variances, betas), facts))
    cases.append(Case("a tensor of variances, beta = 0.15", (variances, 0.15), facts))
    return cases


next_variance = Exercise(
    "1.4",
    "next_variance",
    answers.next_variance,
    _variance_cases,
    stub='''
def next_variance(variance, beta):
    """Var x_t from Var x_{t-1}.

    variance, beta:  numbers, or tensors
    returns          a number, or a tensor
    """
    raise NotImplementedError  # your code here
''',
    first="what does multiplying by √(1 - β) do to a variance? And how much does the noise add?",
    tolerance=1e-5,
    mistakes=[
        Mistake(
            "no_shrinking",
            "You add the noise's variance without shrinking what was there: that chain grows without end "
            f"({VARIANCE}).",
            lambda variance, beta: variance + beta,
        ),
        Mistake(
            "shrinks_twice",
            "You multiply by (1 - β)². x is scaled by √(1 - β), and a variance by the *square* of that, 1 - β "
            f"({VARIANCE}).",
            lambda variance, beta: (1 - beta) ** 2 * variance + beta,
        ),
        Mistake(
            "factor_not_squared",
            f"You multiply the variance by √(1 - β), x's own factor. A variance takes its square, 1 - β ({VARIANCE}).",
            lambda variance, beta: (1 - beta) ** 0.5 * variance + beta,
        ),
        Mistake(
            "factors_not_squared",
            f"√(1 - β) and √β scale x and the noise. A variance takes their squares, 1 - β and β ({VARIANCE}).",
            lambda variance, beta: (1 - beta) ** 0.5 * variance + beta**0.5,
        ),
        Mistake(
            "noise_deviation",
            f"√β is the noise's standard deviation. Its variance is β ({VARIANCE}).",
            lambda variance, beta: (1 - beta) * variance + beta**0.5,
        ),
        Mistake(
            "noise_squared",
            f"β is the noise's variance already: do not square it ({VARIANCE}).",
            lambda variance, beta: (1 - beta) * variance + beta**2,
        ),
        Mistake(
            "both_squared",
            f"1 - β and β are the squares of the factors already: do not square them again ({VARIANCE}).",
            lambda variance, beta: (1 - beta) ** 2 * variance + beta**2,
        ),
        Mistake(
            "no_noise",
            f"You shrink and add nothing. The noise brings in a variance of β ({VARIANCE}).",
            lambda variance, beta: (1 - beta) * variance,
        ),
        Mistake(
            "noise_before_shrinking",
            f"The noise is added after the shrinking, so β is not multiplied by 1 - β ({VARIANCE}).",
            lambda variance, beta: (1 - beta) * (variance + beta),
        ),
        Mistake(
            "swapped",
            f"The two are swapped: what was there is multiplied by 1 - β, the noise adds β ({VARIANCE}).",
            lambda variance, beta: beta * variance + (1 - beta),
        ),
        Mistake(
            "deviations_mixed",
            f"The variance is not the standard deviation: take no root of it ({VARIANCE}).",
            lambda variance, beta: ((1 - beta) * variance + beta) ** 0.5,
            lambda variance, beta: (1 - beta) * variance**0.5 + beta,
        ),
        Mistake(
            "variance_squared",
            f"`variance` is a variance already: do not square it ({VARIANCE}).",
            lambda variance, beta: (1 - beta) * variance**2 + beta,
        ),
        Mistake(
            "noise_times_variance",
            f"The noise does not depend on what was there: it adds β, not β times the variance ({VARIANCE}).",
            lambda variance, beta: (1 - beta) * variance + beta * variance,
            lambda variance, beta: (1 + beta) * variance,
        ),
        Mistake(
            "already_one",
            f"1 is where the variance ends up, not what it is after one step ({VARIANCE}).",
            lambda variance, beta: variance * 0 + 1.0,
        ),
    ],
)
