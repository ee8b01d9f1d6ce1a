"""L_simple, the loss that a network is trained with: eq. 14 of Ho et al. (2020), with any target (lesson 05).

Where the variance is learned, a little of the bound is added: eq. 16 of Nichol and Dhariwal (2021) (lesson 12).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Lessons 05 and 08 call these, but for term_of_output, by the name of this module.
from .bound import bits_per_dim, discretised_log_likelihood, gaussian_kl, prior_bits, term_of_output, variational_term  # noqa: F401
from .diffusion import GaussianDiffusion, q_sample
from .nets import call, halves
from .schedules import check_float

BOUND_SHARE = 0.001  # lambda of L_simple + lambda L_vlb, where L_vlb is the sum over all t, in bits per dimension
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
    weighting: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How far the network's output is from its target, at one random t for each image.

    net:       any callable net(x, t, y); one that conditions itself is given its own first estimate of x_0 for every
               second item of the batch, and none for the others
    x0:        (B, ...) clean data, images in [-1, 1]
    y:         (B,) labels, or None
    kind:      "l2", "l1" or "huber"; only l2 is least at the conditional mean E[target | x_t]
    t, noise:  drawn here (t first) unless given: (B,) in 1…T and the shape of x0
    weighting: (T+1,) what the loss at each t is multiplied with, see weighting.py
    returns    (B,) the mean over everything but the batch, one number an image; with `bound_share`
               added where diffusion.variance is "learned"
    raises     ValueError for another kind, data that are no floats, or an output without the shape of x0
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
    learned, target = diffusion.variance == "learned", diffusion.target(x0, noise, t)
    _reject_other_shape(output, x0, learned)
    output = output.to(target.dtype)
    estimate, _ = halves(output, x0)
    losses = DISTANCES[kind](estimate, target, reduction="none").flatten(1).mean(1)
    if weighting is not None:
        losses = weighting.to(losses)[t] * losses
    return losses + bound_share(diffusion, output, x0, xt, t) if learned else losses


def bound_share(diffusion: GaussianDiffusion, output: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
    """(B,) lambda T L_t, of which the variance alone learns: the gradient through the estimate of x_0 is stopped.

    L_vlb is a sum over T terms, so one drawn term stands for T of them: 0.001 L_vlb becomes 0.001 T L_t, in bits per
    dimension. The code of Nichol and Dhariwal (2021) says the same as T / 1000 times a term, as it, too, counts in bits
    and does not mention lambda. The estimate is clipped, as in a sampler, which is where the variance is used.
    """
    estimate, half = output.chunk(2, 1)
    stopped = torch.cat([estimate.detach(), half], 1)
    term = term_of_output(diffusion, stopped, x0, xt, t)
    return (BOUND_SHARE * diffusion.schedule.T * term).to(output.dtype)


def _reject_other_shape(output: Tensor, x0: Tensor, learned: bool) -> None:
    wanted = (len(x0), (1 + learned) * x0.shape[1], *x0.shape[2:])
    if output.shape != wanted:
        rule = "it must keep it" + " and double its channels, as UNet(learn_variance=True) does" * learned
        raise ValueError(f"the network turned shape {tuple(x0.shape)} into {tuple(output.shape)}; {rule}")


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
