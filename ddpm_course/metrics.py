"""How good are the samples? Their Fréchet distance, their classes and their nearest neighbours (lessons 00 and 08).

The Fréchet distance (Heusel et al., 2017) compares two sets of images by the mean and covariance of a
network's features. There the network is Inception; here it is a small classifier of garments, so the numbers
compare models of this course with each other, and with nothing else. The classifier is frozen: it judges
recipes, so it was trained before any of them. Trained with

    python -m ddpm_course.metrics DATA --out assets/classifier.safetensors

where DATA is "fashion_mnist" or a folder with all its 70,000 images.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .data import ASSETS, load_images, to_unit_range


class Classifier(nn.Module):
    """Four 3x3 convolutions, 64 features, 10 classes: images (B, 1, 28, 28) in [-1, 1] -> logits (B, 10)."""

    def __init__(self):
        super().__init__()
        widths = [(1, 32, 1), (32, 48, 2), (48, 96, 1), (96, 128, 2)]  # channels in, out, stride
        self.body = nn.Sequential(
            *[
                layer
                for c_in, c_out, stride in widths
                for layer in (nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())
            ]
        )
        self.reduce = nn.Linear(128, 64)
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """(B, 64): what the Fréchet distance compares."""
        return self.reduce(self.body(x).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.features(x)))


@cache
def load_classifier() -> Classifier:
    """The bundled classifier, on the CPU, in evaluation mode."""
    net = Classifier()
    net.load_state_dict(load_file(ASSETS / "classifier.safetensors"))
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def features(images: Tensor) -> Tensor:
    """(N, 64) float64 on the CPU, for images (N, 1, 28, 28), uint8 or floats in [-1, 1]."""
    return torch.cat([load_classifier().features(x) for x in _batches(images)]).double()


def classify(images: Tensor) -> Tensor:
    """(N,) the class, 0…9, that the bundled classifier sees in each image, uint8 or floats in [-1, 1]."""
    return torch.cat([load_classifier()(x).argmax(1) for x in _batches(images)])


@torch.no_grad()
def _batches(images: Tensor) -> list[Tensor]:
    if images.ndim != 4 or images.shape[1:] != (1, 28, 28):
        raise ValueError(f"the classifier sees images of shape (N, 1, 28, 28), got {tuple(images.shape)}")
    x = to_unit_range(images) if images.dtype == torch.uint8 else images.float().clamp(-1, 1)
    return list(x.cpu().contiguous(memory_format=torch.channels_last).split(125))


def frechet_distance(samples: Tensor, reference: Tensor) -> float:
    """Fréchet distance between two sets of images, (N, 1, 28, 28) each, uint8 or floats in [-1, 1].

    Either may be given as its `features`, (N, 64): worth it for a reference that many sets are compared with.
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2) over the means and covariances of 64 features, in
    float64 on the CPU. 0 is best; it falls with the number of samples, so compare equal numbers.
    raises ValueError with fewer than 65 images in a set (their covariance would be singular), or NaN among them
    """
    a, b = (x if x.ndim == 2 else features(x) for x in (samples, reference))
    if min(len(a), len(b)) <= a.shape[1]:
        raise ValueError(f"each set needs more than {a.shape[1]} images, got {len(a)} and {len(b)}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("one of the sets holds NaN or infinity: training or sampling went wrong")
    return gaussian_frechet(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def gaussian_frechet(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians: means (D,), covariances (D, D), float64."""
    values, vectors = torch.linalg.eigh(cov1)
    root1 = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root1 @ cov2 @ root1).clamp(min=0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross)


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
    raises              ValueError for a size that is too small, or more than there are samples
    """
    a, b = (x if x.ndim == 2 else features(x) for x in (samples, reference))
    if max(sizes) > len(a):
        raise ValueError(f"there are {len(a)} samples, so no subset of {max(sizes)}")
    curve = [
        [frechet_distance(a[torch.randperm(len(a), generator=generator)[:n]], b) for _ in range(repeats)] for n in sizes
    ]
    return torch.tensor(curve, dtype=torch.float64)


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
    if samples.shape[1:] != training.shape[1:]:
        raise ValueError(f"samples and training items differ in shape: {_item(samples)} against {_item(training)}")
    if not 1 <= k <= len(training):
        raise ValueError(f"k must lie in 1..{len(training)}, the number of training items; got {k}")
    training = training.to(samples.device)
    x = _vectors(samples)  # (N, D)
    more = min(k + 8, len(training))  # the product below rounds: it may swap neighbours that are almost equally near
    best = x.new_empty((len(x), 0))
    found = torch.empty((len(x), 0), dtype=torch.int64, device=x.device)
    for start in range(0, len(training), chunk):
        some = _vectors(training[start : start + chunk])
        squared = some.square().sum(1) - 2 * x @ some.T  # (N, chunk), up to the squared length of x
        near = squared.topk(min(more, len(some)), largest=False)
        best, found = torch.cat([best, near.values], 1), torch.cat([found, start + near.indices], 1)
        keep = best.topk(min(more, best.shape[1]), largest=False).indices
        best, found = best.gather(1, keep), found.gather(1, keep)
    exact = torch.stack([(_vectors(training[i]) - x).square().mean(1).sqrt() for i in found.T], 1)  # (N, more)
    order = exact.argsort(dim=1, stable=True)[:, :k]
    return exact.gather(1, order), found.gather(1, order)


def memorised(distances: Tensor, ratio: float = 1 / 3) -> Tensor:
    """(N,) bool: which samples are copies, from their distances (N, k >= 2) to the nearest training images.

    A copy is much nearer to one training image than to all others, below `ratio` of the distance to the second nearest
    (Yoon et al., 2023, who also propose 1/3). Distances alone do not tell: plain images are near to many.
    """
    if distances.ndim != 2 or distances.shape[1] < 2:
        raise ValueError(
            f"distances must be (N, k) with k >= 2, to the two nearest at least; got {tuple(distances.shape)}"
        )
    return distances[:, 0] < ratio * distances[:, 1]


def _vectors(items: Tensor) -> Tensor:
    """(N, D) float32: images as floats in [-1, 1], features as they are."""
    x = to_unit_range(items) if items.dtype == torch.uint8 else items.float()
    return x.flatten(1)


def _item(items: Tensor) -> tuple[int, ...]:
    return tuple(items.shape[1:])


def train_classifier(images: Tensor, labels: Tensor, *, epochs: int = 12, seed: int = 0) -> Classifier:
    """Train the judge: AdamW with a one-cycle learning rate, flips and one-pixel shifts."""
    torch.manual_seed(seed)
    net = Classifier().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    batches = len(images) // 128
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * batches)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images))[: batches * 128].split(128):
            x = F.pad(to_unit_range(images[rows]), (1, 1, 1, 1), value=-1.0)
            dy, dx = torch.randint(0, 3, (2,)).tolist()
            x = x[:, :, dy : dy + 28, dx : dx + 28]
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
            loss = F.cross_entropy(
                net(x.contiguous(memory_format=torch.channels_last)), labels[rows], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            plan.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / batches:.3f}", flush=True)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier that judges samples.")
    parser.add_argument("data", help="fashion_mnist, or a folder with its images")
    parser.add_argument("--out", type=Path, default=Path("classifier.safetensors"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    net = train_classifier(*load_images(args.data), epochs=args.epochs, seed=args.seed)
    images, labels = load_images(args.data, "test")
    with torch.no_grad():
        right = sum(
            int((net(x).argmax(1) == y).sum()) for x, y in zip(_batches(images), labels.split(125), strict=True)
        )
    print(f"test accuracy {right / len(labels):.4f} on {len(labels)} images")
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
