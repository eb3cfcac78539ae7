"""What the models and objectives are given wrongly: a correct result, or an error that names the argument, the value and what is allowed."""
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vae_tutorial.autoencoder import Autoencoder, reconstruction_only
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import Split
from vae_tutorial.vae import (LIKELIHOODS, VAE, LatentModel, VAEOutput, elbo, evaluating, kl_divergence,
                              reconstruction_loss, reparameterize)

SHAPE = (1, 4, 5)
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
NO_TENSORS = [None, 0.5, [[0.5]], np.zeros((2, *SHAPE), np.float32), Split(torch.zeros(2, *SHAPE), None)]
NO_NUMBERS = ["1", None, True, [1.0], 1j]
MAKERS = {"VAE": lambda **kw: VAE(SHAPE, (3,), 2, **kw), "Autoencoder": lambda **kw: Autoencoder(SHAPE, (3,), 2, **kw),
          "ConvVAE": lambda **kw: ConvVAE(2, (2, 3), SHAPE, **kw)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*batch, seed=0, dtype=torch.float32):
    return torch.rand(*batch, *SHAPE, generator=generator(seed)).to(dtype)


@pytest.fixture(params=MAKERS)
def model(request):
    torch.manual_seed(0)
    return MAKERS[request.param]()


def looks(model):
    """Everything of a model that is given images."""
    return [model, model.encode, model.code, model.reconstruct, lambda x: objective(model)(model, x)]


def objective(model):
    return reconstruction_only if isinstance(model, Autoencoder) else elbo


# --- right use -----------------------------------------------------------------------------------

@settings(max_examples=40)
@given(name=st.sampled_from(list(MAKERS)), batch=st.integers(0, 5), dtype=st.sampled_from(FLOATS), seed=st.integers(0, 99))
def test_a_batch_is_its_images_one_by_one_in_every_format(name, batch, dtype, seed):
    model, x = MAKERS[name]().to(dtype), images(batch, seed=seed, dtype=dtype)
    with torch.no_grad():
        code, shown = model.code(x), model.reconstruct(x)
        assert code.shape == (batch, 2) and shown.shape == x.shape and code.dtype == shown.dtype == dtype
        assert code.isfinite().all() and (shown >= 0).all() and (shown <= 1).all()
        near = dict(atol=0.05, rtol=0.05) if dtype.itemsize == 2 else dict(atol=1e-5, rtol=1e-5)
        for i in range(batch):
            torch.testing.assert_close(code[i:i + 1], model.code(x[i:i + 1]), **near)
            torch.testing.assert_close(shown[i:i + 1], model.reconstruct(x[i:i + 1]), **near)


@given(likelihood=st.sampled_from(list(LIKELIHOODS)), batch=st.integers(1, 5), beta=st.floats(0, 5), free=st.floats(0, 2))
def test_an_objective_is_finite_and_a_mean_over_images(likelihood, batch, beta, free):
    x = images(batch)
    for model in (MAKERS["VAE"](), MAKERS["Autoencoder"]()):
        more = {} if isinstance(model, Autoencoder) else dict(free_bits=free)
        terms = objective(model)(model, x, beta, generator(), likelihood=likelihood, **more)
        assert all(t.isfinite() and t.shape == () for t in terms[:3]) and terms.beta == beta
        torch.testing.assert_close(terms.reconstruction, reconstruction_loss(model(x, generator()).logits, x, likelihood).mean())


def test_a_factor_may_be_in_a_tensor_and_a_size_a_number_of_numpy():
    model, x = VAE(SHAPE, (np.int64(3),), np.int64(2)), images(3)
    assert model.config == dict(input_shape=SHAPE, latent_dim=2, hidden_dims=(3,))
    assert {type(n) for n in (model.latent_dim, *model.config["hidden_dims"])} == {int}
    assert elbo(model, x, torch.tensor(0.5), generator()).loss.equal(elbo(model, x, 0.5, generator()).loss)
    assert elbo(model, x, np.float32(0.5), generator()).loss.equal(elbo(model, x, 0.5, generator()).loss)


def test_no_images_have_no_codes_and_none_are_drawn(model):
    x = images(0)
    assert model.code(x).shape == (0, 2) and model.reconstruct(x).shape == model.sample(0).shape == (0, *SHAPE)


def test_values_that_rounding_leaves_outside_are_taken(model):
    for x in (torch.full((2, *SHAPE), 1 + 2e-7), torch.full((2, *SHAPE), -2e-7), torch.full((2, *SHAPE), -0.0)):
        for look in looks(model):
            look(x)


def test_an_encoder_takes_real_numbers_for_a_likelihood_of_them(model):
    x = 3 * torch.randn(4, *SHAPE, generator=generator())
    assert model.code(x).isfinite().all() and objective(model)(model, x, likelihood="gaussian").loss.isfinite()


