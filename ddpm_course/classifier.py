"""The judge: a small classifier of garments, whose features and answers the measures use (lessons 00 and 08).

It is frozen: it judges recipes, so it was trained before any of them. Trained with

    python -m ddpm_course.classifier DATA --out assets/classifier.safetensors

where DATA is "fashion_mnist" or a folder with all its 70,000 images.
"""

import argparse
import os
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .arguments import as_labels, whole
from .data import ASSETS, load_images
from .files import write_atomically
from .pixels import as_images, in_unit_range, to_unit_range


class Classifier(nn.Module):
    """Four 3x3 convolutions, 64 features, 10 classes: images (B, 1, 28, 28) in [-1, 1] -> logits (B, 10)."""

    def __init__(self):
        super().__init__()
        layers = []
        for c_in, c_out, stride in ((1, 32, 1), (32, 48, 2), (48, 96, 1), (96, 128, 2)):
            layers += [nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
        self.body = nn.Sequential(*layers)
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
    images = as_images("images", images)
    if images.ndim != 4 or images.shape[1:] != (1, 28, 28):
        raise ValueError(f"the classifier sees images of shape (N, 1, 28, 28), got {tuple(images.shape)}")
    x = in_unit_range(images).float().clamp(-1, 1)
    return list(x.cpu().contiguous(memory_format=torch.channels_last).split(125))


def train_classifier(images: Tensor, labels: Tensor, *, epochs: int = 12, seed: int = 0) -> Classifier:
    """Train the judge: AdamW with a one-cycle learning rate, flips and one-pixel shifts.

    raises ValueError for fewer images than one batch, 128, or arguments that do not fit
    """
    images, epochs = as_images("images", images), whole("epochs", epochs, 1)
    labels = as_labels("labels", labels, whole("the number of images", len(images), 128), 10)
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
            logits = net(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[rows], label_smoothing=0.05)
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
    args.out = Path(os.path.expanduser(args.out))  # the shell leaves --out=~/judge as it is
    net = train_classifier(*load_images(args.data), epochs=args.epochs, seed=args.seed)
    images, labels = load_images(args.data, "test")
    with torch.no_grad():
        seen = torch.cat([net(x).argmax(1) for x in _batches(images)])
    print(f"test accuracy {(seen == labels).double().mean():.4f} on {len(labels)} images")
    write_atomically(args.out, save({name: value.contiguous() for name, value in net.state_dict().items()}))


if __name__ == "__main__":
    main()
