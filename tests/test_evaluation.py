"""Evaluation: closed forms, bounds, invariances; and what holds of every way of looking at a model."""
import math

import pytest
import torch
from factories import double_cloud, generator, grey, split, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, Normal

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.evaluation import active_units, evaluate, importance_bound, log_weights, posterior, reconstruction_at_mean
from vae_tutorial.generation import decode_images, interpolate, manifold_grid, traverse
from vae_tutorial.latent_space import encodings
from vae_tutorial.vae import LIKELIHOODS, VAE, kl_divergence, reconstruction_loss

# --- a model whose likelihood is known --------------------------------------------------------------

NOISE = 0.5


def normal(logits, x):
    return -Normal(logits, NOISE).log_prob(x)


def linear_gaussian(shift=0.0, widen=0.0, n=150, shape=(1, 4, 5), latent_dim=3):
    """A model with a linear decoder, an encoder that is wrong by `shift` and `widen`, images from it, and their exact -log p."""
    pixels = math.prod(shape)
    W = torch.linalg.qr(double_cloud(pixels, latent_dim, seed=1))[0]
    W = W * torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)[:latent_dim]
    b = double_cloud(pixels, seed=2)
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
    x = b + double_cloud(n, pixels, seed=3) @ torch.linalg.cholesky(covariance).T
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
        assert result.draw_errors["loss"] < 1e-9
    if n_samples > 3:
        assert result.draw_errors["nll"] < 1e-6


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


@pytest.mark.parametrize("shift, widen, n_samples", [(0.5, 0.4, 32), (2.0, 0.0, 8), (2.0, 0.0, 128), (1.0, -1.0, 32)])
def test_the_reported_error_of_the_bound_is_the_spread_over_seeds(shift, widen, n_samples):
    """Within a tenth, also where few draws dominate: there the relative variance of the mean weight shows half of it."""
    model, x, _ = linear_gaussian(shift, widen)
    results = [evaluate(model, x, n_samples=n_samples, likelihood=normal, seed=seed, progress=False) for seed in range(60)]
    spread = (torch.stack([r.per_image["nll"] for r in results]).var(0).mean() / len(x)).sqrt().item()
    assert torch.tensor([r.nll for r in results]).std().item() == pytest.approx(spread, rel=0.3)
    reported = sum(r.draw_errors["nll"] for r in results) / len(results)
    assert reported == pytest.approx(spread, rel=0.1)
    formula = [((n_samples / r.per_image["ess"] - 1) / (n_samples - 1)).mean().div(len(x)).sqrt().item() for r in results]
    assert (shift, widen) == (0.5, 0.4) or sum(formula) / len(formula) < 0.7 * spread


@pytest.mark.parametrize("n_samples, known", [(1, False), (3, False), (4, True), (7, True)])
def test_the_spread_of_a_bound_needs_quarters(n_samples, known):
    result = evaluate(tiny(), grey(5), n_samples=n_samples)
    assert math.isfinite(result.draw_errors["nll"]) is known
    assert math.isfinite(result.draw_errors["loss"]) is (n_samples > 1)


# --- the log weights ------------------------------------------------------------------------------

