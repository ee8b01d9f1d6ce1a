"""Writing a file so that no reader meets half of one, and a crash or a full disk leaves what was there before."""

import glob
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = re.compile(r"\.\d+-[0-9a-f]{8}\.partial")  # what follows the name while a file is being written


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Replace the file at `path` in one step; text is written as UTF-8 with \\n at the ends of lines.

    raises OSError if it cannot be written; what was there before is then untouched
    """
    path = Path(path)
    with written_beside(path, content) as new:
        new.replace(path)


@contextmanager
def written_beside(path: Path, content: bytes | str) -> Iterator[Path]:
    """A complete file beside `path`, on the disk, to be renamed to it inside the `with`; gone afterwards if it was not.

    `write_atomically` is this and the renaming; whoever keeps the file before needs the moment between the two.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
        _flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(path: Path) -> None:
    """Remove what processes left that were killed while they wrote `path`. Only for a file with one writer."""
    for left_over in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):
        if _PARTIAL.fullmatch(left_over.name.removeprefix(path.name)):  # not of another file, NAME.2
            left_over.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Bring the new names to the disk too; Windows has no such call."""
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # nor have some network drives
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
