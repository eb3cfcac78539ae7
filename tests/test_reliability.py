"""The reliability page says in good sentences what was counted, and its guards are marked in the package."""
import ast

import make_reliability
import mutate
import pytest
from conftest import ROOT

ROWS = make_reliability.rows()
ON_THE_PAGE = [name for name, row in ROWS.items() if "group" in row]
COUNTS = make_reliability.read(make_reliability.COUNTS)
PAGE = make_reliability.PAGE.read_text(encoding="utf-8")
MARKS = mutate.marks()


def test_every_mark_has_a_row():
    assert {mark for row in ROWS.values() for mark, *_ in mutate.guards(row)} == MARKS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_without_one_of_its_guards_is_still_python(name):
    guards = list(mutate.guards(ROWS[name]))
    assert guards and ROWS[name].get("group", "files") in make_reliability.GROUPS
    for mark, instead, _ in guards:
        source = MARKS[mark].read_text(encoding="utf-8")
        changed = mutate.without(source, mark, instead)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)) and f"# guard: {mark}" not in changed


@pytest.mark.parametrize("name", ROWS)
def test_rows_name_tests_that_are_there(name):
    for test in " ".join([ROWS[name]["test"], *(test for *_, test in mutate.guards(ROWS[name]))]).split():
        path, function = test.split("[")[0].split("::")
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), test


@pytest.mark.parametrize("name", ON_THE_PAGE)
def test_counts_are_stored_and_nothing_was_lost_or_wrong(name):
    count = COUNTS["rows"][name]
    assert count["tried"] > 0 and count["lost"] == count["wrong"] == 0
    assert len(count["red"]) == len(ROWS[name]["guards"]) and all(count["red"])


def test_nothing_of_the_page_is_out_of_date():
    assert make_reliability.page(PAGE) == PAGE
