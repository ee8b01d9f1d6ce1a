"""The course against what you would pick instead, side by side on this machine: `make bench`.

    python tests/benchmarks/bench.py                       everything that is not in results.json yet
    python tests/benchmarks/bench.py ours "diffusers, our recipe"    these alone
    python tests/benchmarks/bench.py --again               everything afresh (with names: these)
    python tests/benchmarks/bench.py --short               speeds alone, in five minutes; stores nothing

Every row is measured by measure.py in a process of its own and stored as soon as it is done, so an interrupted run
goes on where it stopped. What was measured on another machine, with another budget or other versions is measured
again. This module imports nothing heavy: what a process has used before it starts another counts as the other's.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path

from ddpm_course import editions

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
ROWS = {  # in the order of what they tell
    "ours": "**ours**",
    "ours, no labels": "the same, told no labels",
    "annotated": "Annotated Diffusion Model",
    "annotated, our recipe": "its network, our recipe",
    "diffusers": "diffusers' `UNet2DModel`",
    "diffusers, our recipe": "its network, our recipe",
    "smalldiffusion": "smalldiffusion's U-Net",
    "smalldiffusion, our recipe": "its network, our recipe",
}
COSTS = ("batch", "size", "steps", "overhead", "curve")
IMPORTS = {
    "torch": "import torch",
    "the package": "import ddpm_course",
    "training and sampling": "from ddpm_course import samplers, training",
    "all that lesson 00 uses": "from ddpm_course import checks, data, metrics, plots, samplers, training",
}
PACKAGES = ("torch", "diffusers", "denoising-diffusion-pytorch", "smalldiffusion")


def jobs(chosen: list[str] | None = None) -> list[str]:
    """The names of everything there is to measure, or of what was chosen; "lessons" stands for all lessons.

    raises ValueError for a name that does not exist
    """
    lessons = editions.lessons()
    known = [*ROWS, *COSTS, "imports", *lessons]
    wanted = [name for choice in chosen or known for name in (lessons if choice == "lessons" else [choice])]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"nothing is called {', '.join(unknown)}; there are: {', '.join(known)}, lessons")
    return wanted


def circumstances(minutes: float) -> dict:
    """What must agree for two measurements to stand in one table, and when they were made."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return dict(minutes=minutes, machine=machine(), versions=versions, date=date.today().isoformat())


def machine() -> str:
    """Processor, cores, system and Python; no names of people or hosts."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f", OMP_NUM_THREADS={threads}" if threads else ""
    return f"{processor}, {cores} cores{limit}, {platform.system()}, Python {platform.python_version()}"


def measure(name: str, minutes: float, short: bool = False) -> dict:
    """Measure one job; a row or a cost in another process, whose last line of output is the result."""
    if name == "imports":
        return dict(name=name, values={what: import_seconds(line) for what, line in IMPORTS.items()})
    if name in editions.lessons():
        return dict(name=name, fast_seconds=lesson_seconds(name, fast=True), seconds=lesson_seconds(name, fast=False))
    command = [sys.executable, str(HERE / "measure.py"), name, "--minutes", str(minutes)] + ["--short"] * short
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        last = ""
        for line in process.stdout:
            if last:
                print("   ", last, flush=True)
            last = line.strip()
    if process.returncode:
        raise RuntimeError(f"measuring {name!r} ended with exit status {process.returncode}")
    return json.loads(last)


def import_seconds(line: str) -> float:
    """Of a whole process that does nothing else; the median of five, after one that warms the disk's cache."""
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", line], check=True)
        seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds[1:]), 2)


def lesson_seconds(lesson: str, fast: bool) -> float:
    """From starting the kernel to the last cell of the solutions edition; nothing is written."""
    path = editions.ROOT / "notebooks" / "solutions" / f"{lesson}.ipynb"
    notebook, started = editions.read(path), time.perf_counter()
    editions.run(notebook, path.parent, name=lesson, fast=fast)
    return round(time.perf_counter() - started, 1)


