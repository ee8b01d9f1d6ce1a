"""The exercises of lesson 13: ten functions of a small diffusion model, one for each patient of the clinic.

Together they are the patients' code: `ddpm_course.clinic` trains and samples with them, as they stand here or with a
change that the catalogue knows. What goes wrong in them is in lesson13.mistakes.
"""

from itertools import pairwise

import torch

from ..diffusion import q_sample  # noqa: F401, used by mistakes of lesson 05
from . import cases13
from .cases import step_cases
from .cases04 import embedding_cases
from .cases05 import training_cases
from .cases07 import decay_cases
from .cases09 import ddim_cases
from .cases10 import guided_cases
from .lesson04 import far_off, published  # noqa: F401, used by mistakes of lesson 04
from .lesson05 import simple_loss  # noqa: F401, used by mistakes of lesson 05
from .lesson06 import repair_cases
from .written import exercise

DIAGNOSE = "diagnose the patient. With the right diagnosis the clinic shows you the function that is to be repaired."


@exercise(
    "13.1",
    cases13.byte_cases,
    first=DIAGNOSE,
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


@exercise(
    "13.2",
    guided_cases,
    first=DIAGNOSE,
)
def steer(net, xt, t, y, scale):
    """Classifier-free guidance: the estimate without labels, moved towards the one with them.

    net:      net(x, t, y) with (B,) labels y; label net.num_classes is the null class
    xt:       (B, ...) data at noise level t, float32
    t, y:     (B,) integers
    scale:    a number, or (B,) one for each image: 0 ignores y, 1 is plain conditional sampling
    returns   (B, ...) the guided estimate, in the dtype of xt
    """
    column = (-1,) + (1,) * (xt.ndim - 1)  # (B, 1, ..., 1)
    null = torch.full_like(y, net.num_classes)
    labels = torch.cat([y, null])
    both = net(torch.cat([xt, xt]), torch.cat([t, t]), labels)  # (2B, ...): one call
    with_label, without = both.chunk(2)
    scale = torch.as_tensor(scale, dtype=xt.dtype, device=xt.device)
    scale = scale.reshape(column)
    return without + scale * (with_label - without)


@exercise(
    "13.3",
    training_cases,
    first=DIAGNOSE,
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
    first=DIAGNOSE,
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


@exercise(
    "13.5",
    embedding_cases,
    first=DIAGNOSE,
    tolerance=1e-3,
    free=("t",),
)
def time_code(t, dim):
    """The code of t that this patient's network was trained with.

    t:       (B,) integers
    dim:     number of features, even
    returns  (B, dim) in float32: cosines, then sines, of t at dim / 2 frequencies; frequency i,
             from 0 on, is 10000 ** (-i / (dim / 2))
    """
    i = torch.arange(dim // 2, device=t.device)
    frequencies = 10_000.0 ** (-i / (dim // 2))
    angles = t[:, None].float() * frequencies  # (B, dim / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, sin], dim=1)


@exercise(
    "13.6",
    cases13.chain_cases,
    first=DIAGNOSE,
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


@exercise(
    "13.7",
    decay_cases,
    first=DIAGNOSE,
    tolerance=1e-6,
    any_float=True,
    free=("n",),
)
def average_keeps(n, half_life=6931):
    """The share of the old average of the weights that the n-th update keeps.

    n:          an int: 1 for the first update, which is the first after the random weights
    half_life:  a number of updates above 0. Late in a run, what the average holds now counts
                exactly half as much after so many of them
    returns     a number in (0, 1): the decay with that half-life, or the warm-up's
                (1 + n) / (10 + n) as long as that is smaller
    """
    longest = 0.5 ** (1 / half_life)
    warm_up = (1 + n) / (10 + n)
    return min(longest, warm_up)


@exercise(
    "13.8",
    ddim_cases,
    first=DIAGNOSE,
    linear=("x0", "xt", "z"),
)
def ddim_move(schedule, x0, xt, t, s, z, eta=0.0):
    """x_s of DDIM (Song et al., 2021, eqs. 12 and 16) for any 0 <= s < t.

    schedule:  schedule.alpha_bar is the table, (T+1,) in float64
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


@exercise(
    "13.9",
    repair_cases,
    first=DIAGNOSE,
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


@exercise(
    "13.10",
    lambda: step_cases(first=0),
    first=DIAGNOSE,
    linear=("x0", "noise"),
    sampled=True,
)
def add_noise(schedule, x0, t, noise):
    """Draw x_t from q(x_t | x_0).

    schedule:  has the table schedule.alpha_bar, (T+1,) in float64
    x0:        (B, ...) clean data in float32
    t:         (B,) integers in 0...T, or one int for the whole batch
    noise:     same shape as x0, standard normal
    returns    (B, ...) in float32, on the device of x0
    """
    column = (-1,) + (1,) * (x0.ndim - 1)  # (B, 1, ..., 1)
    ab = schedule.alpha_bar  # (T+1,) in float64
    signal = ab.sqrt()
    sigma = (1 - ab).sqrt()
    signal, sigma = (w.to(x0.dtype).to(x0.device)[t].reshape(column) for w in (signal, sigma))
    return signal * x0 + sigma * noise
