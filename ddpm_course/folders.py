"""What a folder of pictures looks like: its files, splits and classes, and what in it is not read (lesson 07).

Nothing is opened here but metadata.csv: the names decide. Only files that `list_files` found are ever opened, so no
name inside a stranger's file leads out of the folder, to a pipe or to a device.
"""

import csv
import io
import json
import os
import posixpath
import re
import stat
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path

PICTURE = re.compile(r".*\.(png|jpe?g|jpe|jfif|mpo|gif|bmp|dib|webp|tiff?|p[bgnp]m|avifs?)", re.DOTALL | re.IGNORECASE)
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= {"val": "validation", "validation": "validation"}
LABELS = (  # columns, the first that is there counts
    "label", "labels", "fine_label", "digit", "class", "class_id", "target", "category", "coarse_label", "y",
)  # fmt: skip
METADATA = ("metadata.csv", "metadata.jsonl")
MOST_CLASSES = 100_000  # beyond it, numbers are no classes

LeftOut = defaultdict[str, list[str]]  # {why: names of what was not read}


def list_files(folder: Path, left_out: LeftOut) -> dict[str, Path]:
    """{name below the folder: path} of the files in it, sorted; links are followed, each folder is entered once."""
    files, entered, folders, links = {}, set(), deque([folder]), deque()
    while folders or links:
        here = (folders or links).popleft()  # links come last: what is in the folder itself goes first
        name = here.relative_to(folder).as_posix()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in entered:
                left_out["a link to a folder that was read already"].append(name)
                continue
            entered.add((status.st_dev, status.st_ino))
            inside = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            left_out["a folder that cannot be opened"].append(name)
            continue
        for entry in inside:
            path = Path(entry.path)
            name = path.relative_to(folder).as_posix()
            try:
                mode = entry.stat().st_mode
            except OSError:
                left_out["a link that leads nowhere"].append(name)
                continue
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                left_out["hidden"].append(name)
            elif stat.S_ISDIR(mode):
                (links if entry.is_symlink() else folders).append(path)
            elif stat.S_ISREG(mode):
                files[name] = path
            else:
                left_out["neither file nor folder"].append(name)
    return dict(sorted(files.items()))


def composed(name: str) -> str:
    """With each accent in one piece with its letter: macOS takes them apart."""
    return unicodedata.normalize("NFC", name)


def suffix(name: str) -> str:
    """Of a file, whatever its case: ".png"."""
    return posixpath.splitext(name)[1].casefold()


def arrange(files: dict[str, Path], left_out: LeftOut) -> tuple[dict[str, list[tuple[str, object]]], dict]:
    """The pictures of each split, as (name, label as it stands there), and {label: class}.

    Splits are folders at the top that are called "train", "test" and so on, unless such a name stands beside others
    that hold pictures: then it is one class of several. A folder around all of it, as archives often have one, is no
    top. The label is the name of the folder right above a picture, or what a metadata.csv says.
    """
    pictures = [name for name in files if PICTURE.fullmatch(name)]
    around = 0  # folders that hold all folders with pictures
    while len(tops := {name.split("/")[around] for name in pictures if name.count("/") > around}) == 1:
        if {top.casefold() for top in tops} & SPLITS.keys():
            break
        around += 1
    split_folders = {top: SPLITS[top.casefold()] for top in tops if top.casefold() in SPLITS}
    strays = around and any(name.count("/") <= around for name in pictures)
    if (strays or len(split_folders) < len(tops)) and not {"train"} < set(split_folders.values()):
        split_folders = {}
    labels, splits = _metadata(files, left_out), {}
    for name in pictures:
        above, split = name.split("/")[:-1], "train"
        if split_folders:
            *above, _ = name.split("/")[around:] or [name]
            if not above or above[0] not in split_folders:
                left_out["outside the splits' folders"].append(name)
                continue
            split = split_folders[above.pop(0)]
        label = (composed(above[-1]) if above else None) if labels is None else labels.get(name)
        splits.setdefault(split, []).append((name, label))
    if labels is None:
        names = sorted({label for rows in splits.values() for _, label in rows} - {None})
        return splits, {name: i for i, name in enumerate(names)}
    return splits, class_numbers(labels.values())