def read(path: Path) -> dict[str, dict]:
    """Name to what was measured."""
    return {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def store(path: Path, results: dict[str, dict]) -> None:
    """Whole under another name first, so that there is never half of one."""
    known = jobs()
    ordered = sorted(results.values(), key=lambda r: known.index(r["name"]) if r["name"] in known else len(known))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        file.write(json.dumps(ordered, indent=1) + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def run(wanted: list[str], path: Path, minutes: float, again: bool = False, measure: Callable = measure) -> list[str]:
    """Measure what is not stored yet and store each as it is done; returns the names of those that failed."""
    now = circumstances(minutes)
    same = ("minutes", "machine", "versions")
    done = {name for name, r in read(path).items() if not again and [r.get(k) for k in same] == [now[k] for k in same]}
    failed = []
    for name in wanted:
        if name in done:
            print(f"{name}: done on {read(path)[name]['date']}", flush=True)
            continue
        print(f"{name} …", flush=True)
        started = time.perf_counter()
        try:
            result = measure(name, minutes)
        except (RuntimeError, subprocess.CalledProcessError, ValueError) as error:
            failed.append(name)
            print(f"{name}: {error}", flush=True)
            continue
        store(path, read(path) | {name: result | now})
        print(f"{name}: measured in {time.perf_counter() - started:.0f} s", flush=True)
    return failed


def markdown(results: dict[str, dict]) -> str:
    """The tables, as the README shows them."""
    blocks, rows = [], [results[name] for name in ROWS if name in results]
    if rows:
        head = (
            "",
            "weights",
            "training images/s",
            "of the matrix rate",
            "Fréchet distance",
            "s for 64 images",
            "memory",
        )
        lines = [
            (
                ROWS[r["name"]], f"{r['parameters']:,}", f"{r['images_per_second']:.0f}",
                f"{100 * r['fraction_of_peak']:.0f} %", f"{r['frechet']:.1f}" if "frechet" in r else "–",
                f"{r['seconds_64_samples']:.1f}: {r['sampler']}",
                f"{r['peak_memory_mb']:,} MB" if r["peak_memory_mb"] else "–",
            )
            for r in rows
        ]  # fmt: skip
        blocks.append(grid(head, lines))
    for name, head, form in (
        ("batch", "training images/s at batch size", "{:.0f}"),
        ("size", "training images/s at image size", "{:.0f}"),
        ("steps", "seconds for 64 images at sampling steps", "{:.1f}"),
        ("overhead", "seconds for 64 images, 25 steps", "{:.2f}"),
        ("imports", "seconds to import", "{:.2f}"),
    ):
        if name in results:
            values = results[name]["values"]
            blocks.append(grid((head, *map(str, values)), [("", *(form.format(v) for v in values.values()))]))
    if "curve" in results:
        values = results["curve"]["values"]
        head = ("bundled network: Fréchet distance, as asked; sampling steps", *next(iter(values.values())))
        lines = [(name, *(f"{d:.2f}, {a:.1f} %" for d, a in at.values())) for name, at in values.items()]
        blocks.append(grid(head, lines))
    lessons = [results[name] for name in editions.lessons() if name in results]
    if lessons:
        head = ("seconds to run lesson", *(r["name"][:2] for r in lessons))
        fast, full = ([f"{r[key]:.0f}" for r in lessons] for key in ("fast_seconds", "seconds"))
        blocks.append(grid(head, [("in fast mode", *fast), ("at the student's budget", *full)]))
    return "\n\n".join(blocks)


def grid(head: tuple, lines: list[tuple]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ("---",) * len(head), *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"{', '.join(ROWS)}; {', '.join(COSTS)}, imports, lessons")
    parser.add_argument("--minutes", type=float, default=4, help="of training, every row the same")
    parser.add_argument("--again", action="store_true", help="measure what is stored already, too")
    parser.add_argument("--short", action="store_true", help="speeds alone, nothing is stored")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    try:
        wanted = jobs(args.names)
    except ValueError as error:
        parser.error(str(error))
    if args.short:
        rows = {}
        for name in wanted:
            if name in ROWS:
                print(f"{name} …", flush=True)
                rows[name] = measure(name, args.minutes, short=True)
        print("\n" + markdown(rows))
        return 0
    try:
        failed = run(wanted, args.results, args.minutes, args.again)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on. Stored so far: {'; '.join(read(args.results)) or 'nothing'}")
        return 130
    print("\n" + markdown(read(args.results)))
    if failed:
        print(f"\nnot measured: {'; '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
