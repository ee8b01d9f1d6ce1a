"""What a caller gets wrong, a row for each mistake, and what the core says: its terms, its numbers."""

import math

import numpy as np
import pytest
import torch
from core import MAKERS, seeded

from ddpm_course.bound import bits_per_dim, discretised_log_likelihood, variational_term
from ddpm_course.classifier import classify, features, train_classifier
from ddpm_course.data import load_images, to_unit_range
from ddpm_course.diffusion import GaussianDiffusion, q_posterior, q_sample, q_step
from ddpm_course.losses import diffusion_loss
from ddpm_course.metrics import frechet_by_size, frechet_distance, memorised, nearest_neighbours
from ddpm_course.nets import Guided
from ddpm_course.pixels import to_uint8
from ddpm_course.samplers import ancestral_steps, ddim_steps, generate, spaced_timesteps
from ddpm_course.schedules import Schedule, cosine_schedule, linear_schedule
from ddpm_course.toy import bimodal
from ddpm_course.training import EMA
from ddpm_course.training.plan import Budget
from ddpm_course.unet import UNet, sinusoidal_embedding

S = linear_schedule(10)
D = GaussianDiffusion(S)
X, X8 = torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 28, 28)
T, Y = torch.tensor([1, 2, 3, 4]), torch.zeros(4, dtype=torch.int64)
IMAGES, PLAIN, WITH_CLASSES = torch.zeros(100, 1, 28, 28), UNet(), UNet(num_classes=10)
BETAS = [], [[0.1, 0.2]], 0.1, [0.0, 0.1], [0.1, 1.0], [-0.1], [0.1, math.nan]
TIMES = [11, 0], [10, 0.5, 0], [10, 1], [10, 10, 0], [1, 2, 0], []
ATTENTION = ("full",), ("full", "none")


def net(x, t, y=None):
    return x


ROWS = [
    *((lambda betas=betas: Schedule(torch.tensor(betas)), "beta") for betas in BETAS),
    *(
        (lambda make=make, T=T: make(T), "T must be a whole number, 1 or more, got")
        for make in MAKERS
        for T in (0, -5, 10.5, math.inf, None)
    ),
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
    (lambda: bits_per_dim(net, D, X, steps=11), r"steps must be a whole number from 2 to 10, .* got 11"),
    (lambda: bits_per_dim(net, D, X[:0]), "no images"),
    (lambda: bits_per_dim(net, D, X, Y[:3]), r"labels must have shape \(4,\), one label an image; got \(3,\)"),
    (lambda: variational_term(net, D, X.to(torch.uint8), 3), "floats"),
    *((lambda n=n: next(ancestral_steps(net, D, (2, 1), n)), f"from 1 to 10.*got {n}") for n in (0, 11, 2.5)),
    *((lambda times=times: next(ddim_steps(net, D, (2, 1), times=times)), "times must") for times in TIMES),
    (lambda: next(ddim_steps(net, D, (2, 1), 5, x_T=X)), r"x_T must have shape \(2, 1\), got \(4, 1, 2, 2\)"),
    (lambda: generate(net, D, (2, 1), 5, chunk=0), "chunk must be a whole number, 1 or more, got 0"),
    (lambda: generate(net, D, (2, 1), 5, y=T), r"y must have shape \(2,\), one label an image; got \(4,\)"),
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
    (
        lambda: frechet_by_size(torch.zeros(90, 64), torch.zeros(90, 64), [91]),
        "sizes must be .* from 1 to 90, the number of samples, got 91",
    ),
    (lambda: nearest_neighbours(torch.zeros(3, 64), X8), r"differ in shape: \(64,\) against \(1, 28, 28\)"),
    (
        lambda: nearest_neighbours(X8, X8, 5),
        "k must be a whole number from 1 to 4, the number of training items, got 5",
    ),
    (lambda: memorised(torch.zeros(10, 1)), r"k >= 2, to the two nearest at least; got \(10, 1\)"),
    (
        lambda: load_images("fashion-mnist"),
        "'fashion-mnist' is neither a folder nor one of: bundled, emoji, fashion_mnist, mnist",
    ),
]


@pytest.mark.parametrize("call, complaint", ROWS, ids=[complaint for _, complaint in ROWS])
def test_what_does_not_fit_is_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def sampled(net=WITH_CLASSES, shape=(2, 1, 8, 8), **options):
    options.setdefault("generator", seeded())
    return generate(net, D, shape, 2, progress=False, **options)


