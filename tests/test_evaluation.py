"""Evaluation: closed forms, bounds, invariances, and what it must not touch."""
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, Normal

import vae_tutorial.evaluation as evaluation
from vae_tutorial.data import Split
from vae_tutorial.evaluation import (active_units, evaluate, importance_bound, log_weights, posterior,
                                     reconstruction_at_mean)
from vae_tutorial.vae import LIKELIHOODS, VAE, LatentModel, kl_divergence, reconstruction_loss


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(input_shape=(1, 2, 3), hidden_dims=(5,), latent_dim=2):
    torch.manual_seed(0)
    return VAE(input_shape, hidden_dims, latent_dim)


def grey(n=6, shape=(1, 2, 3), seed=0):
    return Split(torch.randint(256, (n, *shape), generator=generator(seed), dtype=torch.uint8), torch.zeros(n, dtype=torch.int64))


class Pointwise(LatentModel):
    """A model with codes and no distribution over them."""

    def __init__(self, input_shape=(1, 2, 3), latent_dim=2):
        super().__init__(input_shape, latent_dim)
        torch.manual_seed(0)
        other = VAE(input_shape, (), latent_dim)
        self.encoder, self.decoder = other.encoder, other.decoder

    def code(self, x):
        return self.encoder(x)[:, :self.latent_dim]


# --- a model whose likelihood is known --------------------------------------------------------------

NOISE = 0.5


def normal(logits, x):
    return -Normal(logits, NOISE).log_prob(x)


