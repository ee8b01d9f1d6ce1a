"""Images: the bundled ones, data sets from the Hugging Face hub, and your own folder (lessons 00 and 07).

Everything is read with `datasets` and comes back as uint8, (N, C, H, W), with int64 labels. A network sees
floats in [-1, 1]: `pixels` goes there and back.
"""

import io
import os
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .pixels import to_uint8, to_unit_range  # noqa: F401 - the lessons import them from here

if TYPE_CHECKING:
    import datasets

ASSETS = next(p for p in (Path(__file__).parent / "assets", Path(__file__).parent.parent / "assets") if p.is_dir())
CLASS_NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
HUB = {  # repository, column with the image, rows to read unless asked otherwise
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None),
    "mnist": ("ylecun/mnist", None),
    "cifar10": ("uoft-cs/cifar10", None),
    "celeba": ("nielsr/CelebA-faces", 10_000),
}


def load_images(
    name: str | Path = "bundled", split: str = "train", *, size: int | None = None, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Read images and labels.

    name:    "bundled" (24,000 Fashion-MNIST images, 4,000 for testing); "fashion_mnist", "mnist", "cifar10" or
             "celeba" from the Hugging Face hub; or the path of a folder with images, in subfolders named after
             their classes or not, or with Parquet files laid out as the hub's are
    split:   "train" or "test"; a folder of images without such subfolders has "train" alone
    size:    resize the shorter side to this and crop the centre; needed where the images differ in size
    limit:   read this many rows at most (celeba: 10,000 unless given)
    returns  images (N, C, H, W) uint8 and labels (N,) int64, all 0 where the data has none
    raises   ValueError for an unknown name or split, or sizes that differ with no size given;
             ConnectionError, in one sentence, if the hub cannot be reached and nothing is cached
    """
    if name == "bundled":
        rows, column = _from_folder(ASSETS / "fashion_mnist", split, limit)
    elif name in HUB:
        repository, default_limit = HUB[name]
        rows, column = _from_hub(name, repository, split, limit or default_limit)
    elif Path(name).expanduser().is_dir():
        rows, column = _from_folder(Path(name).expanduser(), split, limit)
    else:
        raise ValueError(f"{name!r} is neither a folder nor one of: bundled, {', '.join(HUB)}")
    return _decode(rows, column, size)


def load_photo() -> Tensor:
    """(3, H, W) uint8: the bundled photograph; assets/README.md says whose it is."""
    return torch.from_numpy(_open(ASSETS / "photo.png", size=None)).permute(2, 0, 1)


def _from_folder(folder: Path, split: str, limit: int | None) -> tuple[list[dict], str]:
    """Rows of one split of a local folder, as `datasets` finds them, and the column of the images."""
    import datasets  # takes a second, which what reads no images need not pay

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(str(folder))
    except FileNotFoundError as e:  # the errors that `datasets` has of its own for this are such, too
        raise ValueError(f"no images or Parquet files found in {folder}") from e
    if split not in found:
        raise ValueError(f"{folder} has no split {split!r}, only: {', '.join(found)}")
    return _rows(found[split], limit)


def _from_hub(name: str, repository: str, split: str, limit: int | None) -> tuple[list[dict], str]:
    """Rows of a data set on the hub, of its cached copy where the hub is out of reach; and the column of the images."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()  # that a cached copy is used is what was asked for: no warning
    offline_before = datasets.config.HF_HUB_OFFLINE
    offline = offline_before or os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "")
    online = not offline and hub_reachable(datasets.config.HF_ENDPOINT)
    datasets.config.HF_HUB_OFFLINE = not online  # then `datasets` looks into its cache at once
    try:
        # a large set: read only the first rows of it
        return _rows(datasets.load_dataset(repository, split=split, streaming=bool(limit and online)), limit)
    except Exception as e:  # `datasets` and the libraries below it raise many kinds
        if isinstance(e, ValueError) and "split" in str(e):  # "Unknown split", "Bad split"
            raise ValueError(f"{name} has no split {split!r}: {e}") from e
        problem = f"answers, but {name} ({repository}) could not be read ({e})"
        if not online:
            problem = f"cannot be reached and {name} ({repository}) is not cached here"
        raise ConnectionError(
            f'The Hugging Face hub {problem}: use load_images("bundled"), which needs no network, '
            "or give the path of a folder with images."
        ) from e
    finally:
        datasets.config.HF_HUB_OFFLINE = offline_before


def hub_reachable(endpoint: str) -> bool:
    """Whether the hub at this address answers within three seconds."""
    answers = []

    def probe() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=3).close()
        except urllib.error.HTTPError:
            pass  # it answered, if only to complain
        except Exception:
            return
        answers.append(True)

    thread = threading.Thread(target=probe, daemon=True)  # looking up a name has no time limit of its own
    thread.start()
    thread.join(3)
    return bool(answers)


def _rows(dataset: "datasets.Dataset | datasets.IterableDataset", limit: int | None) -> tuple[list[dict], str]:
    """The first `limit` rows with their images as files, not decoded yet, and the column that these are in."""
    features = dataset.features or {}
    column = next((name for name, feature in features.items() if type(feature).__name__ == "Image"), None)
    if column is None:
        raise ValueError(f"no column of images was found, only: {', '.join(features) or 'nothing'}")
    dataset = dataset.cast_column(column, replace(features[column], decode=False))
    if not hasattr(dataset, "__len__"):  # it streams
        return list(dataset.take(limit)), column
    return dataset.with_format("arrow")[:limit].to_pylist(), column  # all at once: four times as fast as row by row


def _decode(rows: list[dict], column: str, size: int | None) -> tuple[Tensor, Tensor]:
    """Decode one image at a time: a corrupt one is skipped and named, and the rest still comes."""
    if not rows:
        raise ValueError("the data set is empty")
    images, labels, corrupt = [], [], []
    for i, row in enumerate(rows):
        file, name = row[column], row[column]["path"] or f"row {i}"
        try:
            images.append(_open(io.BytesIO(file["bytes"]) if file["bytes"] else file["path"], size))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:  # no image, or one cut short
            corrupt.append((Path(name).name, e))
            continue
        labels.append(row.get("label") or 0)
    if corrupt:
        names = ", ".join(name for name, _ in corrupt[:5]) + (", …" if len(corrupt) > 5 else "")
        print(f"skipped {len(corrupt)} of {len(corrupt) + len(images)} files that could not be read as images: {names}")
    if not images:
        raise ValueError("none of the files could be read as an image")

    channels = max(image.shape[2] for image in images)  # one colour picture makes the whole set a colour set
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        raise ValueError(f"the images have {len(sizes)} different sizes; say size=32, for instance, to make them equal")
    pixels = np.stack([np.broadcast_to(image, (*image.shape[:2], channels)) for image in images])  # (N, H, W, C)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels, dtype=torch.int64)


def _open(file: io.BytesIO | str | Path, size: int | None) -> np.ndarray:
    """(H, W, C) uint8: one channel for a grey picture of any depth, three for any other; white where transparent."""
    image = Image.open(file)
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):  # deep grey: Pillow would clip it, not scale it
        values = np.asarray(image).astype(np.float32)
        # 16 bits; floats have no agreed white
        white = 65535.0 if image.mode.startswith("I") else max(values.max(), 1.0)
        image = Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        grey = image.mode in ("1", "L", "LA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("L" if grey else "RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if size is not None:
        from torchvision.transforms.v2 import functional as TF  # takes two seconds to import

        image = TF.center_crop(TF.resize(image, size), size)
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
