"""diagnose and Watch: each broken model is caught by its own rule, healthy ones by none, and nobody's model is changed by being looked at."""
import copy
import json
import math
import re
from collections import namedtuple
from dataclasses import replace
from functools import lru_cache, partial, cache
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
from vae_tutorial.data import Split
from vae_tutorial.diagnosis import RULES, Foreign
from vae_tutorial.evaluation import evaluate
from vae_tutorial.likelihoods import Gaussian
from vae_tutorial.saving import about_pretrained
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE, BaseVAE, Elbo, VAEOutput, elbo, kl_divergence, reconstruction_loss

Case = namedtuple("Case", "model data history", defaults=(None,))


@cache
def digits(train=2000):
    return small_data(train, 500, test=400)


def trained(kind=VAE, data=None, epochs=10, prepare=lambda model: None, config=None, **settings):
    """Return a small model with its data and its history, trained for a second or two."""
    torch.manual_seed(0)
    model = kind(**{"latent_dim": 10} | ({"channels": (8, 16)} if kind is ConvVAE else {"hidden_dims": (100,)}) | (config or {}))
    prepare(model)
    data = digits() if data is None else data
    return Case(model, data, fit(model, data, epochs, **dict(batch_size=64, lr=2e-3, progress=False, device="cpu") | settings))


@cache
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


def beta_without_end():
    case = healthy()
    rows = [replace(row, beta=row.epoch) for row in case.history.epochs]
    return case._replace(history=vt.History(rows, case.history.settings, case.history.ended))


def piled_up():
    torch.manual_seed(0)
    model, x = VAE(hidden_dims=(100,), latent_dim=10), digits().train.images / 255
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(200):
        elbo(model, x[torch.randint(len(x), (64,))]).loss.backward()
        optimizer.step()
    return Case(model, digits())


def as_trained_on_bytes():
    model = copy.deepcopy(healthy().model)
    with torch.no_grad():
        model.encoder[1].weight /= 255
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

def with_nan(model):
    with torch.no_grad():
        model.decoder[-2].bias[3] = math.nan
    return model


