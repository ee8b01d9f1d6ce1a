"""What the tests of the diffusion core share: seeded numbers, Gaussians written out, networks that hide nothing."""

import math

import pytest
import torch

from ddpm_course.schedules import cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule

F64 = torch.float64
MAKERS = [linear_schedule, quadratic_schedule, sigmoid_schedule, cosine_schedule]
every_prediction = pytest.mark.parametrize("predicts", ["noise", "x0", "v"])
both_variances = pytest.mark.parametrize("variance", ["small", "large"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def density(x, mean, variance):
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi) / variance**0.5


def cdf_of_bimodal(x):
    return sum(w * torch.special.ndtr((x - m) / s) for w, m, s in ((0.4, -0.6, 0.08), (0.6, 0.5, 0.12)))


def distance(samples, grid, cdf):
    """Kolmogorov–Smirnov: the largest gap between the samples' distribution function and one known on a grid."""
    x = samples.double().sort().values
    return (torch.searchsorted(x, grid, right=True).double() / len(x) - cdf).abs().max().item()


def perturbed(net):
    """Second convolutions, attention's and the network's output start at 0 and would hide what comes before them."""
    generator = seeded()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net
