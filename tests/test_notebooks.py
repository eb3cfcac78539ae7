"""Notebooks run in nbdev, and the package and their stored form are what nbdev makes of them; how outputs are stored."""
import json
import re
import signal
import subprocess
import sys
from functools import partial

import execute_notebooks
import nbformat
import pytest
from conftest import HANG, NOTEBOOKS, ROOT, run_process, until
from nbformat.v4 import new_code_cell, new_notebook, new_output
from widget_states import lay_in, state_file

# Without workers: the process that is started here is the one that runs the notebook, and the one that is stopped.
NBDEV_TEST = "import sys; from nbdev.test import nbdev_test; nbdev_test(sys.argv[1], n_workers=0)"
NBDEV_EXPORT = "from nbdev.doclinks import nbdev_export; nbdev_export()"
NBDEV_CLEAN = "from nbdev.clean import nbdev_clean; nbdev_clean()"


def test_notebook_runs_in_nbdev(tree_copy):
    # all chapters run in test_wheel.py; this shows that nbdev's own command works on one
    assert "Success" in run_process("-c", NBDEV_TEST, tree_copy / "nbs" / "00_data.ipynb")


def contents(folder):
    """Return the files that nbdev writes, by name."""
    files = [*folder.glob("nbs/*.ipynb"), *folder.glob("vae_tutorial/*.py")]
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


@pytest.mark.parametrize("code, command", [(NBDEV_EXPORT, "nbdev_export"), (NBDEV_CLEAN, "nbdev_clean")], ids=["export", "clean"])
def test_nothing_is_left_to_do(tree_copy, code, command):
    for module in tree_copy.glob("vae_tutorial/*.py"):
        if command == "nbdev_export" and module.name not in ("__init__.py", "_modidx.py"):
            module.unlink()           # a module that no notebook exports is not written again
    run_process("-c", code, cwd=tree_copy)
    before, after = contents(ROOT), contents(tree_copy)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert not changed, f"run {command} and commit what it changes in {sorted(changed)}"


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Return a function that makes a notebook of code cells; what is executed is kept out of the course's folders."""
    monkeypatch.setattr(execute_notebooks, "WORK", tmp_path / "work")

    def make(*cells):
        path = tmp_path / "page.ipynb"
        notebook = new_notebook(cells=[new_code_cell(source, id=f"cell{n}") for n, source in enumerate(cells)])
        nbformat.write(notebook, path)
        return path
    return make


def stored(path):
    """Return the texts that the cells of a notebook show."""
    cells = json.loads(path.read_text())["cells"]
    return ["".join("".join(output.get("text", "")) for output in cell["outputs"]) for cell in cells]


def test_outputs_are_stored_and_cells_with_flags_are_not_run(workshop):
    path = workshop("print(6 * 7)", "#| eval: false\nprint('never')", "#| notest\nprint('neither')")
    execute_notebooks.execute(path, timeout=HANG)
    assert stored(path) == ["42\n", "", ""]
    assert execute_notebooks.is_done(path)
    first = path.read_bytes()
    execute_notebooks.execute(path, timeout=HANG)
    assert path.read_bytes() == first
    path.write_text(path.read_text().replace("6 * 7", "6 * 8"))
    assert not execute_notebooks.is_done(path)


def test_failing_cell_leaves_the_notebook_as_it_was(workshop):
    path = workshop("print('begun')", "1 / 0")
    before = path.read_bytes()
    with pytest.raises(execute_notebooks.Refused, match=r"page\.ipynb(?s:.*)1 / 0(?s:.*)ZeroDivisionError"):
        execute_notebooks.execute(path, timeout=HANG)
    assert path.read_bytes() == before and not execute_notebooks.is_done(path)


@pytest.mark.parametrize("output, reason", [
    (new_output("error", ename="ValueError", evalue="bad"), "raises ValueError: bad"),
    (new_output("stream", name="stderr", text="UserWarning: careful"), "standard error: UserWarning: careful"),
    (new_output("stream", name="stdout", text=f"saved to {ROOT}/x.png"), "path of this machine"),
    (new_output("execute_result", data={"text/html": f"<b>{ROOT}</b>"}), "path of this machine"),
])
def test_outputs_that_no_reader_should_see_are_refused(output, reason):
    notebook = new_notebook(cells=[new_code_cell("fine = 1"), new_code_cell("#| export\nculprit()", outputs=[output])])
    with pytest.raises(execute_notebooks.Refused, match=rf"page\.ipynb, cell 1 \('culprit\(\)'\): .*{reason}"):
        execute_notebooks.check_outputs(notebook, "page.ipynb")


def test_a_page_depends_on_the_modules_that_it_names_and_on_those_that_these_import():
    def names(text):
        return [path.stem for path in execute_notebooks.modules(text)]

    assert names("from vae_tutorial.sources import read_idx") == ["checks", "files", "sources"]
    assert {"training", "runs", "pictures", "vae"} < set(names("#| default_exp training")) and "grid" not in names("#| default_exp training")
    assert names("import json") == []


