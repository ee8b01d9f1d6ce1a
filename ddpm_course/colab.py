"""Colab lends a machine, often without a GPU, and takes it back without warning: what lessons do about both.

Elsewhere the same calls work and say less: no word of GPUs, and what is kept lies beside the notebook.
"""

import shutil
import sys
from pathlib import Path

from .modes import fast_mode, saving

LIBRARY = "my_ddpm.py"  # the file in which a student's functions come together
DRIVE = Path("/content/drive/MyDrive")  # there once a student has mounted it: always their own choice
MOUNT = 'from google.colab import drive; drive.mount("/content/drive")'


def in_colab() -> bool:
    return "google.colab" in sys.modules  # every kernel of Colab has imported it


def suggest_gpu(minutes: int) -> None:
    """In Colab without a GPU, say what to click and how many minutes the lesson takes as it is; else say nothing."""
    import torch

    if in_colab() and not torch.cuda.is_available():
        print(
            f"This machine has no GPU. The lesson works as it is, and takes about {minutes} minutes to run.\n"
            "With a GPU it is quicker, and what you train gets further: Runtime → Change runtime type → T4 GPU, "
            "then Runtime → Run all."
        )


def own_folder() -> Path:
    """Where a student's my_ddpm.py lies: in Colab with Drive mounted a folder of Drive's, else the current folder.

    A my_ddpm.py that was begun before Drive was mounted is taken along, unless Drive has one.
    """
    try:
        if not (in_colab() and DRIVE.is_dir()):
            return Path()
        folder = DRIVE / "ddpm_course"
        folder.mkdir(exist_ok=True)
        if Path(LIBRARY).is_file() and not (folder / LIBRARY).exists():
            shutil.copy(LIBRARY, folder)
        return folder
    except OSError:  # a Drive that is full, or went away: the current folder still works
        return Path()


def named(path: Path) -> str:
    """A file or folder in `own_folder`, as a student is told of it."""
    if path.is_relative_to(DRIVE):
        return f"{path.relative_to(DRIVE).as_posix()} in your Drive"
    return str(path)


def keep(lesson: str) -> Path | None:
    """A folder for the training of a lesson, for `checkpoint=`: when the lesson is run again, its training goes on.

    It is in Drive where that is mounted, else beside the notebook, and is said in a line.
    returns None, and says nothing, where nothing is kept: in fast mode, under nbgrader, with DDPM_COURSE_SAVE=0
    """
    if fast_mode() or not saving():
        return None
    folder = own_folder() / "runs" / lesson
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"Nothing can be kept in {folder} ({error.strerror}): an interrupted training begins again.")
        return None
    print(f"The training is kept in {named(folder)}. If it is interrupted, run the lesson again and it goes on.")
    if in_colab() and not folder.is_relative_to(DRIVE):
        print(f"But Colab deletes that folder with this machine. To keep it in your Drive, run: {MOUNT}")
    return folder
