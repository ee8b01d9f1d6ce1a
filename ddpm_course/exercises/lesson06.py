"""The exercises of lesson 06: the estimate of x_0, one step back, the loop, and a sampler to repair.

What goes wrong in them is in lesson06.mistakes. `samplers.ancestral_steps` does the same as 6.1 to 6.4 in one loop.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from .cases import EIGHT, FIVE, OTHER_EIGHT, STRIDES, TWELVE, normal, on_gpu, step_cases, stride
from .records import Betas, Case, Seed
from .written import exercise

# ---- 6.1


def estimate_cases() -> list[Case]:
    """Every case of lesson 02's predict_x0 without clipping, some with, and some that leave it to the default."""
    base = step_cases(first=1)
    cases = [with_clip(case, False) for case in base]
    return cases + [with_clip(case, clip) for case in base[:5] + base[10:13] for clip in (True, None)]


def with_clip(case: Case, clip: bool | None) -> Case:
    said = "clip not said" if clip is None else f"clip={clip}"
    schedule, xt, t, noise = case.args
    clipped = torch.full_like(xt, clip is not False, dtype=torch.bool)  # of each element: few need it
    facts = {**case.facts, "with clipping": clipped, "where clip is not given": clip is None}
    args = (schedule, xt, t, 2 * noise, *([] if clip is None else [clip]))  # an estimate need not be standard normal
    return replace(case, label=f"{case.label}, {said}", args=args, facts=facts)


@exercise(
    "6.1",
    estimate_cases,
    first="copy copied_estimate into this cell. Then try it on an x_t that you made yourself, from a known x_0.",
    linear=("xt", "noise"),
)
def estimate_x0(schedule, xt, t, noise, clip=True):
    """copied_estimate without its three faults: the x_0 that xt and the noise in it imply.

    schedule:  schedule.at("alpha_bar", t, xt) is entry t of a table, shaped to multiply xt;
               schedule.q_coefficients(t, xt) are the two roots of the closed form
    xt:        (B, ...) data at noise level t in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     the network's estimate of the noise in xt, same shape
    clip:      whether the result must lie in [-1, 1], the range of images
    returns    (B, ...) in float32, on the device of xt
    """
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    ab = schedule.alpha_bar  # (T+1,) in float64
    signal = ab.sqrt()
    sigma = (1 - ab).sqrt()
    signal, sigma = (w.to(xt.dtype).to(xt.device)[t].reshape(column) for w in (signal, sigma))
    x0 = (xt - sigma * noise) / signal
    return x0.clamp(-1, 1) if clip else x0


# ---- 6.2 and 6.3


def step_facts(betas: Betas, t: Tensor, s: Tensor, kind: str | None) -> dict[str, bool | Tensor]:
    """What is true of steps from t to s, whose axes broadcast to the result."""
    large = torch.tensor(kind == "large", device="cpu")
    return {
        'for kind "small"': kind != "large",
        'for kind "large"': kind == "large",
        "where kind is not given": kind is None,
        "where s = 0": s == 0,
        "where s is more than 0": s > 0,
        'for kind "large" where s = 0': large & (s == 0),
        "for steps longer than one": t - s > 1,
        "for ints": t.ndim == 0,
        "for t and s of shape (B,)": t.ndim > 0,
        "behind the first of a batch": (torch.arange(t.numel(), device="cpu") > 0).reshape(t.shape),
        "where s is 0 for some of a batch alone": (s == 0).any() & (s > 0).any(),
        "for a schedule with another T": betas in (FIVE, TWELVE),
        "for another schedule of the same T": betas is OTHER_EIGHT,
    }


def variance_cases() -> list[Case]:
    plan = [
        *((EIGHT, 6, 5), (EIGHT, 6, 2), (EIGHT, 8, 1), (EIGHT, 2, 1), (EIGHT, 1, 0), (EIGHT, 5, 0), (FIVE, 4, 2)),
        *((EIGHT, (6, 2, 8), (5, 1, 7)), (EIGHT, (6, 8, 4, 3), (2, 7, 1, 0)), (FIVE, (5, 3), (2, 1))),
        *((OTHER_EIGHT, 7, 3), (OTHER_EIGHT, (4,), (2,)), (TWELVE, (12, 9, 12), (8, 4, 0))),
    ]
    cases = []
    for betas, t, s in plan:
        many = not isinstance(t, int)
        rows, before = torch.tensor(t, device="cpu"), torch.tensor(s, device="cpu")
        for kind in ("small", "large", None):
            args = (betas, rows, before) if many else (betas, t, s)
            label = f"t = {list(t) if many else t}, s = {list(s) if many else s}, T = {len(betas.values)}, " + (
                f'kind "{kind}"' if kind else "kind not given"
            )
            args = args if kind is None else (*args, kind)
            cases.append(Case(label, args, step_facts(betas, rows, before, kind)))
    return cases


