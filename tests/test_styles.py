"""The ConditionalExplorer without a browser: its JavaScript, run in Node, against PyTorch for each class; its state; which models explorers take."""
import json

import numpy as np
import pytest
import torch
from factories import cloud, grey, made_up, pixels, tiny, weights
from test_drawing import DRAWINGS, SEVEN
from test_explorers import SHAPE, floats, in_node
from test_wrong_use import refused

from vae_tutorial.conditional import ConditionalConvVAE, ConditionalVAE, SemiSupervisedVAE
from vae_tutorial.data import intensities
from vae_tutorial.explorers import (
    BetaExplorer, ConditionalExplorer, DrawExplorer, EmbeddingExplorer, InterpolationExplorer, LatentExplorer)
from vae_tutorial.generation import decode_images
from vae_tutorial.handwriting import draw_strokes, prepare_image
from vae_tutorial.vae import kl_divergence, reconstruction_loss
from vae_tutorial.widgets import Decoder, Encoder, front_end


def strong(kind=ConditionalVAE, factor=2, **config):
    """Return an untrained model of three classes whose weights, float16 without loss, are large enough that a wrong class shows."""
    model = tiny(kind, **{"n_classes": 3} | config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_((factor * weight).half())
    return model


def state_of(network):
    return {name: getattr(network, name) for name in ("layers", "weights", "latent_dim", "image_shape")}


def run_for_classes(network, build, rows, classes, folder):
    """What a network in the browser answers for each class and each row, shape (classes, rows, outputs)."""
    script = f"const run = {build}(given.network);" + """
        answer(Buffer.concat(given.classes.flatMap((label) => given.rows.map((row) => Buffer.from(run(row, label ?? undefined).slice().buffer)))));"""
    given = {"network": state_of(network), "classes": classes, "rows": rows.double().tolist()}
    return floats(in_node(folder, front_end("network.js") + script, given), len(classes), len(rows), -1)


MODELS = [strong(input_shape=(1, 5, 6), latent_dim=3), strong(input_shape=(3, 4, 4), hidden_dims=()), strong(SemiSupervisedVAE, input_shape=(1, 5, 6)),
          strong(ConditionalConvVAE, input_shape=(3, 9, 14), latent_dim=3)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_javascript_runs_both_halves_for_each_class_as_pytorch_does(model, tmp_path):
    z, x, classes = cloud(6, model.latent_dim), grey(5, model.input_shape) / 255, range(3)
    every = model.given(torch.arange(3))
    images = run_for_classes(Decoder(every), "buildDecoder", z, [0, 1, 2], tmp_path)
    answers = run_for_classes(Encoder(every), "buildEncoder", x.movedim(1, -1).flatten(1), [0, 1, 2], tmp_path)
    right = torch.stack([decode_images(model.given(label), z) for label in classes])
    assert (images - right.movedim(2, -1).flatten(2)).abs().max() <= 1e-4 and (right[0] - right[1]).abs().max() > 0.1
    with torch.no_grad():
        codes = torch.stack([torch.cat(model.given(label).encode(x), dim=1) for label in classes])
    assert (answers - codes).abs().max() <= 2e-3 and (codes[0] - codes[1]).abs().max() > 0.1
    # and a model that was told its class needs none
    alone = run_for_classes(Decoder(model.given(2)), "buildDecoder", z, [None], tmp_path)
    assert (alone - images[2]).abs().max() <= 1e-6


def test_javascript_reads_a_drawing_as_each_class(tmp_path):
    model = strong(input_shape=(1, 28, 28), hidden_dims=(16,))
    every = model.given(torch.arange(3))
    script = front_end("network.js", "interface.js", "codes.js", "handwriting.js", "sheet.js", "conditional.js").replace("export default", "const view =") + """
        const read = openReader(given.encoder, given.decoder, 3);
        answer(JSON.stringify([read([]) ?? "nothing", ...given.drawings.map(read)]));"""
    given = {"encoder": state_of(Encoder(every)), "decoder": state_of(Decoder(every)), "drawings": list(DRAWINGS.values())}
    nothing, *found = json.loads(in_node(tmp_path, script, given))
    assert nothing == "nothing"
    for strokes, drawing in zip(DRAWINGS.values(), found, strict=True):
        x = intensities(prepare_image(draw_strokes(strokes)))[None]
        bounds = []
        for label, reading in enumerate(drawing["readings"]):
            told = model.given(label)
            with torch.no_grad():
                mu, logvar = told.encode(x)
                bounds.append(-(reconstruction_loss(told.decode(mu), x) + kl_divergence(mu, logvar).sum(1)).item())
            assert (torch.tensor(reading["mu"]) - mu[0]).abs().max() < 0.05         # the browser's pixels may be a grey level away
            assert reading["bound"] == pytest.approx(bounds[-1], rel=1e-2)
        assert drawing["order"] == np.argsort(bounds)[::-1].tolist()


# --- which models explorers take ---

MANY = made_up(test=20, shape=(1, 28, 28))
EXPLORERS = {
    "latent": LatentExplorer, "latent with data": lambda m: LatentExplorer(m, MANY), "interpolation": lambda m: InterpolationExplorer(m, MANY.test.images[:3]),
    "embedding": lambda m: EmbeddingExplorer(m, MANY, maps={"map": cloud(20, 2)}), "draw": lambda m: DrawExplorer(m, MANY),
    "beta": lambda m: BetaExplorer({1: m.given(0), 2: m}, MANY)}


@pytest.mark.parametrize("kind", EXPLORERS)
def test_explorers_of_one_class_take_a_model_that_was_told_one_and_no_other(kind):
    model, explore = strong(input_shape=(1, 28, 28)), EXPLORERS[kind]
    refused(ValueError, r".* is ConditionalVAE, which must be told a class: fill it in, model.given\(3\), or take ConditionalExplorer", explore, model)
    if kind == "beta":
        explore = lambda m: BetaExplorer({1: m, 2: m}, MANY)
    refused(ValueError, r".* is given 2 labels, must be given one for all images, such as model.given\(3\)", explore, model.given([1, 2]))
    assert len(explore(model.given(1))._still()[0]) > 100


def test_model_and_data_that_do_not_fit_are_named():
    refused(TypeError, "model is VAE, must be a Conditional", ConditionalExplorer, tiny(input_shape=SHAPE), made_up(test=5, shape=SHAPE))
    refused(TypeError, "model is Given, must be a Conditional", ConditionalExplorer, strong(input_shape=SHAPE).given(1), made_up(test=5, shape=SHAPE))
    refused(ValueError, "data has 3 classes, must have 4, as the model has", ConditionalExplorer, strong(input_shape=SHAPE, n_classes=4),
            made_up(test=5, shape=SHAPE))


# --- the explorer ---

def test_codes_are_those_that_images_have_with_their_own_labels():
    model, data = strong(input_shape=SHAPE), made_up(test=20, shape=SHAPE)
    explorer = ConditionalExplorer(model, data)
    with torch.no_grad():
        right = model.given(data.test.labels).code(intensities(data.test.images))
    torch.testing.assert_close(floats(explorer.points, -1, 2), right)
    torch.testing.assert_close(floats(explorer.start_codes, -1, 2), right[:3])
    assert list(explorer.point_labels) == data.test.labels.tolist() and explorer.start_names == explorer.class_names == ["a", "b", "c"]


@pytest.mark.parametrize("latent_dim, shape", [(2, (1, 28, 28)), (4, (3, 4, 6))])
def test_still_picture_shows_one_class_large_beside_all_in_the_style(latent_dim, shape):
    model = strong(input_shape=shape, latent_dim=latent_dim).train()
    state, before = torch.get_rng_state(), weights(model)
    explorer = ConditionalExplorer(model, made_up(test=20, shape=shape))
    explorer.z, explorer.label = cloud(latent_dim).clamp(-1, 1), 2
    picture, text = explorer._still()
    assert model.training and torch.equal(torch.get_rng_state(), state) and weights(model).equal(before)
    right = torch.cat([decode_images(model.given(label), torch.tensor([explorer.z])) for label in range(3)])
    assert torch.equal(explorer.images, right) and f"class c in the style {'z = (' if latent_dim == 2 else '|z| = '}" in text
    _, height, width = shape
    shown, third = pixels(picture), 255 * right[2].movedim(0, -1)
    shown = 255 - shown[..., None] if shape[0] == 1 else shown
    np.testing.assert_allclose(shown[::2, :2 * width:2], third, atol=0.51)
    np.testing.assert_allclose(shown[height:, 2 * width:3 * width], third, atol=0.51)
    assert shown.shape == (2 * height, 4 * width, shape[0])


def test_strokes_are_those_of_the_sheet():
    explorer = ConditionalExplorer(strong(input_shape=(1, 28, 28)), MANY)
    explorer.strokes = SEVEN
    assert torch.equal(explorer.image, prepare_image(draw_strokes(SEVEN)))
