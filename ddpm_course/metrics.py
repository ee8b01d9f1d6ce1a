"""How good are the samples? Their distances, classes and nearest neighbours, and how sure one is (lessons 00 and 08).

The Fréchet distance (Heusel et al., 2017) compares two sets of images by the mean and covariance of a
network's features. There the network is Inception; here it is the small `classifier` of garments, so the numbers
compare models of this course with each other, and with nothing else.
"""

import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .arguments import as_tensor, whole
from .classifier import classify, features, main  # the lessons call the first two from here
from .pixels import as_images, in_unit_range


def frechet_distance(samples: Tensor, reference: Tensor) -> float:
    """Fréchet distance between two sets of images, (N, 1, 28, 28) each, uint8 or floats in [-1, 1].

    Either may be given as its `features`, (N, 64): worth it for a reference that many sets are compared with.
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) over the means and covariances of 64 features, in
    float64 on the CPU. 0 is best; it falls with the number of samples, so compare equal numbers.
    raises ValueError with fewer than 65 images in a set (their covariance would be singular), NaN among them, or
           features of two kinds
    """
    a, b = _features("samples", samples), _features("reference", reference)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"samples and reference have {a.shape[1]} and {b.shape[1]} features: they must be of one kind")
    if min(len(a), len(b)) <= a.shape[1]:
        raise ValueError(f"each set needs more than {a.shape[1]} images, got {len(a)} and {len(b)}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("one of the sets holds NaN or infinity: training or sampling went wrong")
    return gaussian_frechet(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def gaussian_frechet(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """The squared Fréchet (2-Wasserstein) distance of Gaussians: means (D,), covariances (D, D), float64."""
    values, vectors = torch.linalg.eigh(cov1)
    root1 = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root1 @ cov2 @ root1).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return float(distance.clamp(min=0))  # equal ones can come out at -1e-10


def frechet_by_size(
    samples: Tensor,
    reference: Tensor,
    sizes: Sequence[int],
    *,
    repeats: int = 5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How the Fréchet distance falls with the number of samples: the curve of its bias.

    samples, reference: images, or their `features`, as for `frechet_distance`; the whole reference is used each time
    sizes:              numbers of samples, each more than 64
    returns             (len(sizes), repeats) float64: distances of random subsets of the samples, each drawn without
                        replacement with `generator` (a CPU one)
    raises              ValueError for a size that is too small, or more than there are samples, or no repeats
    """
    a, b = _features("samples", samples), _features("reference", reference)
    sizes = [whole("every one of sizes", n, 1, len(a), ", the number of samples") for n in sizes]
    repeats = whole("repeats", repeats, 1)
    curve = [
        [frechet_distance(a[torch.randperm(len(a), generator=generator)[:n]], b) for _ in range(repeats)] for n in sizes
    ]
    return torch.tensor(curve, dtype=torch.float64)


def kernel_distance(samples: Tensor, reference: Tensor) -> float:
    """Kernel distance between two sets of images, or of their `features`: the KID of Binkowski et al. (2018).

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y) with k(x, y) = (x.y / D + 1)^3, over pairs of *different* items of
    a set. So its expectation is the same for every number of samples, and 0 for two sets from one distribution: a
    single value can be negative. All pairs are held at once: N M numbers.
    raises ValueError with fewer than 2 images in a set, or features of two kinds
    """
    a, b = _features("samples", samples), _features("reference", reference)
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"each set needs 2 items of one kind, got features {tuple(a.shape)} and {tuple(b.shape)}")
    within_a, within_b, between = (_kernel(x, y) for x, y in ((a, a), (b, b), (a, b)))
    within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (within_a, within_b))
    return float(within - 2 * between.mean())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """(N, M): of every pair."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def bootstrap(
    measure: Callable[[Tensor], float], items: Tensor, *, repeats: int = 200, generator: torch.Generator | None = None
) -> Tensor:
    """(repeats,) float64: a measure of items drawn anew from the given ones, as many, with replacement (Efron, 1979).

    Their standard deviation tells how far another set of samples would lie from this one. Their mean is of no use:
    items that are drawn twice add to a distance the bias that few samples have.
    """
    items, repeats = as_tensor("items", items), whole("repeats", repeats, 1)
    rows = (torch.randint(len(items), (len(items),), generator=generator) for _ in range(repeats))
    return torch.tensor([float(measure(items[some.to(items.device)])) for some in rows], dtype=torch.float64)


def class_counts(images: Tensor) -> Tensor:
    """(10,) how many of the images the bundled classifier sees in each class."""
    return classify(images).bincount(minlength=10)


def nearest_neighbours(samples: Tensor, training: Tensor, k: int = 1, *, chunk: int = 4000) -> tuple[Tensor, Tensor]:
    """The k training items nearest to each sample: the search for memorised images.

    samples, training: (N, ...) and (M, ...) of one shape an item. Images, uint8 or floats in [-1, 1], are compared
                       pixel by pixel; their `features` by what the classifier sees in them
    chunk:             training items compared at a time: what the memory depends on
    returns            distances (N, k) float32, nearest first, and indices (N, k) into `training`. A distance is the
                       root of the mean squared difference: of pixels from 0 (a copy) to 2 (black against white)
    raises             ValueError if the shapes do not fit or there are fewer than k training items
    """
    samples, training = (
        as_tensor(name, items) if getattr(items, "ndim", 0) == 2 else as_images(name, items)  # features are any floats
        for name, items in (("samples", samples), ("training", training))
    )
    if samples.shape[1:] != training.shape[1:]:
        raise ValueError(f"samples and training items differ in shape: {_item(samples)} against {_item(training)}")
    k, chunk = whole("k", k, 1, len(training), ", the number of training items"), whole("chunk", chunk, 1)
    training = training.to(samples.device)
    x = _vectors(samples)  # (N, D)
    near = []  # of each chunk a few more than k: the product rounds, so it may swap almost equal distances
    for start in range(0, len(training), chunk):
        some = _vectors(training[start : start + chunk])
        squared = some.square().sum(1) - 2 * x @ some.T  # (N, chunk), up to the squared length of x
        near.append(start + squared.topk(min(k + 8, len(some)), largest=False).indices)
    found = torch.cat(near, 1)
    exact = torch.stack([(_vectors(training[i]) - x).square().mean(1).sqrt() for i in found.T], 1)  # (N, found)
    order = exact.argsort(dim=1, stable=True)[:, :k]
    return exact.gather(1, order), found.gather(1, order)


def memorised(distances: Tensor) -> Tensor:
    """(N,) bool: which samples are copies, from their distances (N, k >= 2) to the nearest training images.

    A copy is much nearer to one training image than to all others, below a third of the distance to the second nearest
    (Yoon et al., 2023). Distances alone do not tell: plain images are near to many.
    """
    distances = as_tensor("distances", distances)
    if distances.ndim != 2 or distances.shape[1] < 2:
        raise ValueError(
            f"distances must be (N, k) with k >= 2, to the two nearest at least; got {tuple(distances.shape)}"
        )
    return distances[:, 0] < distances[:, 1] / 3


def _features(name: str, images: Tensor) -> Tensor:
    """(N, D) float64 on the CPU: of images, or as they are given."""
    images = as_tensor(name, images)
    return images.cpu().double() if images.ndim == 2 else features(images)


def _vectors(items: Tensor) -> Tensor:
    """(N, D) float32: images as floats in [-1, 1], features as they are."""
    return in_unit_range(items).float().flatten(1)


def _item(items: Tensor) -> tuple[int, ...]:
    return tuple(items.shape[1:])


if __name__ == "__main__":  # where the judge was trained by this name
    print("python -m ddpm_course.metrics is called python -m ddpm_course.classifier now", file=sys.stderr)
    main()
