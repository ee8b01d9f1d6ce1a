"""The exercises of lesson 09: DDIM's step, the times to visit, two solvers of second order, the way back to noise.

What goes wrong in them is in lesson09.mistakes. `samplers.ddim_steps` and solvers.py do the same in one loop.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..diffusion import GaussianDiffusion
from ..samplers import ddim_steps
from ..schedules import cosine_schedule
from ..toy import bimodal, transport_1d
from .cases import EIGHT, FIVE, IMAGES, OTHER_EIGHT, TWELVE, normal, on_gpu
from .lesson06 import probe, probe_with_weights, step_facts
from .records import Aim, Case
from .written import exercise

# ---- 9.1


def ddim_cases() -> list[Case]:
    plan = [
        *((EIGHT, IMAGES, t, s) for t, s in ((6, 5), (6, 2), (8, 7), (1, 0), (4, 0))),
        (EIGHT, IMAGES, (8, 2, 5), (7, 1, 4)),
        (EIGHT, IMAGES, (8, 7, 4), (3, 2, 0)),
        (EIGHT, (4, 1, 3, 4), (5, 2, 8, 3), (2, 1, 7, 1)),  # as many images as columns
        (EIGHT, (4, 1, 4, 5), (3, 8, 2, 6), (1, 4, 1, 5)),  # as many images as rows
        (EIGHT, (3, 3, 4, 5), (6, 3, 7), (5, 1, 2)),  # as many images as channels
        (EIGHT, (4, 2), (7, 2, 6, 3), (6, 1, 2, 0)),
        (EIGHT, (6,), 5, 2),
        (FIVE, IMAGES, 4, 2),
        (OTHER_EIGHT, IMAGES, 6, 2),
        (TWELVE, (1, 3, 2, 2), (12,), (4,)),
    ]
    cases = []
    for i, (betas, shape, t, s) in enumerate(plan):
        many = not isinstance(t, int)
        axes = (-1,) + (1,) * (len(shape) - 1)
        rows, before = (torch.tensor(r, device="cpu").reshape(axes if many else ()) for r in (t, s))
        for eta in (None, 0.0, 0.5, 1.0) if i in (0, 1, 5) else (0.7,) if i % 2 else (None, 1.0):
            facts = step_facts(betas, rows, before, None)
            facts = {phrase: true for phrase, true in facts.items() if "kind" not in phrase} | {
                "where the batch has as many images as an image has columns": len(shape) == 4 and shape[0] == shape[3],
                "where the batch has as many images as an image has channels": len(shape) == 4 and shape[0] == shape[1],
                "for images": len(shape) == 4,
                "where eta is not given": eta is None,
                "where eta is 0": not eta,
                "where eta is more than 0": bool(eta),
                "where eta is neither 0 nor 1": eta not in (None, 0.0, 1.0),
            }
            label = f"data {shape}, t = {list(t) if many else t}, s = {list(s) if many else s}"
            label += ", eta not given" if eta is None else f", eta = {eta:g}"
            x0, xt, z = (normal(shape, 900 + 3 * i + j) for j in range(3))
            times = (torch.tensor(t, device="cpu"), torch.tensor(s, device="cpu")) if many else (t, s)
            cases.append(Case(label, (betas, x0, xt, *times, z, *([] if eta is None else [eta])), facts))
    return cases + on_gpu(cases[0])


@exercise(
    "9.1",
    ddim_cases,
    first="look at the conditions in 'One family of processes'. Which noise is it that x_t holds, if x0 is right?",
    linear=("x0", "xt", "z"),
)
def ddim_step(schedule, x0, xt, t, s, z, eta=0.0):
    """x_s of DDIM (Song et al., 2021, eqs. 12 and 16) for any 0 <= s < t.

    schedule:  schedule.at("alpha_bar", t, xt) is entry t of a table, shaped to multiply xt
    x0:        (B, ...) the estimate of x_0, clipped already, float32
    xt:        (B, ...) data at noise level t
    t, s:      one int each for the whole batch, or (B,) integers each
    z:         same shape, standard normal
    eta:       how much of the noise is fresh: the variance sigma^2 of z is eta^2 times
               beta-tilde, that of the ancestral step from t to s
    returns    (B, ...) x_s in float32, on the device of xt
    """
    ab_t = schedule.alpha_bar[t]
    ab_s = schedule.alpha_bar[s]
    beta = 1 - ab_t / ab_s
    variance = eta**2 * beta * (1 - ab_s) / (1 - ab_t)
    signal_t = ab_t.sqrt()
    sigma_t = (1 - ab_t).sqrt()
    signal_s = ab_s.sqrt()
    on_noise = (1 - ab_s - variance).clamp(min=0).sqrt()
    std = variance.sqrt()
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    weights = (signal_t, sigma_t, signal_s, on_noise, std)
    weights = [w.to(xt.dtype).to(xt.device).reshape(column) for w in weights]
    signal_t, sigma_t, signal_s, on_noise, std = weights
    noise = (xt - signal_t * x0) / sigma_t  # what x_t holds, if x0 is right
    return signal_s * x0 + on_noise * noise + std * z


# ---- 9.2 and 9.3: which times


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


@exercise(
    "9.2",
    spacing_cases,
    first="write down the times of each convention for T = 10 and 5 steps, from the table. Then do it for 3 steps.",
    free=("T",),
)
def spaced_times(T, steps, spacing):
    """The times of a sampler with this many calls, by one of the three conventions.

    T:         an int
    steps:     how many times the network is called, 2 <= steps <= T
    spacing:   "trailing": steps of T / steps, beginning at T
               "linspace": from T to 1, both included, evenly
               "leading":  steps of T // steps, ending at 1
    returns    a list of steps + 1 ints that fall from the first call's t to 0, rounded
               to the nearest integer
    """
    if spacing == "trailing":
        times = [T * (steps - i) / steps for i in range(steps)]
    elif spacing == "linspace":
        times = [1 + (T - 1) * i / (steps - 1) for i in reversed(range(steps))]
    else:
        stride = T // steps
        times = [1 + i * stride for i in reversed(range(steps))]
    return [round(t) for t in times] + [0]


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
    even = ddim_error(spaced_times(T, CALLS, "trailing"), T)
    return (
        f"For T = {T}, {CALLS} calls at your times end {ddim_error(times, T):.3f} from the exact answer (below "
        f"{MOST_ERROR:g} is asked); evenly spaced ones end {even:.3f} from it."
    )


@exercise(
    "9.3",
    lambda: [Case(f"T = {T}", (T,)) for T in LENGTHS],
    first="return some six numbers that fall from T to 0, and read what the check says of them.",
    aim=Aim(are_times, times_fault, times_score),
    free=("T",),
)
def my_times(T):
    """Your own times for five calls, for a cosine schedule of any length.

    T:        number of steps that the schedule has
    returns   a list of six ints that fall from T to 0
    """
    share = [1, 0.65, 0.4, 0.22, 0.09, 0]
    return [round(part * T) for part in share]


# ---- 9.4 and 9.5: second order


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


@exercise(
    "9.4",
    heun_cases,
    first="write Euler's step from angle to angle, and look at the picture in 'Second order'. What is asked where?",
)
def heun_step(net, schedule, xt, t, s):
    """One step of Heun's method in the angle: x_s from x_t, with the mean of two slopes.

    net:       net(x, t) with t (B,) int64: the velocity v = dx / dphi at x
    schedule:  schedule.alpha_bar is the table, (T+1,) float64; its root is cos(phi)
    xt:        (B, ...) data at noise level t, float32
    t, s:      ints, 0 <= s < t
    returns    (B, ...) x_s in float32. To s = 0 it is the estimate of x_0 that v gives at x_t:
               no network was trained at t = 0, so it is not asked there
    """
    ab_t = schedule.alpha_bar[t]
    ab_s = schedule.alpha_bar[s]
    phi_t = torch.acos(ab_t.sqrt())
    phi_s = torch.acos(ab_s.sqrt())
    length = float(phi_s - phi_t)  # negative: the angle falls
    told = torch.full((len(xt),), t, device=xt.device)
    slope = net(xt, told)
    if s == 0:
        return float(phi_t.cos()) * xt - float(phi_t.sin()) * slope
    euler = xt + length * slope
    told_there = torch.full((len(xt),), s, device=xt.device)
    there = net(euler, told_there)
    mean = (slope + there) / 2
    return xt + length * mean


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


@exercise(
    "9.5",
    multistep_cases,
    first="draw the line through the two estimates against lambda. Where on it is the middle of the step from t to s?",
    linear=("x0", "last_x0", "xt"),
)
def multistep_step(schedule, x0, last_x0, xt, r, t, s):
    """One step of DPM-Solver++(2M): DDIM's step, with an estimate of x_0 that is carried on.

    schedule:  schedule.alpha_bar is the table, (T+1,) float64
    x0:        (B, ...) the estimate of x_0 at t, float32
    last_x0:   (B, ...) the estimate of the step before, which went from r to t
    xt:        (B, ...) data at noise level t
    r, t, s:   ints with r > t > s >= 0
    returns    (B, ...) x_s in float32. To s = 0, where lambda is infinite, it is x0 itself
    """
    if s == 0:
        return x0
    ab = schedule.alpha_bar
    lam_r = (ab[r] / (1 - ab[r])).log() / 2
    lam_t = (ab[t] / (1 - ab[t])).log() / 2
    lam_s = (ab[s] / (1 - ab[s])).log() / 2
    before = lam_t - lam_r
    now = lam_s - lam_t
    further = float(now / before / 2)
    ahead = x0 + further * (x0 - last_x0)
    z = torch.zeros_like(xt)
    return ddim_step(schedule, ahead, xt, t, s, z)


# ---- 9.6 and 9.7: there and back


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


@exercise(
    "9.6",
    encode_cases,
    first="write down DDIM's step from t = 3 to s = 2. Which of its letters change if it goes from t = 2 to s = 3?",
)
def encode(net, schedule, x0, times):
    """The noise that DDIM would make x0 from: its steps the other way, from data up.

    No gradients are recorded, and nothing is clipped.
    net:       net(x, t) with t (B,) int64: the estimate of the noise in x
    schedule:  schedule.alpha_bar is the table, (T+1,) float64
    x0:        (B, ...) data, float32
    times:     rising ints from 1 to T. At t = 1, the first time, x is sqrt(alpha_bar_1) x0
    returns    (B, ...) x at the last of the times
    """
    ab = schedule.alpha_bar.tolist()
    x = ab[times[0]] ** 0.5 * x0
    with torch.no_grad():
        for t, s in pairwise(times):
            told = torch.full((len(x),), t, device=x.device)
            noise = net(x, told)
            guess = (x - (1 - ab[t]) ** 0.5 * noise) / ab[t] ** 0.5
            x = ab[s] ** 0.5 * guess + (1 - ab[s]) ** 0.5 * noise
    return x


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


@exercise(
    "9.7",
    slerp_cases,
    first="draw two arrows of one length from a point, and an arc between their ends. Which angle belongs to a share?",
)
def slerp(a, b, share):
    """Spherical interpolation: the point at a share of the way along the arc from a to b.

    a, b:      (B, ...) two batches of noise, float32. Every item has an angle of its own,
               between its a and its b, over all of its numbers
    share:     a float in [0, 1]: 0 gives a, 1 gives b
    returns    (B, ...) [sin((1 - share) angle) a + sin(share angle) b] / sin(angle)
    """
    flat_a = a.flatten(1)
    flat_b = b.flatten(1)
    lengths = flat_a.norm(dim=1) * flat_b.norm(dim=1)  # (B,)
    cosine = (flat_a * flat_b).sum(1) / lengths
    angle = torch.acos(cosine)
    on_a = torch.sin((1 - share) * angle)
    on_b = torch.sin(share * angle)
    below = torch.sin(angle)
    column = (-1,) + (1,) * (a.ndim - 1)  # (B, 1, ..., 1)
    on_a, on_b, below = (w.reshape(column) for w in (on_a, on_b, below))
    return (on_a * a + on_b * b) / below
