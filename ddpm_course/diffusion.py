"""The forward process, its closed form and its posterior (lessons 01, 02, 05 and 12).

The letters are the paper's: q is what the forward process determines, t runs over 1…T, x_0 is data.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .nets import halves
from .schedules import Schedule, check_t

PREDICTS = ("noise", "x0", "v")
VARIANCES = ("small", "large", "learned")


def q_step(schedule: Schedule, x: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
    """Draw x_t from q(x_t | x_{t-1}), Ho et al. (2020), eq. 2: one step of the chain.

    x:       (B, ...) the data at noise level t - 1
    t:       (B,) integers in 1…T, or one int for the whole batch
    noise:   same shape as x, standard normal
    returns  (B, ...) the data at noise level t
    raises   ValueError if the shapes do not agree
    """
    _same_shape("noise", noise, "x", x)
    return schedule.at("sqrt_alpha", t, x) * x + schedule.at("sqrt_beta", t, x) * noise


def q_sample(schedule: Schedule, x0: Tensor, t: Tensor | int, noise: Tensor) -> Tensor:
    """Draw x_t from q(x_t | x_0), Ho et al. (2020), eq. 4: t steps of the chain at once.

    x0:      (B, ...) clean data, images in [-1, 1]
    t:       (B,) integers in 0…T, or one int for the whole batch
    noise:   same shape as x0, standard normal
    returns  (B, ...) data at noise level t; x0 itself where t == 0
    raises   ValueError if the shapes do not agree
    """
    _same_shape("noise", noise, "x0", x0)
    signal, sigma = schedule.q_coefficients(t, x0)  # (B, 1, ..., 1) each: sqrt(alpha_bar), sqrt(1 - alpha_bar)
    return signal * x0 + sigma * noise


def q_posterior(schedule: Schedule, x0: Tensor, xt: Tensor, t: Tensor | int, s: Tensor | int) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_s | x_t, x_0) for any 0 <= s < t, Ho et al. (2020), eqs. 6 and 7.

    The paper has s = t - 1. For a longer stride the same formula holds with alpha_bar_t / alpha_bar_s in
    the place of alpha_t, because t - s small steps of the chain are one larger step.

    x0, xt:  (B, ...) clean data and the same data at noise level t
    t, s:    (B,) integers each, or one int for the whole batch
    returns  mean (B, ...) and variance (B, 1, ..., 1) (the paper's beta-tilde; 0 where s == 0)
    raises   ValueError if the shapes do not agree, or ints do not satisfy 0 <= s < t <= T
    """
    _same_shape("xt", xt, "x0", x0)
    if isinstance(t, int) and isinstance(s, int) and not 0 <= s < t <= schedule.T:
        raise ValueError(f"a reverse step goes from t to an earlier s, 0 <= s < t <= {schedule.T}; got t={t}, s={s}")
    alpha_bar_t, alpha_bar_s = _alpha_bar(schedule, t, x0, "t"), _alpha_bar(schedule, s, x0, "s")
    coefficients = posterior_coefficients(alpha_bar_t, alpha_bar_s)
    on_x0, on_xt, variance = (_multiplier(c, x0) for c in coefficients)
    return on_x0 * x0 + on_xt * xt, variance


