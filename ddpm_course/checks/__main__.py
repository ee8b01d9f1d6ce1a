"""`python -m ddpm_course.checks my_ddpm.py`: check the file again and print the progress."""

import argparse
import sys
from pathlib import Path

from ..colab import LIBRARY
from .overview import progress

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m ddpm_course.checks", description=progress.__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", default=LIBRARY, help="the file (default: %(default)s)")
    path = Path(parser.parse_args().path)
    if not path.is_file():
        sys.exit(f"There is no {path} here.")
    sys.exit(0 if progress(path) else 1)
