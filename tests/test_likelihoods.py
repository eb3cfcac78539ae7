"""The likelihoods of chapter 13: each is normalised, its mean and draws are of the density it states, and `fit` trains what it holds."""
import math

import pytest
import torch
from factories import digit_model, generator, small_data, train

from vae_tutorial.autoencoder import reconstruction_only
from vae_tutorial.evaluation import evaluate, log_weights, reconstruction_at_mean
from vae_tutorial.generation import decode_images, interpolate, manifold_grid, traverse
from vae_tutorial.likelihoods import (Bernoulli, ContinuousBernoulli, DiscretizedLogistic, Gaussian, LearnedGaussian, Likelihood,
                                      OptimalGaussian)
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.sweeps import tc_elbo
from vae_tutorial.vae import LIKELIHOODS, VAE, elbo

LOGITS = torch.tensor([-40.0, -6.0, -0.5, -0.05, 0.0, 1e-4, 0.3, 2.0, 7.0, 40.0], dtype=torch.float64)
BITS = torch.tensor([0.0, 1.0]).double()
LINE = torch.linspace(-8, 9, 170_001, dtype=torch.float64)          # its points include 0 and 1
UNIT = torch.linspace(0, 1, 200_001, dtype=torch.float64)
GREY = torch.arange(256).double() / 255
# every likelihood, and all values of a pixel that it knows
KINDS = {"bernoulli": (Bernoulli(), BITS), "continuous": (ContinuousBernoulli(), UNIT), "gaussian": (Gaussian(0.3), LINE),
         "learned": (LearnedGaussian(sigma=0.2), LINE), "optimal": (OptimalGaussian().eval(), LINE),
         "logistic": (DiscretizedLogistic(0.05), GREY), "four levels": (DiscretizedLogistic(0.3, levels=4), torch.arange(4).double() / 3)}
every_kind = pytest.mark.parametrize("likelihood, values", KINDS.values(), ids=KINDS)


def weights_of(likelihood, values, logits):
    """Return the probability of each value for each logit; of a density, that of a piece of the line."""
    with torch.no_grad():
        p = likelihood.double().log_prob(logits[:, None].expand(-1, len(values)), values.expand(len(logits), -1)).exp()
    if len(values) > 256:
        p = p * (values[1] - values[0])
        p[:, [0, -1]] /= 2
    return p


@every_kind
def test_probabilities_sum_to_one_and_have_the_mean_that_is_stated(likelihood, values):
    p = weights_of(likelihood, values, LOGITS)
    torch.testing.assert_close(p.sum(1), torch.ones_like(LOGITS), atol=2e-4, rtol=0)
    # the mean of 256 levels is an integral over them
    torch.testing.assert_close(p @ values, likelihood.mean(LOGITS).detach(), atol=2e-2 if len(values) == 4 else 1e-3, rtol=0)


@every_kind
def test_draws_come_from_the_distribution_and_only_from_the_generator_given(likelihood, values):
    logits, before = LOGITS.float()[:, None].expand(-1, 40_000), torch.get_rng_state()
    with torch.no_grad():
        x, again = (likelihood.float().sample(logits, generator(3)) for _ in range(2))
    assert x.equal(again) and torch.get_rng_state().equal(before) and x.shape == logits.shape and x.isfinite().all()
    p = weights_of(likelihood, values, LOGITS)
    likelihood.float()
    mean = p @ values
    std = (p @ values.square() - mean.square()).clamp(min=0).sqrt()
    torch.testing.assert_close(x.double().mean(1), mean, atol=1e-2, rtol=0)
    torch.testing.assert_close(x.double().std(1), std, atol=1e-2, rtol=0)


@pytest.mark.parametrize("name, likelihood", [("bernoulli", Bernoulli()), ("continuous-bernoulli", ContinuousBernoulli()), ("gaussian", Gaussian())])
def test_names_and_objects_say_the_same(name, likelihood):
    model, x = digit_model(), small_data(40).train.images / 255
    by_name = elbo(model, x, generator=generator(), likelihood=name)
    torch.testing.assert_close(likelihood.elbo(model, x, generator=generator()), by_name)
    both = [evaluate(model, x, likelihood=each, n_samples=2, progress=False).loss for each in (name, likelihood)]
    assert both[0] == pytest.approx(both[1], rel=1e-5)
    torch.testing.assert_close(likelihood(x, x), LIKELIHOODS[name](x, x))


