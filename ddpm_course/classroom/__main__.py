"""Makes the lessons and checks them, gives them an address, hands them out, reports on what comes back."""

import os
import sys

if __name__ == "__main__":  # in a folder of submissions, Python would load a student's argparse.py
    sys.path[:] = [place for place in sys.path if place not in ("", os.getcwd())]

import argparse
from pathlib import Path

from ..lab import ROOT
from . import build, publish, release, report, verify

COMMANDS = {  # in the order in which a course needs them
    "build": (build, "run the sources, write and run the student edition"),
    "verify": (verify, "say what is wrong with any edition"),
    "publish": (publish, "give badges, setup cells and links the address of a fork or a release"),
    "release": (release, "write what an instructor hands out"),
    "report": (report, "run what students handed in and count the mistakes"),
}


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run one command; 0 if all is well, 1 if not. What goes wrong is a sentence on standard error, no traceback."""
    parser = argparse.ArgumentParser(prog="python -m ddpm_course.classroom", description=__doc__.splitlines()[0])
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, help) in COMMANDS.items():
        module.add_options(parsers.add_parser(name, help=help))
    options = parser.parse_args(arguments)
    options.root = root
    try:
        return COMMANDS[options.command][0].run(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
