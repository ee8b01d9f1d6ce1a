"""The judge: its accuracy, and the Fréchet distance against scipy and against algebra."""

import numpy as np
import pytest
import scipy.linalg
import torch

from ddpm_course.classifier import load_classifier
from ddpm_course.data import ASSETS, load_images, to_unit_range
from ddpm_course.metrics import (
    class_counts,
    classify,
    features,
    frechet_by_size,
    frechet_distance,
    gaussian_frechet,
    memorised,
    nearest_neighbours,
)


@pytest.fixture(scope="module")
def held_out():
    return load_images(split="test")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(dim, seed, rank):
    generator = seeded(seed)
    root = torch.randn(dim, rank, dtype=torch.float64, generator=generator)
    return torch.randn(dim, dtype=torch.float64, generator=generator), root @ root.T / dim


@pytest.mark.parametrize("dim, rank, tolerance", [(1, 1, 1e-6), (5, 5, 1e-6), (64, 64, 1e-6), (64, 40, 1e-5)])
def test_distance_of_gaussians_against_scipys_matrix_root(dim, rank, tolerance):
    """The textbook form with a general square root of C1 C2, to 1e-6 relative; a singular pair to 1e-5. And by hand with
    diagonal covariances: |m1 - m2|² + Σ (s1 - s2)², here 9 + 16 + (2 - 5)² + (1 - 3)² = 38."""
    (m1, c1), (m2, c2) = gaussian(dim, 0, rank), gaussian(dim, 1, rank)
    cross = scipy.linalg.sqrtm((c1 @ c2).numpy()).real
    expected = ((m1 - m2) ** 2).sum().item() + np.trace(c1.numpy() + c2.numpy() - 2 * cross)
    assert abs(gaussian_frechet(m1, c1, m2, c2) / expected - 1) < tolerance
    m1, m2, v1, v2 = torch.tensor([[0, 0], [3, 4], [4, 1], [25, 9]], dtype=torch.float64)
    assert abs(gaussian_frechet(m1, v1.diag(), m2, v2.diag()) - 38) < 1e-12


def test_distance_to_itself_is_zero_and_it_is_symmetric(held_out):
    a, b = held_out[0][:300], held_out[0][300:600]
    there, back, of_floats = frechet_distance(a, b), frechet_distance(b, a), frechet_distance(to_unit_range(a), b)
    assert there > 0.01 and abs(frechet_distance(a, a)) < 1e-6
    assert abs(there - back) < 1e-6 and abs(there - of_floats) < 1e-6


def test_distance_grows_with_the_damage_and_real_images_are_near(held_out):
    """1,000 images against another 1,000: clean, a little noise, more noise, only noise (seed 0). The floor of the scale:
    2,000 test images against 2,000 training images, a hundredth of pure noise."""
    a, b = to_unit_range(held_out[0][:1000]), features(held_out[0][1000:2000])
    noise = torch.randn(a.shape, generator=seeded())
    distances = [frechet_distance(x, b) for x in (a, a + 0.1 * noise, a + 0.5 * noise, noise)]
    assert distances == sorted(distances)
    reference = features(load_images(limit=2000)[0])
    assert 0 < frechet_distance(held_out[0][:2000], reference) < 0.01 * frechet_distance(noise[:500], reference)


def test_the_classifier_is_small_frozen_and_recognises_real_images(held_out):
    """At least 92 % of the 4,000 bundled test images, and no class below 70 % (shirts are the hard one)."""
    (images, labels), net = held_out, load_classifier()
    seen = classify(images)
    right = seen == labels
    assert right.float().mean() >= 0.92
    assert min(right[labels == c].float().mean() for c in range(10)) > 0.70
    assert torch.equal(classify(to_unit_range(images[:100])), seen[:100])
    bags = class_counts(images[labels == 8][:300])
    assert bags.tolist() == [int((seen[labels == 8][:300] == c).sum()) for c in range(10)] and bags[8] > 280
    assert (ASSETS / "classifier.safetensors").stat().st_size <= 2**20
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_features_are_float64_and_ignore_the_batching(held_out):
    """1,201 images in batches and one by one agree to 1e-4 of the features' size."""
    images, some = held_out[0][:1201], [0, 124, 125, 499, 500, 1200]
    together = features(images)
    assert together.shape == (1201, 64) and together.dtype == torch.float64 and together.device.type == "cpu"
    alone = torch.cat([features(images[i : i + 1]) for i in some])
    assert (together[some] - alone).abs().max() < 1e-4 * together.abs().max()


