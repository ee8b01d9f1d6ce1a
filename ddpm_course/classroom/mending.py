"""Puts submissions in order before nbgrader looks at them: `nbgrader_config.py` names the class below.

nbgrader gives up over what happens in every class: a cell that is there twice stops it, with later students ungraded; a
check that was deleted, or a stub that was copied below an answer, costs a right answer its points.
"""

from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor

from .grading.submissions import CHECK, defined, essence


class Mend(NbGraderPreprocessor):
    """After it, every cell that nbgrader knows is there, once, with the metadata that it was handed out with."""

    def preprocess(self, notebook, resources):
        about = resources["nbgrader"]
        with Gradebook(about["db_url"]) as gradebook:
            known = gradebook.find_notebook(about["notebook"], about["assignment"])
            points = {cell.name: cell.max_score for cell in known.grade_cells}
            solutions, tasks = ({cell.name for cell in some} for some in (known.solution_cells, known.task_cells))
            given = {}
            for cell in known.source_cells:
                notes = {"grade": cell.name in points, "solution": cell.name in solutions, "locked": cell.locked}
                notes |= {"grade_id": cell.name, "schema_version": 3, "task": False, "cell_type": cell.cell_type}
                notes |= {"checksum": cell.checksum} | ({"points": points[cell.name]} if notes["grade"] else {})
                new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
                if cell.name not in tasks:
                    given[cell.name] = new(cell.source, metadata={"nbgrader": notes})
        notebook.cells = mended(notebook.cells, given)
        return notebook, resources


def mended(cells: list, given: dict) -> list:
    """A student's cells in order; `given` has those that nbgrader knows, by their ids, as they were handed out.

    Of an exercise the last cell counts that is not the untouched stub, and its check comes below that.
    """
    stubs = {essence(cell.source) for cell in given.values() if cell.metadata.nbgrader.solution}
    checks = {id: match[1] for id, cell in given.items() if (match := CHECK.search(cell.source))}
    exercises = {}  # of each check
    for id, cell in given.items():
        exercises |= {check: id for check in checks if checks[check] in defined(cell.source)}
    ids, defines, placed = [], [], []
    for i, cell in enumerate(cells):
        notes = cell.metadata.pop("nbgrader", None)
        name = notes.get("grade_id") if isinstance(notes, dict) else None
        stub = essence(cell.source) in stubs  # put back below if there is no answer
        defines.append(defined(cell.source) if cell.cell_type == "code" and not stub else [])
        if (line := CHECK.search(cell.source)) and not essence(cell.source):  # the lines of a check and no more
            name = next((id for id in checks if checks[id] == line[1]), None)
        known = isinstance(name, str) and name in given and not stub
        ids.append(name if known and checks.get(name) not in defines[i] else None)  # an answer in a check is one
        if not stub and ids[i] not in exercises:  # a check's line in an answer could put a refusal in its place
            cell.source = CHECK.sub(r"# \g<0>", cell.source) if cell.cell_type == "code" else cell.source
            placed.append((i, 0, cell))
    for id, cell in given.items():
        copies = [i for i, own in enumerate(ids) if own == id]
        if exercise := exercises.get(id):
            answers = [i for i, own in enumerate(ids) if own == exercise or (not own and checks[id] in defines[i])]
            place = max([*answers, *copies], default=len(cells))
            if answers:
                cells[answers[-1]].metadata.nbgrader = given[exercise].metadata.nbgrader
            placed += [(place, 1, given[exercise])] * (not answers) + [(place, 1, cell)]
        elif id not in exercises.values() and copies:
            cells[copies[-1]].metadata.nbgrader = cell.metadata.nbgrader
        elif id not in exercises.values():
            placed.append((len(cells), 1, cell))
    return [cell for _, _, cell in sorted(placed, key=lambda one: one[:2])]
