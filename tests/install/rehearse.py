"""Run by the Python of an environment like Colab's, in an empty folder: the setup cell in real kernels.

    python rehearse.py SETUP LESSON      the files with the setup cell's source, and the notebook to run after it

The environment variables say where pip's git finds the course: a local repository in place of the address in the cell.
"""

import json
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import metadata
from io import StringIO
from pathlib import Path

from jupyter_client.manager import run_kernel

KEPT = "torch", "torchvision", "numpy"
FAILURES = {  # what the sentence must say when this is missing
    "do you have 'git' installed": {"PATH": str(Path(sys.executable).parent)},
    "unable to access": {"GIT_CONFIG_KEY_0": "url.https://localhost:9/.insteadOf"},
}


@contextmanager
def kernel(**changes):
    """A fresh kernel in the current folder, as Colab starts one; yields a function that runs a cell."""

    def run(source):
        """How a cell ends, and what it shows: as text, and on standard error."""
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
            reply = client.execute_interactive(source, timeout=900)
        return reply["content"]["status"], out.getvalue(), err.getvalue()

    with run_kernel(kernel_name="python3", env={**os.environ, **changes}) as client:
        assert run("import google.colab") == ("ok", "", "")  # Colab's kernels have done so before the first cell
        yield run


def versions(*names):
    return {name: metadata.version(name) for name in names}


def main(setup, lesson):
    source, before = Path(setup).read_text(encoding="utf-8"), versions(*KEPT)
    assert not any(d.name == "ddpm_course" for d in metadata.distributions()), "the course is installed already"
    for words, changes in FAILURES.items():
        with kernel(**changes) as run:
            status, shown, sentence = run(source)
        assert (status, shown, sentence.strip().count("\n")) == ("error", "", 0), sentence
        assert sentence.startswith("The course could not be installed") and words in sentence, sentence
        print(sentence.strip())

    with kernel(DDPM_COURSE_FAST="1") as run:
        for _ in range(2):
            assert (shown := run(source)) == ("ok", "", ""), shown
        assert versions(*KEPT) == before, f"{before} became {versions(*KEPT)}"
        print(f"the setup cell installed the course, said nothing, nor when it ran again, and left {before}")
        status, _, error = run(Path(__file__).with_name("use.py").read_text(encoding="utf-8"))
        assert status == "ok", error
        for cell in json.loads(Path(lesson).read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and cell["id"] != "setup":
                status, _, error = run("".join(cell["source"]))
                assert (status, error) == ("ok", ""), f"{cell['id']}: {error}"
        print(f"{Path(lesson).name} runs to its end with {versions('ipykernel', 'ipython', 'ipywidgets')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
