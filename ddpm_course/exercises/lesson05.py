"""The exercises of lesson 05: from the bound to the loss, and the loop that trains.

What goes wrong in them is in lesson05.mistakes.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..diffusion import q_sample
from .cases import EIGHT, FIVE, IMAGES, OTHER_EIGHT, TWELVE, _step_case, normal, step_cases
from .cases05 import LONG, floats, loop_cases, pixel_cases, training_cases
from .records import Case
from .written import exercise


def kl_cases() -> list[Case]:
    shape, small = (3, 2, 4), (2,)
    m1, m2 = normal(shape, 1), normal(shape, 2)
    v1, v2 = normal(shape, 3).exp(), normal(shape, 4).exp()
    column = floats(0.3, 1.5, 2.5).reshape(3, 1, 1)
    zero_or_not, one_or_more, one_or_less = torch.cartesian_prod(floats(0, 1.5), floats(1, 4), floats(1, 0.25)).T
    tiny = 1e-7 * normal(small, 5).exp(), 1e-7 * normal(small, 6).exp()
    plan = [
        ("tensors of shape (3, 2, 4)", m1, v1, m2, v2),
        ("equal variances", m1, v1, m2, v1),
        ("equal means", m1, v1, m1, v2),
        ("twice the same Gaussian, of shape (3, 1, 4)", m1[:, :1], v1[:, :1], m1[:, :1], v1[:, :1]),
        ("shapes (4,), (3, 1, 1), (3, 2, 1) and (1, 2, 1)", m1[0, 0], column, m2[:, :, :1], v2[:1, :, :1]),
        ("tensors of shape (8,)", torch.zeros_like(zero_or_not), one_or_more, zero_or_not, one_or_less),
        ("variances near 1e-7", 3e-4 * normal(small, 7), tiny[0], 3e-4 * normal(small, 8), tiny[1]),
    ]
    cases = []
    for label, m1, v1, m2, v2 in plan:
        facts = {"where the means differ": m1 != m2, "where the variances differ": v1 != v2}
        facts |= {"where log_variance1 is not 0": v1 != 1, "where log_variance2 is not 0": v2 != 1}
        facts |= {"for shapes that broadcast": m1.shape != v1.shape, "for tiny variances": v1 is tiny[0]}
        cases.append(Case(label, (m1, v1.log(), m2, v2.log()), facts))
    return cases


@exercise(
    "5.1",
    kl_cases,
    first="two Gaussians that are equal. Which terms of the formula are not 0 then, and what takes their sum to 0?",
    any_float=True,
)
def gaussian_kl(mean1, log_variance1, mean2, log_variance2):
    """KL(N(mean1, v1) || N(mean2, v2)) in bits, for each element.

    mean1, mean2:  tensors
    log_variance1, log_variance2:  tensors, the natural logarithms of the variances v1 and v2
    returns        one divergence for each element, in the shape that the four broadcast to
    """
    logarithm = log_variance2 - log_variance1
    ratio = torch.exp(log_variance1 - log_variance2)
    distance = (mean1 - mean2) ** 2 * torch.exp(-log_variance2)
    nats = 0.5 * (logarithm + ratio + distance - 1)
    return nats / math.log(2)


def mean_and_variance(args: tuple, value: Any) -> Any:
    """Both by name, the variance in the shape and type of the mean: (B, 1, ..., 1), () or (B, ...) are all right."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return value
    mean, variance = value
    if not isinstance(variance, Tensor | float | int):
        return value
    if isinstance(mean, Tensor):
        variance = torch.as_tensor(variance, device=mean.device).to(mean.dtype)
        fits = variance.ndim <= mean.ndim and all(
            a in (1, b) for a, b in zip(variance.shape[::-1], mean.shape[::-1], strict=False)
        )
        variance = variance.expand_as(mean) if fits else variance
    return {"mean": mean, "variance": variance}


NEARLY_CLEAN = "where 1 - ᾱ_t is below 0.01"


def back_cases() -> list[Case]:
    """Cases (schedule, x_t, t, noise) for the way back."""
    long = _step_case(LONG, IMAGES, (10, 500, 1000), 50)  # before t = 10 float32 has too few digits of 1 - ᾱ_t
    early = torch.tensor([True, False, False], device="cpu").reshape(3, 1, 1, 1)
    return [*step_cases(first=1), replace(long, facts={**long.facts, NEARLY_CLEAN: early})]