def test_the_optimal_sigma_is_the_least_loss_of_any():
    logits, x = torch.randn(50, 7, generator=generator()), torch.rand(50, 7, generator=generator(1))
    best = OptimalGaussian()
    loss = best(logits, x).mean().item()
    rmse = (x - logits.sigmoid()).square().mean().sqrt().item()
    assert loss == pytest.approx(math.log(2 * math.pi * math.e * rmse**2) / 2, rel=1e-5)
    assert all(loss <= Gaussian(rmse * factor)(logits, x).mean().item() + 1e-6 for factor in (0.9, 1, 1.1))
    for _ in range(200):                     # the average over batches, all of them the same
        best(logits, x)
    assert best.sigma.item() == pytest.approx(rmse, rel=1e-3)
    with torch.no_grad():
        before = best.sigma.item()
        best(logits + 5, x)
        best.eval()(logits + 5, x)
    assert best.sigma.item() == before       # looking does not train


@pytest.mark.parametrize("kind, name", [(LearnedGaussian, "log_sigma"), (OptimalGaussian, "sigma"), (DiscretizedLogistic, "log_scale")])
def test_fit_trains_what_a_likelihood_holds_and_a_resumed_run_goes_on_to_the_bit(kind, name, tmp_path):
    data, found = small_data(200, 50), []
    for stops in ((4,), (2, 4)):
        likelihood, folder = kind(), tmp_path / str(len(stops))
        start = getattr(likelihood, name).clone()
        for epochs in stops:
            likelihood = kind()
            train(digit_model(), data, epochs, objective=likelihood.elbo, checkpoint=folder, resume=True, lr_schedule="constant",
                  restore_best=False)
        found.append(getattr(likelihood, name).detach().clone())
        assert (found[-1] - start).abs().min() > 1e-3
    assert found[0].equal(found[1])


def test_a_sigma_never_falls_below_its_floor_and_without_one_it_goes_on():
    free, held = (LearnedGaussian((2,), sigma=1e-5, lowest=lowest) for lowest in (0, 0.01))
    assert free.sigma.max() < 2e-5 and held.sigma.min() >= 0.01 and held.sigma.shape == (2,)


@pytest.mark.parametrize("make, says", [
    (lambda: Gaussian(0), "sigma is 0"), (lambda: Gaussian(math.nan), "sigma is nan"), (lambda: LearnedGaussian(3), "shape is 3"),
    (lambda: LearnedGaussian(lowest=-1), "lowest is -1"), (lambda: DiscretizedLogistic(levels=1), "levels is 1"),
    (lambda: Likelihood().log_prob(None, None), "must say with log_prob")])
def test_wrong_use_is_named(make, says):
    with pytest.raises((ValueError, TypeError, NotImplementedError), match=says):
        make()


def test_a_sigma_of_each_pixel_must_fit_the_images():
    with pytest.raises((ValueError, RuntimeError)):
        LearnedGaussian((5, 5)).elbo(digit_model(), small_data(10).train.images / 255)


def test_a_likelihood_is_saved_with_its_model_and_comes_back(tmp_path):
    path, likelihood, back = tmp_path / "model.safetensors", LearnedGaussian(sigma=0.123), LearnedGaussian()
    save_model(digit_model(), path, objective=likelihood.elbo)
    load_model(path, objective=back.elbo)
    assert back.sigma.equal(likelihood.sigma)


def test_the_optimal_sigma_has_a_floor_and_takes_wide_models():
    best, logits = OptimalGaussian(), torch.zeros(3, 4, dtype=torch.float64)
    assert best(logits, logits.sigmoid()).isfinite().all()      # no error at all


# --- a model's own likelihood ---

X = small_data(12).train.images
SHOWS = {"sample": lambda m: m.sample(5, generator()), "reconstruct": lambda m: m.reconstruct(X),
         "decode_images": lambda m: decode_images(m, torch.ones(3, 2)), "interpolate": lambda m: interpolate(m, X[0], X[1]),
         "traverse": lambda m: traverse(m, X[0]), "manifold_grid": lambda m: manifold_grid(m, 4)}
MEASURES = {"elbo": lambda m, **given: elbo(m, X / 255, generator=generator(), **given).loss,
            "reconstruction_only": lambda m, **given: reconstruction_only(m, X / 255, generator=generator(), **given).loss,
            "evaluate": lambda m, **given: torch.tensor(evaluate(m, X, n_samples=2, progress=False, **given).loss),
            "log_weights": lambda m, **given: log_weights(m, X, 2, progress=False, **given),
            "reconstruction_at_mean": lambda m, **given: reconstruction_at_mean(m, X, **given)}


