"""`make test-gpu`: does the course work on this machine's GPU, and how fast is it? One table, in eight minutes.

    python tests/gpu/run.py                         all of it
    python tests/gpu/run.py --out gpu.json          and the figures as JSON
    python tests/gpu/run.py resume speed            these parts alone
    python tests/gpu/run.py --device cpu --small    what can be tried without a GPU

It needs no network, and beside PyTorch only numpy, einops and safetensors. Every part of parts.py runs in a process of
its own, with a limit to its time: a GPU that gives up in one part, or hangs, costs that part alone.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

NEEDED = "torch", "numpy", "einops", "safetensors"
STOOD_IN_FOR = "tqdm", "PIL", "pyarrow", "pyarrow.parquet"  # the package imports them, for pictures and progress bars
LIMITS = dict(  # seconds for each part; all together take about half of this
    machine=60, placement=60, pulls=60, precision=60, compiled=180, resume=60, processes=120, recipe=150, speed=90,
    sampling=60,
)  # fmt: skip


def missing(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if find_spec(name.split(".")[0]) is None]


def run_part(name: str, device: str, small: bool) -> None:
    """In a process of its own: print its rows as lines of JSON. Where it raises, the last one says so."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package need not be installed
    stand_ins = {absent: mock.MagicMock() for absent in missing(STOOD_IN_FOR)}
    sys.modules.update(stand_ins)
    parts, out = importlib.import_module("parts"), sys.stdout
    for absent in stand_ins:
        del sys.modules[absent]  # torch, for one, looks later which of them there are
    for setting in ("DDPM_COURSE_FAST", "NBGRADER_EXECUTION"):  # they would cut the trainings short
        os.environ.pop(setting, None)
    with redirect_stdout(sys.stderr):  # what the course prints is no row
        for row in parts.rows_of(name, device, small):
            out.write(json.dumps(row) + "\n")  # at once: torchrun's processes share one output
            out.flush()


def rows_from_process(name: str, options: list[str]) -> Iterator[dict]:
    """The rows of a part; where its process dies or takes too long, the last one says so."""
    command, pipe, problem = [sys.executable, __file__, name, "--rows", *options], subprocess.PIPE, ""
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", errors="replace") as process:
        try:
            out, errors = process.communicate(timeout=LIMITS[name])
            if process.returncode:
                said = errors.strip().splitlines() or ["nothing was said"]
                problem = f"failed: it ended with {process.returncode}: {said[-1][:200]}"
        except subprocess.TimeoutExpired:
            process.kill()
            out, problem = process.communicate()[0], f"failed: it was not done after {LIMITS[name]} seconds"
    yield from (json.loads(line) for line in out.splitlines() if line.startswith("{"))  # libraries may have a say
    if problem:
        yield dict(check=name, passed=False, found=problem)


def main() -> None:
    parser = argparse.ArgumentParser(description="Check and time the course on a GPU.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(LIMITS)}; all unless some are named")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    parser.add_argument("--rows", action="store_true", help=argparse.SUPPRESS)  # in the process of a part
    args = parser.parse_args()
    if args.rows:
        return run_part(args.parts[0], args.device, args.small)
    if unknown := set(args.parts) - set(LIMITS):
        parser.error(f"there is no part {min(unknown)}, only {', '.join(LIMITS)}")
    if absent := missing(NEEDED):
        sys.exit(f"This needs {', '.join(absent)}, which {sys.executable} does not have; pip installs them.")
    if absent := missing(("PIL", "pyarrow")):
        print(f"Without {' and '.join(absent)} no pictures can be read: the Fréchet distance is not measured.")
    import torch

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA GPU; --device cpu --small tries what can be tried without.")
    rows, started = [], time.perf_counter()
    for name in args.parts or LIMITS:
        for row in rows_from_process(name, ["--device", args.device, *["--small"] * args.small]):
            rows.append(row | dict(part=name, at=round(time.perf_counter() - started, 1)))
            verdict = {True: "ok", False: "FAILED", None: "-"}[row["passed"]]
            print(f"{verdict:<8}{row['check']:<50}{row['found']}", flush=True)
    failed = sum(row["passed"] is False for row in rows)
    print(f"{len(rows)} rows in {time.perf_counter() - started:.0f} s, {failed} failed")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
