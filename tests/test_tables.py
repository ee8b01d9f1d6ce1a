"""The stored tables hold what their script would measure, and it goes on where it stopped."""

import importlib
import json
import sys

import pytest

from ddpm_course.data import ASSETS, load_table

sys.path.insert(0, str(ASSETS))
tables = importlib.import_module("tables")
STORED = sorted(path.stem for path in (ASSETS / "tables").glob("*.json"))


@pytest.mark.parametrize("name", STORED)
def test_a_stored_table_has_exactly_the_rows_that_its_script_measures(name):
    rows, jobs = load_table(name), [named for named, _ in tables.ROWS[name]()]
    assert len(rows) == len(jobs) > 3
    for named in jobs:
        assert [named.items() <= row.items() for row in rows].count(True) == 1, named


def test_an_interrupted_measurement_goes_on_and_leaves_what_is_stored(tmp_path, monkeypatch):
    asked = []

    def measured(size):
        asked.append(size)
        if size == 3 and len(asked) == 3:
            raise KeyboardInterrupt
        return dict(square=size**2)

    def jobs():
        for part, size in (("a", 1), ("b", 2), ("a", 3)):
            yield dict(part=part, size=size), measured

    def run(*parts):
        monkeypatch.setattr(sys, "argv", ["tables.py", "made_up", *parts, "--out", str(tmp_path)])
        tables.main()
        lines = (tmp_path / "made_up.json").read_text().splitlines()
        return [(row["part"], row["size"], row["square"]) for row in map(json.loads, lines)]

    monkeypatch.setitem(tables.ROWS, "made_up", jobs)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert run("b") == [("a", 1, 1), ("b", 2, 4)]
    assert run() == [("a", 1, 1), ("b", 2, 4), ("a", 3, 9)]
    assert asked == [1, 2, 3, 3]


def test_an_unknown_table_is_named_beside_those_that_there_are():
    with pytest.raises(ValueError, match="'speed'; there are: .*training"):
        load_table("speed")