def five_lines(count, epochs):
    """The README's, with discs on coloured grounds."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    row, column, radius = (torch.rand(3, count, 1, 1, generator=generator) * torch.tensor([16, 16, 6]).view(3, 1, 1, 1)).add(8).unbind()
    inside = ((y - row) ** 2 + (x - column) ** 2 < radius ** 2).unsqueeze(1)
    disc, ground = (end + 0.3 * torch.rand(count, 3, 1, 1, generator=generator) for end in (0.7, 0.0))
    data = vt.load_images((255 * torch.where(inside, disc, ground)).byte().numpy(), progress=False)
    torch.manual_seed(0)
    model = vt.ConvVAE(data.image_shape, latent_dim=32)
    return Case(model, data, vt.fit(model, data, epochs=epochs, batch_size=16, progress=False, device="cpu"))


BROKEN = {
    "not-finite": lambda: Case(with_nan(copy.deepcopy(healthy().model)), digits()),
    "not-finite, of images": lambda: changed_data(lambda images: (images / 255).masked_fill(images == 255, math.nan)),
    "wrong-scale": lambda: changed_data(lambda images: images.float()),
    "wrong-scale, as trained": as_trained_on_bytes,
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
    "beta-still-moving, without an end": lambda: beta_without_end(),
    "steps-too-large": lambda: trained(lr=0.2),
    "steps-too-large, by far": lambda: trained(lr=1.0, epochs=4, batch_size=128, config=dict(hidden_dims=(32,), latent_dim=4)),
    "learning-rate-low": lambda: trained(lr=1e-4),
    "stopped-early": lambda: trained(epochs=3),
    "stopped-early, of few images": lambda: trained(data=digits(200), batch_size=128),
    "stopped-early, of few pictures in colour": lambda: five_lines(60, 10),
    "dead-relus": lambda: trained(prepare=kill, epochs=6),
    "few-images": lambda: trained(objective=first_images),
    "overfitting": lambda: trained(data=digits(100), epochs=200, lr=5e-3, restore_best=False),
    "posterior-collapse": lambda: trained(beta=100.0),
    "sigma-floor": lambda: trained(Clamped),
    "holes": lambda: trained(beta=0.02),
    "other-world": lambda: healthy()._replace(data=small_data(2000, 500, "fashion"), history=None),
    "underfitting": lambda: trained(lr=1e-2, epochs=15, config=dict(hidden_dims=(), latent_dim=1)),
}
HEALTHY = {
    "20 dimensions": lambda: trained(config=dict(latent_dim=20)),
    "2 dimensions": lambda: trained(config=dict(latent_dim=2), epochs=15),
    "convolutions": lambda: trained(ConvVAE, epochs=8, lr_schedule="one-cycle", lr=5e-3),
    "ramped": lambda: trained(beta=vt.LinearBeta(4)),
    "ramped to the last epoch but one": lambda: trained(beta=vt.LinearBeta(9)),
    "few pictures in colour": lambda: five_lines(60, 100),
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
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.deep) if "," in name else name for name in BROKEN])
def test_broken_model_is_caught_by_its_own_rule_and_no_other(name, case):
    assert rules(vt.diagnose(*case(name))) == [name.partition(",")[0]]


OFTEN = ("20 dimensions", "ramped", "beta of 4", "gaussian", "an autoencoder")


@pytest.mark.parametrize("name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.deep) for name in HEALTHY])
def test_nothing_is_found_in_a_healthy_model(name, case):
    model, data, history = case(name)
    for found in (vt.diagnose(model, data, history), vt.diagnose(model, data)):
        assert not found.findings, found
        assert "Nothing is wrong" in repr(found)


@pytest.mark.deep
@pytest.mark.parametrize("name", json.loads((ROOT / "vae_tutorial" / "pretrained" / "index.json").read_text(encoding="utf-8")))
def test_nothing_is_found_in_a_model_that_comes_with_the_package(name):
    model, data = vt.load_pretrained(name), vt.load_data(name.partition("-")[0])
    for history in (None, about_pretrained(name)["history"]):
        assert not vt.diagnose(model, data, history, n_images=500).findings


def test_every_rule_has_a_broken_model():
    assert {name.partition(",")[0] for name in BROKEN} == set(RULES)


# --- what it says ---

def test_finding_names_evidence_line_and_section(case):
    found = vt.diagnose(*case("mean-over-pixels"))
    (finding,) = found.findings
    assert finding.evidence == 784 and finding.sure == "certain" and "784 pixels" in finding.sees
    assert all(f"{term}.sum(1).mean()" in finding.mend for term in ("bce.flatten(1)", "kl"))       # the KL may be a mean, too
    assert (finding.page, finding.section) == ("01_vae.ipynb", "The reductions trap")
    text = repr(found)
    assert all(part in text for part in ("1. mean-over-pixels (certain)", finding.mend, finding.page, finding.section))
    assert "posterior-collapse" in {each.rule for each in found.explained} and "posterior-collapse" in text
    assert max(map(len, text.splitlines())) <= 88


def headings(page):
    cells = json.loads((ROOT / "nbs" / page).read_text(encoding="utf-8"))["cells"]
    return {line.lstrip("# ").strip() for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"] if re.match("#+ ", line)}


@pytest.mark.parametrize("name", RULES)
def test_section_that_explains_a_rule_is_there(name):
    rule = RULES[name]
    assert rule.section in headings(rule.page)
    assert set(rule.explains) <= RULES.keys() | {"*"} and name not in rule.explains


def test_without_a_history_the_text_says_what_was_not_looked_at():
    model, data, history = healthy()
    alone, whole = vt.diagnose(model, data), vt.diagnose(model, data, history)
    assert any("no history" in reason for reason in alone.unseen) and "no history" in repr(alone)
    assert {"stopped-early", "few-images"} <= set(whole.looked) - set(alone.looked) and not any("history" in each for each in whole.unseen)


@pytest.mark.parametrize("with_history", [True, False])
def test_figure_has_curves_kl_and_images(with_history):
    model, data, history = healthy()
    curves, bars, images = vt.diagnose(model, data, history if with_history else None).plot().axes
    texts = {text.get_text() for text in curves.get_legend().get_texts()}
    assert {"floor", "one picture for all"} <= texts and ({"training", "validation"} <= texts) == with_history
    assert len(bars.patches) == model.latent_dim and [label.get_text() for label in images.get_yticklabels()] == ["image", "reconstruction", "sample"]


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_effective_beta_is_that_of_the_training(beta, case):
    model, data, _ = healthy() if beta == 1 else case("beta of 4" if beta == 4 else "beta of a half")
    assert vt.diagnose(model, data).measured.beta == pytest.approx(beta, rel=0.3)


def test_floor_and_mean_picture_are_those_of_chapter_00_and_02():
    model, data, _ = healthy()
    measured, x = vt.diagnose(model, data).measured, data.val.images / 255
    assert measured.floor == pytest.approx(vt.data.entropy_floor(data.val.images).mean().item(), rel=1e-3)
    picture = (data.train.images / 255).mean(0).logit(1e-4).expand_as(x)
    assert measured.constant == pytest.approx(reconstruction_loss(picture, x).mean().item(), rel=0.02)
    assert measured.val.loss.mean().item() == pytest.approx(evaluate(model, data.val, n_samples=8, progress=False).loss, rel=0.02)


# --- what it leaves alone, and what it refuses ---

class Normed(VAE):
    def __init__(self, **config):
        super().__init__(**config)
        self.encoder.insert(1, nn.BatchNorm1d(784))


@pytest.mark.parametrize("mode", [True, False])
def test_looking_changes_neither_model_nor_random_numbers(mode):
    torch.manual_seed(0)
    model = Normed(hidden_dims=(20,), latent_dim=3).train(mode)
    before, state = weights(model), torch.get_rng_state()
    found = vt.diagnose(model, digits())
    found.plot()
    assert torch.equal(weights(model), before) and torch.equal(torch.get_rng_state(), state)
    assert all(module.training == mode for module in model.modules()) and not any(module._forward_pre_hooks for module in model.modules())
    assert repr(vt.diagnose(model, digits())) == repr(found)


@pytest.mark.parametrize("arguments, error, told", [
    (dict(model="mine"), TypeError, "model is str, must be a Module"),
    (dict(model=nn.Linear(784, 784)), TypeError, "model is Linear, must have encode and decode"),
    (dict(data=3), TypeError, "data is int, must be an ImageData"),
    (dict(data=torch.rand(8, 1, 5, 5)), ValueError, r"data has images of shape \(1, 5, 5\), must have that of the model, \(1, 28, 28\)"),
    (dict(history=[1.0]), TypeError, "history is list, must be a History: fit returns one"),
    (dict(likelihood="normal"), ValueError, "likelihood is 'normal', must be one of"),
    (dict(n_images=0), ValueError, "n_images is 0"),
    (dict(seed=-1), ValueError, "seed is -1"),
])
def test_bad_input_is_refused_by_name(arguments, error, told):
    model, data, _ = healthy()
    with pytest.raises(error, match=told):
        vt.diagnose(**dict(model=model, data=data) | arguments)


def test_a_model_with_a_likelihood_of_its_own_is_judged_by_it():
    case = trained(prepare=lambda model: setattr(model, "likelihood", Gaussian(0.2)))
    found = vt.diagnose(case.model, case.data)
    assert found.measured.likelihood is case.model.likelihood
    assert found.measured.beta == pytest.approx(1, rel=0.4)


# --- models of other people ---

class Tutorial(nn.Module):
    """PyTorch's examples/vae: flat images, probabilities, a tuple."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 100), nn.Linear(100, 8), nn.Linear(100, 8)
        self.fc3, self.fc4 = nn.Linear(8, 100), nn.Linear(100, 784)

    def encode(self, x):
        h = F.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def reparameterize(self, mu, logvar):
        return mu + (0.5 * logvar).exp() * torch.randn_like(mu)

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


