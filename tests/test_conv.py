"""The convolutional VAE: sizes, gradients, formats, and runs that are stopped and resumed."""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split, intensities, load_data
from vae_tutorial.devices import place
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE, elbo


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(seed=0, **kwargs):
    torch.manual_seed(seed)
    return ConvVAE(**dict(latent_dim=3, channels=(4, 6)) | kwargs)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def data():
    """100 training and 30 validation images."""
    whole = load_data("fashion", source="sample")
    part = lambda split, n: Split(split.images[:n], split.labels[:n])
    return ImageData(part(whole.train, 100), part(whole.val, 30), None, whole.name, whole.source, whole.class_names)


# --- layers --------------------------------------------------------------------------------------

def test_the_network_of_the_report_has_its_number_of_parameters():
    assert sum(p.numel() for p in ConvVAE().parameters()) == 204_037
    assert sum(p.numel() for p in ConvVAE(latent_dim=50).parameters()) == 204_037 + 48 * (2 * 2049 + 2048)


def test_names_shapes_and_initial_values_are_those_that_saved_models_and_seeds_rely_on():
    torch.manual_seed(5)
    layers = {"encoder.0": nn.Conv2d(1, 32, 3), "encoder.2": nn.Conv2d(32, 64, 3), "encoder.4": nn.Conv2d(64, 128, 3),
              "encoder.7": nn.Linear(2048, 4), "decoder.0": nn.Linear(2, 2048), "decoder.3": nn.ConvTranspose2d(128, 64, 3),
              "decoder.5": nn.ConvTranspose2d(64, 32, 3), "decoder.7": nn.ConvTranspose2d(32, 16, 3), "decoder.9": nn.Conv2d(16, 1, 3)}
    wanted = {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("weight", "bias")}
    torch.manual_seed(5)
    found = ConvVAE().state_dict()
    assert list(found) == list(wanted)
    assert all(found[name].equal(value) for name, value in wanted.items())


@settings(max_examples=40)
@given(n_in=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40), latent=st.integers(1, 4),
       channels=st.lists(st.integers(1, 5), min_size=1, max_size=5), batch=st.integers(0, 3))
def test_what_comes_out_has_the_size_of_what_went_in(n_in, height, width, latent, channels, batch):
    shape = (n_in, height, width)
    model = ConvVAE(shape, channels=tuple(channels), latent_dim=latent)
    x = torch.rand(batch, *shape, generator=generator())
    out = model(x)
    assert out.logits.shape == model.reconstruct(x).shape == model.sample(batch).shape == (batch, *shape)
    assert out.mu.shape == out.logvar.shape == out.z.shape == (batch, latent)


@given(size=st.integers(1, 64), depth=st.integers(1, 6))
def test_the_decoder_passes_through_the_sizes_of_the_encoder(size, depth):
    model = ConvVAE((1, size, size + 3), channels=(1,) * depth, latent_dim=1)
    going = [torch.zeros(1, 1, size, size + 3)]
    for layer in model.encoder:
        if isinstance(layer, nn.Conv2d):
            going.append(layer(going[-1]))
    h = going[-1]
    for layer, wanted in zip([m for m in model.decoder if isinstance(m, nn.ConvTranspose2d)], reversed(going[:-1])):
        h = layer(h)
        assert h.shape == wanted.shape
    assert going[-1].shape[2] == math.ceil(size / 2**depth)


def test_the_decoder_mirrors_the_channels():
    kernels = [m for m in ConvVAE((3, 9, 9), channels=(8, 10, 12)).decoder if isinstance(m, (nn.ConvTranspose2d, nn.Conv2d))]
    assert [(m.in_channels, m.out_channels) for m in kernels] == [(12, 10), (10, 8), (8, 4), (4, 3)]
    assert ConvVAE(channels=(1,)).decoder[-1].in_channels == 1


def test_features_move_with_the_image():
    """Three strides of two: a shift by eight pixels is a shift by one place, away from the borders."""
    torch.manual_seed(0)
    features = ConvVAE(input_shape=(1, 64, 64)).encoder[:6]
    x = torch.rand(1, 1, 64, 64, generator=generator())
    with torch.no_grad():
        still, moved = features(x), features(x.roll((8, 16), (2, 3)))
    torch.testing.assert_close(moved[..., 3:-1, 4:-1], still.roll((1, 2), (2, 3))[..., 3:-1, 4:-1])


# --- gradients and formats -----------------------------------------------------------------------

def test_every_parameter_is_reached_by_the_gradient(data):
    torch.manual_seed(0)
    model = ConvVAE()
    elbo(model, intensities(data.train.images[:32]), generator=generator()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["encoder.0.weight", "decoder.3.weight", "decoder.5.bias"])
def test_the_gradient_is_that_of_finite_differences(name):
    model = tiny(channels=(2, 2), input_shape=(1, 6, 5)).double()
    x, value = torch.rand(3, 1, 6, 5, generator=generator()).double(), dict(model.named_parameters())[name]

    def loss(value):
        replaced = dict(model.named_parameters()) | {name: value}
        return elbo(lambda x, g: torch.func.functional_call(model, replaced, (x, g)), x, 0.7, generator(3)).loss
    assert gradcheck(loss, value)


def test_in_bfloat16_the_network_is_narrow_and_the_loss_wide():
    wide = tiny(input_shape=(1, 13, 17))
    narrow = tiny(input_shape=(1, 13, 17)).bfloat16()
    x = torch.rand(8, 1, 13, 17, generator=generator())
    out = narrow(x.bfloat16(), generator())
    assert {t.dtype for t in out} == {torch.bfloat16} and out.logits.isfinite().all()
    terms = elbo(narrow, x.bfloat16(), generator=generator())
    assert terms.loss.dtype == torch.float32
    assert terms.loss.item() == pytest.approx(elbo(wide, x, generator=generator()).loss.item(), rel=0.02)


