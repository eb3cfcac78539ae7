"""The plain autoencoder: its network beside the VAE's, its objective, and its place among the functions that take either."""
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from vae_tutorial.autoencoder import Autoencoder, AutoencoderOutput, reconstruction_only
from vae_tutorial.data import ImageData, Split, intensities, load_data
from vae_tutorial.evaluation import reconstruction_at_mean
from vae_tutorial.latent_space import encodings
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.training import LinearBeta, fit, validate
from vae_tutorial.vae import LIKELIHOODS, VAE, BaseVAE, LatentModel, reconstruction_loss


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(input_shape=(1, 2, 3), hidden_dims=(5,), latent_dim=2, model_class=Autoencoder):
    torch.manual_seed(0)
    return model_class(input_shape, hidden_dims, latent_dim)


@pytest.fixture(scope="module")
def data():
    """300 training and 70 validation images."""
    whole = load_data("mnist", source="sample")
    part = lambda split, n: Split(split.images[:n], split.labels[:n])
    return ImageData(part(whole.train, 300), part(whole.val, 70), None, whole.name, whole.source, whole.class_names)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- the network ---------------------------------------------------------------------------------

@pytest.mark.parametrize("hidden, latent", [((400,), 20), ((256,), 32), ((512, 256, 128), 2), ((), 3)])
def test_it_is_the_vae_without_the_rows_of_the_variances(hidden, latent):
    autoencoder, vae = Autoencoder(hidden_dims=hidden, latent_dim=latent), VAE(hidden_dims=hidden, latent_dim=latent)
    count = lambda model: sum(p.numel() for p in model.parameters())
    assert count(vae) - count(autoencoder) == latent * ((hidden[-1] if hidden else 784) + 1)
    assert [p.shape for p in vae.decoder.parameters()] == [p.shape for p in autoencoder.decoder.parameters()]


def test_the_network_of_the_report_has_its_number_of_parameters():
    assert sum(p.numel() for p in Autoencoder().parameters()) == 784 * 400 + 400 + 400 * 20 + 20 + 20 * 400 + 400 + 400 * 784 + 784


@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), hidden=st.lists(st.integers(1, 6), max_size=3),
       latent=st.integers(1, 4), batch=st.integers(0, 4))
def test_any_shape_depth_and_batch(shape, hidden, latent, batch):
    model, x = Autoencoder(tuple(shape), tuple(hidden), latent), torch.rand(batch, *shape)
    out = model(x)
    assert isinstance(out, AutoencoderOutput)
    assert out.logits.shape == (batch, *shape) and out.z.shape == (batch, latent)
    assert out.z.equal(model.encode(x)) and out.z.equal(model.code(x)) and out.logits.equal(model.decode(out.z))
    assert model.reconstruct(x).equal(out.logits.detach().sigmoid())
    assert model.sample(batch, generator()).equal(model.decode(torch.randn(batch, latent, generator=generator())).sigmoid())


def test_it_is_a_latent_model_and_no_vae():
    assert isinstance(tiny(), LatentModel) and not isinstance(tiny(), BaseVAE)


def test_an_image_has_one_code_whatever_the_generator_and_the_mode():
    model, x, g = tiny(), torch.rand(3, 1, 2, 3), generator(5)
    before, state = g.get_state(), torch.get_rng_state()
    first = model.train()(x, g)
    assert first.logits.equal(model.eval()(x).logits)
    assert g.get_state().equal(before) and torch.get_rng_state().equal(state)


def test_a_subclass_that_changes_encode_changes_everything_that_uses_codes():
    class Positive(Autoencoder):
        def encode(self, x):
            return super().encode(x).relu()

    model, images = tiny((1, 28, 28), (6,), 5, Positive), load_data("mnist", source="sample").val.images[:40]
    z = model(intensities(images)).z
    assert (z == 0).any() and (z >= 0).all()
    assert torch.allclose(encodings(model, images), z) and model.code(intensities(images)).equal(z)


# --- the objective -------------------------------------------------------------------------------

@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_loss_is_the_reconstruction_and_the_kl_is_zero(likelihood):
    model, x = tiny(), torch.rand(4, 1, 2, 3)
    terms = reconstruction_only(model, x, likelihood=likelihood)
    assert terms.loss.equal(reconstruction_loss(model(x).logits, x, likelihood).mean())
    assert terms.loss.equal(terms.reconstruction) and terms.kl == 0 and terms.kl.shape == ()