def test_autocast_makes_one_format_of_two():
    model = MAKERS["VAE"]()
    with torch.autocast("cpu", torch.bfloat16):
        assert elbo(model, images(3)).loss.isfinite() and elbo(model, images(3, dtype=torch.bfloat16)).loss.isfinite()


def test_values_are_not_looked_at_where_that_would_wait_or_break():
    model = MAKERS["VAE"]()
    assert model.to("meta").encode(images(2).to("meta"))[0].shape == (2, 2)
    model = MAKERS["VAE"]()
    of_many = torch.vmap(lambda x, beta: elbo(model, x, beta, generator()).loss, randomness="same")
    x = images(3, 2)
    torch.testing.assert_close(of_many(x, torch.ones(3)), torch.stack([elbo(model, each, 1.0, generator()).loss for each in x]))


# --- images --------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", NO_TENSORS, ids=lambda x: type(x).__name__)
def test_only_tensors_are_images(model, wrong):
    for look in looks(model):
        with pytest.raises(TypeError, match=f"x is {type(wrong).__name__}, must be a tensor of .*intensities in .0, 1.*data.intensities"):
            look(wrong)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_intensities_are_floating_point(model, dtype):
    for look in looks(model):
        with pytest.raises(TypeError, match=f"x is {dtype}, must be .*data.intensities"):
            look(torch.zeros(2, *SHAPE, dtype=dtype))


@given(shape=st.lists(st.integers(0, 6), max_size=5).filter(lambda s: tuple(s[1:]) != SHAPE))
def test_images_of_another_shape(shape):
    for model in (MAKERS[name]() for name in ("VAE", "Autoencoder")):
        for look in looks(model):
            with pytest.raises(ValueError, match=r"x has shape .*, must be \(B, 1, 4, 5\)") as caught:
                look(torch.zeros(shape))
            assert str(tuple(shape)) in str(caught.value)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named_with_its_place(model, bad, dtype):
    model, x = model.to(dtype), images(3, dtype=dtype)
    x[1, 0, 2, 4] = bad
    for look in looks(model):
        with pytest.raises(ValueError, match=rf"x\[1, 0, 2, 4\] is {str(bad).replace('-nan', 'nan')}, must be an intensity in \[0, 1\]"):
            look(x)
    for likelihood in LIKELIHOODS:
        with pytest.raises(ValueError, match=r"x\[1, 0, 2, 4\]"):
            reconstruction_loss(torch.zeros_like(x), x, likelihood)


@settings(max_examples=30)
@given(high=st.integers(2, 255), dtype=st.sampled_from(FLOATS), seed=st.integers(0, 99))
def test_grey_values_are_no_intensities(high, dtype, seed):
    x = torch.randint(high + 1, (3, *SHAPE), generator=generator(seed)).to(dtype)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0, high
    for model in (MAKERS[name]().to(dtype) for name in ("VAE", "Autoencoder")):
        for look in looks(model):
            with pytest.raises(ValueError, match=rf"x holds values from 0 to {high}, must be .* in \[0, 1\].*vae_tutorial.data.intensities"):
                look(x)
    for likelihood in LIKELIHOODS:
        with pytest.raises(ValueError, match=f"x holds values from 0 to {high}"):
            reconstruction_loss(torch.zeros_like(x), x, likelihood)


@settings(max_examples=30)
@given(bad=st.one_of(st.floats(-1e6, -0.01), st.floats(1.01, 1e6)), dtype=st.sampled_from(FLOATS[:2]))
def test_values_outside_have_no_likelihood_and_no_reconstruction(bad, dtype):
    x = images(3, dtype=dtype)
    x[2, 0, 1, 1] = bad
    for model in (MAKERS[name]().to(dtype) for name in ("VAE", "Autoencoder")):
        for use in (model.reconstruct, partial(objective(model), model), partial(reconstruction_loss, x, likelihood="continuous-bernoulli")):
            with pytest.raises(ValueError, match="x holds values from .* to .*, must be .*intensities") as caught:
                use(x)
            assert f"{x[2, 0, 1, 1].item():.7g}" in str(caught.value)


def test_another_device_than_the_models(model):
    for look in (model, model.encode, model.code, model.reconstruct):
        with pytest.raises(ValueError, match="x is on meta, must be on the model's device, cpu"):
            look(images(2).to("meta"))
    with pytest.raises(ValueError, match="z is on meta, must be on the model's device, cpu"):
        model.decode(torch.zeros(2, 2, device="meta"))


