"""How exercises are written down: changes that make wrong functions, catalogues that are read, cells that are written."""

from copy import deepcopy

import lessons
import pytest
import torch

from ddpm_course.classroom import editions
from ddpm_course.classroom.verify import exercise_faults
from ddpm_course.exercises import EXERCISES, lesson02, lesson10, lesson13
from ddpm_course.exercises.catalogue import Catalogue
from ddpm_course.exercises.edits import CannotChange, changed, wrong_function
from ddpm_course.exercises.reading import Misspelt, read
from ddpm_course.exercises.written import FAMILIES, catalogue, sources

SOURCE = """\
def f(x, n=2):
    total = 0
    for i in range(n):
        if x > 0:
            total += x
    total = total / n
    return total
"""
CHANGES = {  # what a change makes of f(3.0), which is 3.0
    "return total + 1": 4.0,
    "return (…) * 2": 6.0,
    "total #3 = total": 6.0,
    "total #2 += 2 * x": 6.0,
    "x = 1.0": 1.0,
    "a = 2.0 ; x = a": 2.0,
    "n=2 => n=4": 3.0,
    "x #3 => 5": 5.0,
    "total => t (all)": 3.0,
    "drop total = total": 6.0,
    "unwrap if x": 3.0,
    "before return: total = -total": -3.0,
    "after total +=: total += 1": 4.0,
    "range(n) => range(n - 1) ; return total * 2": 3.0,
    "in g: return 7.0 ; return g(x)": 7.0,
    "def g": 6.0,
}
REFUSED = {
    "drop while": "no statement 'while'",
    "total = 1": "3 statements 'total': say which",
    "x => y": "stands there 3 times",
    "y => z": "does not stand there",
    "total #4 = 1": "only 3 statements",
    "return total +": "no Python",
    "???": "no change that this format knows",
    "in h: return 1": "no function h",
    "def h": "no function h",
}


@pytest.mark.parametrize("change, value", CHANGES.items(), ids=CHANGES)
def test_a_change_makes_a_wrong_function(change, value):
    g = "def g(x):\n    return 2 * x\n"
    namespace = {}
    exec(g, namespace)
    wrong = wrong_function("f", change, {"f": SOURCE, "g": g}, namespace)
    assert wrong(3.0) == value and "f" not in namespace and namespace["g"](3.0) == 6.0


@pytest.mark.parametrize("change, problem", REFUSED.items(), ids=REFUSED)
def test_a_change_that_does_not_apply_says_why(change, problem):
    with pytest.raises(CannotChange, match=problem):
        wrong_function("f", change, {"f": SOURCE}, {})


def test_a_docstring_is_nothing_to_change():
    text = 'def f(x):\n    """The x."""\n    return x\n'
    assert wrong_function("f", "x #2 => 2 * x", {"f": text}, {})(3) == 6
    assert "The y." in changed(text, "x => y (all)")


SPOILT = {
    "merge_noises: lesson 02, 'A'\n\nno change here\n": "line 3: neither a section",
    "merge_noises: lesson 02, 'A'\n\na:  return a\n": "line 3: nothing is said",
    "merge_noises: lesson 02, 'A'\n    without words\n": "line 2: this line belongs to no mistake",
    "merge_noises: lesson 02, 'A'\n\na:  return a\n    Text.\nor:  return b\n": "line 5: `or:` stands above",
    "merge_noises: lesson 02, 'A'\n\nmerge_noises: lesson 02, 'B'\n": "line 3: merge_noises has a section already",
}


@pytest.mark.parametrize("text, problem", SPOILT.items(), ids=SPOILT.values())
def test_a_catalogue_that_cannot_be_read_names_file_and_line(tmp_path, text, problem):
    (tmp_path / "ours.mistakes").write_text(text, encoding="utf-8")
    with pytest.raises(Misspelt, match=f"ours.mistakes, {problem}"):
        read(tmp_path / "ours.mistakes", {"merge_noises"})


def test_a_change_that_does_not_apply_names_file_and_line(tmp_path):
    text = "merge_noises: lesson 02, 'A'\n\na:  drop while\n    Text.\n"
    (tmp_path / "ours.mistakes").write_text(text, encoding="utf-8")
    ours = Catalogue(tmp_path / "ours.mistakes", FAMILIES, sources(lesson02.__name__), vars(lesson02))
    [mistake], _ = ours.mistakes("merge_noises")
    assert mistake.says == "Text (lesson 02, 'A')."
    with pytest.raises(CannotChange, match="ours.mistakes, line 3: there is no statement 'while'"):
        mistake.variants[0](1.0, 2.0)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
def test_every_change_in_the_catalogues_applies(exercise):
    for mistake in exercise.mistakes + exercise.alternatives:
        for variant in mistake.variants:
            assert all(callable(version.function) for version in (variant, *variant.versions))
    assert exercise.name in catalogue(exercise.reference.__module__).sections


def test_a_solution_can_be_the_right_answer_of_one_more_exercise():
    """Under another name, with the other lesson's mistakes, and with no change to the exercise that it was before."""
    earlier, exercise = lesson10.guided_noise.exercise, lesson13.steer.exercise
    assert exercise in EXERCISES and exercise.reference is lesson13.steer and "diagnose" in exercise.first
    assert earlier in EXERCISES and earlier.reference is lesson10.guided_noise and earlier.first != exercise.first
    assert exercise.cell == earlier.cell.replace("guided_noise", "steer")
    assert "unrepaired" in {mistake.id for mistake in exercise.mistakes} - {mistake.id for mistake in earlier.mistakes}
    one_more = wrong_function("steer", "return … + 1", sources(lesson13.__name__), vars(lesson13))
    assert torch.equal(one_more(*exercise.cases[0].args), lesson10.guided_noise(*earlier.cases[0].args) + 1)


GIVEN = {"attention-class": "SelfAttention", "block-class": "Block", "unet-class": "MyUNet"}
GIVEN |= {"unet-down": "down_path", "unet-up": "up_path"}
WRITTEN = [("02", "ex-2-3", "exercise 2.3"), *(("04", *given) for given in GIVEN.items())]


@pytest.mark.parametrize("number, name, what", WRITTEN)
def test_exercises_and_what_a_lesson_gives_are_written_by_build_and_by_nobody_else(number, name, what):
    """What lesson 04 gives is what my_ddpm.py is given: otherwise a student's file would hold another network."""
    lesson = deepcopy(lessons.by_number(number).notebook)
    given = {cell.id: cell.metadata["ddpm_course"]["given"] for cell in lesson.cells if editions.is_given(cell)}
    assert given == ({name: f"lesson04.{what}" for name, what in GIVEN.items()} if number == "04" else {})
    [cell] = [cell for cell in lesson.cells if cell.id == name]
    text, cell.source = cell.source, cell.source.replace("sqrt()", "sqrt().clamp(min=0)") + "  # edited"
    assert any(f"{name}: not what the package says" in fault for fault in exercise_faults(lesson))
    with pytest.raises(ValueError, match=rf"{name} was edited .*{what} stands in .*/lesson{number}.py: make"):
        editions.refresh(lesson)
    del cell.metadata["ddpm_course"]["written"]  # so that it is what the package had said before
    editions.refresh(lesson)
    assert cell.source == text and exercise_faults(lesson) == []
