"""Priors: what is known of them is found, and models carry them wherever models go."""
import copy

import pytest
import torch
from factories import cloud, digit_model, generator, grey, rows, small_data, tiny, train, weights

from vae_tutorial import files
from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conditional import ConditionalVAE
from vae_tutorial.diagnosis import diagnose
from vae_tutorial.evaluation import evaluate, log_weights, posterior
from vae_tutorial.generation import grid_points
from vae_tutorial.priors import FlowPrior, LearnedMixture, VampPrior, fit_mixture
from vae_tutorial.saving import load_model, load_pretrained, save_model
from vae_tutorial.sweeps import tc_elbo
from vae_tutorial.vae import Prior, StandardNormal, elbo, kl_divergence


def shaken(prior, seed=1, by=0.7):
    """Return a prior whose parameters are far from where they start."""
    with torch.no_grad():
        for i, each in enumerate(prior.parameters()):
            each += by * cloud(*each.shape, seed=seed + i)
    return prior


def priors(model):
    """Return a prior of each kind that is not N(0, I)."""
    return [shaken(LearnedMixture(model, 4)), shaken(VampPrior(model, 3), by=3), shaken(FlowPrior(model, 3, 8), by=0.3)]


KINDS = range(3)


@pytest.mark.parametrize("kind", KINDS)
def test_density_of_a_plane_integrates_to_one_and_draws_follow_it(kind):
    prior = priors(tiny())[kind]
    n, edge = 400, 12.0
    points = grid_points(n, (-edge, edge))
    with torch.no_grad():
        mass = prior.log_prob(points).double().exp() * (2 * edge / (n - 1)) ** 2
        assert mass.sum() == pytest.approx(1, abs=2e-3)
        draws = prior.sample(40_000, generator(3))
        assert draws.shape == (40_000, 2) and prior.log_prob(draws.unflatten(0, (4, -1))).shape == (4, 10_000)
    # a quarter of the plane, and the mean of a function that is not linear
    for value in (lambda z: ((z[:, 0] > 0.3) & (z[:, 1] < 0.2)).double(), lambda z: torch.cos(z @ torch.tensor([1.0, -0.7])).double()):
        of_draws = value(draws)
        assert abs(of_draws.mean() - (mass * value(points)).sum()) < 4 * of_draws.std() / 200 + 2e-3
    assert prior.sample(5, generator()).equal(prior.sample(5, generator())) and prior.sample(0).shape == (0, 2)


def test_a_mixture_that_is_known_is_found_again():
    model, truth = tiny(), LearnedMixture(tiny(), 3)
    with torch.no_grad():
        truth.log_weights.copy_(torch.tensor([0.5, 0.3, 0.2]).log())
        truth.mu.copy_(torch.tensor([[-3.0, 0.0], [2.0, 2.0], [1.0, -3.0]]))
        truth.logvar.copy_(torch.tensor([[0.0, -2.0], [-1.0, 0.5], [-2.0, -1.0]]))
        prior, z = fit_mixture(model, truth.sample(20_000, generator()), 3), truth.sample(5_000, generator(1))
        off = truth.log_prob(z) - prior.log_prob(z)                   # its mean is the KL from truth to fit
        assert 0 <= off.mean() < 2e-3 and off.abs().max() < 0.3
        assert prior.log_weights.exp().sort().values.tolist() == pytest.approx([0.2, 0.3, 0.5], abs=0.02)
    assert isinstance(model.prior, StandardNormal)


def standard(model, kind):
    """Return N(0, I) in the clothes of another prior."""
    prior = (LearnedMixture(model, 2), FlowPrior(model))[kind]
    if kind == 0:
        torch.nn.init.zeros_(prior.mu)
    return prior


