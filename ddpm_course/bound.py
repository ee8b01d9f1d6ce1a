"""The variational bound, in bits per dimension (lessons 05, 08 and 12).

Eq. 5 of Ho et al. (2020): L = L_T + sum of L_{t-1} + L_0 >= -log p(x_0). Every term is nats / (dimensions * ln 2). The
arithmetic is float64 wherever the device has that.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .arguments import as_labels, as_tensor, number, whole
from .diffusion import GaussianDiffusion, last_variance, q_posterior, q_sample
from .nets import call, device_of, evaluating
from .pixels import as_images, in_unit_range
from .schedules import Schedule, check_float


def gaussian_kl(
    mean1: Tensor | float, variance1: Tensor | float, mean2: Tensor | float, variance2: Tensor | float
) -> Tensor:
    """KL(N(mean1, variance1) || N(mean2, variance2)) in nats, elementwise; shapes that broadcast, or numbers.

    (log(v2 / v1) + v1 / v2 - 1 + (m1 - m2)^2 / v2) / 2, written so that nearly equal variances lose no digits.
    """
    mean1, variance1, mean2, variance2 = (
        x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)
        for x in (mean1, variance1, mean2, variance2)
    )
    excess = (variance1 - variance2) / variance2
    return 0.5 * (excess - excess.log1p() + (mean1 - mean2) ** 2 / variance2)


def discretised_log_likelihood(x0: Tensor, mean: Tensor, variance: Tensor | float) -> Tensor:
    """Log-probability, in nats, that N(mean, variance) gives to each value's bin, Ho et al. (2020), eq. 13.

    There are 256 bins, 2/255 wide and centred on the levels k / 127.5 - 1. The outermost two reach to infinity, so the
    256 probabilities sum to one. Each value counts as the level nearest to it.

    x0, mean: (B, ...) image values in [-1, 1], and where the Gaussian is centred
    variance: anything that broadcasts to them
    returns   (B, ...) in float64 (float32 where the device has no float64)
    """
    x0, mean = wide(x0), wide(mean)
    if isinstance(variance, Tensor):
        std = wide(variance).sqrt()
    else:
        std = math.sqrt(number("variance", variance, 0, above=True))
    level = ((x0 + 1) * 127.5).round().clamp(0, 255)
    above = ((2 * level + 1) / 255 - 1 - mean) / std  # the bin's edges, in standard deviations from the mean
    below = ((2 * level - 1) / 255 - 1 - mean) / std
    flip = above + below > 0  # the same bin mirrored: its two tails are then small numbers, with all their digits
    near, far = torch.where(flip, -below, above), torch.where(flip, -above, below)
    log_near, log_far = _log_ndtr(near), _log_ndtr(far)
    inside = log_near + (-torch.expm1(log_far - log_near)).log()
    ends = torch.where(level == 0, _log_ndtr(above), _log_ndtr(-below))
    return torch.where((level == 0) | (level == 255), ends, inside)


def _log_ndtr(x: Tensor) -> Tensor:
    """The log-probability that a standard normal number is below x; on the CPU where Apple's GPU has x."""
    if x.device.type == "mps":  # PyTorch has no kernel for it there
        return torch.special.log_ndtr(x.cpu()).to(x.device)
    return torch.special.log_ndtr(x)


def prior_bits(diffusion: GaussianDiffusion | Schedule, x0: Tensor) -> Tensor:
    """(B,) L_T in bits per dimension: what x_T still tells about x0 (B, ...), which sampling from N(0, I) ignores."""
    schedule = diffusion if isinstance(diffusion, Schedule) else diffusion.schedule
    check_float(x0)
    alpha_bar = schedule.alpha_bar[-1].item()
    return _bits(gaussian_kl(math.sqrt(alpha_bar) * wide(x0), 1 - alpha_bar, 0.0, 1.0))


