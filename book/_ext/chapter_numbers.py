"""Give every page the number of its file name: chapters count from 0, rooms of the engine room are E1, E2, …"""
import re
from functools import wraps

from sphinx_external_toc.collectors import TocTreeCollectorWithStyles as Collector


def number_of(page):
    """Return the number of a page: 4 for 04_generation, E1 for e01_checks, "" for a page without one."""
    match = re.match(r"(e?)(\d+)_", page)
    return f"{match[1].upper()}{int(match[2])}" if match else ""


def renumber(env):
    """Put the page's number first in each place where Sphinx keeps section numbers."""
    for page, numbers in env.toc_secnumbers.items():
        first = number_of(page)
        for anchor, number in numbers.items():
            numbers[anchor] = (first, *number[1:]) if number else number
        numbered = [node for node in env.tocs[page].findall() if "secnumber" in getattr(node, "attributes", {})]
        for node in [*numbered, env.titles[page]]:
            if node.get("secnumber"):
                node["secnumber"] = (first, *node["secnumber"][1:])


def named_by_file(assign):
    """Wrap Sphinx's numbering of sections; the numbers of figures, equations and exercises follow from it."""
    @wraps(assign)
    def assign_section_numbers(self, env):
        changed = assign(self, env)
        renumber(env)
        return changed
    return assign_section_numbers


def setup(app):
    Collector.assign_section_numbers = named_by_file(Collector.assign_section_numbers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
