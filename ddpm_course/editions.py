"""Old commands, `python -m ddpm_course.editions …`: says in a line what they are called now, and does the work."""

import shlex
import sys


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    new = "lab" if arguments[:1] == ["copy"] else "classroom"
    print(f"This command is now: python -m ddpm_course.{new} {shlex.join(arguments)}", file=sys.stderr)
    if new == "lab":
        from .lab import main
    else:
        from .classroom.__main__ import main
    return main(arguments)


if __name__ == "__main__":
    sys.exit(main())
