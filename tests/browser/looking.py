"""What the browser run asks of a page that shows a lesson in JupyterLab; `run` opens the page.

WHOLE_PAGE, evaluated there, and `sliders` return what is wrong, one sentence each; an empty list when all is well.
"""

import time
from pathlib import Path

KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
READY = f"() => {KERNEL}?.connectionStatus === 'connected' && {KERNEL}?.status === 'idle'"
BUSY = f"() => {KERNEL}?.status === 'busy'"
COMMAND = "([name, options]) => { window.jupyterapp.commands.execute(name, options); }"
# Counts are read from the cells' models: a folded cell, as the setup cell is, shows no number.
CODE = "(window.jupyterapp?.shell.currentWidget?.content.widgets ?? []).filter(x => x.model.type === 'code')"
STARTED = f"() => {KERNEL}?.status === 'busy' || {CODE}.some(x => x.model.executionCount)"
FINISHED = f"""() => {CODE}.every(x => x.model.executionCount) ||
    document.querySelector('[data-mime-type="application/vnd.jupyter.error"]')"""

# Cells, mathematics, figures, widgets, scroll bars: what a reader would see at a glance
WHOLE_PAGE = r"""() => {
    const wrong = [], all = css => [...document.querySelectorAll(css)], mime = '[data-mime-type="application/vnd.jupyter.'
    const report = (what, found) => found.forEach(
        x => wrong.push(what + ': ' + (x.alt ?? x.textContent).trim().replace(/\s+/g, ' ').slice(0, 120)))
    for (const css of ['.jp-Notebook .jp-CodeCell', '.jp-RenderedMarkdown mjx-container', '.jp-OutputArea img'])
        if (!all(css).length) wrong.push('the page has none: ' + css)

    // Which kernel? Trust this notebook? News?
    report('JupyterLab asks', all('.jp-Dialog, .Toastify__toast'))
    report('did not run', CODE.filter(x => !x.model.executionCount).map(x => ({alt: x.model.sharedModel.source})))
    report('went wrong', all(`${mime}error"], ${mime}stderr"]`))
    // Formulas behind folds are drawn too. Outside of code a $ is a formula that was not found: nothing costs money.
    report('not rendered', all('.jp-RenderedMarkdown').filter(x => {
        const text = x.cloneNode(true)
        text.querySelectorAll('code, pre, mjx-container').forEach(y => y.remove())
        return x.querySelector('mjx-merror, .MathJax_Error') || text.textContent.includes('$')
    }))
    report('blank, or too small to see', all('.jp-OutputArea img').filter(
        x => !x.naturalWidth || x.getBoundingClientRect().width < 40))
    report('a control that did not appear', all(`${mime}widget-view+json"]`).filter(
        x => !x.querySelector('.jupyter-widgets')))
    report('scrolls', all('.jp-mod-outputsScrolled, .jp-OutputArea-output').filter(
        x => x.matches('.jp-mod-outputsScrolled') ||
            x.scrollHeight > x.clientHeight + 40 && /auto|scroll/.test(getComputedStyle(x).overflowY)))
    report('wider than the page', all('.jp-Notebook .cm-scroller, .jp-OutputArea-output').filter(
        x => x.clientWidth && x.scrollWidth > x.clientWidth + 2))
    return wrong
}""".replace("CODE", CODE)
GREY = "x => Boolean(x.closest('.noUi-target[disabled]'))"  # a slider that the lesson has switched off for now
PLACE = "x => x.parentElement.style.transform"  # of a slider's handle; its aria-valuenow is rounded to 0.1
# What a slider redraws: pictures and text in its own output, but not the slider and its number.
DRAWN = """x => [...x.querySelectorAll(':is(.jupyter-widgets-output-area, .widget-output) :is(img, pre)')]
    .map(y => y.src || y.textContent).join('\\n')"""


def sliders(page, patience: float = 30) -> list[str]:
    """Move every slider with the keyboard: its handle moves, and what it draws changes within `patience` seconds.

    Each waits for the last one's pictures: what that one still draws is none of its own. Grey sliders are left alone.
    """
    wrong = []
    for i, handle in enumerate(page.locator(".jp-OutputArea .noUi-handle").all()):
        if handle.evaluate(GREY):
            continue
        area = handle.locator("xpath=ancestor::*[contains(@class, 'jp-Cell-outputArea')]").first
        place, drawn = handle.evaluate(PLACE), settled(page, area, patience)
        for key in ["ArrowRight", "ArrowLeft"]:  # the second where the first finds the slider at its end
            if handle.evaluate(PLACE) == place:
                for _ in range(3):
                    handle.press(key)
        if handle.evaluate(PLACE) == place:
            wrong.append(f"slider {i + 1} does not move")
            continue
        until = time.monotonic() + patience
        while (redrawn := area.evaluate(DRAWN)) in ("", drawn) and time.monotonic() < until:
            page.wait_for_timeout(500)
        if redrawn in ("", drawn):
            wrong.append(f"slider {i + 1} moved and nothing was redrawn")
    return wrong


def settled(page, area, patience: float) -> str:
    """What `area` shows once it has shown the same for a second and the kernel, if the page has one, is idle."""
    shown, since = area.evaluate(DRAWN), time.monotonic()
    until = since + patience
    while time.monotonic() < min(since + 1, until):
        page.wait_for_timeout(100)
        if (now := area.evaluate(DRAWN)) != shown or page.evaluate(BUSY):
            shown, since = now, time.monotonic()
    return shown


def photograph(page, stem: Path, theme: str) -> None:
    """The whole lesson in one theme, a screen at a time: stem-light-00.png, stem-light-01.png, ..."""
    page.evaluate(COMMAND, ["apputils:change-theme", {"theme": f"JupyterLab {theme}"}])
    page.wait_for_selector(f"body[data-jp-theme-light={str(theme == 'Light').lower()}]", state="attached")
    page.wait_for_timeout(1000)
    panel = page.locator(".jp-NotebookPanel .jp-WindowedPanel-outer")
    height, screen = panel.evaluate("x => [x.scrollHeight, x.clientHeight]")
    for i, top in enumerate(range(0, height, screen - 60)):
        panel.evaluate("(x, top) => { x.scrollTop = top }", top)
        page.wait_for_timeout(150)
        page.screenshot(path=f"{stem}-{theme.lower()}-{i:02d}.png")
