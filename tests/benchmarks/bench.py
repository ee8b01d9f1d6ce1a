"""The course against what you would pick instead, side by side on this machine: `make bench`.

    python tests/benchmarks/bench.py                                what is not in results.json yet
    python tests/benchmarks/bench.py ours "diffusers, our recipe"   these, whether they are stored or not
    python tests/benchmarks/bench.py --short                        speeds alone, in five minutes; stores nothing

Every row is measured by measure.py in a process of its own and stored as soon as it is done, so an interrupted run
goes on where it stopped. What was measured on another machine, with another budget or other versions is measured
again. This module imports nothing heavy: what a process has used before it starts another counts as the other's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from datetime import date
from importlib import metadata
from pathlib import Path

from ddpm_course.classroom import build, editions
from ddpm_course.files import write_atomically

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
MINUTES = 4  # of training, every row the same
ROWS = {  # in the order of what they tell
    "ours": "**ours**",
    "ours, no labels": "the same, told no labels",
    "ours, clusters": "the same, told which of 32 clusters of pixels",
    "annotated": "Annotated Diffusion Model",
    "annotated, our recipe": "its network, our recipe",
    "diffusers": "diffusers' `UNet2DModel`",
    "diffusers, our recipe": "its network, our recipe",
    "smalldiffusion": "smalldiffusion's U-Net",
    "smalldiffusion, our recipe": "its network, our recipe",
}
COLUMNS = {
    "": lambda row: ROWS[row["name"]],
    "weights": lambda row: f"{row['parameters']:,}",
    "training images/s": lambda row: f"{row['images_per_second']:.0f}",
    "of the matrix rate": lambda row: f"{100 * row['fraction_of_peak']:.0f} %",
    "Fréchet distance": lambda row: f"{row['frechet']:.1f}" if "frechet" in row else "–",
    "s for 64 images": lambda row: f"{row['seconds_64_samples']:.1f}: {row['sampler']}",
    "memory": lambda row: f"{row['peak_memory_mb']:,} MB" if row["peak_memory_mb"] else "–",
}
LESSONS = editions.lessons()
JOBS = [*ROWS, "curve", *LESSONS]
PACKAGES = ("torch", "diffusers", "denoising-diffusion-pytorch", "smalldiffusion")


def circumstances() -> dict:
    """What must agree for two measurements to stand in one table; no names of people or hosts."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    limit = f", OMP_NUM_THREADS={threads}" if threads else ""
    machine = f"{processor}, {cores} cores{limit}, {platform.system()}, Python {platform.python_version()}"
    versions = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return dict(minutes=MINUTES, machine=machine, versions=versions)


def measure(name: str, *options: str) -> dict:
    """Measure one job: a lesson here, the others in another process, whose output is the result."""
    if name in LESSONS:
        return dict(name=name, fast_seconds=lesson_seconds(name, fast=True), seconds=lesson_seconds(name, fast=False))
    command = [sys.executable, str(HERE / "measure.py"), name, str(MINUTES), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def lesson_seconds(lesson: str, fast: bool) -> float:
    """From starting the kernel to the last cell of the solutions edition; nothing is written."""
    path = editions.ROOT / "notebooks" / "solutions" / f"{lesson}.ipynb"
    notebook, started = editions.read(path), time.perf_counter()
    build.execute(notebook, path.parent, name=lesson, fast=fast)
    return round(time.perf_counter() - started, 1)


def read(path: Path = RESULTS) -> dict[str, dict]:
    """Name to what was measured."""
    return {entry["name"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def run(chosen: list[str], path: Path = RESULTS) -> None:
    """Measure what was chosen, or else what is not stored yet, and store each as it is done."""
    now = circumstances()
    for name in chosen or JOBS:
        results = read(path)
        if not chosen and now.items() <= results.get(name, {}).items():
            print(f"{name}: done on {results[name]['date']}", flush=True)
            continue
        print(f"{name} …", flush=True)
        results[name] = measure(name) | now | {"date": date.today().isoformat()}
        ordered = [results[job] for job in JOBS if job in results]
        write_atomically(path, json.dumps(ordered, indent=1) + "\n")


def markdown(results: dict[str, dict]) -> str:
    """The tables, as the README shows them."""
    tables = []
    if rows := [results[name] for name in ROWS if name in results]:
        tables.append([COLUMNS, *([show(row) for show in COLUMNS.values()] for row in rows)])
    if "curve" in results:
        values = results["curve"]["values"]
        head = ["bundled network: Fréchet distance, as asked; sampling steps", *next(iter(values.values()))]
        tables.append(
            [head, *([name, *(f"{d:.2f}, {a:.1f} %" for d, a in at.values())] for name, at in values.items())]
        )
    if lessons := [results[name] for name in LESSONS if name in results]:
        head = ["seconds to run lesson", *(entry["name"][:2] for entry in lessons)]
        budgets = {"in fast mode": "fast_seconds", "at the student's budget": "seconds"}
        tables.append([head, *([what, *(f"{entry[key]:.0f}" for entry in lessons)] for what, key in budgets.items())])
    return "\n\n".join(
        "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])
        for head, *body in tables
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="; ".join([*ROWS, "curve", "lessons, or one such as", LESSONS[0]]))
    parser.add_argument("--short", action="store_true", help="speeds alone, nothing is stored")
    args = parser.parse_args()
    chosen = [name for choice in args.names for name in (LESSONS if choice == "lessons" else [choice])]
    if unknown := [name for name in chosen if name not in JOBS]:
        parser.error(f"nothing is called {', '.join(unknown)}; there are: {'; '.join(JOBS)}; lessons")
    if args.short:
        results = {name: measure(name, "--short") for name in chosen or ROWS if name in ROWS}
    else:
        run(chosen)
        results = read()
    print("\n" + markdown(results))


if __name__ == "__main__":
    main()
