"""An empty page, and one with one of everything that `looking` must find; the browser run begins with them.

An assertion that cannot fail says nothing. If a new JupyterLab renames its classes, the lessons tell; if a change of
`looking` makes it blind, this page does.
"""

import looking

HANDLE = """<div class="noUi-target" {grey}><div class="noUi-origin" style="transform: translate(0)">
    <div class="noUi-handle" tabindex="0" onkeydown="{does}">o</div></div></div>"""
MOVES = "this.parentElement.style.transform = 'translate(9px)';"
REDRAWS = "this.closest('.jp-OutputArea').querySelector('pre').textContent = 'drawn at 9';"
SLOWLY = "const pre = this.closest('.jp-OutputArea').querySelector('pre'); " + "".join(
    f"setTimeout(() => pre.textContent = 'drawn at {place}', {after}); " for place, after in ((3, 100), (9, 800))
)
OUTPUT = '<div class="jp-OutputArea-output" data-mime-type="application/vnd.jupyter.'


def drawing(*handles: str, grey: str = "") -> str:
    """One output with sliders above what they draw; of each, what it does when a key is pressed."""
    return f"""<div class="jp-OutputArea jp-Cell-outputArea">{"".join(HANDLE.format(grey=grey, does=x) for x in handles)}
    <div class="widget-output"><pre>drawn at 0</pre></div></div>"""


PAGE = rf"""<body>
<div class="jp-Dialog">Select Kernel</div>
<div class="jp-RenderedMarkdown">fine: <code>$HOME</code> and <mjx-container>x</mjx-container></div>
<div class="jp-RenderedMarkdown">raw: $$x$$</div>
<div class="jp-RenderedMarkdown"><details>folded: <mjx-container><mjx-merror>\alfa</mjx-merror></mjx-container></details></div>
<div class="jp-Notebook"><div class="jp-CodeCell"><div class="jp-InputPrompt">[7]:</div>fine()</div>
    <div class="jp-CodeCell"><div class="jp-InputPrompt">[ ]:</div>never()</div></div>
<div class="jp-OutputArea">
    <div class="jp-OutputArea-output"><img alt="a chart"></div>
    {OUTPUT}widget-view+json">Loading</div>{OUTPUT}error">Oh</div>{OUTPUT}stderr">Hm</div>
    <div class="jp-OutputArea-output" style="height: 90px; overflow: auto"><p style="height: 900px">tall</p></div>
    <div class="jp-OutputArea-output" style="width: 90px"><pre style="width: 900px">wide</pre></div>
</div>
{drawing("")}{drawing(MOVES)}{drawing(MOVES + REDRAWS)}
{drawing(MOVES + SLOWLY, MOVES)}{drawing("", grey="disabled")}
</body>"""
FAULTS = """the page has none: .jp-Notebook .jp-CodeCell
the page has none: .jp-RenderedMarkdown mjx-container
the page has none: .jp-OutputArea img
JupyterLab asks: Select Kernel
did not run: [ ]:never()
went wrong: Oh
went wrong: Hm
not rendered: raw: $$x$$
not rendered: folded: \\alfa
blank, or too small to see: a chart
a control that did not appear: Loading
scrolls: tall
wider than the page: wide
slider 1 does not move
slider 2 moved and nothing was redrawn
slider 5 moved and nothing was redrawn""".splitlines()  # the fifth: what appears is still the fourth one's


def unseen(browser) -> list[str]:
    """Which of the page's faults the run would not see, and which it would invent."""
    page = browser.new_page()
    empty = page.evaluate(looking.WHOLE_PAGE)
    page.set_content(PAGE)
    found = empty + page.evaluate(looking.WHOLE_PAGE) + looking.sliders(page, patience=3)
    page.close()
    lost = [f"the page of faults: not seen: {fault}" for fault in FAULTS if fault not in found]
    return lost + [f"the page of faults: invented: {fault}" for fault in found if fault not in FAULTS]
