"""The judge: its accuracy, and the Fréchet distance against scipy and against algebra."""

import numpy as np
import pytest
import scipy.linalg
import torch

from ddpm_course.data import ASSETS, load_images, to_unit_range
from ddpm_course.metrics import (
    class_counts,
    classify,
    features,
    frechet_by_size,
    frechet_distance,
    gaussian_frechet,
    load_classifier,
    memorised,
    nearest_neighbours,
)


@pytest.fixture(scope="module")
def test_images():
    return load_images(split="test")


def gaussian(dim, seed, rank=None):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(dim, rank or dim, dtype=torch.float64, generator=generator)
    return torch.randn(dim, dtype=torch.float64, generator=generator), root @ root.T / dim


@pytest.mark.parametrize("dim, rank", [(1, None), (5, None), (64, None), (64, 40)])
def test_distance_of_gaussians_against_scipys_matrix_root(dim, rank):
    """The textbook form with a general square root of C1 C2, to 1e-6 relative; a singular pair to 1e-5."""
    (m1, c1), (m2, c2) = gaussian(dim, 0, rank), gaussian(dim, 1, rank)
    cross = scipy.linalg.sqrtm((c1 @ c2).numpy()).real
    expected = ((m1 - m2) ** 2).sum().item() + np.trace(c1.numpy() + c2.numpy() - 2 * cross)
    assert abs(gaussian_frechet(m1, c1, m2, c2) / expected - 1) < (1e-6 if rank is None else 1e-5)


def test_distance_of_gaussians_by_hand():
    """Diagonal covariances: |m1 - m2|² + Σ (s1 - s2)², here 9 + 16 + (2 - 5)² + (1 - 3)² = 38."""
    m1, m2 = torch.tensor([0.0, 0.0]).double(), torch.tensor([3.0, 4.0]).double()
    c1, c2 = torch.tensor([4.0, 1.0]).double().diag(), torch.tensor([25.0, 9.0]).double().diag()
    assert abs(gaussian_frechet(m1, c1, m2, c2) - 38) < 1e-12


def test_distance_to_itself_is_zero_and_it_is_symmetric(test_images):
    a, b = test_images[0][:300], test_images[0][300:600]
    assert abs(frechet_distance(a, a)) < 1e-6
    assert abs(frechet_distance(a, b) - frechet_distance(b, a)) < 1e-6
    assert abs(frechet_distance(a, b) - frechet_distance(to_unit_range(a), b)) < 1e-6
    assert frechet_distance(a, b) > 0.01


def test_distance_grows_with_the_damage_and_shrinks_with_the_sample(test_images):
    """1,000 images against another 1,000: clean, a little noise, more noise, only noise (seed 0)."""
    a, b = to_unit_range(test_images[0][:1000]), features(test_images[0][1000:2000])
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(0))
    distances = [frechet_distance(x, b) for x in (a, a + 0.1 * noise, a + 0.5 * noise, noise)]
    assert distances == sorted(distances)
    assert frechet_distance(a[:100], b) > frechet_distance(a[:300], b) > distances[0]


