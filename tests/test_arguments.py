"""What a caller gets wrong, a row for each mistake, and what the core says: its terms, its numbers."""

import math

import pytest
import torch
from core import MAKERS

from ddpm_course.bound import bits_per_dim, variational_term
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.losses import diffusion_loss
from ddpm_course.metrics import frechet_by_size, frechet_distance, memorised, nearest_neighbours
from ddpm_course.nets import Guided
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate
from ddpm_course.schedules import Schedule, linear_schedule
from ddpm_course.unet import UNet, sinusoidal_embedding

S = linear_schedule(10)
D = GaussianDiffusion(S)
X, X8 = torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 28, 28)
T, Y = torch.tensor([1, 2, 3, 4]), torch.zeros(4, dtype=torch.int64)
IMAGES, PLAIN, WITH_CLASSES = torch.zeros(100, 1, 28, 28), UNet(), UNet(num_classes=10)
BETAS = [], [[0.1, 0.2]], 0.1, [0.0, 0.1], [0.1, 1.0], [-0.1], [0.1, math.nan]
TIMES = [11, 0], [10, 1], [10, 10, 0], [1, 2, 0], []
ATTENTION = ("full",), ("full", "none")


def net(x, t, y=None):
    return x


ROWS = [
    *((lambda betas=betas: Schedule(torch.tensor(betas)), "beta") for betas in BETAS),
    *((lambda make=make: make(0), "T >= 1") for make in MAKERS),
    (lambda: S.q_coefficients(11, X), r"t must lie in 0\.\.10, got 11"),
    (lambda: S.q_coefficients(T - 2, X), r"t must lie in 0\.\.10, got values from -1 to 2"),
    (lambda: S.q_coefficients(T[:, None], X), r"t must have shape \(4,\).*got \(4, 1\)"),
    (lambda: S.q_coefficients(T.float(), X), "t must hold integers.*float32"),
    (lambda: S.q_coefficients(0.5, X), "t must be an int or a tensor of integers, got float"),
    (lambda: S.q_coefficients(3, X.to(torch.uint8)), "uint8"),
    (lambda: to_unit_range(X), "images must be uint8, got torch.float32"),
    (lambda: q_sample(S, X, 1, X[..., 0]), r"noise must have the shape of x0, \(4, 1, 2, 2\); got \(4, 1, 2\)"),
    (lambda: q_step(S, X, 1, X[:1]), "noise must have the shape of x,"),
    (lambda: q_posterior(S, X, X[:1], 2, 1), "xt must have the shape of x0"),
    *((lambda t=t, s=s: q_posterior(S, X, X, t, s), f"<= 10; got t={t}, s={s}") for t, s in ((1, 1), (11, 0), (2, -1))),
    (lambda: q_posterior(S, X, X, 3, T[:3]), r"s must have shape \(4,\)"),
    (lambda: q_posterior(S, X, X, T, -1), "s must lie .* -1"),
    (lambda: GaussianDiffusion(S, predicts="epsilon"), "predicts must be one of .*got 'epsilon'"),
    (lambda: GaussianDiffusion(S, variance="epsilon"), "variance must be one of .*got 'epsilon'"),
    (lambda: diffusion_loss(net, D, X, kind="mse"), "kind must be one of l2, l1, huber; got 'mse'"),
    (lambda: diffusion_loss(lambda x, t, y: x[..., 0], D, X), r"turned shape \(4, 1, 2, 2\) into \(4, 1, 2\)"),
    (lambda: diffusion_loss(net, D, X.to(torch.uint8)), "uint8"),
    (lambda: bits_per_dim(net, D, X, steps=11), r"steps must lie in 2..10: .* got 11"),
    (lambda: bits_per_dim(net, D, X[:0]), "no images"),
    (lambda: bits_per_dim(net, D, X, Y[:3]), r"labels must have shape \(4,\), one an image; got \(3,\)"),
    (lambda: variational_term(net, D, X.to(torch.uint8), 3), "floats"),
    *((lambda n=n: next(ancestral_steps(net, D, (2, 1), n)), rf"lie in 1\.\.10.*got {n}") for n in (0, 11)),
    *((lambda times=times: next(ddim_steps(net, D, (2, 1), times=times)), "times must fall from") for times in TIMES),
    (lambda: next(ddim_steps(net, D, (2, 1), 5, x_T=X)), r"x_T must have shape \(2, 1\), got \(4, 1, 2, 2\)"),
    (lambda: generate(net, D, (2, 1), 5, chunk=0), "must be at least 1, got 0 and 2"),
    (lambda: generate(net, D, (2, 1), 5, y=T), "one label for each of the 2 samples, got 4"),
    (lambda: Guided(PLAIN, 2.0), "num_classes"),
    (lambda: Guided(WITH_CLASSES, 2.0)(X8, T), "labels y"),
    (lambda: PLAIN(X8.expand(4, 3, 28, 28), T), r"x must have shape \(B, 1, H, W\)"),
    (lambda: PLAIN(torch.zeros(4, 1, 27, 29), T), r"multiples of 4 .*to \(28, 32\)"),
    (lambda: PLAIN(X8, T[:, None]), r"t must have shape \(4,\).*got \(4, 1\)"),
    (lambda: PLAIN(X8, T.float()), "t must hold integers"),
    (lambda: WITH_CLASSES(X8, T, Y[:3]), r"y must have shape \(4,\)"),
    (lambda: WITH_CLASSES(X8, T, Y.float()), "y must hold integers"),
    (lambda: PLAIN(X8, T, Y), "knows no classes"),
    (lambda: PLAIN(X8, T, None, X8), "self_condition=True"),
    (lambda: UNet(self_condition=True)(X8, T, None, X8[:2]), "x_self must have the shape of x"),
    (lambda: UNet(widths=(30, 60)), "multiples of 8"),
    (lambda: UNet(widths=(24, 40), heads=5, attention=("linear", None)), "heads=5"),  # 40 alone would do
    *((lambda a=a: UNet(**{a: "weird"}), f"{a} must be one of .*'weird'") for a in ("conv", "time", "middle")),
    *((lambda a=a: UNet(**{a: None}), f"{a} must be one of .*None") for a in ("downsample", "upsample")),
    *((lambda a=a: UNet(attention=a), "attention must hold one of .* for each of 2 levels") for a in ATTENTION),
    (lambda: UNet(patch=0), "patch must be a whole number, 1 or more"),
    (lambda: sinusoidal_embedding(T, 7), "dim must be even"),
    (lambda: frechet_distance(torch.zeros(100, 3, 28, 28), IMAGES), r"\(N, 1, 28, 28\)"),
    (lambda: frechet_distance(IMAGES[:64], IMAGES), "more than 64 images"),
    (lambda: frechet_distance(IMAGES + math.nan, IMAGES), "NaN"),
    (lambda: frechet_by_size(torch.zeros(90, 64), torch.zeros(90, 64), [91]), "90 samples, so no subset of 91"),
    (lambda: nearest_neighbours(torch.zeros(3, 64), X8), r"differ in shape: \(64,\) against \(1, 28, 28\)"),
    (lambda: nearest_neighbours(X8, X8, 5), "k must lie in 1..4, the number of training items; got 5"),
    (lambda: memorised(torch.zeros(10, 1)), r"k >= 2, to the two nearest at least; got \(10, 1\)"),
    (lambda: load_images("fashion-mnist"), "'fashion-mnist' is neither a folder nor one of: bundled, fashion_mnist"),
]


@pytest.mark.parametrize("call, complaint", ROWS, ids=[complaint for _, complaint in ROWS])
def test_what_does_not_fit_is_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
