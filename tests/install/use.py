"""The installed course works outside the clone: run in an empty environment after its wheel, and after the setup cell."""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

import ddpm_course
from ddpm_course import checks, data, metrics, plots, samplers, training

package = Path(ddpm_course.__file__).parent
assert package.is_relative_to(sys.prefix), f"not the installed package: {package}"
assert data.ASSETS.is_relative_to(package), f"not the wheel's assets: {data.ASSETS}"
assert not [name for name in ("classroom", "editions", "kernels") if find_spec(f"ddpm_course.{name}")]

net, diffusion, about = training.load_pretrained(device="cpu")
y = torch.arange(10).repeat(2)
steps = samplers.ddim_steps(net, diffusion, (20, 1, 28, 28), steps=20, y=y, generator=torch.Generator().manual_seed(0))
samples = samplers.sample(steps, progress=False)
right = (metrics.classify(data.to_uint8(samples)) == y).float().mean().item()
assert right >= 0.5, f"only {right:.0%} of the samples show what was asked for"  # chance is 10 %
plots.show_images(samples).savefig("samples.png")


def noised(schedule, x0, t, noise, power=1):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma**power * noise


assert checks.q_sample.check(lambda *given: noised(*given)).solved
assert checks.q_sample.check(lambda *given: noised(*given, power=2)).mistake == "noise_variance"
