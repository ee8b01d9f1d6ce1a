"""What the browser run asks of a page that shows a lesson in JupyterLab; `run` opens the page.

Each function takes Playwright's page and returns what is wrong, one sentence each; an empty list when all is well.
"""

import time
from pathlib import Path

SESSION = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
READY = f"() => {SESSION}?.connectionStatus === 'connected' && {SESSION}?.status === 'idle'"
RUN_ALL = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
SAVE = "() => { window.jupyterapp.commands.execute('docmanager:save'); }"
SET_THEME = "theme => { window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }"
HAS_THEME = "light => document.body.dataset.jpThemeLight === light"
PROMPTS = "[...document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')]"
STARTED = f"() => {PROMPTS}.some(x => /[*\\d]/.test(x.innerText))"
FINISHED = f"""() => document.querySelector('[data-mime-type="application/vnd.jupyter.error"]') ||
    {PROMPTS}.every(x => /\\d/.test(x.innerText))"""

# Formulas behind folds are drawn too. Outside of code a $ is a formula that was not found: no lesson speaks of money.
NOT_RENDERED = """() => [...document.querySelectorAll('.jp-RenderedMarkdown')].filter(x => {
    if (x.querySelector('mjx-merror, .MathJax_Error')) return true
    const text = x.cloneNode(true)
    text.querySelectorAll('code, pre, mjx-container').forEach(y => y.remove())
    return text.textContent.includes('$')
}).map(x => x.textContent.slice(0, 120))"""
FORMULAS = "() => document.querySelectorAll('.jp-RenderedMarkdown mjx-container').length"
BLANK_FIGURES = """() => [...document.querySelectorAll('.jp-OutputArea img')]
    .filter(x => !x.naturalWidth || x.getBoundingClientRect().width < 40).length"""
NO_WIDGET = """() => [...document.querySelectorAll('[data-mime-type="application/vnd.jupyter.widget-view+json"]')]
    .filter(x => !x.querySelector('.jupyter-widgets')).length"""
SCROLLING = """() => [...document.querySelectorAll('.jp-OutputArea.jp-mod-outputsScrolled, .jp-mod-outputsScrolled')].length
    + [...document.querySelectorAll('.jp-OutputArea-output')].filter(x => x.scrollHeight > x.clientHeight + 40
        && /auto|scroll/.test(getComputedStyle(x).overflowY)).length"""
CUT_OFF = """() => [...document.querySelectorAll('.jp-Notebook .cm-scroller, .jp-OutputArea-output')]
    .filter(x => x.clientWidth && x.scrollWidth > x.clientWidth + 2)
    .map(x => x.innerText.split('\\n').reduce((a, b) => a.length > b.length ? a : b, '').slice(0, 120))"""
# What a slider redraws: pictures and text in its own output, but not the slider and its number.
REDRAWN = """x => [...x.querySelectorAll('.jupyter-widgets-output-area img, .widget-output img,'
    + '.jupyter-widgets-output-area pre, .widget-output pre')].map(y => y.src || y.textContent).join('\\n')"""

GREY = "x => Boolean(x.closest('.noUi-target[disabled]'))"  # a slider that the lesson has switched off for now
BUSY = f"() => {SESSION}?.status === 'busy'"
PLACE = "x => x.parentElement.style.transform"  # of a slider's handle; its aria-valuenow is rounded to 0.1


def questions(page) -> list[str]:
    """Whether JupyterLab asks something: which kernel, or whether to trust, to update, to read news."""
    asked = page.locator(".jp-Dialog, .Toastify__toast")
    return [f"JupyterLab asks: {asked.nth(i).inner_text()[:80]!r}" for i in range(asked.count())]


def whole_page(page) -> list[str]:
    """Mathematics, figures, widgets, scroll bars: what a reader would see at a glance."""
    wrong = questions(page) + [f"not rendered: {text!r}" for text in page.evaluate(NOT_RENDERED)]
    if blank := page.evaluate(BLANK_FIGURES):
        wrong.append(f"figures that are blank, or too small to see: {blank}")
    if missing := page.evaluate(NO_WIDGET):
        wrong.append(f"controls that did not appear: {missing}")
    if scrolling := page.evaluate(SCROLLING):
        wrong.append(f"outputs that scroll: {scrolling}")
    wrong += [f"wider than the page: {text!r}" for text in page.evaluate(CUT_OFF)]
    print(f"  {page.evaluate(FORMULAS)} formulas, {page.locator('.jp-OutputArea img').count()} figures", flush=True)
    return wrong


def settled(page, area, patience: float) -> str:
    """What `area` shows once it has shown the same for a second and the kernel, if the page has one, is idle."""
    shown, since = area.evaluate(REDRAWN), time.monotonic()
    until = since + patience
    while time.monotonic() < min(since + 1, until):
        page.wait_for_timeout(100)
        if (now := area.evaluate(REDRAWN)) != shown or page.evaluate(BUSY):
            shown, since = now, time.monotonic()
    return shown


def sliders(page, patience: float = 30) -> list[str]:
    """Move every slider with the keyboard: its handle moves, and what it draws changes within `patience` seconds.

    Each waits for the last one's pictures: what that one still draws is none of its own. Grey sliders are left alone.
    """
    wrong = []
    handles = page.locator(".jp-OutputArea .noUi-handle")
    for i in range(handles.count()):
        handle = handles.nth(i)
        if handle.evaluate(GREY):
            continue
        area = handle.locator("xpath=ancestor::*[contains(@class, 'jp-Cell-outputArea')]").first
        place, drawn = handle.evaluate(PLACE), settled(page, area, patience)
        for key in ("ArrowRight", "ArrowLeft"):  # the second where the first finds the slider at its end
            handle.focus()
            for _ in range(3):
                page.keyboard.press(key)
            if handle.evaluate(PLACE) != place:
                break
        else:
            wrong.append(f"slider {i + 1} does not move")
            continue
        for _ in range(int(2 * patience)):
            page.wait_for_timeout(500)
            if area.evaluate(REDRAWN) not in ("", drawn):
                break
        else:
            wrong.append(f"slider {i + 1} moved and nothing was redrawn")
    print(f"  {handles.count()} sliders", flush=True)
    return wrong


def photograph(page, stem: Path, theme: str) -> None:
    """The whole lesson in one theme, a screen at a time: stem-light-00.png, stem-light-01.png, ..."""
    page.evaluate(SET_THEME, f"JupyterLab {theme}")
    page.wait_for_function(HAS_THEME, arg=str(theme == "Light").lower(), timeout=30_000)
    page.wait_for_timeout(1000)
    panel = ".jp-NotebookPanel .jp-WindowedPanel-outer"
    height, screen = page.evaluate(f"(x => [x.scrollHeight, x.clientHeight])(document.querySelector('{panel}'))")
    for i, top in enumerate(range(0, height, screen - 60)):
        page.evaluate(f"document.querySelector('{panel}').scrollTop = {top}")
        page.wait_for_timeout(150)
        page.screenshot(path=f"{stem}-{theme.lower()}-{i:02d}.png")