@pytest.mark.parametrize("kind", [0, 1])
def test_kl_by_draws_is_that_in_closed_form_within_its_error(kind):
    model, images = digit_model(), small_data().val.images
    closed = evaluate(model, images, n_samples=200, progress=False)
    model.prior = standard(model, kind)
    drawn = evaluate(model, images, n_samples=200, progress=False)
    assert drawn.rate != closed.rate and abs(drawn.rate - closed.rate) < 4 * drawn.draw_errors["rate"] < 0.1
    assert drawn.loss == pytest.approx(closed.loss, rel=1e-6) and drawn.nll == pytest.approx(closed.nll, rel=1e-6)
    assert drawn.distortion + drawn.rate == pytest.approx(drawn.loss) and drawn.kl.tolist() == pytest.approx([drawn.rate])
    assert closed.draw_errors["rate"] == 0 and closed.draw_errors["distortion"] == closed.draw_errors["loss"] and len(closed.kl) == 3
    assert drawn.draw_errors["distortion"] != drawn.draw_errors["loss"]
    # what elbo reports of a batch is such a draw
    x = images[:50].float() / 255
    each = torch.tensor([elbo(model, x, generator=generator(seed)).kl.item() for seed in range(200)])
    exact = kl_divergence(*model.encode(x)).sum(1).mean()
    assert abs(each.mean() - exact) < 4 * each.std() / 200**0.5


