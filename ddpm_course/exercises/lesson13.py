"""The exercises of lesson 13: ten functions of a small diffusion model, one for each patient of the clinic.

Together they are the patients' code: `ddpm_course.clinic` trains and samples with them, as they stand here or with a
change that the catalogue knows. Five are solutions of earlier lessons under another name. `train_once`,
`ancestral_move` and `draw` are shorter than those of lessons 05 and 06, which choose among losses and variances, and
they call the patients' own functions, so that a fault in one of these shows. What goes wrong is in lesson13.mistakes.
"""

from itertools import pairwise

import torch

from . import cases13
from .cases05 import training_cases
from .lesson02 import q_sample
from .lesson04 import far_off, published, sinusoidal_embedding  # noqa: F401, two of them used by mistakes of lesson 04
from .lesson05 import simple_loss  # noqa: F401, used by mistakes of lesson 05
from .lesson06 import repair_cases
from .lesson07 import ema_decay
from .lesson09 import ddim_step
from .lesson10 import guided_noise
from .written import again, exercise

PATIENT = dict(
    first="diagnose the patient. With the right diagnosis the clinic shows you the function that is to be repaired.",
    secret=True,
)


@exercise(
    "13.1",
    cases13.byte_cases,
    **PATIENT,
    tolerance=1e-5,
)
def prepare_pixels(pixels):
    """The pictures as the network is trained on them.

    pixels:  (...) uint8 values 0...255
    returns  (...) float32: 0 becomes -1, 255 becomes 1, and what lies between is spread evenly
    """
    x = pixels.float()
    share = x / 255
    return 2 * share - 1


steer = again(guided_noise, "13.2", "steer", **PATIENT)


@exercise(
    "13.3",
    training_cases,
    **PATIENT,
)
def train_once(net, schedule, optimizer, x0, t, noise):
    """One step of Algorithm 1: the network learns to estimate the noise in x_t.

    net:       a torch.nn.Module, called as net(xt, t); it is in training mode, and stays in it
    schedule:  for add_noise
    optimizer: of the network's weights
    x0:        (B, ...) clean data
    t:         (B,) integers in 1...T
    noise:     same shape as x0
    returns    the loss before the step, as a float or a tensor
    """
    xt = add_noise(schedule, x0, t, noise)
    predicted = net(xt, t)
    loss = (predicted - noise).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@exercise(
    "13.4",
    cases13.move_cases,
    **PATIENT,
    linear=("x0", "xt", "z"),
)
def ancestral_move(schedule, x0, xt, t, s, z):
    """x_s, drawn from q(x_s | x_t, x_0) for any 0 <= s < t (Ho et al., eqs. 6 and 7).

    schedule:  schedule.alpha_bar is the table, (T+1,) in float64
    x0:        (B, ...) the estimate of x_0, float32
    xt:        (B, ...) data at noise level t
    t, s:      one int each for the whole batch, or (B,) integers each
    z:         same shape, standard normal
    returns    (B, ...) mean + sqrt(variance) * z in float32, with the variance beta-tilde
    """
    ab_t = schedule.alpha_bar[t]
    ab_s = schedule.alpha_bar[s]
    alpha = ab_t / ab_s
    beta = 1 - alpha
    on_x0 = ab_s.sqrt() * beta / (1 - ab_t)
    on_xt = alpha.sqrt() * (1 - ab_s) / (1 - ab_t)
    variance = beta * (1 - ab_s) / (1 - ab_t)
    std = variance.sqrt()
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    weights = (on_x0, on_xt, std)
    on_x0, on_xt, std = (w.to(xt.dtype).to(xt.device).reshape(column) for w in weights)
    mean = on_x0 * x0 + on_xt * xt
    return mean + std * z


time_code = again(sinusoidal_embedding, "13.5", "time_code", **PATIENT)


@exercise(
    "13.6",
    cases13.chain_cases,
    **PATIENT,
    tolerance=1e-6,
)
def chain_betas(T, first=1e-4, last=0.02):
    """The variances that the T steps of a chain add: linear, for a chain of any length.

    T:            number of steps, 2 or more
    first, last:  beta at t = 1 and at t = T of a chain of 1,000 steps. A chain of T steps
                  destroys about as much: each of its betas is 1000 / T times as large
    returns       (T,) float64; where a beta would be above 0.999, it is 0.999
    """
    betas = torch.linspace(first, last, T, dtype=torch.float64)
    for_length = betas * (1000 / T)
    return for_length.clamp(max=0.999)


average_keeps = again(ema_decay, "13.7", "average_keeps", **PATIENT)


ddim_move = again(ddim_step, "13.8", "ddim_move", **PATIENT)


@exercise(
    "13.9",
    repair_cases,
    **PATIENT,
)
def draw(net, schedule, shape, times, generator):
    """Algorithm 2 of Ho et al. (2020) along any times, with the steps of ancestral_move.

    The estimate of x_0 is clipped to [-1, 1] in every step, and x itself never.
    net:        net(x, t) with t (B,) int64: the estimate of the noise in x
    shape:      (B, ...) of the samples
    times:      falling ints, T as a rule first, 0 last: each step goes from one to the next
    generator:  for everything random: x_T first, then one z per step, and nothing in the last
    returns     (B, ...) x_0, made without recording gradients
    """
    x = torch.randn(shape, generator=generator, device=generator.device)
    with torch.no_grad():
        for t, s in pairwise(times):
            told = torch.full((len(x),), t, device=x.device)
            noise = net(x, told)
            signal, sigma = schedule.q_coefficients(t, x)
            x0 = (x - sigma * noise) / signal
            x0 = x0.clamp(-1, 1)
            z = torch.zeros_like(x)
            if s > 0:
                z = torch.randn(x.shape, generator=generator, device=x.device)
            x = ancestral_move(schedule, x0, x, t, s, z)
    return x


add_noise = again(q_sample, "13.10", "add_noise", **PATIENT)