@exercise(
    "6.2",
    variance_cases,
    first="look at 'Any step from t to s'. Which of the two has to be 0 in a step to s = 0, and which is not?",
    tolerance=1e-5,
    any_float=True,
)
def reverse_variance(schedule, t, s, kind="small"):
    """The variance of the noise in a reverse step from t to s.

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    t, s:      ints with 0 <= s < t <= T, or (B,) integers each; t - s may be more than 1
    kind:      "large" is beta, the variance that the forward process adds between s and t;
               "small" is beta-tilde, the variance of q(x_s | x_t, x_0)
    returns    a number for ints, (B,) for tensors
    """
    ab_t = schedule.alpha_bar[t]
    ab_s = schedule.alpha_bar[s]
    alpha = ab_t / ab_s  # the share that survives from s to t
    beta = 1 - alpha
    small = beta * (1 - ab_s) / (1 - ab_t)
    variance = beta if kind == "large" else small
    return float(variance) if isinstance(t, int) else variance


def posterior_cases() -> list[Case]:
    cases = []
    for i, (betas, shape, t, s) in enumerate(STRIDES):
        rows, before, times, label, about = stride(shape, t, s)
        for kind in ("small", "large") if i else ("small", "large", None):
            facts = step_facts(betas, rows, before, kind) | about
            x0, xt, z = (normal(shape, 300 + 3 * i + j) for j in range(3))
            said = f', kind "{kind}"' if kind else ", kind not given"
            cases.append(Case(label + said, (betas, x0, xt, *times, z, *([kind] if kind else [])), facts))
    return cases + on_gpu(cases[0])


@exercise(
    "6.3",
    posterior_cases,
    first="look at the three formulas in 'Any step from t to s'. Which of their parts differ from image to image?",
    linear=("x0", "xt", "z"),
)
def posterior_step(schedule, x0, xt, t, s, z, kind="small"):
    """x_s, drawn from q(x_s | x_t, x_0) for any 0 <= s < t (Ho et al., eqs. 6 and 7).

    schedule:  schedule.at("alpha_bar", t, xt) is entry t of a table, shaped to multiply xt
    x0:        (B, ...) the estimate of x_0, float32
    xt:        (B, ...) data at noise level t
    t, s:      one int each for the whole batch, or (B,) integers each
    z:         same shape, standard normal
    kind:      the variance: "small" or "large", as reverse_variance knows them
    returns    (B, ...) mean + sqrt(variance) * z in float32; the mean alone for every item
               whose own s is 0, also when the s of others in the batch is not
    """
    ab_t = schedule.alpha_bar[t]
    ab_s = schedule.alpha_bar[s]
    alpha = ab_t / ab_s
    beta = 1 - alpha
    on_x0 = ab_s.sqrt() * beta / (1 - ab_t)
    on_xt = alpha.sqrt() * (1 - ab_s) / (1 - ab_t)
    variance = torch.as_tensor(reverse_variance(schedule, t, s, kind))
    std = variance.sqrt() * (s > 0)  # no noise in the last step
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    weights = (on_x0, on_xt, std)
    on_x0, on_xt, std = (w.to(xt.dtype).to(xt.device).reshape(column) for w in weights)
    mean = on_x0 * x0 + on_xt * xt
    return mean + std * z


# ---- 6.4 and 6.5: whole samplers


