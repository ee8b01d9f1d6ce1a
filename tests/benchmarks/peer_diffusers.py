"""diffusers' UNet2DModel with the settings of its example `unconditional_image_generation/train_unconditional.py`.

From the example and the commands in its README: DDPMScheduler with 1,000 steps (linear), noise prediction, AdamW with
rate 1e-4, betas 0.95 and 0.999 and weight decay 1e-6, 500 steps of warm-up and a cosine over the run, gradients
clipped at 1, batches of 16, random flips, EMAModel with warm-up (inverse gamma 1, power 3/4, at most 0.9999); sampling
takes all 1,000 steps. The widths are ours to choose, because the example's (128 to 512) are made for larger images.
"""

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from peer_annotated import FromZero
from torch import Tensor, nn

from ddpm_course.diffusion import GaussianDiffusion
from ddpm_course.schedules import Schedule, linear_schedule

DIFFUSION = GaussianDiffusion(linear_schedule(1000), predicts="noise", variance="small")
BATCH = 16


def build(schedule: Schedule, width: int = 32) -> nn.Module:
    unet = UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(width, 2 * width, 4 * width),
        norm_num_groups=min(32, width),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    )
    return FromZero(unet)


def recipe(net: nn.Module, steps: int):
    """One step of the example's training, and what to call after the last one for the network to sample with."""
    unet, scheduler = net.unet, DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    plan = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=steps)
    average = EMAModel(unet.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)

    def step(x0: Tensor) -> None:
        noise = torch.randn_like(x0)
        t = torch.randint(0, 1000, (len(x0),), device=x0.device)
        loss = F.mse_loss(unet(scheduler.add_noise(x0, noise, t), t).sample, noise)
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        plan.step()
        average.step(unet.parameters())
        optimizer.zero_grad()

    def finish() -> nn.Module:
        average.copy_to(unet.parameters())
        return net

    return step, finish


def sampler(net: nn.Module, shape: tuple[int, ...]):
    """The loop of DDPMPipeline, which the example samples with."""

    @torch.no_grad()
    def steps():
        scheduler, device = DDPMScheduler(num_train_timesteps=1000), next(net.parameters()).device
        x = torch.randn(shape, device=device)
        scheduler.set_timesteps(1000)
        for t in scheduler.timesteps:
            x = scheduler.step(net.unet(x, t).sample, t, x).prev_sample
            yield x

    return "DDPMPipeline, 1,000 steps", 1000, steps()
