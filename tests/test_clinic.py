"""Lesson 13: what the clinic says of its patients is what can be measured on them."""

import importlib
import re
import sys
from pathlib import Path

import lessons
import patients as models
import pytest
import torch

from ddpm_course import checks, clinic, doctor
from ddpm_course.clinic import bugs, ward
from ddpm_course.clinic.code import FUNCTIONS, changed, changes_of
from ddpm_course.clinic.patients import CARDS
from ddpm_course.data import ASSETS

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
measured = importlib.import_module("clinic")

every_patient = pytest.mark.parametrize("number", CARDS)


@pytest.fixture(autouse=True)
def nobody_admitted(monkeypatch):
    """New patients for every test, who share what was computed of them."""
    monkeypatch.setattr(ward, "_ADMITTED", {})


# ---- what is written down


def test_thirty_diagnoses_with_known_words_probes_and_lessons():
    names = {probe.name for probe in doctor.PROBES}
    assert len(clinic.BUGS) == 30 and "nothing" in clinic.BUGS
    for bug in bugs.ALL.values():
        assert set(bug.seen) == set(bugs.VIEWS) and set(bug.finds) <= names, bug
        assert all(word in bugs.VIEWS[view][1] for view, word in bug.seen.items()), bug
        match = re.fullmatch(r"lesson (\d\d)(?:, '(.+)')?", bug.lesson)
        headings = [line.lstrip("# ") for cell in lessons.by_number(match[1]).markdown if match[2]
                    for line in cell.source.splitlines() if line.startswith("#")]  # fmt: skip
        assert not match[2] or any(h == match[2] or h.startswith(f"{match[2]}:") for h in headings), bug


@pytest.mark.parametrize("bug", bugs.ALL.values(), ids=lambda bug: bug.name)
def test_the_probe_that_finds_a_bug_is_the_one_that_finds_it_in_a_planted_model(bug):
    """That it does is tested on the model itself, in test_doctor.py."""
    assert not bug.planted or models.MISTAKES[bug.planted][1] in bug.finds


@every_patient
def test_every_wrong_diagnosis_of_every_patient_is_answered_with_a_reason(number, capsys):
    card = CARDS[number]
    for name in set(bugs.ALL) - set(card.bugs):
        said = bugs.reason(bugs.ALL[name], card.shows, card.finds)
        assert "would" in said and ("here it" in said or "something here" in said or "would be none" in said)
        assert name not in said and not any(right in said for right in card.bugs if right != "nothing")
    patient = clinic.admit(number)
    patient.diagnose("learnt by heart")
    patient.diagnose("learnt by heart")
    assert capsys.readouterr().out.startswith("Not 'learnt by heart'.") and patient.score == 1


@every_patient
def test_a_patient_is_the_solution_with_a_mistake_that_its_exercise_knows(number):
    card = CARDS[number]
    check = getattr(checks, card.function)
    assert number == 0 or check.number == f"13.{number}"
    if card.mistakes:
        broken = changed(card.function, card.function, changes_of(card.function, *card.mistakes))
        verdict = check.check(lambda *args: broken(*args))
        assert verdict.mistake == " and ".join(card.mistakes)
    else:
        assert card.bugs == ("nothing",)


def test_an_exercise_that_is_not_attempted_does_not_tell_which_function_is_ill():
    lesson = lessons.by_number("13", "student")
    for exercise in (function.exercise for function in FUNCTIONS.values()):
        place = f"check-{exercise.number.replace('.', '-')}"
        assert "not attempted" in lesson.printed(place) and exercise.name not in lesson.printed(place)


def test_files_are_small():
    files = list((ASSETS / "patients").glob("*.safetensors"))
    assert {path.stem for path in files} == {card.network for card in CARDS.values()} | {"raw"}
    assert all(path.stat().st_size < 400_000 for path in files)


# ---- what is measured


@pytest.fixture(scope="module")
def seen():
    """The patients' models, made once."""
    return {number: ward.Patient(number) for number in CARDS}


def numbers(model):
    return measured.curves(model.about) | measured.values(model.samples, model.images)


@pytest.mark.parametrize("name", bugs.ALL)
def test_a_diagnosis_looks_as_it_was_measured(name):
    """All thirty were made and measured by tests/benchmarks/clinic.py."""
    bug = bugs.ALL[name]
    assert measured.words(name) == bug.seen
    assert set(bug.finds) <= set(measured.read()[name]["finds"])


def test_what_two_faults_show_was_measured_too():
    assert measured.words("patient 9") == CARDS[9].seen
    assert set(CARDS[9].finds) <= set(measured.read()["patient 9"]["finds"])