class Listed(Tutorial):
    """AntixK's PyTorch-VAE: a list with the images second, and encode gives one too."""

    def encode(self, x):
        return list(super().encode(x.flatten(1)))

    def forward(self, x):
        mu, logvar = self.encode(x)
        return [self.decode(self.reparameterize(mu, logvar)).view_as(x), x, mu, logvar]


class Keras(nn.Module):
    """A port of the Keras example: encoder and decoder, and z with its mean and log-variance."""

    def __init__(self):
        super().__init__()
        tutorial = Tutorial()

        class Encoder(nn.Module):
            def forward(self, x):
                mu, logvar = tutorial.encode(x.flatten(1))
                return mu, logvar, tutorial.reparameterize(mu, logvar)

        class Decoder(nn.Module):
            def forward(self, z):
                return tutorial.decode(z).view(-1, 1, 28, 28)

        self.tutorial, self.encoder, self.decoder = tutorial, Encoder(), Decoder()

    def forward(self, x):
        z_mean, z_log_var, z = self.encoder(x)
        return {"reconstruction": self.decoder(z), "z_mean": z_mean, "z_log_var": z_log_var, "z": z}


class Pythae(Tutorial):
    """pythae's: a dict goes in, an object with recon_x, mu, log_var and z comes out."""

    def forward(self, inputs):
        x = inputs["data"]
        mu, logvar = Tutorial.encode(self, x.flatten(1))
        z = self.reparameterize(mu, logvar)
        return SimpleNamespace(recon_x=self.decode(z).view_as(x), mu=mu, log_var=logvar, z=z)


