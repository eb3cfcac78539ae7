"""The same seed gives the same bytes on one machine, and nearly the same numbers with another number of threads."""
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import execute_notebooks
import measure_ranges
import nbformat
import numpy as np
import pytest
import torch
from conftest import HANG, ROOT, run_process
from factories import small_data

from vae_tutorial.conv import ConvVAE
from vae_tutorial.evaluation import evaluate
from vae_tutorial.files import read_tensors
from vae_tutorial.grid import sweep
from vae_tutorial.saving import save_model
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE

pytestmark = pytest.mark.deep

MAKES = {"mlp": VAE, "conv": partial(ConvVAE, latent_dim=4, channels=(8, 16, 32))}


# --- what a process trains: `python tests/test_determinism.py FOLDER [--busy]` ---

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
    data, figures = small_data(700, 100), {}
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


def test_two_processes_write_the_same_bytes(tmp_path):
    """One of them after other work, and with another hash seed; a sweep keeps its times beside the weights."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, seed, more in ((one, "0", ()), (other, "1", ("--busy",))):
        folder.mkdir()
        run_process(Path(__file__), folder, *more, PYTHONHASHSEED=seed, PYTHONPATH=str(ROOT / "tools"))
    for name in ("mlp.safetensors", "conv.safetensors", "figures.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    swept = [{path.parent.name: read_tensors(path)[0] for path in (folder / "sweep").rglob("model.safetensors")} for folder in (one, other)]
    assert len(swept[0]) == 4
    assert all(t.equal(swept[1][run][name]) for run, tensors in swept[0].items() for name, t in tensors.items())


# --- one process ---

def test_training_leaves_the_state_of_the_process_as_it_was():
    model = VAE(hidden_dims=(16,), latent_dim=3)
    state = lambda: (torch.get_rng_state().tolist(), str(np.random.get_state()), torch.get_default_dtype(), torch.get_num_threads(),
                     torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())
    before = state()
    fit(model, small_data(700, 100), epochs=1, device="cpu", progress=False)
    evaluate(model, small_data(700, 100).val, n_samples=2, progress=False)
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
    assert max(measure_ranges.load()["threads"][name][precision].values()) <= measure_ranges.TOLERANCE[precision] / 10


# --- pages ---

def test_a_page_executed_twice_gives_the_same_outputs(monkeypatch, tmp_path):
    """Chapter 01 trains two models; every output but a timing has the same bytes, pictures too."""
    monkeypatch.setattr(execute_notebooks, "WORK", tmp_path)
    path = tmp_path / "01_vae.ipynb"
    shutil.copyfile(ROOT / "nbs" / path.name, path)
    execute_notebooks.store(execute_notebooks.run(path, timeout=HANG)[0], path)
    again = execute_notebooks.fresh(path, timeout=HANG)
    stored = execute_notebooks.lay_in(nbformat.read(path, 4), path)
    assert sum(bool(cell.get("outputs")) for cell in stored.cells) > 5
    assert [number for number, timed in execute_notebooks.changes(stored, again) if not timed] == []


if __name__ == "__main__":
    everything(Path(sys.argv[1]), "--busy" in sys.argv)