@pytest.mark.parametrize("weights, given", [(a, b) for a in FLOATS for b in FLOATS if a != b])
def test_another_format_than_the_models(model, weights, given):
    model = model.to(weights)
    for look in (model, model.encode, model.code, model.reconstruct):
        with pytest.raises(TypeError, match=f"x is {given}, must be {weights}, the number format of the model's weights"):
            look(images(2, dtype=given))
    with pytest.raises(TypeError, match=f"z is {given}, must be {weights}"):
        model.decode(torch.zeros(2, 2, dtype=given))


# --- codes and draws -----------------------------------------------------------------------------

@given(shape=st.lists(st.integers(0, 4), max_size=4).filter(lambda s: len(s) != 2 or s[1] != 2))
def test_codes_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"z has shape .*, must be \(B, 2\)") as caught:
        MAKERS["VAE"]().decode(torch.zeros(shape))
    assert str(tuple(shape)) in str(caught.value)


@pytest.mark.parametrize("wrong", [None, [[0.0, 0.0]], np.zeros((1, 2)), torch.zeros(1, 2).long(), torch.zeros(1, 2).cfloat()], ids=str)
def test_only_floating_point_tensors_are_codes(model, wrong):
    with pytest.raises(TypeError, match="z is .*, must be a floating-point tensor"):
        model.decode(wrong)


@pytest.mark.parametrize("n", [-1, 2.5, True, "3", None, math.nan, torch.tensor(3)], ids=str)
def test_a_number_of_samples(model, n):
    with pytest.raises(ValueError, match="n is .*, must be a whole number of at least 0") as caught:
        model.sample(n)
    assert repr(n) in str(caught.value)


@pytest.mark.parametrize("wrong", [42, "cpu", np.random.default_rng(0)], ids=str)
def test_a_seed_is_no_generator(model, wrong):
    x, mu = images(2), torch.zeros(2, 2)
    for use in (lambda: model.sample(2, wrong), lambda: model(x, wrong), lambda: reparameterize(mu, mu, wrong),
                lambda: objective(model)(model, x, 1.0, wrong)):
        with pytest.raises(TypeError, match=r"generator is .*, must be a torch.Generator, such as"):
            use()


def test_noise_comes_from_the_device_of_the_mean():
    mu = torch.zeros(2, 2, device="meta")
    with pytest.raises(ValueError, match="generator is on cpu, must be on the device of mu, meta"):
        reparameterize(mu, mu, generator())


@given(a=st.lists(st.integers(1, 3), max_size=3), b=st.lists(st.integers(1, 3), max_size=3))
def test_nothing_is_broadcast(a, b):
    mu, logvar = torch.zeros(a), torch.zeros(b)
    for function in (kl_divergence, reparameterize):
        if a == b:
            assert function(mu, logvar).shape == mu.shape
            continue
        with pytest.raises(ValueError, match="logvar has shape .*, must have that of mu") as caught:
            function(mu, logvar)
        assert str(tuple(a)) in str(caught.value) and str(tuple(b)) in str(caught.value)


@pytest.mark.parametrize("function", [kl_divergence, reparameterize])
@pytest.mark.parametrize("wrong", [None, [0.0], np.zeros(2), torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.complex64)], ids=str)
def test_a_gaussian_has_floating_point_parameters(function, wrong):
    right = torch.zeros(2)
    for name, pair in {"mu": (wrong, right), "logvar": (right, wrong)}.items():
        with pytest.raises(TypeError, match=f"{name} is .*, must be a floating-point tensor"):
            function(*pair)
    with pytest.raises(ValueError, match="logvar is on meta, must be on the device of mu, cpu"):
        function(right, right.to("meta"))


# --- objectives ----------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong", [-1.0, -1e-9, math.nan, math.inf, torch.tensor(-1.0), torch.tensor(math.nan), torch.ones(1), *NO_NUMBERS], ids=repr)
def test_factors_are_numbers_of_at_least_zero(model, wrong):
    names = ["beta"] if isinstance(model, Autoencoder) else ["beta", "free_bits"]
    for name in names:
        with pytest.raises(ValueError, match=f"{name} is .*, must be a finite number of at least 0") as caught:
            objective(model)(model, images(2), **{name: wrong})
        assert repr(wrong) in str(caught.value)


def test_a_mean_over_no_images(model):
    with pytest.raises(ValueError, match="x holds no images, must hold at least one"):
        objective(model)(model, images(0))


def test_an_objective_says_what_it_wants_of_a_model():
    with pytest.raises(TypeError, match="model gives AutoencoderOutput without mu, logvar, must give logits, mu, logvar: .*reconstruction_only"):
        elbo(MAKERS["Autoencoder"](), images(2))
    with pytest.raises(TypeError, match="model gives Tensor without logits, must give logits"):
        reconstruction_only(lambda x, g: x, images(2))