class OnlyForward(nn.Module):
    """Nothing but a forward, whose draw of z is seen at the layer that takes it."""

    def __init__(self):
        super().__init__()
        self.inner = Tutorial()

    def forward(self, x):
        return self.inner(x)


class Silent(Tutorial):
    def reparameterize(self, mu, logvar):
        return mu


def sums(recon, x, kl):
    return F.binary_cross_entropy(recon, x, reduction="sum") + kl.sum()


def train_foreign(model, loss_of=sums):
    torch.manual_seed(0)
    optimizer, x = torch.optim.Adam(model.parameters(), lr=2e-3), digits().train.images / 255
    for _ in range(300):
        batch = x[torch.randint(len(x), (64,))].flatten(1)
        recon, mu, logvar = model(batch)
        loss = loss_of(recon, batch, kl_divergence(mu, logvar))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@pytest.fixture(scope="session")
def foreign():
    """Return the weights of a tutorial's model."""
    torch.manual_seed(0)
    return train_foreign(Tutorial())


def with_weights(kind, state):
    model = kind()
    getattr(model, "inner", getattr(model, "tutorial", model)).load_state_dict(state)
    return model


@pytest.mark.parametrize("kind", [Tutorial, Listed, Keras, Pythae, OnlyForward])
def test_foreign_model_is_understood_and_a_healthy_one_is_left_in_peace(kind, foreign):
    found = vt.diagnose(with_weights(kind, foreign), digits())
    assert not found.findings and "probabilities" in repr(found)
    assert "noise-off" in found.looked and "sample-without-gradient" in found.looked
    if kind is OnlyForward:
        assert any("no decode" in reason for reason in found.unseen)
    else:
        assert found.measured.beta == pytest.approx(1, rel=0.3)


def test_foreign_mistake_is_found_and_its_outputs_can_be_said_to_be_logits(foreign):
    assert rules(vt.diagnose(with_weights(Silent, foreign), digits())) == ["noise-off"]
    assert rules(vt.diagnose(with_weights(Tutorial, foreign), digits(), outputs="logits")) == ["sigmoid-decoder"]
    with pytest.raises(ValueError, match="outputs is 'images', must be one of"):
        vt.diagnose(with_weights(Tutorial, foreign), digits(), outputs="images")


