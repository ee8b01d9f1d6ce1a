"""The package's structure: imports point down the list of layers, there is no circle, and old names go on working."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ddpm_course

PACKAGE = Path(ddpm_course.__file__).parent

# From the top down; of the modules in one line, one may import those behind it. A folder is one layer.
LAYERS = [
    *("editions", "kernels"),
    "classroom",
    *("capstone", "clinic", "lab"),
    "checks",
    "exercises",
    "plots",
    "doctor",
    "training",
    *("equations", "weighting", "variances", "losses", "bound", "guidance", "solvers", "samplers"),
    *("metrics", "classifier", "toy", "data"),
    *("unet", "blocks", "diffusion", "schedules", "times"),
    *("nets", "pictures", "parquet", "folders", "files", "colab", "pixels", "modes", "arguments"),
]


def modules() -> dict[str, Path]:
    """Every module by its name below the package, "training.step"; a folder stands for its __init__."""
    paths = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    names = [".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return dict(zip(names, paths, strict=True))


def imported(name: str, path: Path) -> set[str]:
    """The package's modules that a module imports: at the top or inside functions, but not under TYPE_CHECKING."""
    tree, folder = ast.parse(path.read_text(encoding="utf-8")), path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["ddpm_course", *folder[: len(folder) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            found += [[*base, alias.name] for alias in node.names]
    inside = [names[1:] for names in found if names[0] == "ddpm_course"]
    prefixes = [[".".join(names[:n]) for n in range(len(names), 0, -1)] for names in inside]
    return {next((p for p in longest_first if p in modules()), "") for longest_first in prefixes} - {"", name}


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    return {name: imported(name, path) for name, path in modules().items()}


def test_every_module_has_a_layer_and_imports_point_down(arrows):
    assert {name.split(".")[0] for name in arrows} == set(LAYERS)
    height = {layer: -i for i, layer in enumerate(LAYERS)}
    upward = [
        f"{name} imports {target}"
        for name, targets in arrows.items()
        for target in targets
        if height[target.split(".")[0]] > height[name.split(".")[0]]
    ]
    assert not upward, "\n".join(upward)


def test_there_is_no_circle(arrows):
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


PUBLISHED = (Path(__file__).parent / "published_names.txt").read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.parametrize("line", PUBLISHED, ids=lambda line: line.partition(":")[0])
def test_what_published_lessons_import_is_still_where_it_was(line):
    module, _, names = line.partition(": ")
    exec(f"from {module} import {', '.join(names.split())}")
