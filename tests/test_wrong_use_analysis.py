"""Wrong use of what looks at models, door by door: an error with name, value and what is allowed; and numbers of any kind."""
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_use import doors, takes_numbers, takes_whole_numbers

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split
from vae_tutorial.evaluation import active_units, evaluate, importance_bound, log_weights, posterior, reconstruction_at_mean
from vae_tutorial.explorers import BetaExplorer, EmbeddingExplorer, InterpolationExplorer, LatentExplorer
from vae_tutorial.generation import decode_images, grid_points, interpolate, lerp, manifold_grid, slerp, traverse
from vae_tutorial.latent_space import (encodings, knn_accuracy, knn_classify, nearest_neighbours, pca, scatter,
                                       shared_neighbours, tsne)
from vae_tutorial.vae import VAE

SHAPE = (1, 3, 4)
NAN = math.nan


def tiny(shape=SHAPE, latent_dim=2):
    torch.manual_seed(0)
    return VAE(shape, (5,), latent_dim)


def grey(n=4, shape=SHAPE, seed=0):
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def cloud(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image_data(n=12, labels=3, **changes):
    split = Split(grey(n), torch.arange(n) % labels)
    return replace(ImageData(split, split, split, "mnist", "sample", ("zero", "one", "two")), **changes)


def refused(error, message, call, *args):
    with pytest.raises(error, match=f"(?s)^{message}"):
        call(*args)
    assert not plt.get_fignums()


MODEL, IMAGES, LINE, DATA = tiny(), grey(), cloud(12, 2), image_data()
PAIR = {1: MODEL, 2: MODEL}


def test_nothing_in_gives_nothing_out():
    none = IMAGES[:0]
    assert posterior(MODEL, none)[0].shape == encodings(MODEL, none).shape == (0, 2)
    assert interpolate(MODEL, none, none, 3).shape == (0, 3, *SHAPE) and traverse(MODEL, IMAGES[0], []).shape == (0, 7, *SHAPE)
    for door in (evaluate, log_weights):                     # there is no mean of nothing
        refused(ValueError, "split holds no images, must hold at least one", door, MODEL, none)


# --- numbers -------------------------------------------------------------------------------------

# Each door with the name that it gives its number, and another number that it refuses. All take 2.
WHOLE = {
    "posterior": ("batch_size", 0, lambda v: posterior(MODEL, IMAGES, v)),
    "reconstruction_at_mean": ("batch_size", 0, lambda v: reconstruction_at_mean(MODEL, IMAGES, batch_size=v)),
    "encodings": ("batch_size", 0, lambda v: encodings(MODEL, IMAGES, v)),
    "decode_images": ("batch_size", 0, lambda v: decode_images(MODEL, torch.ones(3, 2), v)),
    "log_weights": ("n_samples", 0, lambda v: log_weights(MODEL, IMAGES, v)),
    "evaluate draws": ("n_samples", 0, lambda v: evaluate(MODEL, IMAGES, n_samples=v)),
    "evaluate at once": ("at_once", 0, lambda v: evaluate(MODEL, IMAGES, at_once=v)),
    "evaluate seed": ("seed", 2**32, lambda v: evaluate(MODEL, IMAGES, seed=v)),
    "importance_bound": ("k", 4, lambda v: importance_bound(cloud(4, 3), v)),
    "interpolate": ("steps", 1, lambda v: interpolate(MODEL, IMAGES, IMAGES.flip(0), v)),
    "traverse": ("dims", 3, lambda v: traverse(tiny(latent_dim=3), torch.ones(3), dims=[0, v])),
    "grid_points": ("n", 0, grid_points),
    "manifold_grid": ("n", 0, lambda v: manifold_grid(MODEL, v)),
    "pca": ("n", 3, lambda v: pca(LINE, v)),
    "tsne": ("seed", 2**32, lambda v: tsne(LINE, 3, v, init="random")),
    "nearest_neighbours": ("k", 12, lambda v: nearest_neighbours(LINE, k=v)),
    "knn_classify": ("k", 13, lambda v: knn_classify(LINE, [0, 1] * 6, LINE, v)),
    "knn_accuracy": ("k", 12, lambda v: knn_accuracy(LINE, [0, 1] * 6, k=v)),
    "shared_neighbours": ("k", 12, lambda v: shared_neighbours(LINE, cloud(12, 3), v)),
    "Autoencoder": ("latent_dim", 0, lambda v: Autoencoder(SHAPE, (4,), v).config),
    "ConvVAE": ("latent_dim", 0, lambda v: ConvVAE(SHAPE, latent_dim=v).config),
    "ConvVAE channels": ("channels", 0, lambda v: ConvVAE(SHAPE, channels=(v, 3)).config),
    "Autoencoder widths": ("hidden_dims", 0, lambda v: Autoencoder(SHAPE, (4, v)).config),
    "Autoencoder pixels": ("input_shape", 0, lambda v: Autoencoder((1, v)).config),
    "LatentExplorer": ("n", 0, lambda v: LatentExplorer(MODEL, DATA, v)),
    "EmbeddingExplorer": ("n", 1, lambda v: EmbeddingExplorer(MODEL, DATA, v)),
    "BetaExplorer": ("n", 0, lambda v: BetaExplorer(PAIR, DATA, v)),
    "BetaExplorer seed": ("seed", 2**32, lambda v: BetaExplorer(PAIR, DATA, seed=v))}

REAL = {"active_units": ("threshold", -1, lambda v: active_units(10 * LINE, v)),
        "perplexity": ("perplexity", 0.5, lambda v: tsne(LINE, v)), "every point": ("perplexity", 12, lambda v: tsne(LINE, v)),
        "scatter": ("size", -1, lambda v: drawn_size(scatter(LINE, [0] * 12, size=v))),
        "traverse": ("values", 1e39, lambda v: traverse(MODEL, torch.ones(2), values=[0.0, v])),
        "grid_points": ("range", NAN, lambda v: grid_points(3, (0, v)))}


def drawn_size(ax):
    plt.close("all")
    return ax.collections[0].get_sizes()


@doors(WHOLE)
def test_a_whole_number_may_come_from_anywhere_and_nothing_else_is_one(door):
    takes_whole_numbers(*door)
    assert not plt.get_fignums()


@doors(REAL)
def test_a_number_may_come_from_anywhere_and_nothing_else_is_one(door):
    name, beyond, call = door
    takes_numbers(name, (beyond,), call)
    assert not plt.get_fignums()


# --- names and models ----------------------------------------------------------------------------

@doors({"evaluate": lambda v: evaluate(MODEL, IMAGES, likelihood=v), "interpolate": lambda v: interpolate(MODEL, IMAGES, IMAGES, method=v),
        "log_weights": lambda v: log_weights(MODEL, IMAGES, likelihood=v), "tsne": lambda v: tsne(LINE, 3, init=v),
        "reconstruction_at_mean": lambda v: reconstruction_at_mean(MODEL, IMAGES, likelihood=v),
        "EmbeddingExplorer": lambda v: EmbeddingExplorer(MODEL, DATA, split=v)})
def test_a_name_that_is_unknown_gets_the_nearest(door):
    for wrong in ("", "bernouly", "slurp", "PCA", "Test", 3, ()):
        refused(ValueError, r"(likelihood|method|init|split) is .*, must be one of '.*'; the nearest is '.*'", door, wrong)


@doors({"posterior": lambda m: posterior(m, IMAGES), "reconstruction_at_mean": lambda m: reconstruction_at_mean(m, IMAGES),
        "log_weights": lambda m: log_weights(m, IMAGES), "evaluate": lambda m: evaluate(m, IMAGES),
        "decode_images": lambda m: decode_images(m, torch.ones(1, 2)), "interpolate": lambda m: interpolate(m, IMAGES, IMAGES),
        "traverse": lambda m: traverse(m, IMAGES[0]), "manifold_grid": manifold_grid, "encodings": lambda m: encodings(m, IMAGES),
        "LatentExplorer": LatentExplorer, "InterpolationExplorer": lambda m: InterpolationExplorer(m, IMAGES),
        "EmbeddingExplorer": lambda m: EmbeddingExplorer(m, DATA)})
def test_what_is_no_model_with_a_latent_space_is_refused(door):
    for wrong in (torch.nn.Linear(2, 12), None, "mnist-mlp-2d"):
        refused(TypeError, f"model is {type(wrong).__name__}, must be a (LatentModel|BaseVAE): ", door, wrong)


# --- images --------------------------------------------------------------------------------------

DOORS = {"posterior": ("images", lambda x: posterior(MODEL, x)), "encodings": ("images", lambda x: encodings(MODEL, x)),
         "reconstruction_at_mean": ("images", lambda x: reconstruction_at_mean(MODEL, x)),
         "log_weights": ("split", lambda x: log_weights(MODEL, x, 2)), "evaluate": ("split", lambda x: evaluate(MODEL, x, n_samples=2)),
         "interpolate from": ("a", lambda x: interpolate(MODEL, x, IMAGES)), "interpolate to": ("b", lambda x: interpolate(MODEL, IMAGES, x)),
         "traverse": ("start", lambda x: traverse(MODEL, x[0] if getattr(x, "ndim", 0) == 4 else x)),
         "reconstruct": ("x", MODEL.reconstruct), "InterpolationExplorer": ("images", lambda x: InterpolationExplorer(MODEL, x))}


def with_pixel(value, dtype=torch.float32):
    images = IMAGES.to(dtype) / 255
    images[:, 0, 1, 2] = value
    return images


@doors(DOORS)
def test_images_that_are_none_are_refused_at_every_door(door):
    name, call = door
    for pixel in (NAN, math.inf, -math.inf):
        refused(ValueError, rf"{name} holds \d values that are NaN or infinite, must be intensities in \[0, 1\] or uint8", call, with_pixel(pixel))
    for pixel in (-1.0, -1e-3, 1.001, 255.0):
        refused(ValueError, rf"{name} holds values from .* to .*, must be .*: divide grey values by 255", call, with_pixel(pixel, torch.float64))
    for kind in (torch.Tensor.long, torch.Tensor.bool, lambda x: x.to(torch.complex64)):
        refused(TypeError, rf"{name} is {kind(IMAGES).dtype}, must be intensities in \[0, 1\] or uint8 grey values", call, kind(IMAGES))
    for shape in [(), (4,), (12,), (3, 4), (4, 12), (4, 1, 4, 3), (4, 3, 3, 4), (1, 4, 1, 3, 4)]:
        refused(ValueError, rf"{name} has shape \(.*\), must be .*1, 3, 4\)", call, torch.zeros(shape))
    for wrong in (None, "mnist", 3, IMAGES.numpy(), DATA):
        refused(TypeError, f"{name} is {type(wrong).__name__}, must be a Tensor: ", call, wrong)


@doors({name: DOORS[name] for name in ("posterior", "encodings", "reconstruction_at_mean", "log_weights", "evaluate")})
def test_a_split_is_looked_at_like_its_images(door):
    name, call = door
    assert str(call(Split(IMAGES, None))) == str(call(IMAGES))
    refused(ValueError, rf"{name} holds values from -1\.\d+ to -1\.\d+, must be", call, Split(IMAGES / 255 - 2, None))
    refused(TypeError, f"{name} is list, must be a Tensor: a Split such as data.test", call, Split([1, 2], None))


# --- codes, ends and places ----------------------------------------------------------------------

@doors({"decode_images": ("z", lambda x: decode_images(MODEL, x)), "active_units": ("mu", active_units),
        "importance_bound": ("log_w", lambda x: importance_bound(x, 1)), "traverse": ("start", lambda x: traverse(MODEL, x.flatten()[:2])),
        "lerp from": ("a", lambda x: lerp(x, torch.ones(3, 2), 0.5)), "slerp to": ("b", lambda x: slerp(torch.ones(3, 2), x, 0.5)),
        "lerp at": ("t", lambda x: lerp(torch.ones(2), torch.ones(2), x))})
def test_numbers_that_are_not_finite_are_counted_at_every_door(door):
    name, call = door
    for value in (NAN, math.inf, -math.inf):
        wrong = torch.zeros(3, 2)
        wrong[0, 1] = value
        refused(ValueError, f"{name} holds 1 values that are NaN or infinite, must be finite", call, wrong)
    if name != "t":
        refused(TypeError, f"{name} is torch.int64, must be floating-point", call, torch.ones(3, 2, dtype=torch.int64))


@settings(max_examples=40)
@given(*[st.lists(st.integers(1, 3), max_size=3).map(tuple)] * 3)
def test_ends_and_places_fit_or_are_refused(first, second, places):
    a, b, t = torch.ones(first), torch.ones(second), torch.zeros(places)
    for way in (lerp, slerp):
        if not first or first[-1:] != second[-1:]:
            refused(ValueError, "a and b have shapes .*, must be .*latent_dim", way, a, b, t)
            continue
        try:
            wanted = a.expand(*torch.broadcast_shapes(first[:-1], second[:-1], places), first[-1])
        except RuntimeError:
            refused(RuntimeError, "", way, a, b, t)
        else:
            torch.testing.assert_close(way(a, b, t), wanted)


# --- points and labels ---------------------------------------------------------------------------

@doors({"pca": ("codes", pca), "Pca.transform": ("codes", pca(LINE).transform), "tsne": ("codes", lambda p: tsne(p, 3)),
        "nearest_neighbours": ("codes", lambda p: nearest_neighbours(p, k=2)), "queries": ("queries", lambda p: nearest_neighbours(LINE, p, 2)),
        "knn_classify": ("codes", lambda p: knn_classify(p, [0] * 12, k=2)), "test_codes": ("test_codes", lambda p: knn_classify(LINE, [0] * 12, p, 2)),
        "knn_accuracy": ("test_codes", lambda p: knn_accuracy(LINE, [0] * 12, p, [0] * 12, 2)),
        "shared": ("points", lambda p: shared_neighbours(p, LINE, 2)), "others": ("others", lambda p: shared_neighbours(LINE, p, 2)),
        "scatter": ("points", lambda p: scatter(p, [0] * 12))})
def test_points_that_are_none_are_refused_at_every_door(door):
    name, call = door
    for points, error, message in [
            (LINE.where(LINE != LINE[3, 1], NAN), ValueError, "holds 1 values that are not finite, the first nan: must be from"),
            (LINE.where(LINE > 0, math.inf).numpy(), ValueError, r"holds \d+ values that are not finite, the first inf"),
            (LINE.where(LINE > 0, -1e200), ValueError, r"holds \d+ values that .*the first -1e\+200: must be from -1e100 to 1e100"),
            (LINE[:, 0], ValueError, r"has shape \(12,\), must be \(N, D\)"), (LINE[:, :0], ValueError, r"has shape \(12, 0\), must be \(N, D\)"),
            ([[0.0, 1.0], [2.0]], ValueError, "is .*, must be an array: its rows are of different lengths"),
            ([["0", "1"]] * 12, TypeError, "holds <U1, must hold real numbers"), (LINE.numpy() + 1j, TypeError, "holds complex128, must hold real"),
            ([[None, 1.0]] * 12, TypeError, "holds object, must hold real numbers")]:
        refused(error, f"{name} {message}", call, points)


# --- one wrong argument of one door --------------------------------------------------------------

OTHER = [
    (lambda: active_units(torch.ones(3)), ValueError, r"mu has shape \(3,\), must be \(N, latent_dim\)"),
    (lambda: active_units(torch.ones(0, 3)), ValueError, r"mu has shape \(0, 3\)"),
    (lambda: importance_bound(torch.ones(3), 1), ValueError, r"log_w has shape \(3,\), must be \(N, n_samples\)"),
    (lambda: evaluate(MODEL, IMAGES, likelihood=lambda logits, x: 0.0), TypeError, r"likelihood\(logits, x\) is float, must be a Tensor"),
    (lambda: evaluate(MODEL, IMAGES, likelihood=lambda logits, x: torch.zeros(3)), ValueError,
     r"likelihood\(logits, x\) has shape \(3,\), must have that of logits, \(4, 64, 1, 3, 4\)"),
    (lambda: evaluate(Autoencoder(SHAPE), IMAGES), TypeError, "model is Autoencoder, must be a BaseVAE: .*reconstruction_at_mean"),
    (lambda: decode_images(MODEL, torch.ones(4, 3)), ValueError, r"z has shape \(4, 3\), must be \(\.\.\., 2\)"),
    (lambda: decode_images(MODEL, torch.tensor(1.0)), ValueError, r"z has shape \(\), must be \(\.\.\., 2\)"),
    (lambda: lerp(torch.ones(2), torch.ones(2), "half"), TypeError, ".*str"),
    (lambda: interpolate(MODEL, IMAGES, IMAGES[:2]), ValueError, r"b has shape \(2, 1, 3, 4\), must have that of a"),
    (lambda: traverse(MODEL, torch.ones(3)), ValueError, r"start has shape \(3,\), must be a code, \(2,\), or an image, \(1, 3, 4\)"),
    (lambda: traverse(MODEL, torch.ones(2), dims="01"), ValueError, "dims is '0', must be a whole number of at least 0 and at most 1"),
    (lambda: traverse(MODEL, torch.ones(2), dims=1), TypeError, "dims is 1, must be a list such as"),
    (lambda: traverse(MODEL, torch.ones(2), values=torch.ones(2, 2)), TypeError, "values is tensor.*, must be a list such as"),
    (lambda: traverse(MODEL, torch.ones(2), values=2.0), TypeError, "values is 2.0, must be a list such as"),
    (lambda: grid_points(3, "12"), ValueError, "range is '12', must be two numbers"),
    (lambda: grid_points(3, (1, 2, 3)), ValueError, r"range is \(1, 2, 3\), must be two numbers"),
    (lambda: grid_points(3, 3), ValueError, "range is 3, must be two numbers"),
    (lambda: grid_points(3, (2, -2)), ValueError, r"range is \(2, -2\), must be .* low < high"),
    (lambda: manifold_grid(tiny(latent_dim=3)), ValueError, "model has latent_dim 3, must have 2"),
    (lambda: tsne(LINE[:, :1], 3), ValueError, r"codes has shape \(12, 1\), must be \(N, D\) with D of at least 2"),
    (lambda: pca(np.full((50, 3), 1 / 3)), ValueError, r"codes are all the same point, array\(.*, must differ"),
    (lambda: tsne(np.full((50, 3), 1 / 3), 3), ValueError, "codes are 0 wide, must be between 1e-15 and 1e15"),
    (lambda: tsne(np.full((50, 3), 0.1), 3, init="random"), ValueError, "codes are 0 wide"),
    (lambda: tsne(1e-30 * LINE, 3), ValueError, "codes are .* wide, must be between"),
    (lambda: tsne(1e30 * LINE, 3), ValueError, "codes are .* wide, must be between"),
    (lambda: pca(LINE).transform(LINE[:, :1]), ValueError, r"codes has shape \(12, 1\), must be \(N, 2\)"),
    (lambda: nearest_neighbours(LINE, cloud(3, 1)), ValueError, r"queries has shape \(3, 1\), must be \(N, 2\)"),
    (lambda: knn_classify(LINE, [0] * 12, cloud(3, 3)), ValueError, r"test_codes has shape \(3, 3\), must be \(N, 2\)"),
    (lambda: knn_classify(LINE, [0] * 11), ValueError, r"labels has shape \(11,\), must be \(12,\)"),
    (lambda: knn_classify(LINE, [[0]] * 12), ValueError, r"labels has shape \(12, 1\)"),
    (lambda: knn_classify(LINE, [0, [1]]), ValueError, "labels is .*, must be an array"),
    (lambda: knn_classify(LINE, [NAN] + [0.0] * 11), ValueError, "labels holds 1 values that are NaN, must hold classes"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE), ValueError, "test_codes and test_labels must be given together"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE[:0], []), ValueError, "test_codes has no points, must have at least one"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE, [0] * 3), ValueError, r"test_labels has shape \(3,\), must be \(12,\)"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE, ["0"] * 12), ValueError, "test_labels are <U1, must be classes such as labels has, int64"),
    (lambda: shared_neighbours(LINE, LINE[1:]), ValueError, "others holds 11 points, must hold 12, as points does"),
    (lambda: scatter(cloud(12, 3), [0] * 12), ValueError, r"points has shape \(12, 3\), must be \(N, 2\)"),
    (lambda: scatter(LINE, [0.5] * 12), ValueError, "labels are float64 from 0.5, must be whole numbers from 0"),
    (lambda: scatter(LINE, [True] * 12), ValueError, "labels are bool from True, must be whole"),
    (lambda: scatter(LINE, [-1] * 12), ValueError, "labels are int64 from -1, must be whole"),
    (lambda: scatter(LINE, [2] * 12, ["a"]), ValueError, "class_names has 1 entries, but labels go up to 2"),
    (lambda: scatter(LINE, [0] * 12, ax=[1, 2]), TypeError, "ax is list, must be an Axes"),
    (lambda: scatter(LINE[:0], []), ValueError, r"points has shape \(0, 2\), must be \(N, D\) with N of at least 1"),
    (lambda: ConvVAE(2), ValueError, r"input_shape is 2, must be \(channels, height, width\); or name it: latent_dim=2"),
    (lambda: ConvVAE(channels=()), ValueError, r"channels is \(\), must be a tuple of positive whole numbers, at least one")]


