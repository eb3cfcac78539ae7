"""Pictures of handwriting, and the DrawExplorer without a browser: its JavaScript, run in Node, against Python."""
import numpy as np
import pytest
import torch
from factories import cloud, grey, made_up, pixels, tiny
from PIL import Image
from test_explorers import NAN, PRETRAINED, SHAPE, Custom, floats, in_node, normalised
from test_wrong_use import refused
from torch import nn
from traitlets import TraitError

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import intensities, load_data
from vae_tutorial.explorers import DrawExplorer
from vae_tutorial.handwriting import draw_strokes, prepare_image
from vae_tutorial.latent_space import encodings, nearest_neighbours
from vae_tutorial.likelihoods import DiscretizedLogistic
from vae_tutorial.saving import load_pretrained
from vae_tutorial.vae import VAE, BaseVAE, kl_divergence, reconstruction_loss
from vae_tutorial.widgets import Encoder, front_end

DIGITS = load_data("mnist", source="sample").test
SEVEN = [[(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)], [(0.42, 0.5), (0.66, 0.5)]]
DRAWINGS = {
    "seven": SEVEN, "dot": [[(0.1, 0.9)]], "dots": [[(0.2, 0.2)], [(0.8, 0.75)]], "level": [[(0.2, 0.5), (0.9, 0.5)]],
    "upright": [[(0.5, 0.1), (0.5, 0.9)]], "in a corner": [[(0.06, 0.06), (0.2, 0.3), (0.06, 0.2)]],
    "the same point twice": [[(0.5, 0.5), (0.5, 0.5), (0.6, 0.7)]],
    **{f"scribble {seed}": (0.05 + 0.9 * torch.rand(3, 6, 2, generator=torch.Generator().manual_seed(seed))).tolist() for seed in range(8)}}
NOISE = np.random.default_rng(0).normal(0, 0.02, (200, 200))


# --- pictures ---

def enlarged(digit, factor=5, way=Image.Resampling.NEAREST):
    return np.asarray(Image.fromarray(digit).resize((28 * factor, 28 * factor), way))


def framed(digit):
    return np.pad(digit, ((60, 10), (0, 90)))


def photographed(digit):
    """Ink on paper that is lit from one side, with grain and dust, and a table along one edge."""
    ink = framed(enlarged(digit, 8, Image.Resampling.BICUBIC)) / 255
    y, x = np.mgrid[-1:1:ink.shape[0] * 1j, -1:1:ink.shape[1] * 1j]
    rng = np.random.default_rng(0)
    paper = (0.75 - 0.2 * x - 0.08 * y**2) * (1 - 0.7 * ink) + rng.normal(0, 0.02, ink.shape)
    paper[rng.integers(ink.shape[0], size=30), rng.integers(ink.shape[1], size=30)] = 0.1
    paper[:20] = 0.05
    return (255 * paper.clip(0, 1)).astype(np.uint8)


