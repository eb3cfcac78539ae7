"""Train the models that the package ships, on the full data, and put them into vae_tutorial/pretrained.

The runs are those of the chapters, in the folder where the chapters keep them: what is finished there is taken as it is, what was
stopped goes on. Each file gets its recipe and its figures on the official test set, measured on the weights as they are stored.
"""
import argparse
import hashlib
import json
from functools import partial
from pathlib import Path

import torch

from vae_tutorial.autoencoder import Autoencoder, reconstruction_only
from vae_tutorial.conditional import ConditionalVAE
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import Split, load_data
from vae_tutorial.evaluation import evaluate, reconstruction_at_mean
from vae_tutorial.grid import sweep
from vae_tutorial.priors import VampPrior
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "nbs" / "runs" / "full"
PRETRAINED = ROOT / "vae_tutorial" / "pretrained"
BETAS, SEEDS = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0], [0, 1, 2]


def run(folder, model_class=VAE, sizes=None, data=None, restore_best=True, prior=None, **settings):
    """Train a model as a chapter does, in the chapter's folder; return it, its data, its history and the epoch of its weights."""
    images = load_data(**{"name": "mnist", "source": "full"} | (data or {}))
    torch.manual_seed(settings.get("seed", 42))
    model = model_class(**(sizes or {}))
    if prior is not None:
        model.prior = prior(model, images.train.images)
    history = fit(model, images, device="cpu", restore_best=restore_best, checkpoint=RUNS / folder, resume=True, **settings)
    return model, images, history, history.best.epoch if restore_best else len(history)


def run_of_sweep(beta):
    """Return the model of chapter 07's β sweep with the first seed, its data, its history and its last epoch."""
    images = load_data("mnist", source="full")
    table = sweep(images, {"beta": BETAS, "seed": SEEDS}, folder=RUNS / "beta-sweep", epochs=10, hidden_dims=(256,), latent_dim=10,
                  restore_best=False)
    row = table[(table.beta == beta) & (table.seed == SEEDS[0])].iloc[0]
    model, history = load_model(row.path)
    return model, images, history, len(history)


def vamp(model, images):
    """Return chapter 15's prior, before training."""
    return VampPrior(model, 50).start(images[:50])


RECIPES = {
    "mnist-mlp-20d": partial(run, "mnist-mlp-20d-fixed", epochs=50),
    "mnist-mlp-2d": partial(run, "mnist-mlp-2d", sizes=dict(hidden_dims=(256, 128), latent_dim=2), data=dict(val_fraction=0.2),
                            epochs=200),
    "mnist-conditional-2d": partial(run, "mnist-conditional-2d", ConditionalVAE, dict(hidden_dims=(256, 128), latent_dim=2), epochs=30),
    "mnist-ae-20d": partial(run, "mnist-ae-20d", Autoencoder, epochs=50, objective=reconstruction_only),
    "mnist-vamp-20d": partial(run, "prior-vamp-0", prior=vamp, epochs=10, lr=4e-3, lr_schedule="one-cycle", seed=0, restore_best=False),
    "fashion-conv-2d": partial(run, "fashion-conv-2d", ConvVAE, dict(latent_dim=2), dict(name="fashion"), epochs=100, lr=2e-3,
                               restore_best=False),
    "fashion-conv-50d": partial(run, "fashion-conv-50d-seed-42", ConvVAE, dict(latent_dim=50), dict(name="fashion"), epochs=10,
                                lr=2e-3, restore_best=False),
} | {f"mnist-beta-{beta:g}": partial(run_of_sweep, beta) for beta in BETAS}


def metrics(model, data):
    """Figures on the test set, in nats per image: all of it for the ELBO, its first images for the importance-weighted NLL."""
    if isinstance(model, Autoencoder):
        return {"reconstruction": reconstruction_at_mean(model, data.test.images).mean().item()}
    whole = evaluate(model, data.test, n_samples=16)
    few = 50 if isinstance(model, ConvVAE) else 200
    first = evaluate(model, Split(data.test.images[:few], data.test.labels[:few]), n_samples=5000)
    return {"loss": whole.loss, "loss_error": whole.errors["loss"], "distortion": whole.distortion, "rate": whole.rate,
            "reconstruction": whole.reconstruction, "active_units": int(whole.active.sum()),
            "nll_images": few, "nll_draws": 5000, "nll": first.nll, "loss_of_these": first.loss}


def package(name):
    """Write one model's file; return its entry for the index."""
    model, data, history, epoch = RECIPES[name]()
    model = model.half().float()          # as it will be loaded
    figures = metrics(model, data)
    recipe = {"data": data.name, "training images": len(data.train), "epochs": len(history), "weights of epoch": epoch,
              **history.settings}
    path = PRETRAINED / f"{name}.safetensors"
    save_model(model.half(), path, history, recipe=recipe, metrics=figures)
    print(name, figures, flush=True)
    return {"model": f"{type(model).__module__}.{type(model).__name__}", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(RECIPES)}; by default those that are not there yet")
    names = parser.parse_args().names
    unknown = set(names) - RECIPES.keys()
    if unknown:
        parser.error(f"no recipe for {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    PRETRAINED.mkdir(exist_ok=True)
    index_path = PRETRAINED / "index.json"
    index = json.loads(index_path.read_text(encoding="utf-8")) if index_path.exists() else {}
    for name in names or [name for name in RECIPES if name not in index]:
        index[name] = package(name)
        known = {name: index[name] for name in RECIPES if name in index}
        index_path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
