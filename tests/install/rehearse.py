"""Run by the Python of an environment like Colab's, in an empty folder: the setup cell in real kernels.

    python rehearse.py SETUP LESSON      the files with the setup cell's source, and the notebook to run after it

The environment variables say where pip's git finds the course: a local repository in place of the address in the cell.
"""

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path

from jupyter_client.manager import start_new_kernel

KEPT = "torch", "torchvision", "numpy"
LIKE_COLAB = "import google.colab"  # Colab's kernels have done so before the first cell
USE = """
import torch
from ddpm_course import colab, plots, samplers, training

net, diffusion, about = training.load_pretrained("cpu")
y = torch.arange(2)
made = samplers.sample(samplers.ddim_steps(net, diffusion, (2, 1, 28, 28), 5, y=y), progress=False)
assert made.shape == (2, 1, 28, 28) and bool(made.isfinite().all())
assert colab.in_colab()
plots.show_images(made)
"""


class Kernel:
    """A fresh kernel in the current folder, as Colab starts one, with `changes` to its environment."""

    def __init__(self, **changes):
        self.manager, self.client = start_new_kernel(kernel_name="python3", env={**os.environ, **changes})
        assert self.run(LIKE_COLAB) == []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, source):
        """What a cell shows: a list of (kind, text)."""
        shown = []

        def note(message):
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                shown.append((content["name"], content["text"]))
            elif kind == "error":
                shown.append(("error", "\n".join(content["traceback"])))
            elif kind in ("display_data", "execute_result"):
                shown.append((kind, " ".join(content["data"])))

        self.client.execute_interactive(source, output_hook=note, timeout=900)
        return shown


def versions():
    return {name: metadata.version(name) for name in KEPT}


def main(setup, lesson):
    source = Path(setup).read_text(encoding="utf-8")
    before = versions()
    assert not any(d.name == "ddpm_course" for d in metadata.distributions()), "the course is installed already"

    for what, words, changes in (
        ("without git", "do you have 'git' installed", {"PATH": str(Path(sys.executable).parent)}),
        ("without a network", "unable to access", {"GIT_CONFIG_KEY_0": "url.https://localhost:9/.insteadOf"}),
    ):
        with Kernel(**changes) as kernel:
            shown = kernel.run(source)
        assert len(shown) == 1 and shown[0][0] == "error", shown
        sentence = shown[0][1]
        assert sentence.startswith("The course could not be installed") and words in sentence, sentence
        assert "\n" not in sentence, sentence
        print(f"{what}: {sentence}")

    with Kernel(DDPM_COURSE_FAST="1") as kernel:
        start = time.monotonic()
        shown = kernel.run(source)
        seconds = time.monotonic() - start
        assert shown == [], shown
        print(f"the setup cell installed the course in {seconds:.0f} s and said nothing")
        assert versions() == before, f"{before} became {versions()}"
        print("left as they were:", ", ".join(f"{name} {version}" for name, version in before.items()))
        assert kernel.run(source) == []
        assert kernel.run("import ddpm_course\nassert 'site-packages' in ddpm_course.__file__") == []
        shown = kernel.run(USE)
        assert [kind for kind, _ in shown] == ["execute_result"], shown
        assert "image/png" in shown[0][1] or "text/html" in shown[0][1], shown  # not its text alone
        print("run again it said nothing; the package, the checkpoint and a figure work in the same kernel")

        cells = json.loads(Path(lesson).read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if cell["cell_type"] == "code" and cell["id"] != "setup":
                shown = kernel.run("".join(cell["source"]))
                assert not any(kind in ("error", "stderr") for kind, _ in shown), f"{cell['id']}: {shown}"
        old = {name: metadata.version(name) for name in ("ipykernel", "ipython", "ipywidgets")}
        print(f"{Path(lesson).name} runs to its end with", ", ".join(f"{k} {v}" for k, v in old.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