def posterior_coefficients(alpha_bar_t: Tensor, alpha_bar_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of x_0 and x_t in the mean of q(x_s | x_t, x_0), and its variance (eq. 7), elementwise.

    Pass float64: 1 - alpha_bar_t / alpha_bar_s is a small difference of numbers close to each other.
    """
    alpha = alpha_bar_t / alpha_bar_s
    beta = 1 - alpha
    on_x0 = alpha_bar_s.sqrt() * beta / (1 - alpha_bar_t)
    on_xt = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    variance = beta * (1 - alpha_bar_s) / (1 - alpha_bar_t)
    return on_x0, on_xt, variance


def last_variance(schedule: Schedule) -> float:
    """beta-tilde_2, which stands for the variance of the last step, as that is 0; beta_1 if there is no second step."""
    if schedule.T == 1:
        return schedule.beta[1].item()
    return posterior_coefficients(schedule.alpha_bar[2], schedule.alpha_bar[1])[2].item()


@dataclass(frozen=True)
class GaussianDiffusion:
    """What a loss and a sampler must agree on, and what a checkpoint stores.

    schedule:  the forward process
    predicts:  what the network's output means: "noise" (Ho et al., eq. 14), "x0", or "v" (Salimans and Ho, 2022)
    variance:  the variance of an ancestral step: "small" is beta-tilde, "large" is beta (Ho et al., section 3.2), and
               "learned" lies where a second half of the network's output says (Nichol and Dhariwal, 2021, eq. 15)
    raises     ValueError for any other name, and for "noise" if the schedule leaves nothing of x_0 at T
    """

    schedule: Schedule
    predicts: str = "noise"
    variance: str = "small"

    def __post_init__(self):
        if self.predicts not in PREDICTS:
            raise ValueError(f"predicts must be one of {', '.join(PREDICTS)}; got {self.predicts!r}")
        if self.variance not in VARIANCES:
            raise ValueError(f"variance must be one of {', '.join(VARIANCES)}; got {self.variance!r}")
        if self.predicts == "noise" and bool(self.schedule.alpha_bar[-1] == 0):
            raise ValueError(
                "where alpha_bar is 0, at T, x_t is the noise, and tells nothing of x_0: the estimate "
                "(x_t - noise) / sqrt(alpha_bar) is 0/0. Predict v or x0 with such a schedule"
            )

    def target(self, x0: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """(B, ...) what the network should output for x_t = q_sample(schedule, x0, t, noise)."""
        if self.predicts == "noise":
            return noise
        if self.predicts == "x0":
            return x0
        signal, sigma = self.schedule.q_coefficients(t, x0)
        return signal * noise - sigma * x0

    def decode(self, output: Tensor, xt: Tensor, t: Tensor | int) -> tuple[Tensor, Tensor]:
        """Read the network's output: the estimates of x_0 and of the noise in x_t, (B, ...) each.

        The only place where the course interprets an output. Both estimates satisfy
        xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise. With twice xt's channels, the first half is what is read.

        raises ValueError for an output of any other shape
        """
        output, _ = halves(output, xt)
        signal, sigma = self.schedule.q_coefficients(t, xt)
        if self.predicts == "noise":
            return (xt - sigma * output) / signal, output
        if self.predicts == "x0":
            return output, (xt - signal * output) / sigma
        return signal * xt - sigma * output, sigma * xt + signal * output

    def log_variance(self, output: Tensor, xt: Tensor, t: Tensor | int, s: Tensor | int) -> Tensor:
        """(B, C, ...) log of the variance that the second half of an output gives the step from t to s, 0 <= s < t.

        Nichol and Dhariwal (2021), eq. 15: f log beta + (1 - f) log beta-tilde, with the two of this step, however long
        it is. As in their code the output is 2 f - 1, so -1 means beta-tilde and 1 means beta, and nothing keeps it
        between them. For s = 0, where beta-tilde is 0, `last_variance` takes its place.

        output:  (B, 2C, ...) of a network with learn_variance
        raises   ValueError if it has another shape
        """
        _, half = halves(output, xt)
        if half is None:
            raise ValueError(
                f"a learned variance needs an output of twice the channels of {tuple(xt.shape)}: "
                "a UNet(learn_variance=True)"
            )
        alpha_bar_t, alpha_bar_s = _alpha_bar(self.schedule, t, xt, "t"), _alpha_bar(self.schedule, s, xt, "s")
        small, large = posterior_coefficients(alpha_bar_t, alpha_bar_s)[2], 1 - alpha_bar_t / alpha_bar_s
        small = torch.where(small > 0, small, last_variance(self.schedule))
        low, high = _multiplier(small.log(), xt), _multiplier(large.log(), xt)
        fraction = (half + 1) / 2
        return fraction * high + (1 - fraction) * low


def _alpha_bar(schedule: Schedule, t: Tensor | int, like: Tensor, name: str) -> Tensor:
    """alpha_bar_t in float64: one number on the CPU for an int, else (B, 1, ..., 1), beside t where the device can."""
    check_t(t, like, schedule.T, name)
    if isinstance(t, int):
        return schedule.alpha_bar[t]
    if t.device.type == "mps":  # no float64 there, so t comes to the host, which waits for it; an int costs no wait
        t = t.cpu()
    return schedule.table("alpha_bar", torch.float64, t.device)[t].reshape((-1,) + (1,) * (like.ndim - 1))


def _multiplier(c: Tensor, like: Tensor) -> Tensor:
    """A float64 coefficient to multiply `like` with, on its device: (B, 1, ..., 1), or (1, ..., 1) for one number."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    if c.ndim == 0:  # filled in where it is needed: a copy would make the host wait
        return torch.full((1,) * like.ndim, c.item(), dtype=dtype, device=like.device)
    return c.to(dtype).to(like.device)


def _same_shape(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if value.shape != other.shape:
        raise ValueError(f"{name} must have the shape of {other_name}, {tuple(other.shape)}; got {tuple(value.shape)}")