def test_the_bias_of_the_distance_is_the_one_that_theory_gives():
    """Gaussian "features" with known variances l_i, against 200,000 others. A mean off by C/n costs tr(C)/n; to second
    order a covariance off by D costs (sum of D_ij² / (l_i + l_j)) / 2, and E D_ij² = l_i l_j (1 + [i = j]) / n (Bhatia,
    Jain and Lim, 2019). Averages of 40 subsets against it, to 5 % at n = 2,000 and 4,000 (seeds 0 and 1)."""
    lengths = torch.linspace(0.2, 2.0, 12, dtype=torch.float64)
    draws = torch.randn(400_000, 12, dtype=torch.float64, generator=seeded()) * lengths.sqrt()
    pairs = lengths[:, None] * lengths / (lengths[:, None] + lengths)
    bias = lengths.sum() + 0.5 * (pairs.sum() + pairs.diag().sum())
    curve = frechet_by_size(draws[:200_000], draws[200_000:], [2000, 4000], repeats=40, generator=seeded(1))
    assert curve.shape == (2, 40)
    assert (curve.mean(1) * torch.tensor([2000, 4000]) / bias - 1).abs().max() < 0.05


def test_the_bias_on_images(held_out):
    """More images, smaller distance; the subsets are random, differ, and come from the generator (seed 0)."""
    a, b = features(held_out[0][:1200]), features(held_out[0][1200:])
    curve, again = (frechet_by_size(a, b, [100, 400, 1200], repeats=3, generator=seeded()) for _ in range(2))
    means = curve.mean(1)
    assert torch.equal(curve, again) and means[0] > means[1] > means[2] > 0
    assert curve[0].std() > 0
    assert (curve[2] - frechet_distance(a, b)).abs().max() < 1e-9


@pytest.mark.parametrize("chunk", [7, 60, 1000])
@pytest.mark.parametrize("k", [1, 4])
def test_nearest_neighbours_against_brute_force(chunk, k):
    """20 samples, 60 training items of 1x5x5 floats, every pair in a Python loop; 1e-6, the same indices."""
    generator = seeded()
    samples, training = (torch.rand(n, 1, 5, 5, generator=generator) * 2 - 1 for n in (20, 60))
    distances, found = nearest_neighbours(samples, training, k, chunk=chunk)
    assert distances.shape == found.shape == (20, k)
    for i in range(20):
        each = [((samples[i] - other) ** 2).mean().sqrt().item() for other in training]
        order = sorted(range(60), key=each.__getitem__)[:k]
        assert found[i].tolist() == order
        assert max(abs(distances[i, j].item() - each[order[j]]) for j in range(k)) < 1e-6


def test_copies_are_found_at_distance_zero(held_out):
    """uint8 against uint8 and against floats: an image of the set is its own neighbour, exactly 0 away."""
    images, rows = held_out[0][:500], [3, 77, 499]
    for samples in (images[rows], to_unit_range(images[rows])):
        distances, found = nearest_neighbours(samples, images, 2, chunk=90)
        assert found[:, 0].tolist() == rows
        assert (distances[:, 0] == 0).all() and (distances[:, 1] > 0.05).all()
    black = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    assert nearest_neighbours(255 - black, black)[0].item() == 2


def test_near_copies_do_not_hide_the_copy(held_out):
    """Each of 60 images among six copies with one pixel one level off, 0.0003 away, less than a float32 product can
    tell: the true copy is first, at 0, and the six follow in order."""
    images = held_out[0][:60]
    near = images[:, None].repeat(1, 7, 1, 1, 1)  # (60, 7, 1, 28, 28), the true copy fourth
    for i in (0, 1, 2, 4, 5, 6):
        near[:, i, 0, 3 * i, 14] ^= 1
    for k in (7, 1):
        distances, found = nearest_neighbours(images, near.flatten(0, 1), k, chunk=100 if k == 7 else 4000)
        assert torch.equal(found[:, 0], torch.arange(60) * 7 + 3) and (distances[:, 0] == 0).all()
        assert torch.equal(found.sort(1).values // 7, torch.arange(60)[:, None].expand(60, k))
        assert (distances.diff(dim=1) >= 0).all() and found.unique().numel() == 60 * k


def test_neighbours_in_features_see_what_pixels_do_not(held_out):
    """Mirrored images: the judge was trained on them, so features find more of 50 originals among 1,000 than pixels."""
    images, rows = held_out[0][:1000], torch.arange(0, 1000, 20)
    mirrored = images[rows].flip(3)
    by_features = nearest_neighbours(features(mirrored), features(images))[1].flatten()
    by_pixels = nearest_neighbours(mirrored, images)[1].flatten()
    assert (by_features == rows).sum() > 1.3 * (by_pixels == rows).sum()


def test_memorised_samples_are_told_from_real_ones(held_out):
    """100 training images with a little noise are all copies; of 200 held-out images at most 2 are."""
    training = load_images(limit=6000)[0]
    copies = to_unit_range(training[::60]) + 0.01 * torch.randn(100, 1, 28, 28, generator=seeded())
    assert memorised(nearest_neighbours(copies, training, 2)[0]).float().mean() > 0.95
    assert memorised(nearest_neighbours(held_out[0][:200], training, 2)[0]).sum() <= 2
