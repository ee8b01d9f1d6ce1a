"""Run by the Python of an empty environment, in an empty folder: the installed course works outside the clone."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

import ddpm_course
from ddpm_course import checks, data, metrics, samplers, training

package = Path(ddpm_course.__file__).parent
assert package.is_relative_to(sys.prefix), f"not the installed package: {package}"
assert data.ASSETS.is_relative_to(package), f"not the wheel's assets: {data.ASSETS}"

images, labels = data.load_images("bundled", "test")
assert images.dtype == torch.uint8 and len(images) == len(labels) > 0
print(f"data: {len(images)} images")

net, diffusion, about = training.load_pretrained(device="cpu")
y = torch.arange(10).repeat(2)
steps = samplers.ddim_steps(net, diffusion, (20, 1, 28, 28), steps=20, y=y, generator=torch.Generator().manual_seed(0))
samples = samplers.sample(steps, progress=False)
right = (metrics.classify(data.to_uint8(samples)) == y).float().mean().item()
assert right >= 0.5, f"only {right:.0%} of the samples show what was asked for"  # chance is 10 %
print(f"checkpoint: {right:.0%} of 20 samples in 20 steps show the garment that was asked for")


def q_sample(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma * noise


def wrong(schedule, x0, t, noise):
    signal, sigma = schedule.q_coefficients(t, x0)
    return signal * x0 + sigma**2 * noise


assert checks.q_sample(q_sample, save=False) is q_sample
assert checks.q_sample(wrong, save=False) is not wrong
print("checks: a right answer is accepted, a wrong one is not")

assert (
    find_spec("ddpm_course.classroom") is find_spec("ddpm_course.editions") is find_spec("ddpm_course.kernels") is None
)
copy = [sys.executable, "-m", "ddpm_course.lab", "copy", "work"]
done = subprocess.run(copy, capture_output=True, text=True, check=False)
assert done.returncode == 1 and done.stderr.startswith("copy: there are no notebooks beside the package"), done.stderr
print("no classroom; copying lessons says where they are")