def linear_gaussian(shift=0.0, widen=0.0, n=150, shape=(1, 4, 5), latent_dim=3):
    """A model with a linear decoder, an encoder that is wrong by `shift` and `widen`, images from it, and their exact -log p."""
    pixels = math.prod(shape)
    W = torch.linalg.qr(torch.randn(pixels, latent_dim, generator=generator(1), dtype=torch.float64))[0]
    W = W * torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)[:latent_dim]
    b = torch.randn(pixels, generator=generator(2), dtype=torch.float64)
    variance = 1 / (1 + W.square().sum(0) / NOISE**2)
    mean_map = variance[:, None] * W.T / NOISE**2
    model = VAE(shape, (), latent_dim).double()
    with torch.no_grad():
        model.decoder[0].weight.copy_(W)
        model.decoder[0].bias.copy_(b)
        model.encoder[1].weight.copy_(torch.cat([mean_map, torch.zeros(latent_dim, pixels)]))
        model.encoder[1].bias.copy_(torch.cat([shift * variance.sqrt() - mean_map @ b, variance.log() + widen]))
    covariance = W @ W.T + NOISE**2 * torch.eye(pixels)
    p = MultivariateNormal(b, covariance)
    x = b + torch.randn(n, pixels, generator=generator(3), dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    return model, x.view(n, *shape), -p.log_prob(x)


@pytest.mark.parametrize("n_samples", [1, 2, 7])
def test_with_the_true_posterior_every_bound_is_the_likelihood(n_samples):
    model, x, truth = linear_gaussian()
    log_w = log_weights(model, x, n_samples, likelihood=normal)
    torch.testing.assert_close(-log_w, truth[:, None].expand_as(log_w), atol=1e-9, rtol=0)
    result = evaluate(model, x, n_samples=n_samples, likelihood=normal)
    assert result.loss == pytest.approx(truth.mean().item(), abs=1e-9) == result.nll
    assert result.per_image["ess"].sub(n_samples).abs().max() < 1e-9
    if n_samples > 1:
        assert result.draw_errors["loss"] < 1e-9 and result.draw_errors["nll"] < 1e-6


@pytest.mark.parametrize("shift, widen", [(0.5, 0.4), (0.0, 0.8), (1.0, 0.3)])
def test_with_another_encoder_the_gap_is_a_kl_and_importance_weights_close_it(shift, widen):
    model, x, truth = linear_gaussian(shift, widen)
    result = evaluate(model, x, n_samples=2000, likelihood=normal)
    gap = 3 * 0.5 * (math.exp(widen) + shift**2 - 1 - widen)
    assert abs(result.loss - truth.mean() - gap) < 3 * result.draw_errors["loss"]
    off = result.per_image["nll"] - truth
    assert abs(off.mean()) < 3 * off.std() / len(off) ** 0.5
    assert abs(off.mean()) < 3 * result.draw_errors["nll"]
    # the error that it reports is the error that it makes
    assert off.std().item() / len(off) ** 0.5 == pytest.approx(result.draw_errors["nll"], rel=0.25)


def test_the_reported_error_of_the_elbo_is_the_spread_over_seeds():
    model, x, _ = linear_gaussian(0.7, 0.5, n=20)
    results = [evaluate(model, x, n_samples=8, likelihood=normal, seed=seed) for seed in range(60)]
    spread = torch.tensor([r.loss for r in results]).std().item()
    reported = sum(r.draw_errors["loss"] for r in results) / len(results)
    assert spread == pytest.approx(reported, rel=0.3)
    assert all(r.draw_errors["loss"] < r.errors["loss"] for r in results)


# --- the log weights ------------------------------------------------------------------------------

def test_a_log_weight_is_its_three_log_densities():
    """Against PyTorch's distributions, with the draws taken back from what the decoder was given."""
    model, split, seen = tiny(), grey(), []
    decode = model.decode
    model.decode = lambda z: seen.append(z) or decode(z)
    log_w = log_weights(model, split, 4)
    z = torch.cat(seen).view(6, 4, 2)
    mu, logvar = posterior(model, split)
    q, x = Normal(mu[:, None], (logvar[:, None] / 2).exp()), split.images / 255
    for k in range(4):
        expected = Normal(0, 1).log_prob(z[:, k]).sum(1) - q.log_prob(z)[:, k].sum(1) - reconstruction_loss(decode(z[:, k]), x)
        torch.testing.assert_close(log_w[:, k].float(), expected.detach(), atol=1e-4, rtol=1e-5)


@given(n=st.integers(1, 9), n_samples=st.integers(1, 40), at_once=st.integers(1, 50))
def test_draws_do_not_depend_on_how_the_work_is_cut(n, n_samples, at_once):
    model, split = tiny(), grey(n)
    whole = log_weights(model, split, n_samples, at_once=10_000, seed=5)
    cut = log_weights(model, split, n_samples, at_once=at_once, seed=5)
    assert whole.shape == (n, n_samples) and whole.dtype == torch.float64
    torch.testing.assert_close(whole, cut, atol=1e-5, rtol=0)


def test_the_first_images_have_the_figures_that_they_have_among_others():
    model, split = tiny(), grey(9)
    torch.testing.assert_close(log_weights(model, split, 6)[:4], log_weights(model, split.images[:4], 6), atol=1e-5, rtol=0)


def test_no_more_than_at_once_images_are_decoded_at_a_time():
    model, sizes = tiny(), []
    model.decoder.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
    log_weights(model, grey(5), 100, at_once=32)
    assert max(sizes) == 32 and sum(sizes) == 500
    sizes.clear()
    log_weights(model, grey(7), 10, at_once=32)
    assert max(sizes) == 30 and sum(sizes) == 70


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_bounds_rise_with_k_to_the_one_of_all_draws(seed, k):
    log_w = 20 * torch.randn(3, 12, generator=generator(seed), dtype=torch.float64) - 700
    bound = importance_bound(log_w, k)
    torch.testing.assert_close(importance_bound(log_w, 1), log_w.mean(1))
    if 12 % k == 0:
        assert (bound >= log_w.mean(1) - 1e-9).all() and (bound <= importance_bound(log_w, 12) + 1e-9).all()
    shifted = importance_bound(log_w + 650, k)
    torch.testing.assert_close(shifted, bound + 650)


# --- evaluate --------------------------------------------------------------------------------------

@given(st.integers(0, 10_000), st.integers(1, 30))
def test_nll_is_never_above_the_loss_and_the_terms_add_up(seed, n_samples):
    torch.manual_seed(seed)
    result = evaluate(VAE((1, 2, 3), (5,), 2), grey(4, seed=seed), n_samples=n_samples, seed=seed)
    assert (result.per_image["nll"] <= result.per_image["loss"]).all() and result.nll <= result.loss
    assert result.loss == pytest.approx(result.distortion + result.rate, abs=1e-9)
    assert result.rate == pytest.approx(result.kl.sum().item(), abs=1e-9)
    assert (result.per_image["ess"] <= n_samples + 1e-9).all() and (result.per_image["ess"] >= 1 - 1e-9).all()


def test_each_figure_is_what_it_says():
    model, split = tiny(), grey(8)
    result = evaluate(model, split, n_samples=16)
    log_w = log_weights(model, split, 16)
    mu, logvar = posterior(model, split)
    assert result.loss == pytest.approx(-log_w.mean().item())
    assert result.nll == pytest.approx(-importance_bound(log_w, 16).mean().item())
    assert result.reconstruction == pytest.approx(reconstruction_at_mean(model, split).mean().item())
    torch.testing.assert_close(result.kl.float(), kl_divergence(mu, logvar).mean(0))
    assert result.active.equal(active_units(mu)) and len(result) == 8
    assert result.errors["loss"] == pytest.approx((log_w.mean(1).std() / 8**0.5).item())
    frame = result.to_frame()
    assert list(frame.index) == ["loss", "distortion", "rate", "reconstruction", "nll"]
    assert frame.loc["loss", "nats per image"] == result.loss


def test_it_prints_its_figures():
    text = str(evaluate(tiny(), grey(), n_samples=3))
    for word in ("6 images, 3 draws", "-ELBO", "distortion", "rate", "NLL, 3 draws", "at mean", "active dimensions"):
        assert word in text
    one = evaluate(tiny(), grey(1), n_samples=1)
    assert all(str(each).encode("cp1252") for each in (text, one))       # the consoles of Windows know no more
    assert "1 draw each" in str(one) and math.isnan(one.errors["loss"]) and math.isnan(one.draw_errors["nll"])


def test_a_figure_cannot_be_overwritten():
    with pytest.raises(AttributeError):
        evaluate(tiny(), grey(), n_samples=1).loss = 0.0


def test_same_seed_same_figures_and_nothing_else_is_touched():
    model, split = tiny(), grey()
    model.train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first, again, other = (evaluate(model, split, n_samples=5, seed=seed) for seed in (3, 3, 4))
    assert torch.get_rng_state().equal(state) and model.training
    assert first.per_image["loss"].equal(again.per_image["loss"]) and first.loss != other.loss
    assert all(p.equal(before[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(t.requires_grad for t in first.per_image.values())


def test_ctrl_c_leaves_the_model_as_it_was():
    model = tiny().train()

    def interrupted(logits, x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, grey(), likelihood=interrupted)
    assert model.training and torch.is_grad_enabled()


@pytest.mark.parametrize("shape", [(7,), (3, 2), (2, 3, 4, 5), (1, 28, 28)])
def test_any_shape_of_image(shape):
    result = evaluate(tiny(shape), grey(3, shape), n_samples=4)
    assert result.kl.shape == (2,) and math.isfinite(result.loss)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_number_formats(dtype):
    split = grey(5)
    result, plain = (evaluate(model, split, n_samples=2000) for model in (tiny().to(dtype), tiny()))
    assert result.loss == pytest.approx(plain.loss, abs=0.05)
    assert result.per_image["loss"].dtype == torch.float64


def test_grey_values_and_their_intensities_are_the_same_images():
    model, split = tiny(), grey()
    assert evaluate(model, split).loss == evaluate(model, split.images / 255).loss


# --- likelihoods ------------------------------------------------------------------------------------

@given(pixels=st.integers(1, 400), scale=st.floats(0, 200), seed=st.integers(0, 1000))
def test_the_quick_bernoulli_sum_is_the_binary_cross_entropy(pixels, scale, seed):
    logits = scale * torch.randn(2, 3, pixels, generator=generator(seed))
    x = torch.rand(2, 1, pixels, generator=generator(seed + 1))
    exact = reconstruction_loss(logits.double().flatten(0, 1), x.double().expand_as(logits).flatten(0, 1)).view(2, 3)
    torch.testing.assert_close(evaluation._bernoulli_sum(logits, x).double(), exact, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_name_and_its_function_agree(name):
    model, split = tiny(), grey()
    named, function = (log_weights(model, split, 6, likelihood=likelihood) for likelihood in (name, LIKELIHOODS[name]))
    torch.testing.assert_close(named, function, atol=1e-4, rtol=0)
    expected = reconstruction_loss(model.decode(posterior(model, split)[0]), split.images / 255, name)
    torch.testing.assert_close(reconstruction_at_mean(model, split, likelihood=name), expected.detach(), atol=1e-4, rtol=1e-5)


def test_an_own_likelihood_may_know_pixels_beyond_intensities():
    model, x = tiny(), 3 * torch.randn(4, 1, 2, 3, generator=generator())
    for likelihood in ("gaussian", lambda logits, x: (x - logits).square()):
        assert math.isfinite(evaluate(model, x, n_samples=2, likelihood=likelihood).loss)
        assert reconstruction_at_mean(model, x, likelihood=likelihood).isfinite().all()
        for wrong in (grey(4).images.float(), torch.where(x > x.mean(), math.nan, x)):
            with pytest.raises(ValueError, match="^split holds .* values"):
                log_weights(model, wrong, 2, likelihood=likelihood)


# --- the parts -------------------------------------------------------------------------------------

@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_posterior_and_reconstruction_whatever_the_batch(batch_size):
    model, split = tiny().train(), grey(9)
    mu, logvar = posterior(model, split, batch_size=batch_size)
    expected = model.encode(split.images / 255)
    torch.testing.assert_close((mu, logvar), expected, check_device=False)
    assert not mu.requires_grad and model.training
    whole = reconstruction_loss(model.decode(mu), split.images / 255)
    torch.testing.assert_close(reconstruction_at_mean(model, split, batch_size=batch_size), whole.detach())


def test_a_model_of_points_has_a_reconstruction_but_no_elbo():
    model, split = Pointwise(), grey()
    assert reconstruction_at_mean(model, split).shape == (6,)
    for refuse in (lambda: evaluate(model, split), lambda: log_weights(model, split), lambda: posterior(model, split)):
        with pytest.raises(TypeError, match="model is Pointwise, must be a BaseVAE"):
            refuse()
    with pytest.raises(TypeError, match="model is Linear, must be a LatentModel"):
        reconstruction_at_mean(torch.nn.Linear(2, 3), split)


def test_active_units_are_those_whose_mean_moves():
    moves = torch.tensor([0.0, 0.09, 0.11, 2.0])
    mu = torch.tensor([[1.0], [-1.0]]) * moves + 5
    assert active_units(mu).tolist() == [False, False, True, True]
    assert active_units(mu, threshold=1).tolist() == [False, False, False, True]
    assert not active_units(mu[:1]).any()


# --- mistakes --------------------------------------------------------------------------------------

def test_a_weight_that_is_not_finite_is_found_and_named():
    split = Split(torch.rand(9, 1, 2, 3, generator=generator()), None)
    odd = split.images[7, 0, 1, 1]

    def unknown(logits, x):
        return torch.where((x == odd).flatten(2).any(2)[..., None, None, None], math.nan, logits)

    with pytest.raises(ValueError, match="log weight of image 7, draw 0, is nan"):
        evaluate(tiny(), split, n_samples=4, at_once=8, likelihood=unknown)
    model = tiny()
    model.encoder[-1].bias.data[-1] = math.inf
    with pytest.raises(ValueError, match="log weight of image 0, draw 0, is"):
        evaluate(model, grey())