def _metadata(files: dict[str, Path], left_out: LeftOut) -> dict[str, object] | None:
    """{name: label} of the metadata.csv and metadata.jsonl files, names are relative to theirs; None without any."""
    labels, there = None, {composed(name): name for name in files}
    for table, path in files.items():
        if posixpath.basename(table).casefold() not in METADATA:
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
            if suffix(table) == ".csv":
                head = text.splitlines()[0]
                separator = max(",;\t", key=head.count)  # spreadsheets have one for each country
                rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
            else:
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            rows = [{str(key).strip().casefold(): value for key, value in row.items()} for row in rows]
            column = label_column({key for row in rows for key in row})
            names = [str(row["file_name"]).replace("\\", "/") for row in rows]
        except Exception:  # not UTF-8, no table, no column "file_name"
            left_out["no UTF-8 table with a column file_name"].append(table)
            continue
        if column is None:
            left_out["a table without labels"].append(table)
            continue
        labels = labels or {}
        for row, name in zip(rows, names, strict=True):
            name = posixpath.normpath(posixpath.join(posixpath.dirname(table), name))
            found = there.get(composed(name))
            if found:
                labels[found] = row.get(column)
            else:
                left_out["in the metadata, but not in the folder"].append(name)
    return labels


def label_column(names: Iterable[str], classes: Iterable[str] = ()) -> str | None:
    """The column with the labels, by its name; else the first of `classes`, which the table itself calls classes."""
    by_name = {name.casefold(): name for name in names}
    return next((by_name[name] for name in LABELS if name in by_name), next(iter(classes), None))


def class_numbers(labels: Iterable[object]) -> dict[str | int | float, int]:
    """{label: class}: whole numbers from 0 are classes as they are, texts are numbered alphabetically."""
    labels = {label for label in labels if isinstance(label, str | int | float)}  # not None, no lists
    texts = {label: composed(label.strip()) for label in labels if isinstance(label, str) and label.strip()}
    if any(_number(text) is None for text in texts):
        numbers = {text: i for i, text in enumerate(sorted(set(texts.values())))}
        return {label: numbers[text] for label, text in texts.items()}
    return {label: _number(label) for label in labels if _number(label) is not None}


def _number(label: str | int | float) -> int | None:
    if isinstance(label, str):
        label = int(label) if re.fullmatch(r"\s*[0-9]{1,9}\s*", label) else -1
    return int(label) if 0 <= label < MOST_CLASSES and label == int(label) else None


def split_in_name(name: str) -> str | None:
    """Of a Parquet file: "train-00000-of-00001.parquet", "data/mnist_test.parquet" or "default/train/0000.parquet"."""
    for part in reversed(posixpath.splitext(name)[0].casefold().split("/")):
        found = {SPLITS[word] for word in re.split(r"[^a-z]+", part) if word in SPLITS}
        if len(found) == 1:
            return found.pop()
    return None


def kinds_left_out(files: dict[str, Path], left_out: LeftOut, tables: bool) -> None:
    """Note the files that are no pictures, by their kind; and the pictures, if `tables` are what is read."""
    for name in files:
        kind, is_metadata = suffix(name), posixpath.basename(name).casefold() in METADATA
        if PICTURE.fullmatch(name):
            if tables:
                left_out["beside Parquet, read where a row names them"].append(name)
        elif kind != ".parquet" and (tables or not is_metadata):
            left_out[f"{shown(kind) or 'other'} files"].append(name)


def shown(name: object) -> str:
    """A name as one line of text: nothing in it moves the cursor or cannot be printed."""
    return "".join(c if c.isprintable() else "?" for c in str(name))


def not_read(left_out: LeftOut) -> str:
    """ "; not read: hidden: 2 (.DS_Store, .git); …", or nothing."""
    parts = []
    for why, names in left_out.items():
        some = ", ".join(shown(name) for name in names[:5]) + (", …" if len(names) > 5 else "")
        parts.append(f"{why}: {len(names):,} ({some})")
    return "".join(f"; {'not read: ' if i == 0 else ''}{part}" for i, part in enumerate(parts))
