"""What a GPU changes: nothing but the speed. These tests are left out where there is none, as in CI."""
import warnings

import pytest
import torch
from factories import after, digit_model, fit, weights

from vae_tutorial.evaluation import evaluate
from vae_tutorial.generation import interpolate, manifold_grid, traverse
from vae_tutorial.grid import sweep
from vae_tutorial.latent_space import encodings
from vae_tutorial.saving import load_model, load_pretrained, save_model
from vae_tutorial.training import LinearBeta
from vae_tutorial.vae import VAE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def trained(data, epochs=4, device="cuda", seed=0, **options):
    model = digit_model(seed=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "compile is True, but")          # what PyTorch itself has to say is no failure
        history = fit(model, data, epochs, beta=LinearBeta(2), device=device, progress=False, **{"precision": "fp32"} | options)
    return model, history


def test_the_gpu_is_taken_and_trains_as_the_cpu_does_but_for_its_draws(data):
    model, history = trained(data, device=None)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    _, on_cpu = trained(data, device="cpu")
    assert history.best.loss == pytest.approx(on_cpu.best.loss, rel=0.03)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"compile": True}, {"precision": "bf16", "compile": True}], ids=str)
def test_options_change_the_arithmetic_alone(data, options):
    _, plain = trained(data)
    model, history = trained(data, **options)
    assert [e.loss for e in history] == pytest.approx([e.loss for e in plain], rel=0.01)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_resumed_on_the_gpu_is_the_same_to_the_bit(data, tmp_path):
    whole, _ = trained(data)
    trained(data, checkpoint=tmp_path, callbacks=[after(2)])
    resumed, _ = trained(data, checkpoint=tmp_path, resume=True, seed=1)
    assert weights(resumed).equal(weights(whole))


def test_a_run_moves_to_a_cpu(data, tmp_path):
    """A finished one is there at once; another goes on, with draws of its own, and says so."""
    whole, history = trained(data, checkpoint=tmp_path / "whole")
    moved, same = trained(data, device="cpu", checkpoint=tmp_path / "whole", resume=True, seed=1)
    assert weights(moved).equal(weights(whole).cpu()) and same.epochs == history.epochs
    trained(data, checkpoint=tmp_path / "half", callbacks=[after(2)])
    with pytest.warns(UserWarning, match="begun on 'cuda' and goes on on 'cpu'"):
        longer = fit(digit_model(), data, 4, beta=LinearBeta(2), device="cpu", precision="fp32", checkpoint=tmp_path / "half", resume=True, progress=False)
    assert len(longer) == 4 and longer.best.loss == pytest.approx(history.best.loss, rel=0.03)


def test_many_at_once_are_those_one_by_one(data, tmp_path):
    grid = {"beta": [0.5, 2.0], "seed": [0, 1, 2]}
    settings = dict(epochs=2, hidden_dims=(16,), latent_dim=2, precision="fp32", progress=False)
    together = sweep(data, grid, folder=tmp_path / "together", at_once=6, **settings)
    alone = sweep(data, grid, folder=tmp_path / "alone", **settings)
    assert together.loss.tolist() == pytest.approx(alone.loss.tolist(), rel=1e-4)


def test_all_that_is_done_with_a_model_works_on_the_gpu(data, tmp_path):
    model, _ = trained(data)
    images = data.val.images
    here = evaluate(model, data.val, n_samples=8)
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    on_cpu = load_model(path)[0].cpu()
    there = evaluate(on_cpu, data.val, n_samples=8)
    assert here.loss == pytest.approx(there.loss, rel=0.01)
    assert len(encodings(model, data.val)) == len(images)
    assert model.sample(3).shape == model.reconstruct(images[:3].cuda() / 255).shape == (3, 1, 28, 28)
    assert interpolate(model, images[0], images[1]).isfinite().all()
    assert traverse(model, images[0]).isfinite().all()
    assert manifold_grid(load_pretrained("mnist-mlp-2d").cuda()).isfinite().all()


def test_memory_that_runs_out_is_named(data):
    with pytest.raises(MemoryError, match="lower batch_size"):
        fit(VAE(hidden_dims=(2_000_000, 100_000)), data, 1, progress=False)