@pytest.mark.parametrize("kind", KINDS)
def test_log_weights_are_made_of_the_densities(kind):
    model = tiny()
    model.prior = priors(model)[kind]
    images = grey(4)
    log_w = log_weights(model, images, 5, likelihood="gaussian", progress=False)
    mu, logvar = posterior(model, images)
    rng = generator(0)
    eps = torch.stack([torch.randn(5, 2, generator=rng) for _ in images])
    q = torch.distributions.Normal(mu[:, None], (logvar / 2).exp()[:, None])
    z = q.mean + q.stddev * eps
    with torch.no_grad():
        pixels = torch.distributions.Normal(model.decode(z.flatten(0, 1)).sigmoid().unflatten(0, (4, 5)), 1.0)
        x = (images.float() / 255)[:, None]
        wanted = pixels.log_prob(x).flatten(2).sum(2) + model.prior.log_prob(z) - q.log_prob(z).sum(2)
    assert torch.allclose(log_w, wanted.double(), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_is_trained_resumed_copied_and_saved_with_its_model(kind, tmp_path):
    def fresh():
        model = digit_model()
        torch.manual_seed(1)
        model.prior = (LearnedMixture(model, 4), VampPrior(model, 4), FlowPrior(model, 2, 8))[kind]
        return model
    begun = weights(fresh().prior)
    model, history = train(fresh(), epochs=3)
    assert not torch.isclose(weights(model.prior), begun).all()
    train(fresh(), epochs=2, checkpoint=tmp_path)
    again, resumed = train(fresh(), epochs=3, checkpoint=tmp_path, resume=True)
    assert rows(resumed) == rows(history) and weights(again).equal(weights(model))
    with pytest.raises(ValueError, match="prior"):
        train(digit_model(), epochs=3, checkpoint=tmp_path, resume=True)
    save_model(model, tmp_path / "m.safetensors", history)
    loaded, _ = load_model(tmp_path / "m.safetensors")
    for other in (loaded, copy.deepcopy(model)):
        assert type(other.prior) is type(model.prior) and weights(other).equal(weights(model))
        assert other.sample(3, generator()).equal(model.sample(3, generator()))
    assert not kind == 1 or loaded.prior.encode.__self__ is loaded


def test_file_that_names_an_unknown_prior_or_one_too_large_is_refused(tmp_path):
    model, path = tiny(), tmp_path / "m.safetensors"
    model.prior = LearnedMixture(model, 4)
    save_model(model, path)
    tensors, notes = files.read_tensors(path)
    for change, words in [(dict(model="Nobody"), "Nobody"), (dict(config={"n_components": 10**18}), "damaged|not that of its weights"),
                          (dict(config={"n_components": 5}), "shape")]:
        files.write_tensors(path, tensors, notes | {"model.prior": notes["model.prior"] | change})
        with pytest.raises(ValueError, match=words):
            load_model(path)


def test_normal_prior_leaves_no_trace_in_a_file(tmp_path):
    save_model(tiny(), tmp_path / "m.safetensors")
    tensors, notes = files.read_tensors(tmp_path / "m.safetensors")
    assert "model.prior" not in notes and not any("prior" in name for name in tensors)
    assert tiny().sample(4, generator()).equal(tiny().eval().decode(cloud(4, 2)).sigmoid())


@pytest.mark.parametrize("kind", KINDS)
def test_diagnosis_does_not_measure_codes_against_a_prior_that_is_not_theirs(kind):
    model, images = digit_model(), small_data()
    torch.nn.init.constant_(model.encoder[-1].bias, 9.0)      # codes that N(0, I) would find strange
    before = diagnose(model, images)
    assert "holes" in {each.rule for each in [*before.findings, *before.explained]}
    model.prior = priors(model)[kind]
    after = diagnose(model, images)
    assert not {"holes", "effective-beta"} & {each.rule for each in [*after.findings, *after.explained]}
    assert "holes in N(0, I)" in " ".join(repr(after).split())


def test_shipped_model_comes_with_its_prior():
    assert isinstance(load_pretrained("mnist-vamp-20d").prior, VampPrior)


class Stretched(StandardNormal):
    """Its densities have an axis too many, which would be broadcast."""

    def log_prob(self, z):
        return super().log_prob(z)[..., None]

    kl = Prior.kl


def with_prior(kind):
    model = tiny()
    model.prior = kind(model)
    return model


@pytest.mark.parametrize("format", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", [LearnedMixture, VampPrior, FlowPrior])
def test_priors_follow_the_format_of_their_model(kind, format):
    early, late = tiny().to(format), tiny()
    early.prior, late.prior = kind(early), kind(late)
    assert early.sample(2).isfinite().all() and late.to(format).sample(2).isfinite().all()


def test_fitting_moves_no_generator():
    model, before = tiny(), torch.get_rng_state()
    fit_mixture(model, cloud(50, 2), 2)
    assert torch.get_rng_state().equal(before)


def test_what_does_not_go_together_is_refused():
    model, coder, curved = tiny(), tiny(Autoencoder), tiny()
    curved.prior = FlowPrior(curved)
    for call, words in [(lambda: VampPrior(coder), "model"), (lambda: FlowPrior(tiny(latent_dim=1)), "latent_dim is 1"),
                        (lambda: VampPrior(tiny(ConditionalVAE)), "model is told the class .* take LearnedMixture"),
                        (lambda: VampPrior(tiny(ConditionalVAE).given(1)), "model is told the class"),
                        (lambda: setattr(tiny(seed=1), "prior", VampPrior(model)), "prior was made for another model"),
                        (lambda: setattr(tiny(latent_dim=3), "prior", curved.prior), "prior is of 2 dimensions, must be of 3"),
                        (lambda: setattr(model, "prior", None), "prior is NoneType, must be a Prior"),
                        (lambda: evaluate(with_prior(Stretched), grey(3), progress=False), "log_prob"),
                        (lambda: tc_elbo(curved, grey(3) / 255), "model.prior is FlowPrior, must be StandardNormal"),
                        (lambda: fit_mixture(model, cloud(9, 3), 2), r"codes has shape \(9, 3\), must be \(N, 2\)"),
                        (lambda: fit_mixture(model, cloud(9, 2), 10), "n_components is 10"),
                        (lambda: VampPrior(model, 3).start(grey(2)), "pseudo-inputs")]:
        with pytest.raises((TypeError, ValueError), match=words):
            call()
    coder.prior = fit_mixture(coder, cloud(50, 2), 2)              # a density for an autoencoder, too
    assert coder.sample(3, generator()).shape == (3, 1, 2, 3)
    images = grey(3)
    assert torch.allclose(VampPrior(model, 3).start(images).images, (images / 255).clamp(0.02, 0.98), atol=1e-5)
