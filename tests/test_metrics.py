"""The judge: its accuracy, and the Fréchet distance against scipy and against algebra."""

import numpy as np
import pytest
import scipy.linalg
import torch

from ddpm_course.data import ASSETS, load_images, to_unit_range
from ddpm_course.metrics import classify, features, frechet_distance, gaussian_frechet, load_classifier


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
