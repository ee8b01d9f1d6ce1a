"""The judge: its accuracy, and the Fréchet distance against scipy and against algebra."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from core import F64, normal, seeded

from ddpm_course import metrics
from ddpm_course.classifier import load_classifier
from ddpm_course.data import ASSETS, load_images, to_unit_range
from ddpm_course.metrics import classify, features, frechet_distance, nearest_neighbours


@pytest.fixture(scope="module")
def held_out():
    return load_images(split="test")


@pytest.mark.parametrize("dim, rank, tolerance", [(1, 1, 1e-6), (64, 64, 1e-6), (64, 40, 1e-5)])
def test_distance_of_gaussians_against_scipys_matrix_root(dim, rank, tolerance):
    """And by hand with diagonal covariances: |m1 - m2|² + Σ (s1 - s2)², here 9 + 16 + (2 - 5)² + (1 - 3)² = 38."""
    (m1, m2), roots = normal(2, dim), normal(2, dim, rank, seed=1)
    c1, c2 = roots @ roots.mT / dim
    cross = scipy.linalg.sqrtm((c1 @ c2).numpy()).real
    expected = ((m1 - m2) ** 2).sum().item() + np.trace(c1.numpy() + c2.numpy() - 2 * cross)
    assert abs(metrics.gaussian_frechet(m1, c1, m2, c2) / expected - 1) < tolerance
    m1, m2, v1, v2 = torch.tensor([[0, 0], [3, 4], [4, 1], [25, 9]], dtype=F64)
    assert abs(metrics.gaussian_frechet(m1, v1.diag(), m2, v2.diag()) - 38) < 1e-12


def test_distance_is_symmetric_and_grows_with_the_damage_from_near_zero(held_out):
    """1,000 images against others: clean, noisier, only noise (seed 0). 2,000 against 2,000 give a hundredth of that."""
    a, b = held_out[0][:1000], held_out[0][1000:2000]
    assert abs(frechet_distance(a, a)) < 1e-6 and abs(frechet_distance(a, b) - frechet_distance(b, a)) < 1e-6
    noise, x = normal(1000, 1, 28, 28, dtype=torch.float32), to_unit_range(a)
    distances = [frechet_distance(x + share * noise, b) for share in (0, 0.1, 0.5)] + [frechet_distance(noise, b)]
    assert distances == sorted(distances) and abs(distances[0] - frechet_distance(a, features(b))) < 1e-6
    assert 0 < frechet_distance(held_out[0][:2000], load_images(limit=2000)[0]) < 0.01 * distances[-1]


def test_the_classifier_is_small_frozen_and_recognises_real_images(held_out):
    """At least 92 % of the 4,000 bundled test images, and no class below 70 % (shirts are the hard one)."""
    (images, labels), net = held_out, load_classifier()
    seen = classify(images)
    right = seen == labels
    assert right.float().mean() >= 0.92
    assert min(right[labels == c].float().mean() for c in range(10)) > 0.70
    assert torch.equal(classify(to_unit_range(images[:100])), seen[:100])
    bags = metrics.class_counts(images[labels == 8][:300])
    assert torch.equal(bags, torch.bincount(seen[labels == 8][:300], minlength=10)) and bags[8] > 280
    assert (ASSETS / "classifier.safetensors").stat().st_size <= 2**20
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_the_bias_of_the_distance_is_the_one_that_theory_gives():
    """For Gaussian "features" of variances l_i a mean off by C/n costs tr(C)/n; a covariance off by D about (sum of D_ij²
    / (l_i + l_j)) / 2, with E D_ij² = l_i l_j (1 + [i = j]) / n (Bhatia et al., 2019). 40 subsets, to 5 %."""
    lengths = torch.linspace(0.2, 2.0, 12, dtype=F64)
    draws = normal(400_000, 12) * lengths.sqrt()
    pairs = lengths[:, None] * lengths / (lengths[:, None] + lengths)
    bias = lengths.sum() + 0.5 * (pairs.sum() + pairs.diag().sum())
    curve = metrics.frechet_by_size(draws[:200_000], draws[200_000:], [2000, 4000], repeats=40, generator=seeded(1))
    assert curve.shape == (2, 40) and (curve.std(1) > 0).all()
    few, whole = (
        metrics.frechet_by_size(draws[:300], draws[300:], [300], repeats=2, generator=seeded(s)) for s in (1, 2)
    )
    assert (whole - frechet_distance(draws[:300], draws[300:])).abs().max() < 1e-9 and (few - whole).abs().max() < 1e-9
    assert (curve.mean(1) * torch.tensor([2000, 4000]) / bias - 1).abs().max() < 0.05


@pytest.mark.parametrize("chunk", [7, 60, 1000])
@pytest.mark.parametrize("k", [1, 4])
def test_nearest_neighbours_against_brute_force(chunk, k):
    """20 samples, 60 training items of 1x5x5 floats, every pair in a Python loop; 1e-6, the same indices."""
    samples, training = normal(80, 1, 5, 5, dtype=torch.float32).split([20, 60])
    distances, found = nearest_neighbours(samples, training, k, chunk=chunk)
    assert distances.shape == found.shape == (20, k)
    for i in range(20):
        each = [((samples[i] - other) ** 2).mean().sqrt().item() for other in training]
        order = sorted(range(60), key=each.__getitem__)[:k]
        assert found[i].tolist() == order
        assert max(abs(distances[i, j].item() - each[order[j]]) for j in range(k)) < 1e-6


def test_near_copies_do_not_hide_the_copy(held_out):
    """Each of 60 images among six copies with one pixel one level off, 0.0003 away, less than a float32 product can
    tell: the true copy is first, at 0, and the six follow in order; for uint8 and for floats."""
    images = held_out[0][:60]
    near = images[:, None].repeat(1, 7, 1, 1, 1)  # (60, 7, 1, 28, 28), the true copy fourth
    for i in (0, 1, 2, 4, 5, 6):
        near[:, i, 0, 3 * i, 14] ^= 1
    for k, samples in ((7, images), (1, to_unit_range(images))):
        distances, found = nearest_neighbours(samples, near.flatten(0, 1), k, chunk=100 if k == 7 else 4000)
        assert torch.equal(found[:, 0], torch.arange(60) * 7 + 3) and (distances[:, 0] == 0).all()
        assert torch.equal(found.sort(1).values // 7, torch.arange(60)[:, None].expand(60, k))
        assert (distances.diff(dim=1) >= 0).all() and found.unique().numel() == 60 * k


def test_memorised_samples_are_told_from_real_ones(held_out):
    """100 training images with a little noise are all copies; of 200 held-out images at most 2 are."""
    training = load_images(limit=6000)[0]
    copies = to_unit_range(training[::60]) + 0.01 * normal(100, 1, 28, 28, dtype=torch.float32)
    assert metrics.memorised(nearest_neighbours(copies, training, 2)[0]).float().mean() > 0.95
    assert metrics.memorised(nearest_neighbours(held_out[0][:200], training, 2)[0]).sum() <= 2


def test_kernel_distance_against_a_loop_over_pairs_and_without_bias():
    """Sets of 4 and 5 items in a Python loop, to 1e-12. 3,000 pairs of sets of 10 items from one distribution: the mean
    is 0 within 4 standard errors, where the sums with the pairs of an item and itself would be 15 of them too large."""

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x.tolist(), y.tolist(), strict=True)) / len(x) + 1) ** 3

    def mean(pairs):
        pairs = list(pairs)
        return sum(kernel(x, y) for x, y in pairs) / len(pairs)

    a, b = normal(4, 3), normal(5, 3, seed=1)
    expected = (
        mean(itertools.permutations(a, 2)) + mean(itertools.permutations(b, 2)) - 2 * mean(itertools.product(a, b))
    )
    assert abs(metrics.kernel_distance(a, b) - expected) < 1e-12
    sets = normal(3000, 2, 10, 3, seed=2)
    found = torch.tensor([metrics.kernel_distance(*pair) for pair in sets], dtype=F64)
    assert found.mean().abs() < 4 * found.std() / 3000**0.5 and (found < 0).any()
    with pytest.raises(ValueError, match="2 items of one kind"):
        metrics.kernel_distance(a[:1], b)


def test_bootstrap_has_the_spread_that_theory_gives():
    """The mean of 400 numbers: deviation std / √400, here to 5 % (4,000 repeats have 1.1 %), and centred on the mean."""
    items = normal(400, 1)[:, 0]
    values = metrics.bootstrap(torch.mean, items, repeats=4000, generator=seeded(3))
    error = items.std(correction=0) / 20
    assert values.shape == (4000,) and values.dtype == F64
    assert abs(values.std() / error - 1) < 0.05 and (values.mean() - items.mean()).abs() < 4 * error / 4000**0.5
