"""The reliability page says what was counted, and its guards are still where it says."""
import ast

import make_reliability
import pytest
from conftest import ROOT

ROWS = make_reliability.rows()


@pytest.mark.parametrize("name", ROWS)
def test_guards_stand_once_where_the_row_says(name):
    assert ROWS[name]["guards"] and ROWS[name]["group"] in make_reliability.GROUPS
    for guard in ROWS[name]["guards"]:
        source = (ROOT / guard["file"]).read_text(encoding="utf-8")
        assert source.count(guard["text"]) == 1, f"{guard['text']!r} in {guard['file']}"
        ast.parse(source.replace(guard["text"], guard["instead"]))


@pytest.mark.parametrize("name", ROWS)
def test_rows_name_tests_that_are_there(name):
    for test in " ".join([ROWS[name]["test"], *(guard.get("test", "") for guard in ROWS[name]["guards"])]).split():
        path, function = test.split("[")[0].split("::")
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), test


@pytest.mark.parametrize("name", ROWS)
def test_counts_are_stored_and_nothing_was_lost_or_wrong(name):
    count = make_reliability.read(make_reliability.TRIALS)["rows"][name]
    assert count["tried"] > 0 and count["lost"] == count["wrong"] == 0
    red = make_reliability.read(make_reliability.MUTATIONS)["rows"][name]
    assert len(red) == len(ROWS[name]["guards"]) and all(red)


def test_page_is_what_the_counts_say():
    assert make_reliability.PAGE.read_text(encoding="utf-8") == make_reliability.page()


def test_counts_of_all_tests_are_added_up():
    lines = ['{"row": "b", "tried": 2, "lost": 0, "wrong": 1}', '{"row": "a", "tried": 1, "lost": 0, "wrong": 0}',
             '{"row": "b", "tried": 3, "lost": 1, "wrong": 0}']
    assert make_reliability.collect(lines, "here") == {
        "machine": "here", "rows": {"a": {"tried": 1, "lost": 0, "wrong": 0}, "b": {"tried": 5, "lost": 1, "wrong": 1}}}