def test_the_layout_of_an_image_in_memory_does_not_matter():
    model, x = tiny(input_shape=(3, 12, 10)), torch.rand(4, 3, 12, 10, generator=generator())
    other = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model.reconstruct(other), model.reconstruct(x))


def test_training_lays_its_kernels_channels_last_and_an_mlp_stays_as_it_is():
    cpu = torch.device("cpu")
    assert place(tiny(), cpu).encoder[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert VAE.memory_format is torch.contiguous_format and ConvVAE.memory_format is torch.channels_last


def test_looking_at_a_model_changes_neither_its_mode_nor_the_global_generator(data):
    model, state = tiny().train(), torch.get_rng_state()
    first, again = model.sample(4, generator(1)), model.sample(4, generator(1))
    model.reconstruct(intensities(data.val.images[:4]))
    assert first.equal(again) and 0 <= first.min() and first.max() <= 1
    assert model.training and all(p.grad is None for p in model.parameters())
    assert torch.get_rng_state().equal(state)


# --- training and files --------------------------------------------------------------------------

def train(data, epochs=3, **kwargs):
    model = tiny(channels=(4, 4, 8))
    return model, fit(model, data, epochs, batch_size=32, lr=2e-3, precision=kwargs.pop("precision", "fp32"), progress=False, **kwargs)


@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_is_the_same_to_the_bit_as_never_stopped(data, tmp_path, stop):
    def interrupt(model, history):
        if len(history) == stop:
            raise KeyboardInterrupt
    whole, history = train(data)
    _, stopped = train(data, checkpoint=tmp_path, callbacks=[interrupt])
    model, resumed = train(data, checkpoint=tmp_path, resume=True)
    assert len(stopped) == stop and stopped.ended == "interrupted"
    assert weights(model).equal(weights(whole))
    assert [replace(e, seconds=0) for e in resumed] == [replace(e, seconds=0) for e in history]


def test_the_beginning_of_a_long_run_is_a_short_run(data):
    """With a constant learning rate; the chapter takes its 10-epoch figures from the run of 100."""
    kept = []
    train(data, epochs=3, restore_best=False, callbacks=[lambda model, _: kept.append(weights(model))])
    assert weights(train(data, epochs=2, restore_best=False)[0]).equal(kept[1])


def test_training_lowers_the_loss_in_both_formats(data):
    for precision in ("fp32", "bf16"):
        model, history = train(data, epochs=8, precision=precision)
        assert history[-1].loss < history[0].loss - 10
        assert weights(model).dtype == torch.float32 and weights(model).isfinite().all()


@pytest.mark.parametrize("config", [dict(), dict(latent_dim=5, channels=(3,), input_shape=(3, 7, 10)),
                                    dict(channels=[2, 3], input_shape=[1, 5, 5])])
def test_a_model_comes_back_with_its_sizes(tmp_path, config):
    model = tiny(**config)
    save_model(model, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors", ConvVAE)
    assert weights(loaded).equal(weights(model)) and loaded.config == model.config and not loaded.training
    x = torch.rand(2, *model.input_shape, generator=generator())
    assert loaded.reconstruct(x).equal(model.reconstruct(x))


def test_a_file_knows_its_class_and_refuses_another(tmp_path):
    save_model(tiny(), tmp_path / "model.safetensors")
    assert type(load_model(tmp_path / "model.safetensors")[0]) is ConvVAE
    with pytest.raises(ValueError, match="model_class is VAE.*holds a ConvVAE"):
        load_model(tmp_path / "model.safetensors", VAE)


# --- what is refused -----------------------------------------------------------------------------

@pytest.mark.parametrize("name, bad", [
    ("latent_dim", 0), ("latent_dim", 2.5), ("latent_dim", "2"), ("channels", ()), ("channels", 32), ("channels", (8, 0)),
    ("channels", (8, 1.5)), ("channels", None), ("input_shape", (28, 28)), ("input_shape", 784), ("input_shape", (1, 28, 28, 1)),
    ("input_shape", (1, 0, 28)), ("input_shape", ("1", 28, 28)), ("input_shape", None)])
def test_impossible_sizes_are_refused_by_name_with_the_value(name, bad):
    with pytest.raises(ValueError, match=f"^{name} is ") as caught:
        ConvVAE(**{name: bad})
    assert repr(bad) in str(caught.value)


def test_the_old_order_of_the_sizes_is_answered_with_their_names():
    """Version 0.2 had the number of latent dimensions first."""
    for call in (lambda: ConvVAE(2), lambda: ConvVAE(np.int64(2)), lambda: ConvVAE(latent_dim=2, input_shape=3)):
        with pytest.raises(ValueError, match=r"^input_shape is .*, must be \(channels, height, width\); or name it: latent_dim=2"):
            call()
    with pytest.raises(TypeError, match="positional"):
        ConvVAE((1, 8, 9), (2, 3), 2)


def test_images_of_another_shape_are_refused_at_the_door():
    model = tiny(input_shape=(1, 8, 9))
    for x in (torch.rand(4, 72), torch.rand(4, 1, 9, 8), torch.rand(1, 8, 9)):
        with pytest.raises(ValueError, match=r"^x has shape .*, must be \(B, 1, 8, 9\)"):
            model.reconstruct(x)
