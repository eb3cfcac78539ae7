"""The likelihoods of chapter 13: each is normalised, its mean and draws are of the density it states, and `fit` trains what it holds."""
import math

import pytest
import torch
from factories import digit_model, generator, small_data, train

from vae_tutorial.evaluation import evaluate
from vae_tutorial.likelihoods import (Bernoulli, ContinuousBernoulli, DiscretizedLogistic, Gaussian, LearnedGaussian, Likelihood,
                                      OptimalGaussian)
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.vae import LIKELIHOODS, elbo

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