def posterior_cases() -> list[Case]:
    """`back_cases`, with x_0 and x_t in the places of x and the noise."""
    cases = []
    for case in back_cases():
        schedule, x0, t, xt = case.args
        cases.append(replace(case, args=(schedule, x0, xt, t), result=mean_and_variance))
    return cases


@exercise(
    "5.2",
    posterior_cases,
    first="t = 1. What must the mean and the variance be there, and what does eq. 7 give for ᾱ_0 = 1?",
    linear=("x0", "xt"),
)
def posterior(schedule, x0, xt, t):
    """Mean and variance of q(x_{t-1} | x_t, x_0).

    schedule:  schedule.at(name, t, x0) is entry t of "beta", "alpha" or "alpha_bar", shaped to
               multiply x0, (B, 1, ..., 1), and on its device; schedule.q_coefficients(t, x0) is
               sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) in the same shape. Both know t = 0
    x0, xt:    (B, ...) clean data, and the same data at noise level t, in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    returns    mean (B, ...) in float32, on the device of x0; variance (B, 1, ..., 1), or
               any shape that broadcasts to the mean
    """
    beta = schedule.at("beta", t, x0)
    alpha = schedule.at("alpha", t, x0)
    # the square of sigma has digits that 1 - alpha_bar_t loses in float32
    _, sigma = schedule.q_coefficients(t, x0)
    signal_before, sigma_before = schedule.q_coefficients(t - 1, x0)
    on_x0 = signal_before * beta / sigma**2
    on_xt = alpha.sqrt() * sigma_before**2 / sigma**2
    variance = beta * sigma_before**2 / sigma**2
    return on_x0 * x0 + on_xt * xt, variance


def noise_cases() -> list[Case]:
    """`back_cases` without clipping, and some of them with it; there the noise is larger, so that it shows."""
    cases = back_cases()
    for case in (*cases[:5], *cases[10:14]):
        schedule, xt, t, noise = case.args
        args = (schedule, xt, t, 2 * noise, True)
        cases.append(replace(case, label=f"{case.label}, clip=True", args=args, facts={**case.facts, CLIPPED: True}))
    return cases


CLIPPED = "for clip=True"


@exercise(
    "5.3",
    noise_cases,
    first="eq. 11 has no x_0 in it that could be clipped. Which formula for the same mean has?",
    linear=("xt", "noise"),
)
def mean_from_noise(schedule, xt, t, noise, clip=False):
    """The mean of q(x_{t-1} | x_t, x_0), where x_0 is what xt and the noise in it say.

    schedule:  has at(name, t, xt) and q_coefficients(t, xt), as in posterior
    xt:        (B, ...) data at noise level t in float32
    t:         (B,) integers in 1...T, or one int for the whole batch
    noise:     the noise in xt, or a guess at it; same shape
    clip:      True: that x_0 is clipped to [-1, 1], the range of images, before it is used
    returns    (B, ...) in float32, on the device of xt
    """
    signal, sigma = schedule.q_coefficients(t, xt)
    if clip:
        x0 = (xt - sigma * noise) / signal
        mean, _ = posterior(schedule, x0.clamp(-1, 1), xt, t)
        return mean
    beta = schedule.at("beta", t, xt)
    alpha = schedule.at("alpha", t, xt)
    shrinking = alpha.sqrt()
    share = beta / sigma  # of the noise, which one step back takes away
    return (xt - share * noise) / shrinking


def weight_cases() -> list[Case]:
    plan = [(EIGHT, (4,)), (OTHER_EIGHT, (2, "small")), (EIGHT, ((2, 5, 8, 3), "small")), (EIGHT, ((7,),))]
    plan += [(EIGHT, (6, "large")), (EIGHT, (1, "large")), (OTHER_EIGHT, ((1, 8, 4), "large"))]
    plan += [(FIVE, (5, "small")), (FIVE, ((1, 2, 3, 4, 5), "large")), (LONG, ((5, 500, 1000), "small"))]
    cases = []
    for betas, (t, *variance) in plan:
        many = not isinstance(t, int)
        each = torch.tensor(t, device="cpu")
        large = variance == ["large"]
        facts = {
            'for variance="large"': large,
            "where no variance is named": not variance,
            "for an int t": not many,
            "for t of shape (B,)": many,
            "where t = 1": each == 1,
            "for a schedule with another T": betas in (FIVE, LONG),
            "for another schedule of the same T": betas is OTHER_EIGHT,
            NEARLY_CLEAN: (each < 10) & (betas is LONG),
        }
        label = f"t = {list(t) if many else t}, {variance[0] if variance else 'no variance named'}"
        cases.append(Case(label, (betas, each if many else t, *variance), facts, result=as_number))
    return cases


