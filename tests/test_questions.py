"""The page of questions: answers of a few sentences, with numbers that the linked page prints, and links to headings that exist."""
import re
from functools import cache
from itertools import chain

import nbformat
import pytest
from conftest import ROOT

PAGE = (ROOT / "nbs" / "questions.md").read_text(encoding="utf-8")
ANSWERS = dict(re.findall(r"^### (.+)\n\n((?:(?!^#).*\n?)+)", PAGE, re.MULTILINE))
LINK = re.compile(r"\[[^\]]+\]\((\w+\.ipynb)#([^)]+)\)")
BOLD = re.compile(r"\*\*(.+?)\*\*")


@cache
def cells(page):
    return nbformat.read(ROOT / "nbs" / page, 4).cells


def headings(cell):
    """Level and anchor, by which the site's links find it, of each heading in a cell."""
    found = re.findall("^(#{1,3}) (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
    return [(len(level), re.sub(r"[^\w\- ]", "", text.strip().lower().replace(" ", "-"))) for level, text in found]


def anchors(page):
    return {anchor for cell in cells(page) for _, anchor in headings(cell)}


def section(page, wanted):
    """The cells from a heading to the next one that is not below it."""
    inside, within = [], 0
    for cell in cells(page):
        for level, anchor in headings(cell):
            within = level if anchor == wanted else within * (level > within)
        if within:
            inside.append(cell)
    return inside


def printed(part):
    """All that the cells of a section show, as text."""
    outputs = chain.from_iterable(cell.get("outputs", []) for cell in part)
    shown = "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)
    tables = "\n".join(output.data.get("text/html", "") for cell in part for output in cell.get("outputs", []) if "data" in output)
    return shown + tables


def standing_alone(number):
    """The number as it is printed: not the middle of a longer one."""
    return re.compile(r"(?<![\d.,])" + re.escape(number) + r"(?!\d|[.,]\d)")


def test_there_are_questions_and_none_twice():
    assert len(ANSWERS) >= 30 and len(ANSWERS) == PAGE.count("\n### ")


@pytest.mark.parametrize("question", ANSWERS)
def test_answer_is_short_and_its_numbers_are_those_that_the_linked_section_prints(question):
    answer = ANSWERS[question]
    sentences = re.findall(r"[.?!](?=\s|$)", LINK.sub("link", re.sub(r"`[^`]*`", "code", answer)))
    assert 3 <= len(sentences) <= 8, len(sentences)
    links, numbers = LINK.findall(answer), BOLD.findall(answer)
    assert links and numbers
    for page, anchor in links:
        assert anchor in anchors(page), f"{page} has no heading #{anchor}: {sorted(anchors(page))}"
    shown = "\n".join(printed(section(*link)) for link in links)
    missing = [number for number in numbers if not standing_alone(number).search(shown)]
    assert not missing, f"{links} do not print {missing}"


@pytest.mark.parametrize("number, text, found", [
    ("0.50", "a 0.50 b", True), ("0.5", "a 0.50 b", False), ("5", "1.5", False), ("32", "(32, 14)", True), ("1.0", "(1.0)", True), ("2", "102", False)])
def test_a_number_inside_another_does_not_count(number, text, found):
    assert bool(standing_alone(number).search(text)) == found