@pytest.mark.parametrize("call, error, message", OTHER, ids=[message[:20] for *_, message in OTHER])
def test_other_wrong_arguments(call, error, message):
    refused(error, message, call)


# --- explorers -----------------------------------------------------------------------------------

@doors({"latent": lambda data, model=MODEL: LatentExplorer(model, data), "embedding": lambda data, model=MODEL: EmbeddingExplorer(model, data),
        "beta": lambda data, model=MODEL: BetaExplorer({1: model, 2: MODEL}, data)})
def test_explorers_name_the_split_that_is_wrong(door):
    for split, error, message in [
            (Split(IMAGES[:0], torch.zeros(0, dtype=torch.int64)), ValueError, r"data.test has 0 images and labels of shape \(0,\), must"),
            (Split(IMAGES, torch.zeros(3, dtype=torch.int64)), ValueError, r"data.test has 4 images and labels of shape \(3,\), must have a label for each"),
            (Split(IMAGES / 255, torch.zeros(4, dtype=torch.int64)), TypeError, "data.test has images of torch.float32, must be torch.uint8"),
            (Split(IMAGES, torch.full((4,), 3)), ValueError, "data has labels from 3 to 3, must be from 0 to 2")]:
        refused(error, message, door, image_data(test=split))


def test_explorers_refuse_a_model_whose_codes_are_not_finite():
    model = tiny()
    with torch.no_grad():
        model.encoder[-1].bias[0] = NAN
    for explore in (lambda: LatentExplorer(model, DATA), lambda: EmbeddingExplorer(model, DATA), lambda: InterpolationExplorer(model, IMAGES)):
        refused(ValueError, r"model gives \d+ values of codes that are not finite for (data|images).*: was it trained?", explore)
    refused(ValueError, r"model.code\(a\) holds 4 values that are NaN or infinite", interpolate, model, IMAGES, IMAGES)


def test_more_than_256_classes_are_refused_and_one_image_makes_no_map():
    many = image_data(test=Split(IMAGES, torch.full((4,), 299)), class_names=tuple(map(str, range(300))))
    refused(ValueError, "data has labels from 299 to 299, must be from 0 to 255", LatentExplorer, MODEL, many)
    one = image_data(1)
    refused(ValueError, "data has 1 image to show, must have at least 2", EmbeddingExplorer, MODEL, one)
    assert len(LatentExplorer(MODEL, one).point_labels) == 1 and len(BetaExplorer(PAIR, one).names) == 1
