"""diagnose and Watch: each broken model is caught by its own rule, healthy ones by none, and nobody's model is changed by being looked at."""
import json
import re
from collections import namedtuple
from dataclasses import replace
from functools import lru_cache, partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from factories import small_data, weights
from torch import nn

import vae_tutorial as vt
from vae_tutorial.autoencoder import Autoencoder, reconstruction_only
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import Split, load_data
from vae_tutorial.diagnosis import RULES, Foreign
from vae_tutorial.evaluation import evaluate
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE, BaseVAE, Elbo, VAEOutput, elbo, kl_divergence, reconstruction_loss

Case = namedtuple("Case", "model data history", defaults=(None,))


@lru_cache(maxsize=None)
def digits(train=2000):
    return small_data(train, 500, test=400)


def trained(kind=VAE, data=None, epochs=10, prepare=lambda model: None, config=None, **settings):
    """Return a small model with its data and its history, trained for a second or two."""
    torch.manual_seed(0)
    model = kind(**{"latent_dim": 10} | ({"channels": (8, 16)} if kind is ConvVAE else {"hidden_dims": (100,)}) | (config or {}))
    prepare(model)
    data = digits() if data is None else data
    return Case(model, data, fit(model, data, epochs, **dict(batch_size=64, lr=2e-3, progress=False, device="cpu") | settings))


@lru_cache(maxsize=None)
def healthy():
    return trained()


# --- broken models ---

class Sigmoid(VAE):
    def decode(self, z):
        return super().decode(z).sigmoid()


class Dropout(VAE):
    def decode(self, z):
        return super().decode(F.dropout(z, 0.2))


class Clamped(VAE):
    def encode(self, x):
        mu, logvar = super().encode(x)
        return mu, logvar.clamp(min=-1)


class Drawn(VAE):
    """A VAE whose z is drawn by a function of mu and logvar."""
    draw = None

    def forward(self, x, generator=None):
        mu, logvar = self.encode(x)
        z = self.draw(mu, logvar)
        return VAEOutput(self.decode(z), mu, logvar, z)


def drawing(function):
    return type("Drawn", (Drawn,), {"draw": staticmethod(function)})


def noisy(mu, sigma):
    return mu + sigma * torch.randn_like(mu)


def objective(change):
    """Return an objective that is elbo with the terms, or what is fed to the model, changed."""
    def changed(model, x, beta, generator):
        out = model(x, generator)
        return change(out, x, beta, reconstruction_loss(out.logits, x).mean(), kl_divergence(out.mu, out.logvar))
    return changed


def own(reconstruction, kl, beta):
    return Elbo(reconstruction + beta * kl, reconstruction, kl, beta)


def at_mean(model, x, beta, generator):
    mu, logvar = model.encode(x)
    return own(reconstruction_loss(model.decode(mu), x).mean(), kl_divergence(mu, logvar).sum(1).mean(), beta)


def fed_with_bytes(model, x, beta, generator):
    out = model(255 * x, generator)
    return own(reconstruction_loss(out.logits, x).mean(), kl_divergence(out.mu, out.logvar).sum(1).mean(), beta)


def piled_up():
    torch.manual_seed(0)
    model, x = VAE(hidden_dims=(100,), latent_dim=10), digits().train.images / 255
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(200):
        elbo(model, x[torch.randint(len(x), (64,))]).loss.backward()
        optimizer.step()
    return Case(model, digits())


def kill(model):
    with torch.no_grad():
        model.encoder[1].bias.fill_(-100)


def changed_data(change):
    return Case(healthy().model, replace(digits(), **{part: Split(change(getattr(digits(), part).images), None) for part in ("train", "val", "test")}))


mean_pixels = objective(lambda out, x, beta, d, kl: own(d / 784, kl.sum(1).mean(), beta))
mean_codes = objective(lambda out, x, beta, d, kl: own(d, kl.mean() / 2, beta))
reward = objective(lambda out, x, beta, d, kl: own(d, -kl.sum(1).mean(), beta))
first_images = lambda model, x, beta, generator: elbo(model, digits().train.images[:len(x)] / 255 if model.training else x, beta, generator)

