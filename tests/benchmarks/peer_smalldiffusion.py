"""smalldiffusion's U-Net for Fashion-MNIST with its own example, `examples/fashion_mnist_unet.py`.

From the example: width 64, multipliers 1-1-2, attention at 14x14, inputs scaled to one variance, 800 noise levels
spaced evenly in log sigma from 0.01 to 20, the squared error of the noise, AdamW with rate 7e-4, batches of 1,024,
made in slices here, random flips, an average of the weights with decay 0.999; sampling takes 20 steps of its accelerated DDIM (gam = 1.6).

smalldiffusion writes a noisy image as x_0 + sigma noise. Divided by sqrt(1 + sigma^2) that is our x_t, with
alpha_bar = 1 / (1 + sigma^2).
"""

import torch
from torch import Tensor, nn

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import Schedule
from ddpm_course.training import EMA

SIGMAS = torch.logspace(-2, torch.tensor(20.0).log10().item(), 800)  # ScheduleLogLinear(800, 0.01, 20)
BATCH = 1024
SLICE = 128  # the gradients of eight of these add up to the batch's; all at once it needs more than 20 GB


def schedule_of(sigmas: Tensor) -> Schedule:
    """The schedule whose alpha_bar is 1 / (1 + sigma^2), for rising sigmas (T,)."""
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + sigmas.double() ** 2)])  # (T+1,)
    return Schedule(1 - alpha_bar[1:] / alpha_bar[:-1])


DIFFUSION = GaussianDiffusion(schedule_of(SIGMAS), predicts="noise")


class FromSigma(nn.Module):
    """model(x_0 + sigma noise, sigma) as net(x_t, t, y=None) with t in 1…T of any schedule."""

    def __init__(self, model: nn.Module, schedule: Schedule):
        super().__init__()
        self.model = model
        self.register_buffer("signal", schedule.alpha_bar.sqrt().float())
        self.register_buffer("sigma", (1 / schedule.alpha_bar - 1).sqrt().float())

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        column = (-1,) + (1,) * (x.ndim - 1)
        return self.model(x / self.signal[t].reshape(column), self.sigma[t].reshape(column))


def build(schedule: Schedule, width: int = 64, size: int = 28) -> nn.Module:
    from smalldiffusion import Scaled, Unet

    return FromSigma(Scaled(Unet)(size, 1, 1, ch=width, ch_mult=(1, 1, 2), attn_resolutions=(size // 2,)), schedule)


def recipe(net: nn.Module, steps: int):
    """One step of `training_loop`, and what to call after the last one for the network to sample with."""
    from smalldiffusion import diffusion as theirs

    schedule = theirs.Schedule(SIGMAS)
    optimizer = torch.optim.AdamW(net.model.parameters(), lr=7e-4)
    average = EMA(net, 0.999)  # the rule of torch_ema, which the example uses: decay min(0.999, (1 + n) / (10 + n))

    def step(x0: Tensor) -> None:
        optimizer.zero_grad()
        for part in x0.split(SLICE):
            part, sigma, noise, _ = theirs.generate_train_sample(part, schedule)
            (net.model.get_loss(part, sigma, noise) * len(part) / len(x0)).backward()
        optimizer.step()
        average.update(net)

    return step, lambda: average.net


def sampler(net: nn.Module, shape: tuple[int, ...]):
    from smalldiffusion import Schedule, samples

    steps = samples(net.model, Schedule(SIGMAS).sample_sigmas(20), gam=1.6, batchsize=shape[0])
    return "accelerated DDIM, 20 steps", 20, steps