def test_it_is_the_cross_entropy_summed_over_pixels_by_hand():
    model, x = tiny(), torch.rand(4, 1, 2, 3, dtype=torch.float64)
    p = model.double()(x).logits.sigmoid()
    by_hand = -(x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3)).mean()
    torch.testing.assert_close(reconstruction_only(model, x).loss, by_hand)


@given(beta=st.floats(0, 20))
def test_beta_is_noted_and_changes_nothing(beta):
    model, x = tiny(), torch.rand(3, 1, 2, 3, generator=generator())
    terms = reconstruction_only(model, x, beta)
    assert terms.beta == beta and terms.loss.equal(reconstruction_only(model, x).loss)


def test_gradients_are_those_of_finite_differences_and_reach_every_weight():
    model, x = tiny().double(), torch.rand(3, 1, 2, 3, dtype=torch.float64)
    terms = reconstruction_only(model, x)
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    decode = lambda z: reconstruction_loss(model.decode(z), x).mean()
    assert gradcheck(decode, torch.randn(3, 2, dtype=torch.float64, requires_grad=True))


def test_of_a_vae_it_is_the_reconstruction_with_draws_of_the_generator():
    model, x = tiny(model_class=VAE), torch.rand(3, 1, 2, 3)
    terms = reconstruction_only(model, x, generator=generator(3))
    assert terms.loss.equal(reconstruction_loss(model(x, generator(3)).logits, x).mean())
    assert not terms.loss.equal(reconstruction_only(model, x, generator=generator(4)).loss)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_losses_are_summed_in_float32_or_wider(dtype):
    terms = reconstruction_only(tiny((1, 28, 28)).to(dtype), torch.rand(2, 1, 28, 28, dtype=dtype))
    assert terms.loss.dtype == terms.kl.dtype == torch.promote_types(dtype, torch.float32) and terms.loss.isfinite()


# --- training ------------------------------------------------------------------------------------

def train(data, epochs=3, seed=0, **kwargs):
    model = tiny((1, 28, 28), (16,), 4)
    kwargs = dict(objective=reconstruction_only, batch_size=64, precision="fp32", progress=False, seed=seed) | kwargs
    return model, fit(model, data, epochs, **kwargs)


def test_the_best_epoch_is_the_one_with_the_lowest_reconstruction_and_it_is_kept(data):
    model, history = train(data)
    assert all(e.loss == e.reconstruction and e.kl == e.train_kl == 0 and e.settled for e in history)
    assert history.best.loss == min(e.reconstruction for e in history) < history[0].loss
    assert reconstruction_at_mean(model, data.val).mean().item() == pytest.approx(history.best.loss, rel=1e-5)
    assert not model.training


def test_same_seed_same_weights_and_beta_has_no_say(data):
    model, _ = train(data)
    assert weights(model).equal(weights(train(data)[0]))
    assert weights(model).equal(weights(train(data, beta=4.0)[0]))
    assert not weights(model).equal(weights(train(data, seed=1)[0]))
    _, annealed = train(data, beta=LinearBeta(2))
    assert [e.settled for e in annealed] == [False, False, True]


def test_a_stopped_run_goes_on_to_the_same_bits(data, tmp_path):
    whole, _ = train(data, epochs=4)
    train(data, epochs=2, checkpoint=tmp_path)
    resumed, history = train(data, epochs=4, checkpoint=tmp_path, resume=True)
    assert weights(whole).equal(weights(resumed)) and len(history) == 4
    with pytest.raises(ValueError, match="objective is .reconstruction_only.likelihood='gaussian'"):
        train(data, checkpoint=tmp_path, resume=True, objective=partial(reconstruction_only, likelihood="gaussian"))


def test_validation_leaves_mode_and_generators_alone(data):
    model, state = tiny((1, 28, 28)).train(), torch.get_rng_state()
    reconstruction, kl = validate(model, data.val.images, objective=reconstruction_only, batch_size=13)
    assert kl == 0 and model.training and torch.get_rng_state().equal(state)
    assert all(p.grad is None for p in model.parameters())
    x = intensities(data.val.images)
    assert math.isclose(reconstruction, reconstruction_only(model, x).loss.item(), rel_tol=1e-5)


def test_saved_and_loaded_as_what_it_is(data, tmp_path):
    model, history = train(data)
    save_model(model, tmp_path / "ae.safetensors", history)
    loaded, its_history = load_model(tmp_path / "ae.safetensors", Autoencoder)
    assert weights(loaded).equal(weights(model)) and loaded.config == model.config and its_history == history
    assert type(load_model(tmp_path / "ae.safetensors")[0]) is Autoencoder
    with pytest.raises(ValueError, match="VAE.*holds a Autoencoder"):
        load_model(tmp_path / "ae.safetensors", VAE)