def test_held_out_images_are_near_the_training_images(test_images):
    """The floor of the scale: 2,000 real test images against 2,000 training images, far below pure noise (seed 0)."""
    reference = features(load_images(limit=2000)[0])
    noise = torch.randn(500, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    floor = frechet_distance(test_images[0][:2000], reference)
    assert 0 < floor < 0.01 * frechet_distance(noise, reference)


def test_the_classifier_recognises_real_images(test_images):
    """At least 92 % of the 4,000 bundled test images, and no class below 70 % (shirts are the hard one)."""
    images, labels = test_images
    right = classify(images) == labels
    assert right.float().mean() >= 0.92
    assert min(right[labels == c].float().mean() for c in range(10)) > 0.70
    assert torch.equal(classify(to_unit_range(images[:100])), classify(images[:100]))


def test_the_classifier_is_small_and_frozen():
    assert (ASSETS / "classifier.safetensors").stat().st_size <= 2**20
    net = load_classifier()
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_features_are_float64_and_ignore_the_batching(test_images):
    """1,201 images in batches of 500 and one by one agree to 1e-4 of the features' size."""
    images = test_images[0][:1201]
    together = features(images)
    assert together.shape == (1201, 64) and together.dtype == torch.float64 and together.device.type == "cpu"
    some = [0, 499, 500, 1200]
    alone = torch.cat([features(images[i : i + 1]) for i in some])
    assert (together[some] - alone).abs().max() < 1e-4 * together.abs().max()


@pytest.mark.parametrize(
    "samples, complaint",
    [
        (torch.zeros(100, 3, 28, 28), r"\(N, 1, 28, 28\)"),
        (torch.zeros(100, 28, 28), r"\(N, 1, 28, 28\)"),
        (torch.zeros(64, 1, 28, 28), "more than 64 images"),
        (torch.full((100, 1, 28, 28), float("nan")), "NaN"),
    ],
    ids=["colour", "no channel", "too few", "NaN"],
)
def test_sets_that_cannot_be_compared_are_named(test_images, samples, complaint):
    with pytest.raises(ValueError, match=complaint):
        frechet_distance(samples, test_images[0])


def test_the_bias_of_the_distance_is_the_one_that_theory_gives():
    """Gaussian "features" with known variances l_i, against 200,000 others. A mean off by C/n costs tr(C)/n; to second
    order a covariance off by D costs (sum of D_ij² / (l_i + l_j)) / 2, and E D_ij² = l_i l_j (1 + [i = j]) / n (Bhatia,
    Jain and Lim, 2019). Averages of 40 subsets against it, to 5 % at n = 2,000 and 4,000 (seeds 0 and 1)."""
    lengths = torch.linspace(0.2, 2.0, 12, dtype=torch.float64)
    draws = torch.randn(400_000, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * lengths.sqrt()
    pairs = lengths[:, None] * lengths / (lengths[:, None] + lengths)
    bias = lengths.sum() + 0.5 * (pairs.sum() + pairs.diag().sum())
    curve = frechet_by_size(
        draws[:200_000], draws[200_000:], [2000, 4000], repeats=40, generator=torch.Generator().manual_seed(1)
    )
    assert curve.shape == (2, 40)
    assert (curve.mean(1) * torch.tensor([2000, 4000]) / bias - 1).abs().max() < 0.05


def test_the_bias_on_images(test_images):
    """More images, smaller distance; the subsets are random, differ, and come from the generator (seed 0)."""
    a, b = features(test_images[0][:1200]), features(test_images[0][1200:])
    curve = frechet_by_size(a, b, [100, 400, 1200], repeats=3, generator=torch.Generator().manual_seed(0))
    again = frechet_by_size(a, b, [100, 400, 1200], repeats=3, generator=torch.Generator().manual_seed(0))
    means = curve.mean(1)
    assert torch.equal(curve, again) and means[0] > means[1] > means[2] > 0
    assert curve[0].std() > 0
    assert (curve[2] - frechet_distance(a, b)).abs().max() < 1e-9
    with pytest.raises(ValueError, match="1200 samples, so no subset of 1300"):
        frechet_by_size(a, b, [1300])


def test_class_counts_add_up(test_images):
    """Of 300 bags nearly all are seen as bags, and every image is counted once."""
    images = test_images[0][test_images[1] == 8][:300]
    counts = class_counts(images)
    assert counts.shape == (10,) and counts.sum() == 300
    assert counts.tolist() == [int((classify(images) == c).sum()) for c in range(10)]
    assert counts[8] > 280


@pytest.mark.parametrize("chunk", [7, 60, 1000])
@pytest.mark.parametrize("k", [1, 4])
def test_nearest_neighbours_against_brute_force(chunk, k):
    """20 samples, 60 training items of 1x5x5 floats, every pair in a Python loop; 1e-6, the same indices."""
    generator = torch.Generator().manual_seed(0)
    samples, training = (torch.rand(n, 1, 5, 5, generator=generator) * 2 - 1 for n in (20, 60))
    distances, found = nearest_neighbours(samples, training, k, chunk=chunk)
    assert distances.shape == found.shape == (20, k)
    for i in range(20):
        each = [((samples[i] - other) ** 2).mean().sqrt().item() for other in training]
        order = sorted(range(60), key=each.__getitem__)[:k]
        assert found[i].tolist() == order
        assert max(abs(distances[i, j].item() - each[order[j]]) for j in range(k)) < 1e-6


def test_copies_are_found_at_distance_zero(test_images):
    """uint8 against uint8 and against floats: an image of the set is its own neighbour, exactly 0 away."""
    images = test_images[0][:500]
    for samples in (images[[3, 77, 499]], to_unit_range(images[[3, 77, 499]])):
        distances, found = nearest_neighbours(samples, images, 2, chunk=90)
        assert found[:, 0].tolist() == [3, 77, 499]
        assert (distances[:, 0] == 0).all() and (distances[:, 1] > 0.05).all()
    far, _ = nearest_neighbours(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), torch.zeros_like(images[:1]))
    assert far.item() == 2


def test_near_copies_do_not_hide_the_copy(test_images):
    """Each of 60 images among six copies with one pixel one level off, 0.0003 away, less than a float32 product can
    tell: the true copy is first, at 0, and the six follow in order."""
    images = test_images[0][:60]
    near = images[:, None].repeat(1, 7, 1, 1, 1)  # (60, 7, 1, 28, 28), the true copy fourth
    for i in (0, 1, 2, 4, 5, 6):
        near[:, i, 0, 3 * i, 14] ^= 1
    distances, found = nearest_neighbours(images, near.flatten(0, 1), 7, chunk=100)
    assert torch.equal(found[:, 0], torch.arange(60) * 7 + 3) and (distances[:, 0] == 0).all()
    assert torch.equal(found.sort(1).values, torch.arange(420).reshape(60, 7))
    assert (distances.diff(dim=1) >= 0).all()
    alone, first = nearest_neighbours(images, near.flatten(0, 1))
    assert torch.equal(first[:, 0], found[:, 0]) and (alone == 0).all()


def test_neighbours_in_features_see_what_pixels_do_not(test_images):
    """Mirrored images: the judge was trained on them, so features find more of 50 originals among 1,000 than pixels."""
    images, rows = test_images[0][:1000], torch.arange(0, 1000, 20)
    mirrored = images[rows].flip(3)
    by_features = nearest_neighbours(features(mirrored), features(images))[1].flatten()
    by_pixels = nearest_neighbours(mirrored, images)[1].flatten()
    assert (by_features == rows).sum() > 1.3 * (by_pixels == rows).sum()


def test_memorised_samples_are_told_from_real_ones(test_images):
    """100 training images with a little noise are all copies; of 200 held-out images at most 2 are."""
    training = load_images(limit=6000)[0]
    noise = torch.randn(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    copies = to_unit_range(training[::60]) + 0.01 * noise
    assert memorised(nearest_neighbours(copies, training, 2)[0]).float().mean() > 0.95
    assert memorised(nearest_neighbours(test_images[0][:200], training, 2)[0]).sum() <= 2


def test_what_cannot_be_searched_is_named(test_images):
    images = test_images[0][:10]
    with pytest.raises(ValueError, match=r"differ in shape: \(64,\) against \(1, 28, 28\)"):
        nearest_neighbours(torch.zeros(3, 64), images)
    with pytest.raises(ValueError, match="k must lie in 1..10, the number of training items; got 11"):
        nearest_neighbours(images, images, 11)
    with pytest.raises(ValueError, match=r"k >= 2, to the two nearest at least; got \(10, 1\)"):
        memorised(torch.zeros(10, 1))