def probe(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """A network that nobody trained: smooth in x and t, and as particular about t as a real one."""
    if not isinstance(t, Tensor) or t.shape != x.shape[:1]:
        got = tuple(t.shape) if isinstance(t, Tensor) else f"the {type(t).__name__} {t}"
        raise ValueError(f"t must have shape ({len(x)},) to match x's batch of {len(x)}, got {got}")
    if t.is_floating_point():
        raise ValueError(f"t must hold integers (torch.int64), got {t.dtype}")
    phase = t.double().reshape((-1,) + (1,) * (x.ndim - 1))
    return (0.9 * x.double() + 0.4 * torch.sin(phase + 2 * x.double())).to(x.dtype)


WEIGHT = torch.ones((), device="cpu", requires_grad=True)


def probe_with_weights(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    """The same with a weight, so that gradients would be recorded; complains when they reach its input."""
    if x.requires_grad:
        raise RuntimeError("x carries the graph of all steps before. Switch gradients off: with torch.no_grad()")
    return probe(x, t, y) * WEIGHT


def loop_cases() -> list[Case]:
    plan = [
        *((EIGHT, (3, 1, 4, 5), list(range(8, -1, -1)), kind) for kind in ("small", "large")),
        *((EIGHT, (2, 2, 3, 3), [8, 5, 2, 0], kind) for kind in ("small", "large")),
        (EIGHT, (2, 1, 3, 3), [8, 4, 1, 0], None),
        (EIGHT, (2, 1, 3, 3), [7, 4, 0], "large"),
        (EIGHT, (5,), [8, 6, 3, 1, 0], "large"),
        (EIGHT, (4, 2), [8, 0], "large"),
        (FIVE, (2, 1, 3, 3), [5, 4, 3, 2, 1, 0], "small"),
        (OTHER_EIGHT, (2, 1, 3, 3), [8, 5, 2, 0], "large"),
        (TWELVE, (1, 3, 2, 2), list(range(12, -1, -1)), "small"),
    ]
    cases = [loop_case(probe, *row, seed) for seed, row in enumerate(plan)]
    return [*cases, loop_case(probe_with_weights, EIGHT, (2, 1, 3, 3), [8, 5, 2, 0], "small", 30)]


def loop_case(net: Callable, betas: Betas, shape: tuple[int, ...], times: list[int], kind: str | None, seed: int):
    stride = any(t - s > 1 for t, s in pairwise(times))
    facts = {
        'for kind "large"': kind == "large",
        'for kind "small"': kind != "large",
        "where kind is not given": kind is None,
        "for times with strides": stride,
        "where `times` begins below T": times[0] < len(betas.values),
        "for one step from T to 0": len(times) == 2,
        "for more than one step": len(times) > 2,
        "for more than eight steps": len(times) > 9,
        "for data that is not images": len(shape) < 4,
        "for a batch of more than one": shape[0] > 1,
        "for a network with weights": net is probe_with_weights,
        "for a schedule with another T": betas in (FIVE, TWELVE),
        "for another schedule of the same T": betas is OTHER_EIGHT,
    }
    label = f"data {shape}, times {times}" + (f', kind "{kind}"' if kind else "")
    return Case(label, (net, betas, normal(shape, 400 + seed), times, Seed(seed), *([kind] if kind else [])), facts)


@exercise(
    "6.4",
    loop_cases,
    first="look at algorithm_2 at the top of the lesson. Which of its lines change when steps go from t to any s?",
)
def ancestral_loop(net, schedule, x_T, times, generator, kind="small"):
    """Algorithm 2 of Ho et al. (2020) along any times, without gradients.

    Every step clips its estimate of x_0 to [-1, 1], as estimate_x0 does, and never x itself.
    net:        net(x, t) with t (B,) int64: the estimate of the noise in x
    x_T:        (B, ...) the noise to start from
    times:      falling ints, T as a rule first, 0 last: each step goes from one to the next
    generator:  for z: torch.randn(x.shape, generator=generator, device=x.device), once per
                step, but for the last one, which draws nothing
    kind:       the variance of the steps, "small" or "large"
    returns     (B, ...) x_0
    """
    x = x_T
    with torch.no_grad():
        for t, s in pairwise(times):
            told = torch.full((len(x),), t, device=x.device)
            noise = net(x, told)
            x0 = estimate_x0(schedule, x, t, noise)
            z = torch.zeros_like(x)
            if s > 0:
                z = torch.randn(x.shape, generator=generator, device=x.device)
            x = posterior_step(schedule, x0, x, t, s, z, kind)
    return x


def repair_cases() -> list[Case]:
    """The loop's, once whatever its kind is: this sampler has one kind."""
    cases = {}
    for case in loop_cases():
        net, betas, x_T, times, seed, *_ = case.args
        facts = {phrase: true for phrase, true in case.facts.items() if "kind" not in phrase}
        label = f"shape {tuple(x_T.shape)}, times {times}, T = {len(betas.values)}"
        args = (net, betas, tuple(x_T.shape), times, seed)
        cases.setdefault((net, betas, tuple(times)), Case(label, args, facts))
    return list(cases.values())


@exercise(
    "6.5",
    repair_cases,
    first="copy broken_sampler into this cell. Read it against Algorithm 2, one line at a time.",
)
def repaired_sampler(net, schedule, shape, times, generator):
    """broken_sampler without its five faults: ancestral sampling with the large variance.

    net:        net(x, t) with t (B,) int64: the estimate of the noise in x
    shape:      (B, ...) of the samples
    times:      falling ints, T as a rule first, 0 last
    generator:  for everything random: x_T first, then one z per step, and nothing in the last
    returns     (B, ...) x_0, made without recording gradients
    """
    x = torch.randn(shape, generator=generator, device=generator.device)  # was uniform
    with torch.no_grad():
        for t, s in pairwise(times):
            told = torch.full((len(x),), t, device=x.device)  # was s
            noise = net(x, told)
            x0 = estimate_x0(schedule, x, t, noise)  # was clipped to [0, 1]
            z = torch.zeros_like(x)
            if s > 0:  # was drawn in the last step too
                z = torch.randn(x.shape, generator=generator, device=x.device)
            mean = posterior_step(schedule, x0, x, t, s, torch.zeros_like(x))
            std = reverse_variance(schedule, t, s, "large") ** 0.5  # was without the root
            x = mean + std * z
    return x
