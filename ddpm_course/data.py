"""Images: the bundled ones, data sets from the Hugging Face hub, and your own folder (lessons 00 and 07).

Everything comes back as uint8, (N, C, H, W); pictures are decoded while they are read, and only pixels stay in memory.
"""

import json
import math
import os
import threading
import urllib.error
import urllib.request
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .arguments import whole
from .folders import SPLITS, LeftOut, arrange, class_numbers, kinds_left_out, label_column, list_files, not_read, shown
from .parquet import Picture, find_tables, labels_in, picture_in, pictures_in
from .pictures import open_picture
from .pixels import clusters, to_uint8, to_unit_range  # noqa: F401 - the lessons import them from here

if TYPE_CHECKING:
    import datasets

BUNDLED = {"bundled": "fashion_mnist", "emoji": "emoji"}  # folders of ASSETS
ASSETS = next(p for p in (Path(__file__).parent / "assets", Path(__file__).parent.parent / "assets") if p.is_dir())
CLASS_NAMES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
EMOJI_CLASSES = ("smileys", "people", "animals", "food", "travel", "activities", "objects", "symbols")
HUB = {  # repository, column with the image, rows to read unless asked otherwise
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None),
    "mnist": ("ylecun/mnist", None),
    "cifar10": ("uoft-cs/cifar10", None),
    "celeba": ("nielsr/CelebA-faces", 10_000),
}
MOST_BYTES = 4 * 2**30  # of pixels, unless `limit` asks for more
LARGEST_SIZE = 4096


class Rows(NamedTuple):
    """The pictures of one split, neither read nor decoded yet."""

    count: int
    pictures: Iterable[Picture]
    classes: dict  # {label as it stands there: class}; empty where there are no labels