BYTES = torch.arange(70 * 784).reshape(70, 1, 28, 28) * 7 % 256
YES = True, np.True_, torch.tensor(True)
NO_VALUES = X8.to("meta"), X8.to_sparse(), X8 + 0j
NUMBERS = [
    *(
        (lambda y=y: sampled(y=y), r"y must lie in 0\.\.9, got .*; 10 is the null class")
        for y in ([0, 10], [-1, 0], [99, 9])
    ),
    *((lambda y=y: next(ancestral_steps(WITH_CLASSES, D, (2, 1, 8, 8), 2, y=y)), "y must") for y in ([0, 10], [0])),
    (lambda: sampled(y=[True, False]), "y must hold integers, got torch.bool"),
    (lambda: sampled(y=[0.0, 1.0]), "y must hold integers, got torch.float32"),
    (lambda: sampled(y="ab"), "y must be a tensor.*got str"),
    *((lambda shape=shape: sampled(shape=shape), "shape must") for shape in (16, (), (2.5, 1, 8, 8), (0, 1, 8, 8))),
    *((lambda chunk=chunk: sampled(chunk=chunk), "chunk must be a whole") for chunk in (0.5, math.nan, None, *YES)),
    *((lambda eta=eta: next(ddim_steps(net, D, (2, 1), eta=eta)), "eta must") for eta in (-1, 1.5, math.nan)),
    (lambda: next(ddim_steps(net, D, (2, 1), 5, x_T=T[:2, None])), "the data must be floats"),
    *((lambda T=T: spaced_timesteps(T), "T must be a whole number") for T in (0, -5, 9.5)),
    *((lambda scale=scale: Guided(WITH_CLASSES, scale), "scale must be") for scale in (math.nan, math.inf, "2", None)),
    *((lambda n=n: S.sample_t(n), "n must be a whole number") for n in (-1, 0.5, None)),
    *((lambda s=s: cosine_schedule(10, s=s), "s must be a finite number, 0 or more") for s in (-1, math.nan, math.inf)),
    (lambda: Schedule("abc"), "betas must be a tensor.*got str"),
    (lambda: S.q_coefficients(True, X), "t must be an int or a tensor of integers, got bool"),
    (lambda: q_sample(S, X.numpy(), 1, X), "the data must be a tensor, got ndarray"),
    *((lambda n=n: bimodal().sample(n), "n must be a whole number") for n in (0, 2.5)),
    *((lambda t=t: bimodal().noised(S, t), "t must be a whole number from 0 to 10") for t in (-1, 11, 0.5)),
    *((lambda s=s: bimodal().posterior(S, X[:, 0, 0], 3, s), "s must be .* before t") for s in (-1, 3)),
    *(
        (lambda a=a: bits_per_dim(net, D, X, **{a: 2.5}), f"{a} must be a whole number")
        for a in ("steps", "batch_size")
    ),
    (lambda: bits_per_dim(WITH_CLASSES, D, X8, Y + 10), r"labels must lie in 0\.\.9"),
    (lambda: discretised_log_likelihood(X, X, -1.0), "variance must be a finite number, more than 0"),
    *(
        (lambda decay=decay: EMA(PLAIN, decay), "decay must be .* from 0 to 1, got")
        for decay in (99.5, -0.1, math.nan, b"0.5", *YES)
    ),
    *((lambda m=m: Budget(m), "minutes must be a finite number, more than 0") for m in (0, math.inf, math.nan, "4")),
    *((lambda f=f: f(BYTES.float()), "got torch.float32 from 0 to 255") for f in (features, classify)),
    *((lambda x=x: features(x), "must be uint8.*got") for x in (BYTES - 1, BYTES + 1, BYTES > 9)),
    *((lambda x=x, f=f: f(x), "must be an ordinary tensor of real") for x in NO_VALUES for f in (features, to_uint8)),
    (lambda: frechet_distance(torch.rand(99, 64) + 0j, torch.rand(99, 64)), "samples must be .* real numbers"),
    (lambda: Schedule(torch.tensor([0.1 + 1j])), "betas must be .* real numbers"),
    (lambda: sampled(y=Y[:2].to("meta")), "y must be an ordinary tensor"),
    (lambda: nearest_neighbours(BYTES.float(), BYTES), "samples must be uint8.*255"),
    (lambda: nearest_neighbours(X8, X8, chunk=0), "chunk must be a whole number, 1 or more"),
    (lambda: nearest_neighbours(X8, X8, 1.5), "k must be a whole number from 1 to 4"),
    (lambda: bits_per_dim(net, D, BYTES.float()), "images must be uint8"),
    (lambda: to_uint8(BYTES + 1), "x must be uint8 0…255"),
    (lambda: to_uint8(BYTES.float()), "x must be uint8 0…255, or floats in"),
    (lambda: frechet_distance(torch.rand(99, 64), torch.rand(99, 32)), "64 and 32 features"),
    (lambda: frechet_by_size(torch.rand(99, 64), torch.rand(99, 64), [70], repeats=0), "repeats must be a whole"),
    (lambda: train_classifier(BYTES[:9], Y), "the number of images must be a whole number, 128 or more, got 9"),
    (lambda: UNet(dropout=1.5), "dropout must be a finite number from 0 to 1"),
    *(
        (lambda a=a, x=x: UNet(**{a: x}), f"{a} must be a whole")
        for a in ("patch", "heads", "blocks")
        for x in (0, 1.5)
    ),
]


@pytest.mark.parametrize("call, complaint", NUMBERS)
def test_numbers_labels_and_pictures_out_of_range_are_named(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


@pytest.mark.parametrize(
    "other",
    [
        *(lambda x, dtype=dtype: x.to(dtype) for dtype in (torch.int64, torch.int32, torch.int16)),
        *(lambda x: x.numpy(), lambda x: x.numpy().astype(">i4"), lambda x: x.numpy().astype(np.uint16)),
        lambda x: x.flip(0).numpy()[::-1],  # its strides are negative
        lambda x: x.tolist(),
    ],
)
def test_bytes_of_any_type_are_the_same_pictures(other):
    images, same = BYTES.to(torch.uint8), other(BYTES.to(torch.uint8))
    assert torch.equal(to_uint8(same), images) and torch.equal(features(same), features(images))
    assert torch.equal(nearest_neighbours(same, images)[0], torch.zeros(70, 1))
    assert frechet_distance(same, features(images).float()) < 1e-4 and frechet_distance(same, images) >= 0


@pytest.mark.parametrize(
    "y", [[3, 9], np.array([3, 9], ">i2"), *(torch.tensor([3, 9], dtype=dtype) for dtype in (torch.uint8, torch.int16))]
)
def test_labels_of_any_integers_are_the_same_classes(y):
    WITH_CLASSES.eval()
    seen = []
    handle = WITH_CLASSES.label.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    sampled(y=y)
    handle.remove()
    assert all(s.dtype == torch.int64 and s.tolist() == [3, 9] for s in seen) and len(seen) == 2