@pytest.mark.parametrize("name, nearest", [("bernouli", "bernoulli"), ("continuous", "continuous-bernoulli"), ("Gauss", "gaussian"),
                                           (None, ""), (3, "")])
def test_the_nearest_likelihood_is_suggested(model, name, nearest):
    for use in (lambda: objective(model)(model, images(2), likelihood=name), lambda: reconstruction_loss(images(2), images(2), name)):
        with pytest.raises(ValueError, match=f"likelihood is {name!r}, must be one of 'bernoulli', .*the nearest is '{nearest}"):
            use()


def test_logits_and_images_must_fit():
    logits, x = torch.zeros(2, 3), torch.zeros(2, 3)
    with pytest.raises(TypeError, match="logits is list, must be a floating-point tensor"):
        reconstruction_loss([0.0], x)
    with pytest.raises(TypeError, match="logits is torch.int64"):
        reconstruction_loss(logits.long(), x)
    with pytest.raises(TypeError, match="x is torch.uint8, must be .*intensities"):
        reconstruction_loss(logits, x.byte())
    with pytest.raises(ValueError, match="x is on meta, must be on the device of logits, cpu"):
        reconstruction_loss(logits, x.to("meta"))
    with pytest.raises(ValueError, match=r"logits has shape \(3,\), must be \(B, \*input_shape\)"):
        reconstruction_loss(logits[0], x[0])
    wrong = lambda x, g: VAEOutput(torch.zeros(len(x), 3), torch.zeros(len(x), 2), torch.zeros(len(x), 2), torch.zeros(len(x), 2))
    with pytest.raises(ValueError, match=r"x has shape \(2, 1, 4, 5\), must have that of logits, \(2, 3\)"):
        elbo(wrong, images(2))


# --- sizes ---------------------------------------------------------------------------------------

NO_SIZES = [0, -1, 2.5, "3", None, True, math.nan]


@pytest.mark.parametrize("model_class", [VAE, Autoencoder, ConvVAE])
@pytest.mark.parametrize("wrong", [*NO_SIZES, (2,)], ids=repr)
def test_a_latent_space_has_a_whole_number_of_dimensions(model_class, wrong):
    with pytest.raises(ValueError, match="latent_dim is .*, must be a whole number of at least 1") as caught:
        model_class(latent_dim=wrong)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("model_class, name", [(VAE, "input_shape"), (VAE, "hidden_dims"), (Autoencoder, "input_shape"), (Autoencoder, "hidden_dims"),
                                               (ConvVAE, "input_shape"), (ConvVAE, "channels")])
@pytest.mark.parametrize("wrong", [400, *NO_SIZES, *[(1, n, 5) for n in NO_SIZES], {1, 2, 3}], ids=repr)
def test_sizes_are_tuples_of_positive_whole_numbers(model_class, name, wrong):
    with pytest.raises(ValueError, match=f"{name} is .*, must be a tuple of positive whole numbers") as caught:
        model_class(**{name: wrong})
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("model_class, name", [(VAE, "input_shape"), (Autoencoder, "input_shape"), (ConvVAE, "channels")])
def test_some_sizes_must_be_there(model_class, name):
    with pytest.raises(ValueError, match=rf"{name} is \(\), must be a tuple of positive whole numbers, at least one"):
        model_class(**{name: ()})


@pytest.mark.parametrize("shape", [(), (28,), (28, 28), (1, 28, 28, 1)])
def test_convolutions_want_three_axes(shape):
    with pytest.raises(ValueError, match=r"input_shape is .*, must be \(channels, height, width\)"):
        ConvVAE(input_shape=shape)


def test_a_further_size_of_ones_own_model():
    for wrong in (0, (3, 0), "big"):
        with pytest.raises(ValueError, match="widths is "):
            LatentModel(SHAPE, 2, widths=wrong)
    assert LatentModel(list(SHAPE), 2, widths=[3, 4]).config == dict(input_shape=SHAPE, latent_dim=2, widths=(3, 4))
    with pytest.raises(NotImplementedError, match=r"LatentModel must say with code\(x\)"):
        LatentModel(SHAPE, 2).reconstruct(images(2))


@pytest.mark.parametrize("make", [lambda: VAE(hidden_dims=(10**14,)), lambda: Autoencoder(latent_dim=10**14), lambda: VAE((1, 10**9, 10**9))])
def test_more_memory_than_there_is_fails_at_once(make):
    with pytest.raises(RuntimeError, match="allocate|overflow"):
        make()


@pytest.mark.parametrize("wrong", [None, VAE, lambda x: x], ids=["None", "class", "function"])
def test_only_a_module_can_be_evaluated(wrong):
    with pytest.raises(TypeError, match="model is .*, must be a torch.nn.Module"), evaluating(wrong):
        pass
    with evaluating(nn.Linear(2, 2)) as model:
        assert not model.training