def load_images(
    name: str | Path = "bundled", split: str = "train", *, size: int | None = None, limit: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Read images and labels.

    name:    "bundled" (24,000 Fashion-MNIST images, 4,000 for testing) or "emoji" (1,210 in colour, 131 for testing),
             which need no network; "fashion_mnist", "mnist", "cifar10" or "celeba" from the Hugging Face hub; or the
             path of a folder with images, or with Parquet as the hub has it
    split:   "train", "test" or "validation"; a folder that has no splits is "train" as a whole
    size:    crop the largest square in the centre and resize it to this; needed where the images differ in size
    limit:   read this many rows at most (celeba: 10,000 unless given)
    returns  images (N, C, H, W) uint8, and labels (N,) int64 or None; where some images have a label, those without
             are left out. For a folder, one line says what was read, and names what was not
    raises   ValueError for an unknown name or split, sizes that differ with no size given, or more pixels than 4 GB
             with no limit given; ConnectionError, in one sentence, if the hub cannot be reached and nothing is cached

    The folder right above a picture is its class, numbered alphabetically over all splits, unless a metadata.csv has a
    column of labels; pictures in no class folder have labels None, never class 0. Folders called train, test and val at
    the top, or in one folder around them, are splits; one such name alone, beside other classes, is a class too.
    """
    size = size if size is None else whole("size", size, 1, LARGEST_SIZE)
    limit = limit if limit is None else whole("limit", limit, 1)
    if not isinstance(name, str | Path):
        raise ValueError(f"name must be text or a path, got {name!r}")
    if not isinstance(split, str):
        raise ValueError(f'split must be "train", "test" or "validation", got {split!r}')
    split, left_out = SPLITS.get(split.casefold(), split), defaultdict(list)
    if name in BUNDLED:
        return _decode(_from_folder(ASSETS / BUNDLED[name], split, left_out)[0], size, limit, left_out)
    if name in HUB:
        repository, default_limit = HUB[name]
        limit = limit or default_limit
        images, labels = _decode(_from_hub(name, repository, split, limit), size, limit, left_out)
        if left_out:
            print(f"{name}: {len(images):,} pictures{not_read(left_out)}")
        return images, labels
    folder = Path(os.path.expanduser(name))
    if not str(name) or not os.path.isdir(folder):
        if os.path.isfile(folder):
            raise ValueError(f"{shown(folder)} is a file: give the folder that it lies in")
        raise ValueError(f"{shown(repr(name))} is neither a folder nor one of: {', '.join([*BUNDLED, *HUB])}")
    rows, counts = _from_folder(folder, split, left_out)
    images, labels = _decode(rows, size, limit, left_out)
    print(_summary(folder, split, rows, counts, images, labels) + not_read(left_out))
    return images, labels


def load_table(name: str) -> list[dict]:
    """The rows of a table that takes longer to measure than a lesson: `python assets/tables.py NAME` measures them.

    raises ValueError if the course has no table of that name
    """
    names = sorted(path.stem for path in (ASSETS / "tables").glob("*.json"))
    if name not in names:
        raise ValueError(f"there is no table {name!r}; there are: {', '.join(names)}")
    lines = (ASSETS / "tables" / f"{name}.json").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def load_photo() -> Tensor:
    """(3, H, W) uint8: the bundled photograph; assets/README.md says whose it is."""
    return torch.from_numpy(open_picture(ASSETS / "photo.png", size=None).copy())


def _summary(
    folder: Path, split: str, rows: Rows, counts: dict[str, int], images: Tensor, labels: Tensor | None
) -> str:
    """ "cars: 12 pictures of 'train' (of 12), 3 classes (bus, car, train); other splits: test (4)"."""
    text = f"{shown(folder)}: {len(images):,} pictures of {split!r} (of {rows.count:,}), "
    if labels is None:
        text += "no labels"
    else:
        there = set(labels.tolist())
        classes = sorted(rows.classes.items(), key=lambda item: item[1])
        names = list(dict.fromkeys(shown(label) for label, number in classes if number in there))
        listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        text += f"{len(there):,} class{'' if len(there) == 1 else 'es'} ({listed})"
    others = ", ".join(f"{other} ({count:,})" for other, count in counts.items() if other != split)
    return text + (f"; other splits: {others}" if others else "")


def _from_folder(folder: Path, split: str, left_out: LeftOut) -> tuple[Rows, dict[str, int]]:
    """One split of a folder, and how many pictures each split has. Where there is Parquet, it is what counts."""
    files = list_files(folder, left_out)
    tables = find_tables(files, left_out)
    if tables:
        counts = {name: sum(table.rows for table in parts) for name, parts in tables.items()}
    else:
        splits, classes = arrange(files, left_out)
        counts = {name: len(pictures) for name, pictures in splits.items()}
    kinds_left_out(files, left_out, tables=bool(tables))
    if not any(counts.values()):
        raise ValueError(f"no images or Parquet files found in {shown(folder)}{not_read(left_out)}")
    if split not in counts:
        raise ValueError(f"{shown(folder)} has no split {split!r}, only: {', '.join(counts)}")
    if tables:
        labels = {name: labels_in(parts) for name, parts in tables.items()}
        classes, there = class_numbers(set().union(*labels.values())), labels[split]
        pictures = pictures_in(tables[split], files, left_out)
    else:
        there = {label for _, label in splits[split] if isinstance(label, str | int | float)}
        pictures = ((name, files[name], label) for name, label in splits[split])
    return Rows(counts[split], pictures, classes if there & set(classes) else {}), counts


def _from_hub(name: str, repository: str, split: str, limit: int | None) -> Rows:
    """One split of a data set on the hub, or of its cached copy where the hub is out of reach."""
    import datasets  # takes a second, which what reads no images of the hub need not pay

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


def _rows(dataset: "datasets.Dataset | datasets.IterableDataset", limit: int | None) -> Rows:
    """The first `limit` rows with their images as files, not decoded yet."""
    features = dataset.features or {}
    column = next((name for name, feature in features.items() if type(feature).__name__ == "Image"), None)
    if column is None:
        raise ValueError(f"no column of images was found, only: {', '.join(features) or 'nothing'}")
    dataset = dataset.cast_column(column, replace(features[column], decode=False))
    if not hasattr(dataset, "__len__"):  # it streams
        rows = list(dataset.take(limit))
    else:
        rows = dataset.with_format("arrow")[:limit].to_pylist()  # all at once: four times as fast as row by row
    label = label_column(features, [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"])
    pictures = [picture_in(row[column], f"row {i}", row.get(label)) for i, row in enumerate(rows)]
    return Rows(len(rows), pictures, class_numbers(label for *_, label in pictures))


def _decode(rows: Rows, size: int | None, limit: int | None, left_out: LeftOut) -> tuple[Tensor, Tensor | None]:
    """Decode one picture at a time: whatever is wrong with one costs that one, and the rest still comes."""
    if not rows.count:
        raise ValueError("the data set is empty")
    images, labels, sizes = None, [], set()
    most = min(rows.count, limit or rows.count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about one picture or another
        for name, file, label in islice(_labelled(rows, left_out), most):
            try:
                image = open_picture(file, size)
            except Exception:  # decoders raise everything, MemoryError included
                left_out["could not be read as images"].append(name)
                continue
            sizes.add(image.shape[1:])
            if len(sizes) > 1:
                continue  # only counted: it ends in a sentence
            if images is None:
                images = _room(most, image.shape, limit)
            elif len(image) > images.shape[1]:  # one colour picture makes the whole set a colour set
                grey, images = images, _room(most, image.shape, limit)
                images[: len(labels)] = grey[: len(labels)]
            images[len(labels)] = image
            labels.append(rows.classes[label] if rows.classes else 0)
    if len(sizes) > 1:
        raise ValueError(f"the images have {len(sizes)} different sizes; say size=32, for instance, to make them equal")
    if images is None:
        raise ValueError(f"none of the files could be read as an image{not_read(left_out)}")
    images = torch.from_numpy(images[: len(labels)])
    return images, torch.tensor(labels, dtype=torch.int64) if rows.classes else None


def _labelled(rows: Rows, left_out: LeftOut) -> Iterator[Picture]:
    """All rows where no row has a label, else those that have one that is a class."""
    for name, file, label in rows.pictures:
        if rows.classes and (isinstance(label, list | dict) or label not in rows.classes):
            left_out["without a class"].append(name if label is None else f"{name}: {label!r}")
        else:
            yield name, file, label


def _room(count: int, shape: tuple[int, ...], limit: int | None) -> np.ndarray:
    """(count, C, H, W) uint8, not filled yet: the system gives memory as it is written."""
    total = count * math.prod(shape)
    try:
        if limit is not None or total <= MOST_BYTES:
            return np.empty((count, *shape), np.uint8)
    except (MemoryError, ValueError):
        pass
    raise ValueError(
        f"{count:,} pictures of {shape[2]}×{shape[1]} take {total / 2**30:.1f} GB of memory: say size=64, for "
        f"instance, for smaller ones, or limit={max(1, MOST_BYTES // math.prod(shape) // 2)} for fewer"
    )