class Twice(Tutorial):
    def decode(self, z):
        return super().decode(z).sigmoid()


@pytest.mark.parametrize("name, kind, loss_of", [
    ("effective-beta", Tutorial, lambda recon, x, kl: F.binary_cross_entropy(recon, x, reduction="sum") / len(x) + kl.mean()),
    ("posterior-collapse", Tutorial, lambda recon, x, kl: F.binary_cross_entropy(recon, x) + kl.mean()),
    ("posterior-collapse", Tutorial, lambda recon, x, kl: sums(recon, x, 40 * kl)),
    ("sigmoid-decoder", Twice, sums)], ids=["KL is a mean", "both are means", "too dear a KL", "sigmoid twice"])
def test_mistakes_of_foreign_trainings_are_each_named(name, kind, loss_of):
    torch.manual_seed(0)
    model = kind()
    train_foreign(model, loss_of)
    assert rules(vt.diagnose(model, digits())) == [name]


def test_foreign_model_serves_the_course_once_it_is_adapted(foreign):
    adapted = Foreign(with_weights(Tutorial, foreign), digits().train.images[:4])
    assert isinstance(adapted, BaseVAE) and adapted.latent_dim == 8
    assert evaluate(adapted, digits().val, n_samples=2, progress=False).loss < 160
    assert adapted.sample(3).shape == (3, 1, 28, 28)


class Clamps(Tutorial):
    """Returns a logvar that z is not drawn from: a clamped copy."""

    def forward(self, x):
        recon, mu, logvar = super().forward(x)
        return recon, mu, logvar.clamp(-10, 10)


class Normals(Tutorial):
    """Draws with torch.distributions."""

    def encode(self, x):
        mu, logvar = super().encode(x.flatten(1))
        return torch.distributions.Normal(mu, (logvar / 2).exp())

    def forward(self, x):
        q = self.encode(x)
        return self.decode(q.rsample()), q.loc, 2 * q.scale.log()


class Sigmas(Tutorial):
    """encode gives mu and sigma, forward gives mu and logvar."""

    def encode(self, x):
        mu, logvar = super().encode(x.flatten(1))
        return mu, (logvar / 2).exp()

    def forward(self, x):
        mu, sigma = self.encode(x)
        return self.decode(mu + sigma * torch.randn_like(mu)), mu, 2 * sigma.log()


@pytest.mark.parametrize("kind", [Clamps, Normals, Sigmas])
def test_foreign_way_of_writing_sigma_is_no_mistake(kind, foreign):
    found = vt.diagnose(with_weights(kind, foreign), digits())
    assert not found.findings and "sample-without-gradient" in found.looked


class DetachedSigma(Sigmas):
    def forward(self, x):
        mu, sigma = self.encode(x)
        return self.decode(mu + sigma.detach() * torch.randn_like(mu)), mu, 2 * sigma.log()


def test_gradient_that_stops_before_a_foreign_sigma_is_found(foreign):
    assert rules(vt.diagnose(with_weights(DetachedSigma, foreign), digits())) == ["sample-without-gradient"]


class Pixels(Tutorial):
    """Its decoder gives pixels from a tanh or a linear layer, here a little beyond [0, 1]."""

    def decode(self, z):
        return 1.1 * super().decode(z) - 0.05


class Flat(Tutorial):
    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def test_pixels_of_a_foreign_decoder_and_flat_images_are_taken(foreign):
    assert "pixels" in repr(vt.diagnose(with_weights(Pixels, foreign), digits(), likelihood="gaussian"))
    flat = vt.diagnose(with_weights(Flat, foreign), digits().train.images.flatten(1) / 255)
    assert not flat.findings and len(flat.plot().axes) == 3


class Conditional(Tutorial):
    def forward(self, x, y):
        return super().forward(x)
    encode = None


