"""Make the bundled data again. Needs the original files of Fashion-MNIST, or scikit-image for the photograph.

    python assets/make.py fashion_mnist IDX_FOLDER                         the bundled subset, into assets/
    python assets/make.py fashion_mnist IDX_FOLDER --all --out FOLDER      all 70,000 images, same layout
    python assets/make.py photo                                            the photograph, into assets/
    python assets/make.py strip                                            the README's picture, from the checkpoint

IDX_FOLDER holds the four .gz files: Debian's package `dataset-fashion-mnist` puts them into
/usr/share/datasets/fashion-mnist.
"""

import argparse
import gzip
import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

HERE = Path(__file__).parent
NAMES = ["T - shirt / top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
FEATURES = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
SPLITS = {"train": ("train", 2400), "test": ("t10k", 400)}  # file prefix, images of each class in the subset


def read_idx(path: Path) -> np.ndarray:
    """An IDX file: two zero bytes, a type, the number of axes, their lengths (big-endian), the values."""
    raw = gzip.decompress(path.read_bytes())
    axes = raw[3]
    shape = np.frombuffer(raw, ">u4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return file.getvalue()


def fashion_mnist(idx: Path, out: Path, everything: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for split, (prefix, per_class) in SPLITS.items():
        images = read_idx(idx / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(idx / f"{prefix}-labels-idx1-ubyte.gz")
        # the first of each class, in the original order
        first = np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)]))
        rows = np.arange(len(labels)) if everything else first
        table = {
            "image": [{"bytes": png(images[i]), "path": None} for i in rows],
            "label": labels[rows].astype(int).tolist(),
        }
        datasets.Dataset.from_dict(table, features=FEATURES).to_parquet(out / f"{split}-00000-of-00001.parquet")
        print(f"{split}: {len(rows)} images")


def photo(out: Path) -> None:
    from skimage import data, transform

    picture = transform.resize(data.astronaut()[:400, 60:460], (128, 128), anti_aliasing=True)
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(out / "photo.png", optimize=True)


def strip(out: Path) -> None:
    """Three garments on their way out of noise: x_t at ten of the sampler's 50 steps, one garment a row."""
    import torch
    from torchvision.utils import make_grid

    from ddpm_course.data import CLASS_NAMES
    from ddpm_course.samplers import ddim_steps
    from ddpm_course.training import load_pretrained

    net, diffusion, _ = load_pretrained(device="cpu")
    y = torch.tensor([CLASS_NAMES.index(name) for name in ("sneaker", "dress", "bag")])
    steps = ddim_steps(net, diffusion, (len(y), 1, 28, 28), 50, y=y, generator=torch.Generator().manual_seed(1))
    frames = [step.x.clamp(-1, 1) for step in steps]
    chosen = [frames[i] for i in (0, 14, 21, 26, 31, 36, 40, 44, 47, 49)]
    pixels = torch.stack(chosen, dim=1).flatten(0, 1).repeat_interleave(3, 2).repeat_interleave(3, 3)
    grey, opaque = (make_grid(x, nrow=len(chosen), padding=6)[0] for x in ((pixels + 1) / 2, torch.ones_like(pixels)))
    grid = torch.stack([grey, opaque], dim=2)  # between the images it is transparent, for light and dark pages
    Image.fromarray((grid * 255).round().byte().numpy(), "LA").save(out / "strip.png", optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the bundled data again.")
    parser.add_argument("what", choices=["fashion_mnist", "photo", "strip"])
    parser.add_argument("idx", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    if args.what == "fashion_mnist":
        fashion_mnist(args.idx, args.out or HERE / "fashion_mnist", args.all)
    else:
        {"photo": photo, "strip": strip}[args.what](args.out or HERE)