def variational_term(
    net,
    diffusion: GaussianDiffusion,
    x0: Tensor,
    t: Tensor | int,
    y: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    clip: bool = True,
    continuous: bool = False,
    variances: Tensor | None = None,
) -> Tensor:
    """One term of the bound for each item, at one draw of x_t: L_{t-1}, the KL of the two Gaussians for x_{t-1}, for
    t > 1, and L_0, the cost of x_0 itself, for t = 1 (Ho et al., 2020, eq. 5). Gradients pass through.

    net, y:     any callable net(x, t, y) whose output means what diffusion.predicts says; (B,) labels, or None
    x0:         (B, ...) clean data, images in [-1, 1]
    t:          (B,) integers in 1…T, or one int for the whole batch
    noise:      drawn here unless given: the shape of x0
    clip:       clip the estimate of x_0 to [-1, 1], as the samplers do
    continuous: x0 are real numbers, not 256 levels: L_0 is then minus the log-*density* of x_0
    variances:  (T+1,) the variance of the step from each t to t - 1, for another one than diffusion.variance says
    returns     (B,) bits per dimension
    raises      ValueError if the shapes do not agree

    Unless it is learned or given, the variance of the last step, t = 1, is beta-tilde_2, as in the paper's code:
    beta-tilde_1 is 0.
    """
    check_float(x0)
    if noise is None:
        noise = torch.randn(x0.shape, device=x0.device, dtype=x0.dtype, generator=generator)
    xt = q_sample(diffusion.schedule, x0, t, noise)
    steps = torch.full(x0.shape[:1], t, device=x0.device) if isinstance(t, int) else t
    output = call(net, xt, steps, y).to(xt.dtype)
    return term_of_output(diffusion, output, x0, xt, t, clip=clip, continuous=continuous, variances=variances)


def term_of_output(
    diffusion: GaussianDiffusion,
    output: Tensor,
    x0: Tensor,
    xt: Tensor,
    t: Tensor | int,
    *,
    clip: bool = True,
    continuous: bool = False,
    variances: Tensor | None = None,
) -> Tensor:
    """The term that a network's output at xt makes: what `variational_term` returns, and the arguments that it has."""
    schedule = diffusion.schedule
    estimate, _ = diffusion.decode(output, xt, t)
    if clip:
        estimate = estimate.clamp(-1, 1)
    x0, xt, estimate = wide(x0), wide(xt), wide(estimate)

    q_mean, q_variance = q_posterior(schedule, x0, xt, t, t - 1)
    p_mean, _ = q_posterior(schedule, estimate, xt, t, t - 1)
    first = q_variance == 0  # at t = 1, where L_0 takes the term's place
    q_variance = torch.where(first, last_variance(schedule), q_variance)
    if variances is not None:
        if variances.shape != (schedule.T + 1,):
            raise ValueError(f"variances must have shape ({schedule.T + 1},), got {tuple(variances.shape)}")
        p_variance = variances.to(x0)[t].reshape(-1, *[1] * (x0.ndim - 1))
    elif diffusion.variance == "learned":
        p_variance = diffusion.log_variance(wide(output), xt, t, t - 1).exp()
    else:
        p_variance = q_variance if diffusion.variance == "small" else schedule.at("beta", t, x0)
        p_variance = torch.where(first, q_variance, p_variance)
    kl = _bits(gaussian_kl(q_mean, q_variance, p_mean, p_variance))
    if isinstance(t, int) and t > 1:
        return kl
    if continuous:
        likelihood = -0.5 * ((x0 - estimate) ** 2 / p_variance + (2 * math.pi * p_variance).log())
    else:
        likelihood = discretised_log_likelihood(x0, estimate, p_variance)
    return -_bits(likelihood) if isinstance(t, int) else torch.where(t == 1, -_bits(likelihood), kl)


@dataclass(frozen=True)
class Bound:
    """The variational bound over a set of images, in bits per dimension: an upper bound on -log2 p(x_0) / D.

    bits:      the whole bound, averaged over the images
    error:     its standard error: over images, noise and, where not every t was visited, the choice of t
    prior:     L_T
    terms:     (T+1,) float64: entry t is L_{t-1}, so entry 1 is L_0 and entry 0 is 0. Neighbouring t that were
               evaluated together share their average, so bits = prior + terms.sum() in any case
    per_image: (N,) float64: the bound of each image, from its own draws of noise and t
    """

    bits: float
    error: float
    prior: float
    terms: Tensor
    per_image: Tensor

    def __str__(self) -> str:
        return f"{self.bits:.3f} ± {self.error:.3f} bits per dimension"


