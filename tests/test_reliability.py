"""The reliability page says what was counted, and its guards are marked in the package."""
import ast
from collections import Counter

import make_reliability
import mutate
import pytest
from conftest import ROOT

ROWS = make_reliability.rows()
ON_THE_PAGE = [name for name, row in ROWS.items() if "group" in row]
MARKS = mutate.marks()


def test_every_mark_has_a_row_and_stands_once():
    used = Counter(mark for row in ROWS.values() for mark, *_ in mutate.guards(row))
    assert used.keys() == MARKS.keys(), used.keys() ^ MARKS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_row_without_one_of_its_guards_is_still_python(name):
    guards = list(mutate.guards(ROWS[name]))
    assert guards and ROWS[name].get("group", "files") in make_reliability.GROUPS
    for mark, instead, _ in guards:
        source = MARKS[mark].read_text(encoding="utf-8")
        changed = mutate.without(source, mark, instead)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)) and f"# guard: {mark}" not in changed


@pytest.mark.parametrize("source, expected", [
    ("if a:\n    b()\nelif (c and\n      d):  # guard: x\n    e()", "if a:\n    b()\nelif False:\n    e()"),
    ("try:\n    a()\nexcept (OSError,\n        ValueError) as e:  # guard: x\n    b()", "try:\n    a()\nexcept ZeroDivisionError as error:\n    b()"),
    ("for a, b in c:  # guard: x\n    d()", "for (a, b) in ():\n    d()"),
    ("with a:  # guard: x\n    b()", "if True:\n    b()"),
    ("def f():\n    a = b(c,\n          d)  # guard: x\n    return a", "def f():\n    pass\n    return a"),
    ("if a:\n    b(  # guard: x\n        c)", "if a:\n    pass"),
])
def test_what_stands_in_the_place_of_a_guard(source, expected):
    assert mutate.without(source, "x") == expected


def test_a_mark_that_is_missing_or_stands_twice_is_an_error(tmp_path):
    (tmp_path / "a.py").write_text("a()  # guard: x\n")
    assert list(mutate.marks(tmp_path)) == ["x"]
    (tmp_path / "b.py").write_text("b()  # guard: x\n")
    with pytest.raises(RuntimeError, match="two guards are called 'x', in a.py and in b.py"):
        mutate.marks(tmp_path)
    with pytest.raises(RuntimeError, match="no guard is called 'y'"):
        mutate.without("a()  # guard: x\n", "y")


@pytest.mark.parametrize("name", ROWS)
def test_rows_name_tests_that_are_there(name):
    for test in " ".join([ROWS[name]["test"], *(test for *_, test in mutate.guards(ROWS[name]))]).split():
        path, function = test.split("[")[0].split("::")
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), test


@pytest.mark.parametrize("name", ON_THE_PAGE)
def test_counts_are_stored_and_nothing_was_lost_or_wrong(name):
    count = make_reliability.read(make_reliability.TRIALS)["rows"][name]
    assert count["tried"] > 0 and count["lost"] == count["wrong"] == 0
    red = make_reliability.read(make_reliability.MUTATIONS)["rows"][name]
    assert len(red) == len(ROWS[name]["guards"]) and all(red)


def test_page_is_what_the_counts_say():
    assert make_reliability.PAGE.read_text(encoding="utf-8") == make_reliability.page()


@pytest.mark.parametrize("text, shown", [("a run is killed", "A run is killed"), ("One byte is lost.\n", "One byte is lost")])
def test_sentences_begin_with_a_capital_and_keep_their_words(text, shown):
    assert make_reliability.sentence(text) == shown


def test_counts_of_all_tests_are_added_up():
    lines = ['{"row": "b", "tried": 2, "lost": 0, "wrong": 1}', '{"row": "a", "tried": 1, "lost": 0, "wrong": 0}',
             '{"row": "b", "tried": 3, "lost": 1, "wrong": 0}']
    assert make_reliability.collect(lines, "here") == {
        "machine": "here", "rows": {"a": {"tried": 1, "lost": 0, "wrong": 0}, "b": {"tried": 5, "lost": 1, "wrong": 1}}}
