"""Opens lessons in JupyterLab in a real browser, runs them and looks at the result: make test-browser.

    python tests/browser/run.py [LESSON ...] [--solutions] [--screens FOLDER] [--minutes 15]

Each lesson is a copy in an empty folder, opened in headless Chromium: no kernel question, Run All, every code cell
ran, no error output, nothing on standard error, no mathematics left unrendered, every figure visible, every slider
moves and redraws. Screenshots of the whole lesson, light and dark, go to FOLDER. With DDPM_COURSE_FAST=1 budgets are
short. Exits with 0 if all lessons pass, 1 if not; without Chromium it prints NOT RUN, and that fails under CI.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from ddpm_course import editions

QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-sync"
TRACKER = {"windowingMode": "none"}  # JupyterLab then keeps the whole lesson in the page, not only what is in view
NOT_RENDERED = """() => [...document.querySelectorAll('.jp-RenderedMarkdown')]
    .filter(x => x.innerText.includes('$$') || x.querySelector('mjx-merror, .MathJax_Error'))
    .map(x => x.innerText.slice(0, 120))"""
FINISHED = """() => document.querySelector('[data-mime-type="application/vnd.jupyter.error"]') ||
    [...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')].every(x => /\\d/.test(x.innerText))"""
BLANK_FIGURES = "() => [...document.querySelectorAll('.jp-OutputArea img')].filter(x => !x.naturalWidth).length"


def chromium() -> str | None:
    """The browser: $CHROMIUM, or one on the path."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "chrome"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


@contextmanager
def jupyterlab(folder: Path):
    """A server on `folder`, with settings and kernels of its own; yields its address and token."""
    runtime, settings = folder / ".runtime", folder / ".settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps(TRACKER))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0",
               f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
               f"--LabApp.user_settings_dir={folder / '.settings'}", f"--LabApp.workspaces_dir={folder / '.spaces'}",
               "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    environment = {**os.environ, "JUPYTER_RUNTIME_DIR": str(runtime), "DDPM_COURSE_SAVE": "0"}
    with open(folder / ".log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if found := list(runtime.glob("jpserver-*.json")):
                time.sleep(1)  # the file may be half written
                facts = json.loads(found[0].read_text())
                break
            if server.poll() is not None:
                raise RuntimeError(f"JupyterLab did not start: {(folder / '.log').read_text()[-500:]}")
            time.sleep(0.2)
        yield facts["url"], facts["token"]
    finally:
        server.terminate()
        server.wait(30)


def run_lesson(browser, lesson: str, source: Path, screens: Path, minutes: float) -> list[str]:
    """Run one lesson in the browser. Returns what is wrong with it, one sentence each."""
    from playwright.sync_api import TimeoutError as TooLong

    wrong = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notebook = editions.read(source)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None  # what is seen later was made here
        editions.write(notebook, folder / f"{lesson}.ipynb")
        with jupyterlab(folder) as (url, token):
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.goto(f"{url}lab/tree/{lesson}.ipynb?token={token}")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120_000)
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
            if page.locator(".jp-Dialog").count():
                wrong.append(f"a dialog opened: {page.locator('.jp-Dialog').first.inner_text()[:80]!r}")
            started = time.time()
            page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
            try:
                page.wait_for_function(FINISHED, timeout=minutes * 60_000, polling=1000)
            except TooLong:
                wrong.append(f"not finished after {minutes:g} minutes")
            print(f"{lesson}: ran in {time.time() - started:.0f} s", flush=True)
            page.wait_for_timeout(3000)  # formulas and pictures that are still being drawn
            wrong += sliders(page)
            wrong += [f"not rendered: {text!r}" for text in page.evaluate(NOT_RENDERED)]
            if blank := page.evaluate(BLANK_FIGURES):
                wrong.append(f"{blank} figures are blank")
            for theme in ("Light", "Dark"):
                change = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
                page.evaluate(change, f"JupyterLab {theme}")
                page.wait_for_timeout(1500)
                photograph(page, screens / f"{lesson}-{theme.lower()}")
            page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
            page.wait_for_timeout(2000)
            page.close()
        done = editions.read(folder / f"{lesson}.ipynb")
    for cell in done.cells:
        if cell.cell_type == "code" and cell.source.strip():
            if not cell.execution_count:
                wrong.append(f"cell {cell.id} did not run")
            for output in cell.outputs:
                if output.output_type == "error" or output.get("name") == "stderr":
                    wrong.append(f"cell {cell.id}: {str(output.get('evalue') or output.get('text'))[:200]}")
    return wrong


def sliders(page) -> list[str]:
    """Move every slider with the keyboard; a picture near it has to change."""
    wrong = []
    handles = page.locator(".jp-OutputArea .noUi-handle")
    for i in range(handles.count()):
        area = handles.nth(i).locator("xpath=ancestor::*[contains(@class, 'jp-Cell-outputArea')]").first
        before = area.inner_html()
        handles.nth(i).focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        pictures = "img, pre"
        for _ in range(40):
            page.wait_for_timeout(500)
            if area.locator(pictures).count() and area.inner_html() != before:
                break
        else:
            wrong.append(f"slider {i + 1} moved and nothing was redrawn")
    print(f"  {handles.count()} sliders", flush=True)
    return wrong


def photograph(page, stem: Path) -> None:
    """The whole lesson, a screen at a time: stem-00.png, stem-01.png, ..."""
    panel = ".jp-NotebookPanel .jp-WindowedPanel-outer"
    height, screen = page.evaluate(f"(x => [x.scrollHeight, x.clientHeight])(document.querySelector('{panel}'))")
    for i, top in enumerate(range(0, height, screen - 60)):
        page.evaluate(f"document.querySelector('{panel}').scrollTop = {top}")
        page.wait_for_timeout(150)
        page.screenshot(path=f"{stem}-{i:02d}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run lessons in JupyterLab in a real browser.")
    parser.add_argument("lessons", nargs="*", help="numbers, such as 00 02; all by default")
    parser.add_argument("--solutions", action="store_true", help="the solutions edition instead of the student's")
    parser.add_argument("--screens", type=Path, default=Path("screens"))
    parser.add_argument("--minutes", type=float, default=15, help="give a lesson up after this long")
    args = parser.parse_args()
    path = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        print("NOT RUN: this needs Playwright (pip install -e '.[browser]') and Chromium ($CHROMIUM names another).")
        return int(os.environ.get("CI", "") not in ("", "0", "false"))
    args.screens.mkdir(parents=True, exist_ok=True)
    folder = editions.ROOT / "notebooks" / ("solutions" if args.solutions else "")
    failed = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET.split())
        for lesson in editions.lessons(chosen=args.lessons or None):
            wrong = run_lesson(browser, lesson, folder / f"{lesson}.ipynb", args.screens, args.minutes)
            failed += bool(wrong)
            print(f"{lesson}: {'passed' if not wrong else 'FAILED'}", *wrong, sep="\n  ", flush=True)
        browser.close()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
