"""A reader may change any number of a page and run it to the end; the page's own checks speak only as it was published."""
import ast

import measure_ranges
import nbformat
import pytest
from conftest import CHAPTERS, ROOT, run_process

RUN = """if True:
    import sys
    from pathlib import Path

    from run_notebook import Shell, sources

    shell = Shell.instance()
    shell.enable_matplotlib("inline")
    for number, source in sources(Path(sys.argv[1])):
        if not shell.run_cell(source, store_history=False).success:
            sys.exit(f"cell {number} failed:\\n{source}")"""

# the range of a figure, and one that does not hold it
WRONG = "expect(more, data, full=(0.020, 0.025), sample=(0, 0))", "expect(more, data, full=(1, 2), sample=(1, 2))"
# page, and what the reader changes in it: how often the old text occurs, the old text and the new one
CHANGES = {
    "counts": ("00_data", [(1, "range(100)", "range(7)"), (1, "count = 10", "count = 4"), (1, "else 500", "else 300"), (1, *WRONG),
                           (1, "manual_seed(0)", "manual_seed(9)"), (1, "grey = data.test.images[:10]", "grey = data.test.images[:6]")]),
    "ten dimensions": ("01_vae", [(1, "latent_dim, width = 20, 400", "latent_dim, width = 10, 400")]),
    "width and epochs": ("01_vae", [(1, "latent_dim, width = 20, 400", "latent_dim, width = 2, 50"), (1, "epochs=4)", "epochs=1)"),
                                        (6, "manual_seed(0)", "manual_seed(3)"), (1, ".split(128)", ".split(500)"),
                                        (1, "randn(2, 500, 3", "randn(2, 50, 4"), (1, "16, 32, 64]", "100]")]),
    # of these runs some end before the ramp does, some after it
    "another beta and few epochs": ("02_training", [
        (1, "LinearBeta(11", "LinearBeta(5"), (1, ".split(128)", ".split(500)"), (1, "seeds = (0, 1, 2, 3, 4)", "seeds = (4, 5)"),
        (1, "images[:10]), 3", "images[:7]), 2"), (2, "epochs=50", "epochs=3"), (1, "epochs=25", "epochs=6"), (2, "epochs=20", "epochs=2")]),
    "fewer draws": ("03_evaluation", [
        (1, 'load_pretrained("mnist-mlp-20d")', 'load_pretrained("mnist-beta-4")'), (1, "full=(200, 5000, 1000, 20)", "full=(50, 300, 70, 3)"),
        (1, "sample=(100, 5000, 100, 12)", "sample=(50, 300, 70, 3)"), (1, "(1.0, 4.0, 784.0)", "(1.0, 2.0, 100.0)"),
        (1, "(1, 6, 6)", "(1, 4, 5)"), (1, "epochs=10", "epochs=2"), (1, "steps=300", "steps=20")]),
    "two dimensions": ("04_generation", [
        (1, 'load_pretrained("mnist-mlp-20d")', 'load_pretrained("mnist-mlp-2d")'), (1, 'load_pretrained("mnist-beta-8")', 'load_pretrained("mnist-beta-1")'),
        (1, "linspace(0, 1, 11)", "linspace(0, 1, 8)"), (1, "side = 20", "side = 9"),
        (1, "sets = 5", "sets = 3"), (1, "train_judge(data.train)", "train_judge(data.train, steps=200)")]),
}
LONG = {"another beta and few epochs", "fewer draws", "width and epochs", "two dimensions"}
SILENT = [path for path in CHAPTERS if "as_published" in path.read_text(encoding="utf-8")]


def run_changed(name, changes, folder):
    """Run a page with other texts in its code, in a folder of its own; fail with its output where a cell fails."""
    notebook = nbformat.read(ROOT / "nbs" / f"{name}.ipynb", 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for times, old, new in changes:
        assert sum(cell.source.count(old) for cell in code) == times, f"{name} has not {times} of {old!r}"
        for cell in code:
            cell.source = cell.source.replace(old, new)
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return run_process("-c", RUN, path, cwd=folder, PYTHONPATH=f"{ROOT}:{ROOT / 'tools'}")


@pytest.fixture
def as_reader(monkeypatch):
    for name in ("VAE_TUTORIAL_PUBLISHED", "IN_TEST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.deep if row in LONG else ()) for row in CHANGES])
def test_a_page_runs_to_its_end_with_other_numbers(row, as_reader, tmp_path):
    run_changed(*CHANGES[row], tmp_path)


def test_a_wrong_figure_is_heard_as_published(tmp_path):
    """And only then: see the row of counts."""
    with pytest.raises(pytest.fail.Exception, match="is not from 1 to 2 on mnist, source 'sample'"):
        run_changed("00_data", [(1, *WRONG)], tmp_path)


@pytest.mark.parametrize("path", SILENT, ids=lambda path: path.stem)
def test_checks_stand_in_hidden_cells_and_ask_first(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code" or "importlib.util" in cell.source:
            continue
        tree = ast.parse(cell.source)
        speaks = [node for node in ast.walk(tree) if isinstance(node, ast.Assert) or getattr(getattr(node, "func", None), "id", "") == "as_published"]
        if not speaks and not measure_ranges.calls_of(cell.source):
            continue
        assert cell.source.startswith("#| hide\n"), cell.source
        for block in tree.body:
            assert ast.unparse(block.test).startswith("as_published()") and not block.orelse, cell.source
