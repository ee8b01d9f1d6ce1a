"""The exercises of lesson 09: DDIM's step, the times to visit, two solvers of second order, the way back to noise.

What goes wrong in them is in lesson09.mistakes. `samplers.ddim_steps` and solvers.py do the same in one loop.
"""

from itertools import pairwise

import torch

from .cases09 import (
    LENGTHS,
    TIMES,
    ddim_cases,
    encode_cases,
    heun_cases,
    multistep_cases,
    slerp_cases,
    spacing_cases,
)
from .records import Case
from .written import exercise

# ---- 9.1


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


@exercise(
    "9.3",
    lambda: [Case(f"T = {T}", (T,)) for T in LENGTHS],
    first="return some six numbers that fall from T to 0, and read what the check says of them.",
    aim=TIMES,
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