def stored_widgets(path):
    """Return the models of the widgets that a notebook stores, by their ids."""
    return execute_notebooks.widget_models(lay_in(nbformat.read(path, 4), path))


def test_shown_widgets_are_stored_under_the_same_ids_in_each_run(workshop):
    # neither the slider of the first cell nor the widget of the second is shown
    path = workshop("import anywidget, traitlets\nfrom ipywidgets import FloatSlider, HBox, IntSlider\nIntSlider()\n0",
                    "class Tiny(anywidget.AnyWidget):\n    _esm = 'export default {}'\n"
                    "    weights = traitlets.Bytes(b'abc').tag(sync=True)\nunused = Tiny()",
                    "HBox([Tiny(), FloatSlider(0.25)])")
    execute_notebooks.execute(path, timeout=HANG)
    first = path.read_bytes()
    models = stored_widgets(path)
    assert b"YWJj" not in first and b"YWJj" in state_file(path).read_bytes()      # beside the notebook, not in it
    # each with its layout, the slider with its style too
    assert sorted(model["model_name"] for model in models.values()) == [
        "AnyModel", "FloatSliderModel", "HBoxModel", "LayoutModel", "LayoutModel", "LayoutModel", "SliderStyleModel"]
    assert [model["buffers"][0]["data"] for model in models.values() if "buffers" in model] == ["YWJj"]
    shown = nbformat.read(path, 4).cells[2].outputs[0].data[execute_notebooks.VIEW]["model_id"]
    children = {name.removeprefix("IPY_MODEL_") for name in models[shown]["state"]["children"]}
    assert {models[name]["model_name"] for name in children} == {"AnyModel", "FloatSliderModel"}
    execute_notebooks.execute(path, timeout=HANG)
    assert path.read_bytes() == first


def test_path_in_the_state_of_a_widget_is_refused(workshop):
    path = workshop(f"import anywidget\nclass Tiny(anywidget.AnyWidget):\n    _esm = 'export default {{}}; // from {ROOT}'\nTiny()")
    with pytest.raises(execute_notebooks.Refused, match=r"page\.ipynb: the state of its AnyModel holds a path"):
        execute_notebooks.execute(path, timeout=HANG)


def test_interrupted_run_leaves_the_notebook_as_it_was(workshop, tmp_path):
    started = tmp_path / "started"
    path = workshop(f"import pathlib, time; pathlib.Path({str(started)!r}).touch(); time.sleep({HANG})")
    before = path.read_bytes()
    # As at a terminal: a shell in the background starts its commands deaf to Ctrl-C.
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([sys.executable, ROOT / "tools" / "execute_notebooks.py", path], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=listening) as process:
        until(lambda: started.exists() or process.poll() is not None, "start")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 1 and "stopped" in output and "Traceback" not in output
    assert path.read_bytes() == before


def test_check_names_the_cells_that_differ_and_tells_timings_from_them(workshop, capsys):
    same = ["print(6 * 7)", "import torch\ntorch.manual_seed(0)\ntorch.rand(3)", "#| eval: false\nprint('never')", "1 + 1"]
    other = ["import os; print(int.from_bytes(os.urandom(8)))", "import uuid; uuid.uuid4().int"]
    timed = ["print(f'{int.from_bytes(os.urandom(4))} ms')", "import time; print(time.perf_counter())",
             "print(f'{int.from_bytes(os.urandom(4))} images per second')"]
    path = workshop(*same, *other, *timed)
    execute_notebooks.execute(path, timeout=HANG)
    notebook = nbformat.read(path, 4)
    notebook.cells[3].outputs = []                # an output that is gone is seen, too
    nbformat.write(notebook, path)
    before = path.read_bytes()
    assert execute_notebooks.check(path, timeout=HANG) == 3 and path.read_bytes() == before
    named = re.findall(r"cell (\d) \(.* differs(.*)", capsys.readouterr().out)
    assert named == [(str(number), " and shows a timing" * (number > 5)) for number in range(3, 9)]


@pytest.mark.parametrize("text", ["5 steps", "10 samples", "12 s0", "7 minibatches", "loss 102.3 nats"])
def test_no_other_number_is_taken_for_a_timing(text):
    assert not execute_notebooks.is_timed(new_code_cell("print(x)", outputs=[new_output("stream", text=text)]))


def test_solutions_are_folded_wherever_they_are_read():
    # on the site by the first line, in Jupyter and in Colab by what stands in the cell's metadata
    folded = {"cellView": "form", "jupyter": {"outputs_hidden": True, "source_hidden": True}}
    cells = [cell for path in NOTEBOOKS for cell in nbformat.read(path, 4).cells if "Solution" in cell.source]
    solutions = [cell for cell in cells if cell.cell_type == "code"]
    assert solutions
    for cell in solutions:
        assert cell.source.startswith("#| code-fold: true\n") and "\n#@title Solution\n" in cell.source, cell.source
        assert cell.metadata == folded, cell.source