def test_a_log_weight_is_its_three_log_densities():
    """Against PyTorch's distributions, with the draws taken back from what the decoder was given."""
    model, images, seen = tiny(), split(), []
    decode = model.decode
    model.decode = lambda z: seen.append(z) or decode(z)
    log_w = log_weights(model, images, 4)
    z = torch.cat(seen).view(6, 4, 2)
    mu, logvar = posterior(model, images)
    q, x = Normal(mu[:, None], (logvar[:, None] / 2).exp()), images.images / 255
    for k in range(4):
        expected = Normal(0, 1).log_prob(z[:, k]).sum(1) - q.log_prob(z)[:, k].sum(1) - reconstruction_loss(decode(z[:, k]), x)
        torch.testing.assert_close(log_w[:, k].float(), expected.detach(), atol=1e-4, rtol=1e-5)


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
    log_w = 20 * double_cloud(3, 12, seed=seed) - 700
    bound = importance_bound(log_w, k)
    torch.testing.assert_close(importance_bound(log_w, 1), log_w.mean(1))
    torch.testing.assert_close(importance_bound(log_w, 12), log_w.logsumexp(1) - math.log(12))
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
    model, images = tiny(), grey(8)
    result = evaluate(model, images, n_samples=16)
    log_w = log_weights(model, images, 16)
    mu, logvar = model.encode(images / 255)
    assert result.loss == pytest.approx(-log_w.mean().item())
    assert result.nll == pytest.approx(-importance_bound(log_w, 16).mean().item())
    assert result.reconstruction == pytest.approx(reconstruction_loss(model.decode(mu), images / 255).mean().item())
    torch.testing.assert_close(result.kl.float(), kl_divergence(mu, logvar).mean(0))
    assert result.active.equal(active_units(mu)) and len(result) == 8
    assert result.errors["loss"] == pytest.approx((log_w.mean(1).std() / 8**0.5).item())
    frame, one = result.to_frame(), evaluate(model, images[:1], n_samples=1)
    assert list(frame.index) == ["loss", "distortion", "rate", "reconstruction", "nll"] and frame.index.name == "K = 16"
    assert frame.loc["loss", "nats per image"] == result.loss
    assert math.isnan(one.errors["loss"]) and math.isnan(one.draw_errors["nll"])
    assert "1 draw each" in str(one)
    for words in ("8 images, 16 draws", "-ELBO", "distortion", "rate", "importance-weighted bound, K = 16", "at mean", "active dimensions"):
        assert words in str(result)


# --- likelihoods ------------------------------------------------------------------------------------