def as_number(args: tuple, value: Any) -> Any:
    """Floats and tensors alike: a weight is a number."""
    return torch.as_tensor(value, dtype=torch.float64) if isinstance(value, int | float) else value


@exercise(
    "5.4",
    weight_cases,
    first="the two variances that the paper allows. By what factor do they differ, and where in eq. 12 does it show?",
    any_float=True,
)
def loss_weight(schedule, t, variance="small"):
    """The weight on the squared error of the noise in L_{t-1}.

    schedule:  has the tables beta, alpha and alpha_bar, (T+1,) each, in float64
    t:         (B,) integers on the CPU, or one int: 1...T for "large", 2...T for "small"
    variance:  sigma_t²: "small" is the variance of the posterior, "large" is beta_t
    returns    (B,), or one number for an int
    """
    beta = schedule.beta[t]
    alpha = schedule.alpha[t]
    ab = schedule.alpha_bar[t]
    ab_before = schedule.alpha_bar[t - 1]
    sigma2 = beta
    if variance == "small":
        sigma2 = beta * (1 - ab_before) / (1 - ab)
    return beta**2 / (2 * sigma2 * alpha * (1 - ab))


def loss_cases() -> list[Case]:
    shapes = [IMAGES, (5, 1, 3, 3), (6, 2), (8,)]
    plan = [((2, 3, 5, 4),), ((1, 1),)]
    plan += [(shape, kind) for kind in ("l2", "l1", "huber") for shape in shapes]
    plan += [(IMAGES, "huber", 0.3), ((5, 1, 3, 3), "huber", 1.7), ((9, 2), "huber", 0.6), ((6, 2), "l2", 0.3)]
    cases = []
    for seed, (shape, *more) in enumerate(plan):
        kind, delta = (*more, None, None)[:2]
        facts = {f'for kind="{name}"': kind == name for name in ("l1", "huber")}
        facts |= {'for kind="l2"': kind in (None, "l2"), "where no kind is named": kind is None}
        facts |= {"for a single element": shape == (1, 1), "where delta is not 1": delta is not None}
        noise, predicted = normal(shape, 50 + 2 * seed), normal(shape, 51 + 2 * seed)
        said = f"kind {kind}" if kind else "no kind named"
        label = f"shape {shape}, {said}" + (f", delta = {delta}" if delta else "")
        cases.append(Case(label, (noise, predicted, *more), facts))
    return cases


@exercise(
    "5.5",
    loss_cases,
    first="the point where |d| = delta. Which value and which slope does d²/2 have there?",
    flows=("predicted",),
)
def simple_loss(noise, predicted, kind="l2", delta=1.0):
    """How far the predicted noise is from the true one: the mean over all elements.

    noise, predicted: (B, ...) tensors; d is their difference
    kind:     "l2":    d²
              "l1":    |d|
              "huber": d²/2 where |d| < delta; beyond it, the straight line in |d| that goes on
                       from there with the same value and the same slope
    delta:    a number above 0, of which only "huber" takes notice
    returns   one number, a tensor of shape () through which gradients reach predicted
    """
    d = predicted - noise
    l2 = d**2
    l1 = d.abs()
    line = delta * (d.abs() - 0.5 * delta)
    huber = torch.where(d.abs() < delta, 0.5 * d**2, line)
    distance = {"l2": l2, "l1": l1, "huber": huber}[kind]
    return distance.mean()


@exercise(
    "5.6",
    pixel_cases,
    first="a single bin, from its lower edge to its upper one. How far is each from the mean, in standard deviations?",
    tolerance=2e-5,
    any_float=True,
)
def discretised_log_likelihood(x0, mean, std):
    """The log-probability of each pixel's bin under a Gaussian.

    The bin of x is [x - 1/255, x + 1/255]. That of -1 is open below, that of 1 is open above.

    x0:       (B, ...) image values, levels k / 127.5 - 1 for k = 0...255
    mean:     (B, ...) where the Gaussian is centred
    std:      its standard deviation: a number, or a tensor that broadcasts to x0
    returns   (B, ...) in nats, finite everywhere: a probability below 1e-12 counts as 1e-12
    """
    x0, mean = x0.double(), mean.double()  # far out in the tails float32 has few digits left
    half = 1 / 255
    cdf = torch.special.ndtr
    above = cdf((x0 + half - mean) / std)
    below = cdf((x0 - half - mean) / std)
    above = torch.where(x0 > 0.999, 1.0, above)
    below = torch.where(x0 < -0.999, 0.0, below)
    p = above - below
    p = p.clamp(min=1e-12)
    return p.log()