@torch.no_grad()
def bits_per_dim(
    net,
    diffusion: GaussianDiffusion,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int | None = None,
    clip: bool = True,
    continuous: bool = False,
    variances: Tensor | None = None,
    batch_size: int = 250,
    generator: torch.Generator | None = None,
) -> Bound:
    """The variational bound of Ho et al. (2020), eq. 5, on a set of images.

    net:        any callable net(x, t, y) whose output means what diffusion.predicts says
    images:     (N, ...) uint8, or floats in [-1, 1] at 256 levels; real numbers with continuous=True
    labels:     (N,), or None
    steps:      network calls for each image, 2…T; all T unless given. With fewer, t = 1 is always visited, the other
                t are cut into steps - 1 strata, narrow where t is small and the terms are large, and each image
                draws one t from each: no bias, and what it adds to the variance is in `error`
    variances:  as in `variational_term`; the draws do not depend on them, so bits can be compared in pairs
    batch_size: images a network call: the memory it needs does not depend on N or T
    generator:  of the random numbers, on the device of the network's parameters, where all is computed
    raises      ValueError if there are no images, or images, labels or steps do not fit
    """
    T = diffusion.schedule.T
    steps = T if steps is None else whole("steps", steps, min(2, T), T, ", as many as the schedule has")
    batch_size = whole("batch_size", batch_size, 1)
    images = as_tensor("images", images) if continuous else as_images("images", images)
    if images.numel() == 0:
        raise ValueError("there are no images to measure")
    if labels is not None:
        labels = as_labels("labels", labels, len(images), getattr(net, "num_classes", None))
    strata, options = strata_of(T, steps), dict(clip=clip, continuous=continuous, variances=variances)

    device = device_of(net)
    sums, priors, totals = [0.0] * len(strata), [], []
    chunks = images.split(batch_size)
    with evaluating(net):
        for x0, y in zip(chunks, labels.split(batch_size) if labels is not None else [None] * len(chunks), strict=True):
            x0, y = in_unit_range(x0.to(device)), y if y is None else y.to(device)
            priors.append(prior_bits(diffusion, x0))
            total = priors[-1]
            for i, (first, end) in enumerate(strata):
                if end - first == 1:
                    t = first
                else:
                    t = torch.randint(first, end, (len(x0),), device=device, generator=generator)
                term = variational_term(net, diffusion, x0, t, y, generator=generator, **options)
                sums[i] = sums[i] + term.sum()  # stays on the device: reading it would make the host wait
                total = total + (end - first) * term
            totals.append(total)
    per_image = torch.cat(totals).cpu().double()
    means = torch.stack(sums).cpu().double() / len(images)
    widths = torch.tensor([end - first for first, end in strata])
    terms = torch.cat([means.new_zeros(1), means.repeat_interleave(widths)])
    bits = per_image.mean().item()
    error = per_image.std().item() / len(per_image) ** 0.5 if len(per_image) > 1 else math.nan
    return Bound(bits, error, torch.cat(priors).mean().item(), terms, per_image)


def strata_of(T: int, steps: int) -> list[tuple[int, int]]:
    """1…T in `steps` pieces, (first t, first t of the next piece): t = 1, then edges that grow as squares."""
    edges = [1, 2]
    for i in range(1, steps):
        edges.append(max(edges[-1] + 1, 2 + (T - 1) * i**2 // (steps - 1) ** 2))
    return list(zip(edges, edges[1:], strict=False))


def _bits(nats: Tensor) -> Tensor:
    """(B, ...) nats an element to (B,) bits per dimension."""
    return nats.flatten(1).mean(1) / math.log(2)


def wide(x: Tensor) -> Tensor:
    """In float64; as it is on Apple's GPU, which has none."""
    return x if x.device.type == "mps" else x.double()
