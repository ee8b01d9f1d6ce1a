"""L_simple, the loss that a network is trained with: eq. 14 of Ho et al. (2020), with any target (lesson 05)."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Lessons 05 and 08 call these by the name of this module.
from .bound import bits_per_dim, discretised_log_likelihood, gaussian_kl, prior_bits, variational_term  # noqa: F401
from .diffusion import GaussianDiffusion, q_sample
from .nets import call
from .schedules import check_float

DISTANCES = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}


def diffusion_loss(
    net,
    diffusion: GaussianDiffusion,
    x0: Tensor,
    y: Tensor | None = None,
    kind: str = "l2",
    *,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How far the network's output is from its target, at one random t for each image.

    net:      any callable net(x, t, y); one that conditions itself is given its own first estimate of x_0 for every
              second item of the batch, and none for the others
    x0:       (B, ...) clean data, images in [-1, 1]
    y:        (B,) labels, or None
    kind:     "l2", "l1" or "huber"; only l2 is least at the conditional mean E[target | x_t]
    t, noise: drawn here (t first) unless given: (B,) in 1…T and the shape of x0
    returns   (B,) the mean over everything but the batch, one number an image
    raises    ValueError for another kind, data that are no floats, or an output without the shape of x0
    """
    if kind not in DISTANCES:
        raise ValueError(f"kind must be one of {', '.join(DISTANCES)}; got {kind!r}")
    check_float(x0)
    if t is None:
        t = diffusion.schedule.sample_t(len(x0), device=x0.device, generator=generator)
    if noise is None:
        noise = torch.randn(x0.shape, device=x0.device, dtype=x0.dtype, generator=generator)
    xt = q_sample(diffusion.schedule, x0, t, noise)
    itself = getattr(net, "self_condition", False)
    output = call(net, xt, t, y, _first_estimates(net, diffusion, xt, t, y) if itself else None)
    if output.shape != x0.shape:
        raise ValueError(f"the network turned shape {tuple(x0.shape)} into {tuple(output.shape)}; it must keep it")
    target = diffusion.target(x0, noise, t)
    return DISTANCES[kind](output.to(target.dtype), target, reduction="none").flatten(1).mean(1)


@torch.no_grad()
def _first_estimates(net, diffusion: GaussianDiffusion, xt: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """(B, ...) what a sampler would have in hand: an estimate of x_0 without one before it, or zeros (items 0, 2, …).

    Chen et al. (2022) toss a coin a batch. Half of every batch costs the same, needs no random number, and is even.
    """
    estimates = torch.zeros_like(xt)
    some = slice(1, None, 2)
    if len(xt) > 1:
        output = call(net, xt[some], t[some], None if y is None else y[some])
        estimates[some] = diffusion.decode(output.to(xt.dtype), xt[some], t[some])[0]
    return estimates
