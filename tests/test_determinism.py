"""The same seed gives the same bytes on one machine, and nearly the same numbers with another number of threads."""
import hashlib
import json
import shutil
import sys
from functools import cache, partial
from pathlib import Path

import execute_notebooks
import measure_ranges
import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT, run_process
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split, load_data
from vae_tutorial.evaluation import evaluate
from vae_tutorial.grid import sweep
from vae_tutorial.saving import save_model
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE

pytestmark = pytest.mark.deep

MAKES = {"mlp": VAE, "conv": partial(ConvVAE, latent_dim=4, channels=(8, 16, 32))}
THREADS = measure_ranges.load()["threads"]


# --- what a process trains: `python tests/test_determinism.py FOLDER [--busy]` ---

def some_data():
    whole = load_data("mnist", source="sample")
    part = lambda split, n: Split(split.images[:n], split.labels[:n])
    return ImageData(part(whole.train, 700), part(whole.val, 100), None, whole.name, whole.source, whole.class_names)


def work_before():
    """Leave the global generators, the memory and torch's pools in another state than that of a fresh process."""
    torch.manual_seed(99)
    np.random.default_rng(1).random(7)
    np.random.seed(5)
    with torch.no_grad():
        VAE()(torch.rand(64, 1, 28, 28))


def everything(folder, busy):
    """Train a small model of each kind and a sweep, and write their weights and figures into a folder."""
    if busy:
        work_before()
    data, figures = some_data(), {}
    for name, make in MAKES.items():
        torch.manual_seed(0)
        model = make()
        history = fit(model, data, epochs=2, seed=0, device="cpu", progress=False)
        save_model(model, folder / f"{name}.safetensors")
        result = evaluate(model, data.val, n_samples=4, progress=False)
        figures[name] = [[e.loss, e.train_loss, e.kl] for e in history], result.loss, result.nll, result.per_image["nll"].tolist()
    table = sweep(data, {"beta": [1.0, 4.0], "seed": [0, 1]}, epochs=1, hidden_dims=(16,), latent_dim=3, folder=folder / "sweep",
                  device="cpu", progress=False)
    figures["sweep"] = table.drop(columns=["seconds", "path"]).to_dict("list")
    (folder / "figures.json").write_text(json.dumps(figures))


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """Return the folders of three processes that did the same work, with other hash seeds and, the last, after other work."""
    folders = []
    for number, more in enumerate([(), (), ("--busy",)]):
        folders.append(tmp_path_factory.mktemp("process"))
        run_process(Path(__file__), folders[-1], *more, timeout=200, PYTHONHASHSEED=str(number), PYTHONPATH=str(ROOT / "tools"))
    return folders


@pytest.mark.parametrize("name", ["mlp.safetensors", "conv.safetensors", "figures.json"])
def test_two_processes_write_the_same_bytes(alike, name):
    assert len({hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in alike}) == 1


def test_two_processes_train_a_sweep_to_the_same_weights(alike):
    from safetensors.torch import load_file

    models = sorted(path.relative_to(alike[0]) for path in (alike[0] / "sweep").rglob("model.safetensors"))
    assert len(models) == 4
    for path in models:
        first, *others = (load_file(folder / path) for folder in alike)
        assert all(first[key].equal(other[key]) for other in others for key in first), path


# --- one process ---

@cache
def weights_of(seed, state):
    """Train a small model, with the global generators and the default type as told."""
    torch.manual_seed(seed)
    model = VAE(hidden_dims=(32,), latent_dim=4)
    torch.manual_seed(state)
    fit(model, some_data(), epochs=1, seed=seed, device="cpu", progress=False)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_draws_from_its_own_generator():
    assert weights_of(0, 1).equal(weights_of(0, 2))
    assert not weights_of(0, 1).equal(weights_of(1, 1))


def test_training_leaves_the_state_of_the_process_as_it_was():
    model = VAE(hidden_dims=(16,), latent_dim=3)
    state = lambda: (torch.get_rng_state().tolist(), str(np.random.get_state()), torch.get_default_dtype(), torch.get_num_threads(),
                     torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())
    before = state()
    fit(model, some_data(), epochs=1, device="cpu", progress=False)
    evaluate(model, some_data().val, n_samples=2, progress=False)
    assert state() == before


# --- threads ---