# a picture of a digit, how far its code may be from the digit's, as a share of the mean distance of two digits
PICTURES = {"as it is": (lambda d: d, 0.05), "enlarged": (enlarged, 0.05), "inverted": (lambda d: 255 - d, 0.05),
            "shifted": (lambda d: np.roll(framed(d), (-30, 40), (0, 1)), 0.05),
            "framed and grey": (lambda d: 200 - framed(enlarged(d)) // 2, 0.05),
            "smooth": (lambda d: enlarged(d, 5, Image.Resampling.BICUBIC), 0.3),
            "photograph": (photographed, 0.35)}


@pytest.mark.parametrize("kind", PICTURES)
def test_picture_of_a_digit_means_to_a_model_what_the_digit_does(kind):
    picture, tolerance = PICTURES[kind]
    model, images, labels = load_pretrained("mnist-mlp-20d"), DIGITS.images[:60], DIGITS.labels
    prepared = torch.stack([prepare_image(picture(image[0].numpy())) for image in images])
    codes, found, right = (encodings(model, each) for each in (DIGITS.images, prepared, images))
    assert prepared.shape == images.shape and prepared.dtype == torch.uint8
    assert (found - right).norm(dim=1).mean() < tolerance * torch.pdist(codes).mean()
    near = labels[nearest_neighbours(codes, found, k=10)]
    own = labels[nearest_neighbours(codes, right, k=11)[:, 1:]]            # without the digit itself
    assert (near == labels[:60, None]).double().mean() > (own == labels[:60, None]).double().mean() - 0.03


def test_thin_pen_becomes_white_and_the_box_keeps_its_proportions():
    thin = np.zeros((400, 300), dtype=np.uint8)
    thin[50:350, 100:102] = thin[50:52, 100:250] = 255
    image = prepare_image(thin)[0]
    rows, columns = image.any(1).nonzero(), image.any(0).nonzero()
    assert (len(rows), len(columns)) == (20, 10) and image.max() == 255
    mass = [(image.sum(axis).double() @ torch.arange(28).double()) / image.sum() for axis in (0, 1)]
    assert all(13.5 <= at <= 14.5 for at in mass)


def test_every_form_of_a_picture_is_taken(tmp_path, monkeypatch):
    picture = 255 - draw_strokes(SEVEN)
    wanted, image = prepare_image(picture), Image.fromarray(picture)
    image.convert("RGB").save(tmp_path / "seven.png")
    turned = image.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6                              # as a telephone that was held upright says it
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = Image.new("RGBA", image.size)         # black ink on nothing
    clear.putalpha(Image.fromarray(255 - picture))
    colours = np.repeat(picture[..., None], 3, axis=-1)
    tensor = torch.from_numpy(picture)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for form in (tmp_path / "seven.png", str(tmp_path / "turned.png"), "~/seven.png", image, clear, tensor, tensor[None] / 255, picture / 255,
                 picture[..., None], colours, torch.from_numpy(colours).movedim(-1, 0), picture[:, ::-1][:, ::-1],
                 *(Image.fromarray((picture.astype(float) * factor).astype(kind)) for kind, factor in (("f4", 1 / 255), ("f4", 1), ("u2", 16), ("i4", 257)))):
        assert (prepare_image(form).int() - wanted.int()).abs().max() <= 1
    assert (prepare_image(picture < 128).int() - wanted.int()).abs().max() <= 64        # without the grey of the edges


@pytest.mark.parametrize("message, pictures", [
    ("picture has no ink: .* must show one digit", [np.zeros((5, 5)), np.ones((60, 40)), (0.7 + NOISE).clip(0, 1)]),
    (r"picture is .* must be a path, .* or numbers of shape \(H, W\)", [np.arange(3), np.zeros((0, 5)), None, np.zeros((2, 9, 9))]),
    ("picture has values from .* must be grey values in uint8", [np.arange(9).reshape(3, 3), np.eye(9) - 0.1, np.full((3, 3), NAN)]),
])
def test_picture_that_is_none_is_refused(message, pictures):
    for picture in pictures:
        refused(ValueError, message, prepare_image, picture)


# --- the encoder in the browser ---

class CustomVAE(BaseVAE, Custom):
    """A VAE of any encoder."""

    def __init__(self, *layers, input_shape, latent_dim=2):
        super().__init__(nn.Identity(), input_shape=input_shape, latent_dim=latent_dim)
        self.encoder = nn.Sequential(*layers)


def encode_in_javascript(model, x, folder):
    encoder = Encoder(model)
    state = {name: getattr(encoder, name) for name in ("layers", "weights", "image_shape")}
    state["images"] = x.movedim(1, -1).flatten(1).double().tolist()         # pixel by pixel
    script = """const { images, ...encoder } = given, encode = buildEncoder(encoder);
        answer(Buffer.concat(images.map((x) => Buffer.from(encode(x).slice().buffer))));"""
    return floats(in_node(folder, front_end("network.js") + script, state), len(x), -1).chunk(2, dim=1)


@pytest.mark.parametrize("name", [name for name in PRETRAINED if "ae-" not in name])
def test_javascript_encodes_as_pytorch_does(name, tmp_path):
    model = load_pretrained(name).given(3)
    x = intensities(load_data(name.split("-")[0], source="sample").test.images[:40])
    with torch.no_grad():
        for found, right in zip(encode_in_javascript(model, x, tmp_path), model.encode(x), strict=True):
            assert (found - right).abs().max() <= 2e-3


@pytest.mark.parametrize("model", [
    VAE(input_shape=(1, 5, 9), hidden_dims=(7, 6), latent_dim=3), VAE(input_shape=(3, 2, 5), hidden_dims=(), latent_dim=1),
    ConvVAE(input_shape=(1, 13, 18), channels=(4, 6), latent_dim=3), ConvVAE(input_shape=(4, 7, 6), channels=(4,), latent_dim=2),
    CustomVAE(nn.Conv2d(3, 4, 3, bias=False), normalised(4), nn.SiLU(), nn.Dropout2d(), nn.Conv2d(4, 5, 2, stride=(1, 2)), nn.ELU(),
              nn.Flatten(), nn.Linear(40, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4), input_shape=(3, 7, 7)),
], ids=lambda model: type(model).__name__)
def test_javascript_encodes_odd_sizes_and_colours(model, tmp_path):
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_((2 * weight).half())
    x = grey(10, model.input_shape) / 255
    with torch.no_grad():
        for found, right in zip(encode_in_javascript(model, x, tmp_path), model.eval().encode(x), strict=True):
            assert (found - right).abs().max() <= 2e-3


def test_layer_of_the_encoder_that_the_browser_does_not_know_is_named():
    unknown = CustomVAE(nn.Flatten(), nn.GELU(), input_shape=(1, 2, 2))
    refused(TypeError, "model.encoder holds a GELU layer, must be made of", Encoder, unknown)


# --- strokes ---

def test_browser_and_python_draw_and_prepare_alike(tmp_path):
    script = front_end("network.js", "interface.js", "handwriting.js") + """
        answer(Buffer.concat(given.map(drawStrokes).flatMap((ink) => [Buffer.from(ink), Buffer.from(centred(ink))])));"""
    rows = floats(in_node(tmp_path, script, list(DRAWINGS.values())), len(DRAWINGS), 224**2 + 28**2, dtype=np.uint8).int()
    for (name, strokes), row in zip(DRAWINGS.items(), rows, strict=True):
        drawn = draw_strokes(strokes)
        assert (row[:224**2] - torch.from_numpy(drawn).flatten()).abs().max() <= 1, name
        assert (row[224**2:] - prepare_image(drawn).flatten()).abs().max() <= 1, name


def test_pen_leaves_ink_within_its_radius():
    ink, radius = draw_strokes([[(0.5, 0.25), (0.5, 0.75)]]), 224 / 24
    columns = np.flatnonzero(ink[112])
    assert ink[112, 111] == 255 and abs(len(columns) - 2 * radius) <= 2 and columns.mean() == 111.5
    rows = np.flatnonzero(ink[:, 111])
    assert rows[0] == pytest.approx(56 - radius, abs=1.5) and rows[-1] == pytest.approx(168 + radius, abs=1.5)
    assert not draw_strokes([]).any()


# --- the explorer ---

def test_state_holds_what_pytorch_computes_of_the_test_digits():
    model = load_pretrained("mnist-mlp-2d")
    explorer, x = DrawExplorer(model, n=50), intensities(DIGITS.images[:50])
    with torch.no_grad():
        mu, logvar = model.encode(x)
        costs = reconstruction_loss(model.decode(mu), x) + kl_divergence(mu, logvar).sum(1)
    torch.testing.assert_close(floats(explorer.codes, -1, 2), mu)
    torch.testing.assert_close(floats(explorer.costs, -1), costs)
    assert list(explorer.point_labels) == DIGITS.labels[:50].tolist() and pixels(explorer.images).shape == (56, 840)
    assert explorer.reach >= mu.abs().max() and sorted(explorer.order) == [0, 1]
    assert DrawExplorer(model, n=50).encoder is explorer.encoder is not explorer.decoder


@pytest.mark.parametrize("likelihood", [None, DiscretizedLogistic(0.05)])
def test_browser_shows_of_a_drawing_the_mean_that_pytorch_reconstructs(likelihood, tmp_path):
    model = load_pretrained("mnist-mlp-2d")
    model.likelihood = likelihood
    explorer = DrawExplorer(model, n=20)
    explorer.strokes = SEVEN
    halves = {half: {name: getattr(getattr(explorer, half), name) for name in ("layers", "weights", "latent_dim", "image_shape")}
              for half in ("encoder", "decoder")}
    script = front_end("network.js", "interface.js", "handwriting.js", "sheet.js", "draw.js") + """
        const held = { ...given.halves, codes: new DataView(new Float32Array(40).buffer) };
        const model = { get: (name) => (name in given.halves ? `IPY_MODEL_${name}` : held[name]),
                        widget_manager: { get_model: async (name) => ({ attributes: held[name] }) } };
        const again = Float32Array.from((await openModel(model))(given.strokes).again);
        answer(Buffer.from(again.buffer));"""
    found = floats(in_node(tmp_path, script, {"halves": halves, "strokes": SEVEN}), 1, 1, 28, 28)
    assert (found - model.reconstruct(intensities(explorer.image)[None])).abs().max() < 0.02      # a grey level of the drawing may differ


def test_strokes_are_observed_and_become_an_image():
    explorer, seen = DrawExplorer(tiny(input_shape=(1, 28, 28)), n=20), []
    explorer.observe(lambda change: seen.append(change.new), "strokes")
    refused(ValueError, "there is no ink yet", lambda: explorer.image)
    explorer.strokes = SEVEN
    assert [[list(point) for point in stroke] for stroke in SEVEN] == seen[0]
    assert torch.equal(explorer.image, prepare_image(draw_strokes(SEVEN)))
    for wrong in ([[]], [[(0.5, 1.1)]], [[(0.5, NAN)]], [[(0.5,)]], [[(0.1, 0.2, 0.3)]], [0.5], "7", None):
        with pytest.raises(TraitError, match="strokes"):
            explorer.strokes = wrong
    assert explorer.strokes == seen[0] and len(seen) == 1
    # ink is ink, also where there is more of it than of paper
    explorer.strokes = [[(0.05, y), (0.95, y)] for y in np.linspace(0.05, 0.95, 14).tolist()]
    assert explorer.image[0, 4:24, 4:24].float().mean() > 200


@pytest.mark.parametrize("strokes, what", [(SEVEN, "a drawing as the model sees it"), ([], "a digit as the model sees it")])
def test_still_picture_shows_image_reconstruction_and_nearest(strokes, what):
    model = load_pretrained("mnist-mlp-20d")
    explorer = DrawExplorer(model, n=60)
    explorer.strokes = strokes
    picture, text = explorer._still()
    image = explorer.image if strokes else DIGITS.images[0]
    ink = 255 - pixels(picture)
    assert what in text and ink.shape == (56, 2 * 56 + 4 * 28)
    np.testing.assert_array_equal(ink[::2, :56:2], image[0])
    np.testing.assert_allclose(ink[::2, 56:112:2], 255 * model.reconstruct(intensities(image)[None])[0, 0], atol=0.51)
    near = nearest_neighbours(encodings(model, DIGITS.images[:60]), encodings(model, image[None]), k=8)[0]
    np.testing.assert_array_equal(ink[28:, 140:168], DIGITS.images[near[5], 0])
    shown, _ = explorer._repr_mimebundle_()
    assert f'alt="{text}"' in shown["text/html"] and len(shown["text/html"]) < 20_000


def test_model_and_data_that_do_not_fit_are_named():
    fits = {"input_shape": (1, 28, 28)}
    refused(TypeError, "model is Autoencoder, must be a BaseVAE: a drawing is shown with", DrawExplorer, tiny(Autoencoder, **fits))
    refused(ValueError, r"model has input_shape \(1, 4, 5\), must be \(1, 28, 28\)", DrawExplorer, tiny(input_shape=SHAPE))
    small = made_up(test=5, shape=SHAPE)
    refused(ValueError, r"data.test has shape \(5, 1, 4, 5\), must be \(B, 1, 28, 28\)", DrawExplorer, tiny(**fits), small)


def test_model_and_random_numbers_are_left_as_they_were():
    model, state = tiny(input_shape=(1, 28, 28)).train(), torch.get_rng_state()
    DrawExplorer(model, n=10)._still()
    assert model.training and torch.equal(torch.get_rng_state(), state) and cloud(1).numel()