@pytest.mark.parametrize("model", [Conditional(), nn.Module(), nn.Sequential(nn.Conv2d(3, 8, 3))])
def test_foreign_model_that_cannot_be_fed_is_refused_with_its_own_error_as_the_cause(model):
    with pytest.raises(TypeError, match=f"model is {type(model).__name__}, must have encode and decode.*a BaseVAE of five lines") as refusal:
        vt.diagnose(model, digits())
    assert refusal.value.__cause__ is not None


# --- where it is called, and with how much ---

@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_found_where_none_are_kept(mode):
    with mode():
        inside = vt.diagnose(healthy().model, digits())
    assert repr(inside) == repr(vt.diagnose(healthy().model, digits()))


@pytest.mark.filterwarnings("error")
def test_one_image_is_little_to_judge_by_and_large_ones_are_looked_at_in_part():
    model = healthy().model
    assert not rules(vt.diagnose(model, digits(), n_images=1))
    large = ConvVAE((3, 128, 128), latent_dim=2, channels=(2, 2))
    assert len(vt.diagnose(large, torch.rand(600, 3, 128, 128)).measured.x) < 100


def test_shuffled_loader_takes_no_random_number():
    loader = torch.utils.data.DataLoader(digits().train.images[:100], batch_size=10, shuffle=True)
    state = torch.get_rng_state()
    vt.diagnose(healthy().model, loader)
    assert torch.equal(torch.get_rng_state(), state)


# --- while it trains ---

def test_watch_changes_nothing(capsys):
    watch = vt.Watch()
    plain, watched = (trained(epochs=3, callbacks=callbacks) for callbacks in ((), (watch,)))
    assert torch.equal(weights(plain.model), weights(watched.model)) and watch.said is None
    assert [(e.loss, e.train_loss) for e in plain.history.epochs] == [(e.loss, e.train_loss) for e in watched.history.epochs]
    assert not capsys.readouterr().out


WATCHED = {
    "sigmoid-decoder": dict(kind=Sigmoid), "noise-in-evaluation": dict(kind=Dropout), "noise-off": dict(kind=drawing(lambda mu, logvar: mu)),
    "logvar-misread": dict(kind=drawing(lambda mu, logvar: noisy(mu, logvar.exp()))),
    "sample-without-gradient": dict(kind=drawing(lambda mu, logvar: noisy(mu, (logvar / 2).exp()).detach())),
    "mean-over-pixels": dict(objective=mean_pixels), "posterior-collapse": dict(beta=100.0, epochs=12),
    "steps-too-large": dict(lr=1.0, batch_size=128, config=dict(hidden_dims=(32,), latent_dim=4)),
    "kl-sign": dict(objective=objective(lambda out, x, beta, d, kl: own(d, -kl.sum(1).mean(), beta))),
    "overfitting": dict(train=64, epochs=200, lr=1e-2),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WATCHED)
def test_watch_says_early_and_once_what_is_wrong(name, capsys):
    watch, settings = vt.Watch(), dict(epochs=3) | WATCHED[name]
    trained(data=digits(settings.pop("train", 1000)), callbacks=[watch], **settings)
    (line,) = capsys.readouterr().out.splitlines()
    assert watch.said.rule == name and re.match(rf"Watch, epoch \d+: {name}: .", line)


def test_watch_waits_for_a_code_in_few_steps_and_begins_afresh_with_a_run(capsys):
    watch = vt.Watch()
    trained(data=digits(200), batch_size=128, epochs=4, callbacks=[watch])
    assert watch.said is None and not capsys.readouterr().out
    for _ in range(2):
        trained(Sigmoid, epochs=1, callbacks=[watch])
    assert len(capsys.readouterr().out.splitlines()) == 2
    with pytest.raises(TypeError, match=r"callbacks holds the class Watch, must hold what it makes: Watch\(...\)"):
        trained(epochs=1, callbacks=[vt.Watch])
