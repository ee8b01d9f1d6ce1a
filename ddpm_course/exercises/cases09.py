"""Fixed inputs for the exercises of lesson 09, and the judge of its open one."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..diffusion import GaussianDiffusion
from ..samplers import ddim_steps
from ..schedules import cosine_schedule
from ..times import spaced_timesteps
from ..toy import bimodal, transport_1d
from .cases import EIGHT, FIVE, IMAGES, OTHER_EIGHT, STRIDES, TWELVE, normal, on_gpu, stride
from .lesson06 import probe, probe_with_weights, step_facts
from .records import Aim, Case

# ---- 9.1


def ddim_cases() -> list[Case]:
    cases = []
    for i, (betas, shape, t, s) in enumerate(STRIDES):
        rows, before, times, label, about = stride(shape, t, s)
        for eta in (None, 0.0, 0.5, 1.0) if i in (0, 1, 5) else (0.7,) if i % 2 else (None, 1.0):
            facts = step_facts(betas, rows, before, None)
            facts = {phrase: true for phrase, true in facts.items() if "kind" not in phrase} | about
            facts |= {
                "where eta is not given": eta is None,
                "where eta is 0": not eta,
                "where eta is more than 0": bool(eta),
                "where eta is neither 0 nor 1": eta not in (None, 0.0, 1.0),
            }
            said = ", eta not given" if eta is None else f", eta = {eta:g}"
            x0, xt, z = (normal(shape, 900 + 3 * i + j) for j in range(3))
            cases.append(Case(label + said, (betas, x0, xt, *times, z, *([] if eta is None else [eta])), facts))
    return cases + on_gpu(cases[0])


# ---- 9.2 and 9.3


def spacing_cases() -> list[Case]:
    # T even and steps twice an odd number: nothing to round is halfway, whichever way it is computed
    plan = [(1000, 10), (1000, 30), (1000, 14), (1000, 6), (50, 50), (100, 22), (20, 6), (12, 2)]
    cases = []
    for T, steps in plan:
        for spacing in ("trailing", "linspace", "leading"):
            facts = {
                f'for "{spacing}"': True,
                "where steps does not divide T": T % steps > 0,
                "where steps divides T": T % steps == 0,
                "for all T steps": steps == T,
            }
            facts |= {f'for "{other}"': False for other in ("trailing", "linspace", "leading") if other != spacing}
            cases.append(Case(f'T = {T}, {steps} steps, "{spacing}"', (T, steps, spacing), facts))
    return cases


CALLS, MOST_ERROR = 5, 0.092
LENGTHS = (1000, 500, 250)


def ddim_error(times: list[int], T: int) -> float:
    """How far DDIM with the exact network ends from where the equation ends, on the mixture of two peaks.

    The root of the mean square over 401 starts from -2.5 to 2.5, for the cosine schedule with T steps; `times` as a
    sampler visits them.
    """
    mixture, schedule = bimodal(torch.float64), cosine_schedule(T)
    x_T = torch.linspace(-2.5, 2.5, 401, dtype=torch.float64)
    exact = transport_1d(mixture, schedule, x_T, T, 0)

    def net(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return mixture.expected_x0(schedule, x, int(t[0]))

    diffusion, x_T = GaussianDiffusion(schedule, "x0"), x_T[:, None]
    *_, last = ddim_steps(net, diffusion, tuple(x_T.shape), times=times, clip=False, x_T=x_T)
    return float((last.x[:, 0] - exact).square().mean().sqrt())


def are_times(times: Any, case: Case) -> bool:
    """Is it a list of whole numbers?"""
    return isinstance(times, list | tuple) and all(isinstance(t, int) and not isinstance(t, bool) for t in times)


def times_fault(times: list[int], case: Case) -> str | None:
    """The id of the first thing that is wrong with the times, None if nothing is."""
    (T,) = case.args
    if len(times) != CALLS + 1:
        return "another_number"
    if times[-1] != 0:
        return "not_to_zero"
    if any(t <= s for t, s in pairwise(times)):
        return "not_falling"
    if times[0] > T or (times[0] in LENGTHS and times[0] != T and max(LENGTHS) > T):
        return "T_ignored"
    if times[0] != T:
        return "starts_late"
    return "too_far_off" if ddim_error(times, T) >= MOST_ERROR else None


def times_score(times: list[int], case: Case) -> str | None:
    """The error, for times that a sampler can visit."""
    if times_fault(times, case) not in ("too_far_off", None):
        return None
    (T,) = case.args
    even = ddim_error(spaced_timesteps(T, CALLS), T)
    return (
        f"For T = {T}, {CALLS} calls at your times end {ddim_error(times, T):.3f} from the exact answer (below "
        f"{MOST_ERROR:g} is asked); evenly spaced ones end {even:.3f} from it."
    )


TIMES = Aim(are_times, times_fault, times_score)


# ---- 9.4 and 9.5


def heun_cases() -> list[Case]:
    plan = [
        *((EIGHT, IMAGES, t, s) for t, s in ((6, 5), (8, 2), (2, 1), (1, 0), (5, 0))),
        (EIGHT, (4, 2), 7, 3),
        (EIGHT, (5,), 8, 6),
        (FIVE, IMAGES, 4, 2),
        (OTHER_EIGHT, IMAGES, 6, 2),
        (TWELVE, (1, 3, 2, 2), 12, 4),
    ]
    cases = []
    for seed, (betas, shape, t, s) in enumerate(plan):
        facts = {
            "where s = 0": s == 0,
            "where s is more than 0": s > 0,
            "for steps longer than one": t - s > 1,
            "for data that is not images": len(shape) < 4,
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        label = f"data {shape}, t = {t}, s = {s}, T = {len(betas.values)}"
        cases.append(Case(label, (probe, betas, normal(shape, 950 + seed), t, s), facts))
    return cases


def multistep_cases() -> list[Case]:
    plan = [
        *((EIGHT, IMAGES, r, t, s) for r, t, s in ((8, 6, 5), (7, 6, 2), (8, 5, 2), (4, 2, 1), (6, 4, 0), (2, 1, 0))),
        (EIGHT, (4, 2), 8, 7, 3),
        (EIGHT, (5,), 8, 6, 4),
        (FIVE, IMAGES, 5, 4, 2),
        (OTHER_EIGHT, IMAGES, 7, 6, 2),
        (TWELVE, (1, 3, 2, 2), 12, 9, 4),
    ]
    cases = []
    for i, (betas, shape, r, t, s) in enumerate(plan):
        facts = {
            "where s = 0": s == 0,
            "where s is more than 0": s > 0,
            "for data that is not images": len(shape) < 4,
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        x0, last_x0, xt = (normal(shape, 970 + 3 * i + j) for j in range(3))
        label = f"data {shape}, from {r} to {t} before, now from {t} to {s}"
        cases.append(Case(label, (betas, x0, last_x0, xt, r, t, s), facts))
    return cases


# ---- 9.6 and 9.7


def encode_cases() -> list[Case]:
    plan = [
        (probe, EIGHT, (3, 1, 4, 5), list(range(1, 9))),
        (probe, EIGHT, (2, 2, 3, 3), [1, 3, 6, 8]),
        (probe, EIGHT, (2, 1, 3, 3), [1, 8]),
        (probe, EIGHT, (2, 1, 3, 3), [1, 4, 7]),
        (probe, EIGHT, (5,), [1, 2, 5, 8]),
        (probe, FIVE, (2, 1, 3, 3), [1, 2, 4, 5]),
        (probe, OTHER_EIGHT, (2, 1, 3, 3), [1, 5, 8]),
        (probe, TWELVE, (1, 3, 2, 2), list(range(1, 13))),
        (probe_with_weights, EIGHT, (2, 1, 3, 3), [1, 3, 6, 8]),
    ]
    cases = []
    for seed, (net, betas, shape, times) in enumerate(plan):
        facts = {
            "for times with strides": any(s - t > 1 for t, s in pairwise(times)),
            "for one step": len(times) == 2,
            "for more than one step": len(times) > 2,
            "where `times` ends below T": times[-1] < len(betas.values),
            "for a network with weights": net is probe_with_weights,
            "for data that is not images": len(shape) < 4,
            "for a schedule with another T": betas in (FIVE, TWELVE),
            "for another schedule of the same T": betas is OTHER_EIGHT,
        }
        x0 = 0.5 * normal(shape, 990 + seed)
        cases.append(Case(f"data {shape}, times {times}", (net, betas, x0, times), facts))
    return cases


def slerp_cases() -> list[Case]:
    cases, seed = [], 1020
    for shape in (IMAGES, (4, 1, 3, 4), (1, 1, 6, 6), (6, 8), (3, 3, 4, 5), (2, 2, 2)):
        for share in (0.3, 0.5, 0.85, 0.0, 1.0)[: 5 if shape == IMAGES else 2]:
            seed += 2
            a, b = normal(shape, seed), 1.4 * normal(shape, seed + 1)
            if shape == (1, 1, 6, 6):
                b = 0.2 * b - a  # more than a right angle apart
            facts = {
                "where share is 0 or 1": share in (0.0, 1.0),
                "where share is neither 0 nor 1": share not in (0.0, 1.0),
                "for a batch of more than one": shape[0] > 1,
                "for images": len(shape) == 4,
                "for data that is not images": len(shape) != 4,
            }
            cases.append(Case(f"data {shape}, share {share:g}", (a, b, share), facts))
    return cases