@pytest.mark.parametrize("show", SHOWS.values(), ids=SHOWS)
def test_whatever_shows_images_shows_the_mean_of_the_models_likelihood(show):
    model, likelihood = VAE(X.shape[1:], (7,), latent_dim=2), ContinuousBernoulli()
    with torch.no_grad():
        model.decoder[-2].bias.copy_(torch.linspace(-4, 4, X[0].numel()))
    before, model.likelihood = show(model), likelihood
    torch.testing.assert_close(show(model), likelihood.mean(before.logit()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_whatever_measures_goes_by_the_models_likelihood_unless_another_is_given(measure):
    model, plain = digit_model(), digit_model()
    model.load_state_dict(plain.state_dict())
    model.likelihood = Gaussian(0.1)
    torch.testing.assert_close(measure(model), measure(plain, likelihood=Gaussian(0.1)))
    torch.testing.assert_close(measure(model, likelihood="bernoulli"), measure(plain))


def test_tc_elbo_is_elbo_with_the_models_likelihood_too():
    model = digit_model()
    model.likelihood = Gaussian(0.1)
    torch.testing.assert_close(tc_elbo(model, X / 255, 1.0, generator()).loss, elbo(model, X / 255, 1.0, generator()).loss)


@pytest.mark.parametrize("objective", [lambda own: elbo, lambda own: own.elbo], ids=["elbo", "its own"])
def test_a_models_likelihood_is_trained_once_and_saved_with_it(objective, tmp_path):
    model, path = digit_model(), tmp_path / "model.safetensors"
    model.likelihood = DiscretizedLogistic(0.2, levels=128)
    _, history = train(model, small_data(200, 50), 2, objective=objective(model.likelihood))
    assert history.settings["likelihood"] == "DiscretizedLogistic(scale=0.2, levels=128)"
    assert abs(model.likelihood.scale.item() / 0.2 - 1) > 1e-3
    save_model(model, path)
    again, _ = load_model(path)
    assert repr(again.likelihood) == repr(model.likelihood) and again.likelihood.scale.equal(model.likelihood.scale)
    assert again.sample(3, generator()).equal(model.sample(3, generator()))


def test_a_likelihood_that_could_not_be_built_again_is_not_saved(tmp_path):
    class Laplace(Likelihood):
        def __init__(self, b):
            super().__init__()
    model = digit_model()
    model.likelihood = Laplace(0.2)
    with pytest.raises(ValueError, match="the config of Laplace lacks b: hand it on"):
        save_model(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def with_likelihood(likelihood):
    model = digit_model()
    model.likelihood = likelihood
    return model, elbo


@pytest.mark.parametrize("of", [lambda likelihood: (digit_model(), likelihood.elbo), with_likelihood], ids=["objective", "model"])
@pytest.mark.parametrize("other, says", [(Gaussian(0.2), r"Gaussian\(sigma=0.2\)"), (OptimalGaussian(), r"OptimalGaussian\(\)")], ids=["sigma", "class"])
def test_a_run_is_not_resumed_with_another_likelihood(of, other, says, tmp_path):
    for likelihood in (Gaussian(0.1), Gaussian(0.1), other):
        model, objective = of(likelihood)
        again = dict(objective=objective, checkpoint=tmp_path, resume=True)
        if likelihood is not other:
            train(model, small_data(40, 10), 1, **again)
    with pytest.raises(ValueError, match=rf"is '{says}.*was made with 'Gaussian\(sigma=0.1\)"):
        train(model, small_data(40, 10), 1, **again)


@pytest.mark.parametrize("wrong, says", [
    (lambda: train(digit_model(), small_data(40), 1, objective=Gaussian(0.1)), r"objective is Gaussian\(sigma=0.1\), must be .* Gaussian\(0.1\).elbo"),
    (lambda: train(digit_model(), small_data(40), 1, objective=Gaussian), "objective is Gaussian, must be"),
    (lambda: elbo(digit_model(), X / 255, likelihood=Gaussian), r"likelihood is the class Gaussian, must be what it makes: Gaussian\(...\)"),
    (lambda: setattr(digit_model(), "likelihood", Gaussian), "likelihood is <class .*Gaussian.*, must be a module"),
    (lambda: setattr(digit_model(), "likelihood", "gaussian"), "likelihood is 'gaussian', must be a module")])
def test_a_likelihood_in_the_wrong_place_is_told_the_right_one(wrong, says):
    with pytest.raises(TypeError, match=says):
        wrong()


@pytest.mark.parametrize("likelihood", [Bernoulli(), ContinuousBernoulli()])
def test_likelihoods_of_intensities_refuse_other_pixels(likelihood):
    with pytest.raises(ValueError, match="must be intensities in"):
        evaluate(digit_model(), small_data(20).train.images / 100, likelihood=likelihood, progress=False)