@pytest.mark.parametrize("precision", measure_ranges.TOLERANCE)
@pytest.mark.parametrize("name", measure_ranges.OF_THREADS)
def test_other_numbers_of_threads_give_nearly_the_same(name, precision):
    """Loss (nats per image) and weights with 2, 3 and 4 threads are those of 1 thread, to 1e-3 in float32 and 1e-10 in float64.

    Sums over many terms are made in another order, so the last bits differ, and Adam, which divides by the size of the gradient,
    carries on from there. What was measured after two epochs is at most a tenth of that; it is in book/results/ranges.json.
    """
    found = measure_ranges.differences_of_threads(name, precision)
    assert max(found.values()) <= measure_ranges.TOLERANCE[precision], found


def test_what_was_measured_with_more_threads_is_a_tenth_of_the_tolerance():
    for of_model in THREADS.values():
        for precision, found in of_model.items():
            assert max(found.values()) <= measure_ranges.TOLERANCE[precision] / 10


# --- pages ---

@pytest.fixture
def page(tmp_path, monkeypatch):
    """Return a function that makes a notebook of cells and executes it; nothing of it gets into the course's folders."""
    monkeypatch.setattr(execute_notebooks, "WORK", tmp_path / "work")

    def make(*cells):
        path = tmp_path / "page.ipynb"
        cells = [new_markdown_cell("# Page", id="head"), *(new_code_cell(source, id=f"cell{n}") for n, source in enumerate(cells))]
        nbformat.write(new_notebook(cells=cells), path)
        execute_notebooks.execute(path, timeout=60)
        return path
    return make


@pytest.mark.parametrize("name", ["01_vae"])
def test_a_page_executed_twice_gives_the_same_outputs(name, monkeypatch, tmp_path):
    """Chapter 01 trains two models; every output but a timing has the same bytes, pictures too."""
    monkeypatch.setattr(execute_notebooks, "WORK", tmp_path)
    path = tmp_path / f"{name}.ipynb"
    shutil.copyfile(ROOT / "nbs" / f"{name}.ipynb", path)
    execute_notebooks.store(execute_notebooks.run(path, timeout=300)[0], path)
    again = execute_notebooks.fresh(path, timeout=300)
    stored = nbformat.read(path, 4)
    assert sum(bool(cell.get("outputs")) for cell in stored.cells) > 5
    assert [number for number, timed in execute_notebooks.changes(stored, again) if not timed] == []


def test_check_passes_a_page_that_says_the_same_again(page, capsys):
    path = page("print(6 * 7)", "import torch\ntorch.manual_seed(0)\ntorch.rand(3)", "#| eval: false\nprint('never')")
    before = path.read_bytes()
    assert execute_notebooks.check(path, timeout=60) == 0
    assert path.read_bytes() == before and "as stored" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["import os; print(int.from_bytes(os.urandom(8)))", "import uuid; uuid.uuid4().int"])
def test_check_names_the_cell_that_differs(page, capsys, source):
    path = page("print(6 * 7)", source)
    before = path.read_bytes()
    assert execute_notebooks.check(path, timeout=60) == 1
    assert path.read_bytes() == before and f"cell 2 ({source!r}) differs" in capsys.readouterr().out


@pytest.mark.parametrize("source", [
    "import os; print(f'{int.from_bytes(os.urandom(4))} ms')", "import os; print(f'trained in {os.urandom(2)[0]} seconds')",
    "import os; print(f'{int.from_bytes(os.urandom(4))} images per second')", "import time; print(time.perf_counter())"])
def test_check_lets_a_timing_differ(page, capsys, source):
    path = page("print(6 * 7)", source)
    assert execute_notebooks.check(path, timeout=60) == 0
    assert "cell 2" in capsys.readouterr().out


def test_check_takes_no_other_number_for_a_timing():
    for text in ("5 steps", "10 samples", "12 s0", "7 minibatches", "loss 102.3 nats"):
        assert not execute_notebooks.is_timed(new_code_cell("print(x)", outputs=[nbformat.v4.new_output("stream", text=text)])), text


def test_check_sees_an_output_that_is_gone(page, capsys):
    path = page("print(6 * 7)", "1 + 1")
    notebook = nbformat.read(path, 4)
    notebook.cells[2].outputs = []
    nbformat.write(notebook, path)
    assert execute_notebooks.check(path, timeout=60) == 1
    assert "cell 2" in capsys.readouterr().out


if __name__ == "__main__":
    everything(Path(sys.argv[1]), "--busy" in sys.argv)