@given(pixels=st.integers(1, 400), scale=st.floats(0, 200), seed=st.integers(0, 1000))
def test_the_quick_bernoulli_sum_is_the_binary_cross_entropy(pixels, scale, seed):
    model, x = tiny(input_shape=(pixels,), seed=seed), torch.rand(2, pixels, generator=generator(seed))
    with torch.no_grad():
        model.decoder[2].weight.mul_(scale)
        logits = model.decode(model.code(x))
    exact = reconstruction_loss(logits.double(), x.double())
    torch.testing.assert_close(reconstruction_at_mean(model, x).double(), exact, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_name_and_its_function_agree(name):
    model, images = tiny(), grey()
    named, function = (log_weights(model, images, 6, likelihood=likelihood) for likelihood in (name, LIKELIHOODS[name]))
    torch.testing.assert_close(named, function, atol=1e-4, rtol=0)
    expected = reconstruction_loss(model.decode(model.encode(images / 255)[0]), images / 255, name)
    torch.testing.assert_close(reconstruction_at_mean(model, images, likelihood=name), expected.detach(), atol=1e-4, rtol=1e-5)


def test_an_own_likelihood_may_know_pixels_beyond_intensities():
    model, x = tiny(), 3 * torch.randn(4, 1, 2, 3, generator=generator())
    for likelihood in ("gaussian", lambda logits, x: (x - logits).square()):
        assert math.isfinite(evaluate(model, x, n_samples=2, likelihood=likelihood).loss)
        assert reconstruction_at_mean(model, x, likelihood=likelihood).isfinite().all()
        for wrong in (grey(4).float(), torch.where(x > x.mean(), math.nan, x)):
            with pytest.raises(ValueError, match="^split holds .* values"):
                log_weights(model, wrong, 2, likelihood=likelihood)


def test_active_units_are_those_whose_mean_moves():
    moves = torch.tensor([0.0, 0.09, 0.11, 2.0])
    mu = torch.tensor([[1.0], [-1.0]]) * moves + 5
    assert active_units(mu).tolist() == [False, False, True, True]
    assert active_units(mu, threshold=1).tolist() == [False, False, False, True]
    assert not active_units(mu[:1]).any()


# --- mistakes --------------------------------------------------------------------------------------

def test_a_weight_that_is_not_finite_is_found_and_named():
    images = torch.rand(9, 1, 2, 3, generator=generator())
    odd = images[7, 0, 1, 1]

    def unknown(logits, x):
        return torch.where((x == odd).flatten(1).any(1)[:, None, None, None], math.nan, logits)

    with pytest.raises(ValueError, match="log weight of image 7, draw 0, is nan"):
        evaluate(tiny(), images, n_samples=4, at_once=8, likelihood=unknown)
    model = tiny()
    model.encoder[-1].bias.data[-1] = math.inf
    with pytest.raises(ValueError, match="log weight of image 0, draw 0, is"):
        evaluate(model, grey())


# --- every way of looking at a model ----------------------------------------------------------------

# From a model, images and a number of them to handle together, to a tensor whose rows belong to the images.
OF_ANY_MODEL = {
    "encodings": lambda model, x, size: encodings(model, x, size),
    "reconstruct": lambda model, x, size: model.reconstruct(x),
    "reconstruction_at_mean": lambda model, x, size: reconstruction_at_mean(model, x, batch_size=size),
    "decode_images": lambda model, x, size: decode_images(model, encodings(model, x)[:, None].expand(-1, 2, -1), size),
    "interpolate": lambda model, x, size: interpolate(model, x, x.flip(1), steps=3),
    "traverse": lambda model, x, size: torch.stack([traverse(model, each, dims=[1, 0]) for each in x]),
    "manifold_grid": lambda model, x, size: manifold_grid(model, 3)}
OF_A_VAE = {
    "posterior": lambda model, x, size: torch.cat(posterior(model, x, size), dim=1),
    "log_weights": lambda model, x, size: log_weights(model, x, 5, at_once=size, seed=3),
    "evaluate": lambda model, x, size: evaluate(model, x, n_samples=5, at_once=size, seed=3).per_image["nll"]}
every_look = pytest.mark.parametrize("look", (OF_ANY_MODEL | OF_A_VAE).values(), ids=OF_ANY_MODEL | OF_A_VAE)


@every_look
@settings(max_examples=15)
@given(n=st.integers(2, 6), shape=st.sampled_from([(3,), (2, 2), (1, 3, 4), (2, 1, 2, 2)]), size=st.integers(1, 40),
       dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_an_image_gives_the_same_in_any_company_shape_and_number_format(look, n, shape, size, dtype):
    """Alone or first of many, grey values or intensities, however the work is cut; draws go with the place of the image."""
    model, images = tiny(input_shape=shape).to(dtype), grey(n, shape)
    whole, part = look(model, images, 1000), look(model, images[:n - 1] / 255, size)
    assert len(whole) == (9 if whole.shape == part.shape else n) and whole.isfinite().all()
    near = 0.1 if dtype is torch.bfloat16 else 1e-5
    torch.testing.assert_close(whole[:len(part)], part, atol=near, rtol=near / 10)


@every_look
@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_nothing_behind(look, training):
    model, images = tiny().train(training), grey()
    model.decoder.append(torch.nn.Dropout(0.5))            # another answer each time, if training went on
    before, state = {name: p.clone() for name, p in model.state_dict().items()}, torch.get_rng_state()
    first = look(model, images, 1000)
    assert look(model, images, 1000).equal(first) and not first.requires_grad
    assert model.training is training and torch.get_rng_state().equal(state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(p.equal(before[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize("look", OF_ANY_MODEL.values(), ids=OF_ANY_MODEL)
def test_a_model_of_points_is_looked_at_like_any_other(look):
    """An autoencoder that answers with what a VAE has for its mean gives what the VAE gives."""
    vae, model, images = tiny(), tiny(Autoencoder), grey()
    state = vae.state_dict() | {f"encoder.3.{name}": vae.state_dict()[f"encoder.3.{name}"][:2] for name in ("weight", "bias")}
    model.load_state_dict(state)
    assert model.code(images / 255).equal(vae.encode(images / 255)[0])
    torch.testing.assert_close(look(model, images, 4), look(vae, images, 4))


def test_codes_are_those_of_the_model_and_other_seeds_give_other_draws():
    model, images = tiny(), grey()
    for found, expected in [(posterior(model, images), model.encode(images / 255)), (encodings(model, images), model.code(images / 255)),
                            (decode_images(model, double_cloud(2, 3, 2)), model.decode(double_cloud(6, 2).float()).sigmoid().view(2, 3, 1, 2, 3))]:
        torch.testing.assert_close(found, expected)
    first, other = (evaluate(model, images, n_samples=5, seed=seed) for seed in (3, 4))
    assert first.loss != other.loss and first.per_image["loss"].dtype == torch.float64
