"""Images: the bundled ones, data sets from the Hugging Face hub, and your own folder (lessons 00 and 07).

Everything is read with `datasets` and comes back as uint8, (N, C, H, W), with int64 labels. A network sees
floats in [-1, 1]; `to_unit_range` and `to_uint8` go there and back.
"""

import io
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

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
        rows = _from_folder(ASSETS / "fashion_mnist", split)
    elif name in HUB:
        repository, default_limit = HUB[name]
        limit = limit or default_limit
        rows = _from_hub(name, repository, split, limit)
    elif Path(name).expanduser().is_dir():
        rows = _from_folder(Path(name).expanduser(), split)
    else:
        raise ValueError(f"{name!r} is neither a folder nor one of: bundled, {', '.join(HUB)}")
    return _decode(rows, size, limit)


def to_unit_range(images: Tensor) -> Tensor:
    """uint8 0…255 to float32 in [-1, 1], any shape: the range the network works in."""
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}")
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8 0…255, any shape: values outside are clamped, then rounded to the nearest level."""
    return ((x + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def load_photo() -> Tensor:
    """(3, H, W) uint8: the bundled photograph; assets/README.md says whose it is."""
    return torch.from_numpy(_open(ASSETS / "photo.png", size=None)).permute(2, 0, 1)


def _from_folder(folder: Path, split: str) -> datasets.Dataset:
    """The rows of one split of a local folder, as `datasets` finds them."""
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(str(folder))
    except (
        FileNotFoundError,
        datasets.exceptions.DatasetNotFoundError,
        datasets.exceptions.DataFilesNotFoundError,
    ) as e:
        raise ValueError(f"no images or Parquet files found in {folder}") from e
    if split not in found:
        raise ValueError(f"{folder} has no split {split!r}, only: {', '.join(found)}")
    return found[split]


def _from_hub(name: str, repository: str, split: str, limit: int | None) -> datasets.Dataset | list[dict]:
    """The rows of a data set on the hub; of its cached copy where the hub is out of reach."""
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()  # that a cached copy is used is what was asked for: no warning
    online = hub_reachable()
    offline_before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline_before or not online  # then `datasets` looks into its cache at once
    try:
        if limit and online:  # a large set: read only the first rows of it
            rows = datasets.load_dataset(repository, split=split, streaming=True)
            column = _image_column(rows.features or {})
            return list(rows.cast_column(column, datasets.Image(decode=False)).take(limit))
        return datasets.load_dataset(repository, split=split)
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


def hub_reachable(seconds: float = 3.0) -> bool:
    """Whether the hub answers; False at once where HF_HUB_OFFLINE is set."""
    if datasets.config.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", ""):
        return False
    answers = []

    def probe() -> None:
        try:
            request = urllib.request.Request(datasets.config.HF_ENDPOINT, method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # it answered, if only to complain
        except Exception:
            return
        answers.append(True)

    thread = threading.Thread(target=probe, daemon=True)  # looking up a name has no time limit of its own
    thread.start()
    thread.join(seconds)
    return bool(answers)


def _image_column(features: dict) -> str:
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            return column
    raise ValueError(f"no column of images was found, only: {', '.join(features) or 'nothing'}")


def _decode(rows: datasets.Dataset | list[dict], size: int | None, limit: int | None) -> tuple[Tensor, Tensor]:
    """Decode one image at a time: a corrupt one is skipped and named, and the rest still comes."""
    if isinstance(rows, datasets.Dataset):
        column = _image_column(rows.features)
        rows = rows.cast_column(column, datasets.Image(decode=False))
        rows = rows.with_format("arrow")[:limit].to_pylist()  # all at once: four times as fast as row by row
    elif not rows:
        raise ValueError("the data set is empty")
    else:
        column = next(c for c, value in rows[0].items() if isinstance(value, dict) and "bytes" in value)

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
