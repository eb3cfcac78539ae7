"""Number the chapters from 0, so that a chapter has the number of its notebook's file name."""
from functools import wraps

from sphinx_external_toc.collectors import TocTreeCollectorWithStyles as Collector


def one_less(number):
    """Return the number of a chapter or section with its first part counted from 0; None and () stay."""
    return type(number)([number[0] - 1, *number[1:]]) if number else number


def shift(env):
    """Count from 0 in each place where Sphinx keeps section numbers."""
    for numbers in env.toc_secnumbers.values():
        for anchor, number in numbers.items():
            numbers[anchor] = one_less(number)
    for page in env.toc_secnumbers:
        numbered = [node for node in env.tocs[page].findall() if "secnumber" in getattr(node, "attributes", {})]
        for node in [*numbered, env.titles[page]]:
            node["secnumber"] = one_less(node.get("secnumber"))


def counted_from_zero(assign):
    """Wrap Sphinx's numbering of sections; the numbers of figures, equations and exercises follow from it."""
    @wraps(assign)
    def assign_section_numbers(self, env):
        changed = assign(self, env)
        shift(env)
        return changed
    return assign_section_numbers


def setup(app):
    Collector.assign_section_numbers = counted_from_zero(Collector.assign_section_numbers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
