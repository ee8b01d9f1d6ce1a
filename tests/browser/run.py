"""Opens lessons in JupyterLab in a real browser, runs them and looks at the result: make test-browser.

    python tests/browser/run.py [LESSON ...] [--solutions] [--screens FOLDER] [--minutes 15]

Each lesson is a copy in an empty folder, opened in headless Chromium: no kernel question, Run All, every code cell
ran, no error output, nothing on standard error, and what else `looking` asks: no mathematics left unrendered, every
figure visible, nothing that scrolls, every slider moves and redraws. Screenshots of the whole lesson, light and dark,
go to FOLDER. With DDPM_COURSE_FAST=1 budgets are short. Exits with 0 if all lessons pass, 1 if not; without Chromium
it prints NOT RUN, and that fails under CI.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import looking

sys.path.append(str(Path(__file__).resolve().parents[1]))
from courses import save, server  # noqa: E402

from ddpm_course import lab  # noqa: E402
from ddpm_course.classroom import editions

try:
    from playwright import sync_api
except ImportError:
    sync_api = None

QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"

# An assertion that cannot fail says nothing: the run begins with a page whose faults it must find.
BROKEN = """<body><div class="jp-OutputArea jp-Cell-outputArea">
    <div class="jp-OutputArea-output" data-mime-type="application/vnd.jupyter.error">Oh</div><div><div
    class="noUi-handle" tabindex="0" onkeydown="this.parentElement.style.transform = 'translate(9px)'">o</div></div>
    <div class="widget-output"><pre>drawn at 0</pre></div></div></body>"""
MISSING = [".jp-Notebook .jp-CodeCell", ".jp-RenderedMarkdown mjx-container", ".jp-OutputArea img"]
FAULTS = [*(f"the page has none: {css}" for css in MISSING), "went wrong: Oh", "slider 1 moved and nothing was redrawn"]


def chromium() -> str | None:
    """The browser: $CHROMIUM, or one on the path."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "chrome"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def jupyterlab(folder: Path):
    """A server on `folder`, with settings and kernels of its own; yields its address and token."""
    settings = folder / ".settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    save(settings, {"windowingMode": "none"})  # the whole lesson is kept in the page, not only what is in view
    options = ["--LabApp.expose_app_in_browser=True", f"--LabApp.user_settings_dir={folder / '.settings'}"]
    options += [f"--ServerApp.root_dir={folder}", f"--LabApp.workspaces_dir={folder / '.spaces'}"]
    ours = str(lab.SETTINGS)  # as `make lab` does: no question about news
    return server(folder, "jupyterlab", *options, JUPYTER_CONFIG_PATH=ours, DDPM_COURSE_SAVE="0")


def run_lesson(browser, lesson: str, source: Path, screens: Path, minutes: float) -> list[str]:
    """Run one lesson in the browser. Returns what is wrong with it, one sentence each."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, jupyterlab(Path(folder)) as (url, token):
        notebook = editions.read(source)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None  # what is seen later was made here
        editions.write(notebook, Path(folder) / source.name)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{url}lab/tree/{source.name}?token={token}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_function(looking.READY, polling=500)

        started = time.monotonic()
        page.evaluate(looking.COMMAND, ["notebook:run-all-cells", {}])
        page.wait_for_function(looking.STARTED, timeout=60_000, polling=500)
        with suppress(sync_api.TimeoutError):  # the cells that did not run are told
            page.wait_for_function(looking.FINISHED, timeout=minutes * 60_000, polling=1000)
        print(f"{lesson}: ran in {time.monotonic() - started:.0f} s", flush=True)
        page.wait_for_timeout(3000)  # formulas and pictures that are still being drawn
        wrong = page.evaluate(looking.WHOLE_PAGE) + looking.sliders(page)
        for theme in ("Light", "Dark"):
            looking.photograph(page, screens / lesson, theme)
        page.close()
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Run lessons in JupyterLab in a real browser.")
    parser.add_argument("lessons", nargs="*", help="numbers, such as 00 02; all by default")
    parser.add_argument("--solutions", action="store_true", help="the solutions edition instead of the student's")
    parser.add_argument("--screens", type=Path, default=Path("screens"))
    parser.add_argument("--minutes", type=float, default=15, help="give a lesson up after this long")
    args = parser.parse_args()
    path = chromium()
    if sync_api is None or path is None:
        print("NOT RUN: this needs Playwright (pip install -e '.[browser]') and Chromium ($CHROMIUM names another).")
        return int(os.environ.get("CI", "") not in ("", "0", "false"))
    args.screens.mkdir(parents=True, exist_ok=True)
    folder = editions.ROOT / "notebooks" / ("solutions" if args.solutions else "")
    failed = False
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET.split(), timeout=120_000)
        page = browser.new_page()
        page.set_content(BROKEN)
        assert (found := page.evaluate(looking.WHOLE_PAGE) + looking.sliders(page, patience=3)) == FAULTS, found
        for lesson in editions.lessons(chosen=args.lessons or None):
            source = folder / f"{lesson}.ipynb"
            for attempt in (1, 2):  # on a busy machine a page sometimes does not come up in time
                try:
                    wrong = run_lesson(browser, lesson, source, args.screens, args.minutes)
                    break
                except Exception as error:  # the next lesson is still worth running
                    wrong = [f"the browser gave up: {str(error).strip()[:300]}"]
                    print(f"{lesson}, attempt {attempt}: {wrong[0]}", flush=True)
            failed |= bool(wrong)
            print(f"{lesson}: {'passed' if not wrong else 'FAILED'}", *wrong, sep="\n  ", flush=True)
        browser.close()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
