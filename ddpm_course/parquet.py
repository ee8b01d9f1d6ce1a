"""Parquet files with pictures, the hub's own or anybody's: which columns count, and a few rows at a time (lesson 07).

Nothing is cached: the bundled pictures are read like this on a full or read-only disk too.
"""

import io
import json
import mmap
import posixpath
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from .folders import MOST_CLASSES, LeftOut, label_column, split_in_name

Picture = tuple[str, io.BytesIO | Path | None, object]  # name, file, label as it stands there
BATCH = 32  # rows read at a time: a small file may hold one large picture thousands of times
UNPACKED = 256 << 20  # bytes that a part of a file may always unpack to; above, at most a hundred times its own


class Table(NamedTuple):
    """One file of a split."""

    name: str
    path: Path
    rows: int
    image: str  # columns
    label: str | None


def find_tables(files: dict[str, Path], left_out: LeftOut) -> dict[str, list[Table]]:
    """The tables with pictures of each split. Where some say in their names which split they are, all must."""
    tables = {}
    for name, path in files.items():
        if not name.casefold().endswith(".parquet"):
            continue
        try:
            parquet = _open(path)
            image = image_column(parquet.schema_arrow)
            label = label_column(set(parquet.schema_arrow.names) - {image}, class_columns(parquet.schema_arrow))
            rows, bomb = parquet.metadata.num_rows, swollen(parquet.metadata, path.stat().st_size)
        except Exception:  # pyarrow has many kinds
            left_out["no Parquet that can be read"].append(name)
            continue
        if bomb:
            left_out["Parquet that unpacks to more than a hundred times its size"].append(name)
        elif image is None:
            left_out["no column of images"].append(f"{name}: only {', '.join(parquet.schema_arrow.names)}")
        else:
            tables.setdefault(split_in_name(name), []).append(Table(name, path, rows, image, label))
    unnamed = tables.pop(None, [])
    if unnamed and not tables:
        tables["train"] = unnamed
    elif unnamed:
        left_out["no split in the file's name"] += [table.name for table in unnamed]
    return tables


def swollen(metadata: pq.FileMetaData, size: int) -> bool:
    """Does a file of `size` bytes claim to unpack to far more, in one of its parts? One value may have 2 GB.

    Pictures are packed already, so theirs hardly do. pyarrow believes each page's own claim, not this one: a file that
    was forged with care still takes the memory. Asked for more than totals, it ends the process on a damaged file.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    return any(group.total_byte_size > max(UNPACKED, 100 * size) for group in groups)


def image_column(schema: pa.Schema) -> str | None:
    """A struct with bytes, as the hub has it, else bytes, else the names of files in the folder."""

    def rank(field: pa.Field) -> int:
        if pa.types.is_struct(field.type):
            return 0 if field.type.get_field_index("bytes") >= 0 else 9
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            return 1 if field.name in ("image", "img") else 2
        return (
            3 if field.name in ("file_name", "path", "image") and field.type in (pa.string(), pa.large_string()) else 9
        )

    return min((field for field in schema if rank(field) < 9), key=rank, default=pa.field("", pa.null())).name or None


def class_columns(schema: pa.Schema) -> list[str]:
    """The columns that the hub's metadata calls classes, if there is such."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return [name for name in schema.names if features[name]["_type"] == "ClassLabel"]
    except (TypeError, KeyError, ValueError):  # none, or another's
        return []


def labels_in(tables: list[Table]) -> set:
    """The labels that occur; nothing where there are too many to be classes."""
    labels = set()
    for table in tables:
        with suppress(Exception):  # a damaged table: `pictures_in` says so
            for batch in _batches(table, [table.label] if table.label else [], rows=1024):
                labels |= {label for label in batch[0] if isinstance(label, str | int | float)}
                if len(labels) > MOST_CLASSES:
                    return set()
    return labels


def pictures_in(tables: list[Table], files: dict[str, Path], left_out: LeftOut) -> Iterator[Picture]:
    """Name, file and label of each row. A path in a row is only looked up among the folder's own files."""
    for table in tables:
        row = 0
        try:
            for images, *labels in _batches(table, [table.image] + ([table.label] if table.label else []), BATCH):
                for image, label in zip(images, labels[0] if labels else [None] * len(images), strict=True):
                    yield picture_in(image, f"row {row} of {table.name}", label, files, posixpath.dirname(table.name))
                    row += 1
        except Exception:
            left_out["Parquet cut short"].append(f"{table.name} after {row} of {table.rows} rows")


def picture_in(
    cell: object, row: str, label: object, files: dict[str, Path] | None = None, folder: str = ""
) -> Picture:
    """Of one cell of a column of images: {"bytes": …, "path": …}, bytes, or a name in the folder of the table."""
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if isinstance(content, str):
        content, path = None, content
    name = row if path is None else str(path).replace("\\", "/").split("/")[-1]
    found = (files or {}).get(posixpath.normpath(posixpath.join(folder, str(path))))
    return name, io.BytesIO(content) if content else found, label


def _batches(table: Table, columns: list[str], rows: int) -> Iterator[list[list]]:
    """The values of these columns, some rows at a time."""
    if not columns:
        return
    for batch in _open(table.path).iter_batches(rows, columns=columns, use_threads=False):
        yield [batch[column].to_pylist() for column in columns]


def _open(path: Path) -> pq.ParquetFile:
    """Mapped into memory. pyarrow cannot open every name itself, and it reads a file of Python's from threads of its
    own, which end the process where Python is ending.
    """
    with path.open("rb") as file:
        return pq.ParquetFile(pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
