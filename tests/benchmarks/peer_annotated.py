"""The Annotated Diffusion Model (Rogge and Rasul, 2022) on the U-Net that it annotates, `denoising-diffusion-pytorch`.

From the article: the U-Net with dim 28 and multipliers 1-2-4, T = 300 with beta from 1e-4 to 0.02 (not rescaled), the
Huber loss on the noise, Adam with rate 1e-3, batches of 128, random flips, no average of the weights; sampling takes
all 300 steps and clips nothing. https://huggingface.co/blog/annotated-diffusion
"""

import torch
from torch import Tensor, nn

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.losses import diffusion_loss
from ddpm_course.samplers import ancestral_steps
from ddpm_course.schedules import Schedule, linear_schedule

DIFFUSION = GaussianDiffusion(linear_schedule(300, rescale=False), predicts="noise", variance="small")
BATCH = 128


class FromZero(nn.Module):
    """A network that counts time from 0, unet(x, t), as net(x, t, y=None) with t in 1…T; diffusers' wraps its output."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        output = self.unet(x, t - 1)
        return getattr(output, "sample", output)


def build(schedule: Schedule, width: int = 28) -> nn.Module:
    from denoising_diffusion_pytorch import Unet

    return FromZero(Unet(dim=width, dim_mults=(1, 2, 4), channels=1))


def recipe(net: nn.Module, steps: int):
    """One step of the article's training, and what to call after the last one for the network to sample with."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step(x0: Tensor) -> None:
        loss = diffusion_loss(net, DIFFUSION, x0, kind="huber").mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step, lambda: net


def sampler(net: nn.Module, shape: tuple[int, ...]):
    """The article's p_sample_loop: the posterior's mean and variance at every t, with no estimate of x_0 clipped."""
    return "ancestral, 300 steps", 300, ancestral_steps(net, DIFFUSION, shape, clip=False)