@every_patient
def test_a_probe_that_tells_a_bug_from_a_patient_was_seen_to_do_so(number):
    """Where all that is seen is the same, `reason` names a probe: one that finds the bug alone, or the patient alone."""
    card = CARDS[number]
    for name in set(bugs.ALL) - set(card.bugs) - set(card.unlike):
        bug, stored = bugs.ALL[name], measured.read()
        if bug.seen == card.shows:
            found = stored[f"patient {number}" if len(card.bugs) > 1 else card.bugs[0]]["finds"]
            there, here = set(bug.finds) - set(card.finds), set(card.finds) - set(bug.finds)
            assert there and not there & set(found) or not there and here and not here & set(stored[name]["finds"]), (
                name
            )


@every_patient
def test_what_a_patient_shows_is_what_is_said_of_it(number, seen):
    """But for its grid: that of its bug was measured on more samples."""
    model, shows = seen[number].model, seen[number].card.shows
    healthy, found = numbers(seen[5].model), numbers(model)
    assert all(measured.word(view, found, healthy) == shows[view] for view in ("loss", "by t", "pixels"))


@every_patient
def test_a_probe_on_the_path_finds_what_the_file_says(number, seen, capsys):
    patient = seen[number]
    found = {
        probe: doctor.ask(patient.examined, probe).state
        for probe in dict.fromkeys((*patient.card.path, *patient.card.finds))
    }
    assert {probe: found[probe] for probe in patient.card.finds} == dict.fromkeys(patient.card.finds, "suspicious")
    assert set(found.values()) <= {"suspicious", "sound"}


@pytest.mark.parametrize("probe", [probe.name for probe in doctor.PROBES])
def test_the_healthy_patient_is_sound_in_every_probe(probe, seen):
    finding = doctor.ask(seen[5].examined, probe)
    assert finding.state in ("sound", "unknown"), finding.lines()


@every_patient
def test_a_repair_makes_the_samples_those_of_the_healthy_one(number, seen):
    card = CARDS[number]
    again, healthy = ward.treated(card, FUNCTIONS[card.function]).samples, seen[5].model.samples
    assert card.sampler == "DDIM" or float((again - healthy).abs().mean()) < 1e-5
    assert measured.word("pixels", measured.values(again, seen[5].model.images), {}) == "usual"
    assert number == 5 or float((seen[number].model.samples - again).abs().mean()) > 0.04


# ---- what a learner does


def test_asking_counts_each_probe_once_and_only_what_can_be_judged(capsys):
    patient = clinic.admit(5)
    patient.ask()
    patient.ask("fever")
    patient.ask("tint of the samples")
    assert patient.score == 0
    patient.ask("range of the data", "signal left at T")
    patient.ask("range of the data")
    said = capsys.readouterr().out
    assert patient.score == 2 and clinic.admit(5) is patient
    assert "clinic.PROBES lists" in said and "no probe 'fever'" in said and "It doesn't count" in said


def test_two_faults_are_named_one_after_the_other(capsys):
    patient = clinic.admit(9)
    patient.diagnose(None)
    patient.diagnose("the loop ends early")
    assert not patient.diagnosed and "not all" in capsys.readouterr().out
    patient.diagnose("the same noise for all")
    said = capsys.readouterr().out
    assert patient.diagnosed and "def draw(" in said and "times[:-1]" in said and patient.score == 0


def test_the_code_costs_five_points_before_the_diagnosis_and_nothing_after_it(capsys):
    early, late = clinic.admit(1), clinic.admit(4)
    early.code()
    late.diagnose("all steps for one")
    late.code()
    assert (early.score, late.score) == (5, 0) and "def prepare_pixels" in capsys.readouterr().out


def test_a_patient_is_cleared_by_its_diagnosis_and_a_repair_of_ones_own(capsys):
    patient = clinic.admit(1)
    assert patient.treat(FUNCTIONS["prepare_pixels"]) is None and "is not repaired yet" in capsys.readouterr().out

    def mine(pixels):
        return pixels.float() / 127.5 - 1

    patient.treat(mine)
    assert patient.state == "repaired, not diagnosed" and "between -1.0 and 1.0" in capsys.readouterr().out
    patient.diagnose("pixels in [0, 1]")
    assert patient.state == "cleared"
    text, page = str(clinic.chart()), clinic.chart()._repr_html_()
    assert "1 of 10 cleared, with 0 points" in text and "1 of 10 cleared" in page and page.count("<tr>") == 11


def test_an_unknown_patient_is_said():
    with pytest.raises(ValueError, match="the numbers 1 to 10, got 11"):
        clinic.admit(11)
    assert torch.is_tensor(clinic.admit(0).model.images)