BROKEN = {
    "wrong-scale": lambda: changed_data(lambda images: images.float()),
    "wrong-scale, as trained": lambda: trained(objective=fed_with_bytes),
    "unknown-pixels": lambda: changed_data(lambda images: images / 127.5 - 1),
    "inverted": lambda: changed_data(lambda images: 255 - images),
    "test-among-train": lambda: healthy()._replace(data=replace(digits(), test=digits().train)),
    "sigmoid-decoder": lambda: trained(Sigmoid, epochs=3),
    "kl-sign": lambda: trained(objective=reward, epochs=4),
    "sample-without-gradient": lambda: trained(drawing(lambda mu, logvar: torch.normal(mu, (logvar / 2).exp())), epochs=4),
    "sample-without-gradient, of sigma": lambda: trained(drawing(lambda mu, logvar: noisy(mu, (logvar.detach() / 2).exp()))),
    "noise-off": lambda: trained(drawing(lambda mu, logvar: mu)),
    "noise-unseen": lambda: trained(objective=at_mean),
    "noise-in-evaluation": lambda: trained(Dropout),
    "logvar-misread": lambda: trained(drawing(lambda mu, logvar: noisy(mu, logvar.exp()))),
    "logvar-misread, as sigma": lambda: trained(drawing(lambda mu, logvar: noisy(mu, logvar))),
    "gradients-pile-up": piled_up,
    "mean-over-pixels": lambda: trained(objective=mean_pixels, epochs=5),
    "effective-beta": lambda: trained(objective=mean_codes),
    "beta-still-moving": lambda: trained(beta=vt.LinearBeta(20)),
    "steps-too-large": lambda: trained(lr=0.2),
    "learning-rate-low": lambda: trained(lr=1e-4),
    "stopped-early": lambda: trained(epochs=3),
    "dead-relus": lambda: trained(prepare=kill, epochs=6),
    "few-images": lambda: trained(objective=first_images),
    "overfitting": lambda: trained(data=digits(300), epochs=100, restore_best=False),
    "posterior-collapse": lambda: trained(beta=100.0),
    "sigma-floor": lambda: trained(Clamped),
    "holes": lambda: trained(beta=0.02),
    "other-world": lambda: healthy()._replace(data=small_data(2000, 500, "fashion"), history=None),
    "underfitting": lambda: trained(config=dict(hidden_dims=(1,), latent_dim=1)),
}
HEALTHY = {
    "20 dimensions": lambda: trained(config=dict(latent_dim=20)),
    "2 dimensions": lambda: trained(config=dict(latent_dim=2), epochs=15),
    "convolutions": lambda: trained(ConvVAE, epochs=8),
    "ramped": lambda: trained(beta=vt.LinearBeta(4)),
    "beta of 4": lambda: trained(beta=4.0),
    "beta of a half": lambda: trained(beta=0.5),
    "one cycle": lambda: trained(lr_schedule="one-cycle", lr=None),
    "gaussian": lambda: trained(objective=partial(elbo, likelihood="gaussian")),
    "clothes": lambda: trained(data=small_data(2000, 500, "fashion", test=400)),
    "an autoencoder": lambda: trained(Autoencoder, objective=reconstruction_only),
}


@pytest.fixture(scope="session")
def case():
    """Return a function that trains a model once."""
    return lru_cache(maxsize=None)(lambda name: (BROKEN | HEALTHY)[name]())


def rules(diagnosis):
    return [finding.rule for finding in diagnosis.findings]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_model_is_caught_by_its_own_rule_and_no_other(name, case):
    assert rules(vt.diagnose(*case(name))) == [name.partition(",")[0]]


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_in_a_healthy_model(name, case):
    model, data, history = case(name)
    for found in (vt.diagnose(model, data, history), vt.diagnose(model, data)):
        assert not found.findings, found
        assert "Nothing is wrong" in repr(found)


def test_every_rule_has_a_broken_model():
    assert {name.partition(",")[0] for name in BROKEN} == set(RULES)