@exercise(
    "5.7",
    training_cases,
    first="copy the body of broken_step. For each line, say what Algorithm 1 has in its place.",
)
def training_step(net, schedule, optimizer, x0, t, noise):
    """One step of Algorithm 1, as broken_step would be without its four faults.

    net:       a torch.nn.Module, called as net(xt, t); it is in training mode, and stays in it
    schedule:  for q_sample
    optimizer: of the network's weights
    x0:        (B, ...) clean data
    t:         (B,) integers in 1...T
    noise:     same shape as x0
    returns    the loss before the step, as a float or a tensor
    """
    xt = q_sample(schedule, x0, t, noise)
    predicted = net(xt, t)
    loss = simple_loss(noise, predicted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@exercise(
    "5.8",
    loop_cases,
    first="what training_step takes. Which of its arguments are new for every batch, and where does each come from?",
)
def training_loop(net, schedule, optimizer, batches, generator, even=False):
    """Algorithm 1: one training step for each batch.

    net, schedule, optimizer: as in training_step
    batches:   any iterable of clean data, (B, ...) each; the last one may be smaller
    generator: for every batch, draw t with it first, then the noise, both on the batch's device
    even:      False: each t is drawn by itself. True: one number, torch.rand(1), is drawn for a
               batch. There image 0 stands on the ring, and image i stands i / B farther on
    returns    list of what training_step returns, one entry per batch
    """
    losses = []
    for x0 in batches:
        n = len(x0)
        if even:
            start = torch.rand(1, device=x0.device, generator=generator)
            farther = torch.arange(n, device=x0.device) / n
            place = (start + farther) % 1  # a full turn leads back
            t = (schedule.T * place).long() + 1
        else:
            t = schedule.sample_t(n, device=x0.device, generator=generator)
        noise = torch.randn(x0.shape, device=x0.device, generator=generator)
        loss = training_step(net, schedule, optimizer, x0, t, noise)
        losses.append(loss)
    return losses


def design_cases() -> list[Case]:
    plan = [(EIGHT, "equal"), (EIGHT, "uneven"), (OTHER_EIGHT, "uneven"), (FIVE, "uneven"), (OTHER_EIGHT, "equal")]
    plan += [(TWELVE, "equal"), (TWELVE, "large"), (LONG, "equal")]
    cases = []
    for seed, (betas, kind) in enumerate(plan):
        T = len(betas.values)
        weights = torch.ones(T, dtype=torch.float64, device="cpu")
        if kind != "equal":
            weights = (1000 if kind == "large" else 1) * normal((T,), 120 + seed).double().exp()
        facts = {
            "for equal weights": kind == "equal",
            "for weights that differ": kind != "equal",
            "for a schedule with another T": T not in (8, 1000),
            "for another schedule of the same T": betas is OTHER_EIGHT,
            "where t = 1": torch.arange(T, device="cpu") == 0,
            "where t is more than 1": torch.arange(T, device="cpu") > 0,
        }
        cases.append(Case(f"T = {T}, {kind} weights", (betas, weights), facts))
    return cases


@exercise(
    "5.9",
    design_cases,
    first="eq. 12 read backwards. The weight is what you want, σ_t² what you look for. What do the ratios leave open?",
    any_float=True,
)
def design_variance(schedule, weights):
    """The variances sigma_t² with which the bound weighs errors of the noise like `weights`.

    schedule:  has the tables beta, alpha and alpha_bar, (T+1,) each, in float64
    weights:   (T,) numbers above 0 in float64, for t = 1...T; only their ratios count
    returns    (T,) variances for t = 1...T; of all that do it, the smallest that are nowhere
               below beta_t
    """
    beta = schedule.beta[1:]
    alpha = schedule.alpha[1:]
    ab = schedule.alpha_bar[1:]
    sigma2 = beta**2 / (weights * alpha * (1 - ab))
    factor = (beta / sigma2).max()  # common to all t, so that the ratios of the weights stay
    return factor * sigma2
