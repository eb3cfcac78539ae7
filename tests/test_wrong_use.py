"""Wrong use, door by door: an error that names the argument, the value and the way out, before anything has changed; and numbers of any kind."""
import gc
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from factories import cloud, double_cloud, generator, rows
from factories import grey as grey_values
from factories import tiny as tiny_model
from matplotlib.figure import Figure
from torch import nn
from torch.optim import LBFGS
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau, StepLR

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conditional import ConditionalVAE
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split, binarize, entropy_floor, intensities, load_data, show_images
from vae_tutorial.evaluation import active_units, evaluate, importance_bound, log_weights, posterior, reconstruction_at_mean
from vae_tutorial.explorers import BetaExplorer, ConditionalExplorer, EmbeddingExplorer, InterpolationExplorer, LatentExplorer
from vae_tutorial.generation import Judge, decode_images, frechet_distance, grid_points, interpolate, lerp, manifold_grid, slerp, train_judge, traverse
from vae_tutorial.latent_space import encodings, knn_accuracy, knn_classify, nearest_neighbours, pca, scatter, shared_neighbours, tsne
from vae_tutorial.saving import about_pretrained, load_model, load_pretrained, save_model
from vae_tutorial.sources import read_official
from vae_tutorial.sweeps import (dci, kl_parts, mig, mutual_information, plot_rate_distortion, plot_tradeoff, shapes, summarize,
                                 tc_elbo)
from vae_tutorial.training import ConstantBeta, CosineBeta, CyclicalBeta, LinearBeta, SigmoidBeta, fit, validate
from vae_tutorial.vae import VAE, BaseVAE, LatentModel, elbo, evaluating

SHAPE = (1, 3, 4)
NAN, INF = math.nan, math.inf

tiny, grey = partial(tiny_model, input_shape=SHAPE), partial(grey_values, shape=SHAPE)
MODEL, IMAGES, LINE = tiny(), grey(4), double_cloud(12, 2)
LABELLED = Split(grey(12), torch.arange(12) % 3)
DATA = ImageData(LABELLED, Split(grey(4, seed=1), None), LABELLED, "mnist", "sample", ("zero", "one", "two"))
PAIR = {1: MODEL, 2: MODEL}
TOLD = tiny(ConditionalVAE, n_classes=3)
TABLE = pd.DataFrame({"beta": [1.0], "loss": [1.0]})
FOUR = np.arange(4)[:, None]
RAMP = torch.linspace(0, 1, 9 * 12).reshape(9, *SHAPE)


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    assert not plt.get_fignums()


def doors(table):
    return pytest.mark.parametrize("door", table.values(), ids=table)


def refused(error, message, call, *args, **named):
    with pytest.raises(error, match=f"(?s)^{message}"):
        call(*args, **named)


def trained(epochs=2, model=None, data=DATA, **given):
    """Settings, figures and weights of a short run, as text."""
    model = tiny() if model is None else model
    history = fit(model, data, epochs, **dict(batch_size=5, precision="fp32", device="cpu", progress=False) | given)
    return history.settings, rows(history), model.state_dict()


def drawn(ax):
    """What a picture shows, and the size of its figure."""
    plt.close("all")
    return [image.get_array() for image in ax.images], [points.get_sizes() for points in ax.collections], ax.figure.get_size_inches()


# --- numbers -------------------------------------------------------------------------------------

# Each door with the name that it gives its number, other numbers that it refuses, and a call; all take 2.
WHOLE = {
    "VAE": ("latent_dim", [0], lambda v: VAE(SHAPE, (3,), v).config), "VAE widths": ("hidden_dims", [0], lambda v: VAE(SHAPE, (3, v)).config),
    "VAE pixels": ("input_shape", [0], lambda v: VAE((1, v)).config), "ConvVAE": ("latent_dim", [0], lambda v: ConvVAE(SHAPE, latent_dim=v).config),
    "ConvVAE channels": ("channels", [0], lambda v: ConvVAE(SHAPE, channels=(v, 3)).config),
    "Autoencoder": ("latent_dim", [0], lambda v: Autoencoder(SHAPE, (4,), v).config), "sample": ("n", [], lambda v: MODEL.sample(v, generator())),
    "fit epochs": ("epochs", [0], trained), "fit batch": ("batch_size", [0], lambda v: trained(batch_size=v)),
    "fit patience": ("patience", [0], lambda v: trained(4, lr=0.0, patience=v)), "fit seed": ("seed", [2**32], lambda v: trained(seed=v)),
    "CyclicalBeta": ("cycles", [0], lambda v: CyclicalBeta(cycles=v)), "validate batch": ("batch_size", [0], lambda v: validate(MODEL, IMAGES, batch_size=v)),
    "validate seed": ("seed", [2**32], lambda v: validate(MODEL, IMAGES, seed=v)),
    "load_data": ("seed", [2**32], lambda v: load_data(source="sample", seed=v).val.labels), "shapes": ("n_train", [0], lambda v: shapes(v, 1, 1)[1]),
    "mutual_information": ("bins", [1], lambda v: mutual_information(LINE[:4], FOUR, bins=v)),
    "show_images columns": ("columns", [0], lambda v: drawn(show_images(IMAGES, columns=v))),
    "show_images gap": ("gap", [101], lambda v: drawn(show_images(IMAGES, gap=v))),
    "posterior": ("batch_size", [0], lambda v: posterior(MODEL, IMAGES, v)), "encodings": ("batch_size", [0], lambda v: encodings(MODEL, IMAGES, v)),
    "reconstruction_at_mean": ("batch_size", [0], lambda v: reconstruction_at_mean(MODEL, IMAGES, batch_size=v)),
    "decode_images": ("batch_size", [0], lambda v: decode_images(MODEL, torch.ones(3, 2), v)),
    "log_weights": ("n_samples", [0], lambda v: log_weights(MODEL, IMAGES, v)),
    "evaluate draws": ("n_samples", [0], lambda v: evaluate(MODEL, IMAGES, n_samples=v)),
    "evaluate at once": ("at_once", [0], lambda v: evaluate(MODEL, IMAGES, at_once=v)),
    "evaluate seed": ("seed", [2**32], lambda v: evaluate(MODEL, IMAGES, seed=v)),
    "importance_bound": ("k", [0, 4], lambda v: importance_bound(cloud(4, 3), v)),
    "interpolate": ("steps", [1], lambda v: interpolate(MODEL, IMAGES, IMAGES.flip(0), v)),
    "traverse": ("dims", [3], lambda v: traverse(tiny(latent_dim=3), torch.ones(3), dims=[0, v])), "grid_points": ("n", [0], grid_points),
    "manifold_grid": ("n", [0], lambda v: manifold_grid(MODEL, v)), "pca": ("n", [0, 3], lambda v: pca(LINE, v)),
    "tsne": ("seed", [2**32], lambda v: tsne(LINE, 3, v, init="random")), "nearest_neighbours": ("k", [0, 12], lambda v: nearest_neighbours(LINE, k=v)),
    "knn_classify": ("k", [0, 13], lambda v: knn_classify(LINE, [0, 1] * 6, LINE, v)),
    "knn_accuracy": ("k", [0, 12], lambda v: knn_accuracy(LINE, [0, 1] * 6, k=v)),
    "shared_neighbours": ("k", [0, 12], lambda v: shared_neighbours(LINE, double_cloud(12, 3), v)),
    "LatentExplorer": ("n", [0], lambda v: LatentExplorer(MODEL, DATA, v)), "EmbeddingExplorer": ("n", [1], lambda v: EmbeddingExplorer(MODEL, DATA, v)),
    "ConditionalExplorer": ("n", [0], lambda v: ConditionalExplorer(TOLD, DATA, v)), "BetaExplorer": ("n", [0], lambda v: BetaExplorer(PAIR, DATA, v)),
    "BetaExplorer seed": ("seed", [2**32], lambda v: BetaExplorer(PAIR, DATA, seed=v))}
# where a beta is made into a schedule, its text is the schedule's
REAL = {
    "fit lr": ("lr", [-1, -1e-9], lambda v: trained(lr=v, objective=partial(elbo, likelihood="gaussian"))),
    "fit beta": ("beta", [-1, -1e-9], lambda v: trained(beta=v)),
    "fit beta in time": ("beta", [-1], lambda v: [row.beta for row in trained(beta=lambda time: v)[1]]), "ConstantBeta": ("beta", [-1], ConstantBeta),
    "LinearBeta": ("epochs", [-2], LinearBeta), "by epoch": ("epochs", [1], lambda v: LinearBeta(v, every="epoch")),
    "CosineBeta": ("start", [-1], lambda v: CosineBeta(start=v)), "SigmoidBeta": ("end", [-1], lambda v: SigmoidBeta(end=v)),
    "CyclicalBeta": ("period", [0.5], lambda v: CyclicalBeta(period=v)), "show_images": ("size", [0, 21], lambda v: drawn(show_images(IMAGES, size=v))),
    "active_units": ("threshold", [-1], lambda v: active_units(10 * LINE, v)), "perplexity": ("perplexity", [0.5], lambda v: tsne(LINE, v)),
    "scatter": ("size", [-1], lambda v: drawn(scatter(LINE, [0] * 12, size=v))),
    "traverse": ("values", [1e39], lambda v: traverse(MODEL, torch.ones(2), values=[0.0, v])), "grid_points": ("range", [-1], lambda v: grid_points(3, (0, v)))}


@doors(WHOLE)
def test_a_whole_number_may_come_from_anywhere_and_nothing_else_is_one(door):
    name, beyond, call = door
    for same in (np.int64(2), np.array(2), np.uint8(2), torch.tensor(2), torch.tensor(2, dtype=torch.int32)):
        assert str(call(same)) == str(call(2))
    for wrong in (True, np.True_, "2", 2.0, np.float32(2.0), NAN, torch.tensor(2.5), -1, [2], 1j, *beyond):
        refused(ValueError, f"{name} is .*{re.escape(repr(wrong))}.*, must be ", call, wrong)


@doors(REAL)
def test_a_number_may_come_from_anywhere_and_nothing_else_is_one(door):
    name, beyond, call = door
    for same in (2, np.float32(2), np.float64(2), np.int64(2), np.array(2.0), torch.tensor(2), torch.tensor(2.0).half()):
        assert str(call(same)) == str(call(2.0))
    for wrong in (True, np.True_, "3", NAN, INF, np.float32("nan"), torch.tensor(torch.inf), [3.0], 1j, *beyond):
        value = rf"(\(0, )?{re.escape(repr(wrong))}\)?"       # alone, or the end of a range
        refused(ValueError, f"{name} is {value}( at time 1)?, must be ", call, wrong)


def test_sizes_are_tuples_or_what_can_be_one():
    for right in ([3, 4], np.array([3, 4]), torch.tensor([3, 4]), range(3, 5)):
        assert VAE(SHAPE, right).config["hidden_dims"] == ConvVAE(SHAPE, channels=right).config["channels"] == (3, 4)
    for wrong in (400, "12", b"12", None, (3, (4,))):
        for kind, name in ((VAE, "input_shape"), (VAE, "hidden_dims"), (ConvVAE, "channels")):
            refused(ValueError, f"{name} is {re.escape(repr(wrong))}, must be a tuple of positive whole numbers", kind, **{name: wrong})
    refused(ValueError, r"input_shape is \(\), must be a tuple of positive whole numbers, at least one", VAE, ())
    refused(ValueError, r"channels is \(\), must be a tuple of positive whole numbers, at least one", ConvVAE, channels=())
    # version 0.2 had the number of latent dimensions first
    for wrong in (2, np.int64(2), (28, 28), (1, 28, 28, 1), None):
        refused(ValueError, rf"input_shape is {re.escape(repr(wrong))}, must be \(channels, height, width\)(; or name it: latent_dim=2)?$", ConvVAE, wrong)


# --- names, models, paths ------------------------------------------------------------------------

# the name of the argument, something that is nearly allowed, and what is nearest to it
CHOICES = {
    "load_data": ("name", "FashionMNIST", "fashion", lambda v: load_data(v, source="sample")),
    "source": ("source", "samples", "sample", lambda v: load_data(source=v)),
    "split": ("split", "pool", "pooled", lambda v: load_data(source="sample", split=v)),
    "every": ("every", "steps", "step", lambda v: LinearBeta(every=v)), "precision": ("precision", "bfloat16", "bf16", lambda v: trained(precision=v)),
    "lr_schedule": ("lr_schedule", "one_cycle", "one-cycle", lambda v: trained(lr_schedule=v, lr=0.1)),
    "elbo": ("likelihood", "bernouli", "bernoulli", lambda v: elbo(MODEL, IMAGES / 255, likelihood=v)),
    "evaluate": ("likelihood", "Gauss", "gaussian", lambda v: evaluate(MODEL, IMAGES, likelihood=v)),
    "log_weights": ("likelihood", "continuous", "continuous-bernoulli", lambda v: log_weights(MODEL, IMAGES, likelihood=v)),
    "reconstruction_at_mean": ("likelihood", "bernoully", "bernoulli", lambda v: reconstruction_at_mean(MODEL, IMAGES, likelihood=v)),
    "interpolate": ("method", "slurp", "slerp", lambda v: interpolate(MODEL, IMAGES, IMAGES, method=v)),
    "tsne": ("init", "PCA", "pca", lambda v: tsne(LINE, 3, init=v)), "explorer": ("split", "Test", "test", lambda v: EmbeddingExplorer(MODEL, DATA, split=v)),
    "summarize": ("columns", "loos", "loss", lambda v: summarize(TABLE, "beta", [v])),
    # where none is drawn, no empty figure is left
    "plot_tradeoff": ("columns", "betta", "beta", lambda v: plot_tradeoff(TABLE, "beta", [v])),
    "its setting": ("setting", "betta", "beta", lambda v: plot_tradeoff(TABLE, v, ["loss"])),
    "plot_rate_distortion": ("columns", "los", "loss", lambda v: plot_rate_distortion(TABLE, rate=v)),
    "load_pretrained": ("name", "mnist-mlp-3d", "mnist-mlp-2d", load_pretrained),
    "about_pretrained": ("name", "MNIST-MLP-2D", "mnist-mlp-2d", about_pretrained)}


@doors(CHOICES)
def test_a_name_that_is_unknown_gets_the_nearest(door):
    name, nearly, nearest, call = door
    refused(ValueError, f"{name} is {nearly!r}, must be one of '.*'; the nearest is '{nearest}'", call, nearly)
    for wrong in ("", 3, (), ["mnist"]):
        refused(ValueError, rf"{name} is {re.escape(repr(wrong))}, must be one of '.*'; the nearest is '.*'", call, wrong)


@doors({"posterior": lambda m: posterior(m, IMAGES), "reconstruction_at_mean": lambda m: reconstruction_at_mean(m, IMAGES),
        "log_weights": lambda m: log_weights(m, IMAGES), "evaluate": lambda m: evaluate(m, IMAGES),
        "decode_images": lambda m: decode_images(m, torch.ones(1, 2)), "interpolate": lambda m: interpolate(m, IMAGES, IMAGES),
        "traverse": lambda m: traverse(m, IMAGES[0]), "manifold_grid": manifold_grid, "encodings": lambda m: encodings(m, IMAGES),
        "LatentExplorer": LatentExplorer, "InterpolationExplorer": lambda m: InterpolationExplorer(m, IMAGES),
        "EmbeddingExplorer": lambda m: EmbeddingExplorer(m, DATA), "fit": lambda m: fit(m, DATA, 1), "save_model": lambda m: save_model(m, "never")})
def test_what_is_no_model_with_a_latent_space_is_refused(door):
    for wrong in (torch.nn.Linear(2, 12), None, "mnist-mlp-2d", VAE):
        refused(TypeError, f"model is {type(wrong).__name__}, must be a (LatentModel|BaseVAE): ", door, wrong)


@doors({"load_data": ("root", lambda v: load_data(source="full", root=v)), "read_official": ("root", lambda v: read_official(source="full", root=v)),
        "fit": ("checkpoint", lambda v: trained(checkpoint=v)), "save_model": ("path", lambda v: save_model(MODEL, v)), "load_model": ("path", load_model)})
def test_what_is_no_path_is_refused(door):
    name, call = door
    for wrong in (0, False, b"/tmp", [], "", "a\0b", object()):
        refused(ValueError, f"{name} is {re.escape(repr(wrong))}, must be the path of a ", call, wrong)


def test_a_file_where_a_folder_should_be(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("here")
    wrong = re.escape(f"is {str(path)!r}, must be the path of a folder: that is a file") + "$"
    for kind in (str, Path):
        refused(ValueError, f"root {wrong}", load_data, source="full", root=kind(path))
    monkeypatch.setenv("VAE_TUTORIAL_DATA", str(path))
    refused(ValueError, f"VAE_TUTORIAL_DATA {wrong}", load_data, source="full")
    refused(NotADirectoryError, f"checkpoint is {path}, must be a folder: that is a file", trained, checkpoint=path)
    assert path.read_text() == "here"


# --- images --------------------------------------------------------------------------------------

OF_IMAGES = {
    "posterior": ("images", lambda x: posterior(MODEL, x)), "encodings": ("images", lambda x: encodings(MODEL, x)),
    "reconstruction_at_mean": ("images", lambda x: reconstruction_at_mean(MODEL, x)),
    "log_weights": ("split", lambda x: log_weights(MODEL, x, 2)), "evaluate": ("split", lambda x: evaluate(MODEL, x, n_samples=2)),
    "interpolate from": ("a", lambda x: interpolate(MODEL, x, IMAGES)), "interpolate to": ("b", lambda x: interpolate(MODEL, IMAGES, x)),
    "traverse": ("start", lambda x: traverse(MODEL, x[0] if getattr(x, "ndim", 0) == 4 else x)),
    "reconstruct": ("x", MODEL.reconstruct), "InterpolationExplorer": ("images", lambda x: InterpolationExplorer(MODEL, x))}


def with_pixel(value, dtype=torch.float32):
    images = IMAGES.to(dtype) / 255
    images[:, 0, 1, 2] = value
    return images


@doors(OF_IMAGES)
def test_images_that_are_none_are_refused_at_every_door(door):
    name, call = door
    for pixel in (NAN, INF, -INF):
        refused(ValueError, rf"{name} holds \d values that are NaN or infinite, must be intensities in \[0, 1\] or uint8", call, with_pixel(pixel))
    for pixel in (-1.0, -1e-3, 1.001, 255.0):
        refused(ValueError, rf"{name} holds values from .* to .*, must be .*: divide grey values by 255", call, with_pixel(pixel, torch.float64))
    for kind in (torch.Tensor.long, torch.Tensor.bool, lambda x: x.to(torch.complex64)):
        refused(TypeError, rf"{name} is {kind(IMAGES).dtype}, must be intensities in \[0, 1\] or uint8 grey values", call, kind(IMAGES))
    for shape in [(), (4,), (12,), (3, 4), (4, 12), (4, 1, 4, 3), (4, 3, 3, 4), (1, 4, 1, 3, 4)]:
        refused(ValueError, rf"{name} has shape \(.*\), must be .*1, 3, 4\)", call, torch.zeros(shape))
    for wrong in (None, 3, DATA):
        refused(TypeError, f"{name} is {type(wrong).__name__}, must be a Tensor: ", call, wrong)


OF_MANY = "posterior", "encodings", "reconstruction_at_mean", "log_weights", "evaluate"


@doors({name: door for name, door in OF_IMAGES.items() if name not in OF_MANY})
def test_one_image_or_a_pair_of_batches_is_a_tensor(door):
    name, call = door
    for wrong in ("mnist", IMAGES.numpy()):
        refused(TypeError, f"{name} is {type(wrong).__name__}, must be a Tensor: ", call, wrong)


@doors({name: OF_IMAGES[name] for name in OF_MANY})
def test_a_split_is_looked_at_like_its_images(door):
    name, call = door
    assert str(call(Split(IMAGES, None))) == str(call(IMAGES))
    refused(FileNotFoundError, f"{name} is 'mnist', must be a folder", call, "mnist")
    refused(ValueError, rf"{name} holds values from -1\.\d+ to -1\.\d+, must be", call, Split(IMAGES / 255 - 2, None))
    refused(TypeError, f"{name} is list, must be a Tensor: a Split such as data.test", call, Split([1, 2], None))


def test_nothing_in_gives_nothing_out():
    none = IMAGES[:0]
    assert posterior(MODEL, none)[0].shape == encodings(MODEL, none).shape == (0, 2)
    assert interpolate(MODEL, none, none, 3).shape == (0, 3, *SHAPE) and traverse(MODEL, IMAGES[0], []).shape == (0, 7, *SHAPE)
    for door in (evaluate, log_weights):                     # there is no mean of nothing
        refused(ValueError, r"len\(split\) is 0, must be a whole number of at least 1", door, MODEL, none)
    refused(ValueError, r"len\(images\) is 0, must be a whole number of at least 1", validate, MODEL, none)


@doors({"intensities": intensities, "binarize": binarize, "entropy_floor": entropy_floor})
def test_pixels_are_bytes(door):
    for dtype in (torch.bool, torch.int8, torch.int64, torch.bfloat16, torch.float32):
        refused(TypeError, rf"images is {dtype}, must be grey values, torch.uint8: \(x \* 255\).round\(\).byte\(\)$", door, torch.ones(2, 1, 3, 3, dtype=dtype))
    for images in (np.zeros((1, 28, 28), np.uint8), [[0, 255]], None):
        refused(TypeError, f"images is {type(images).__name__}, must be a Tensor: torch.as_tensor makes one$", door, images)


@doors({"sample": lambda v: MODEL.sample(2, v), "binarize": lambda v: binarize(IMAGES, v)})
def test_what_is_no_generator_of_the_device_is_named(door):
    for wrong in (0, "cpu", np.random.default_rng(0)):
        refused(TypeError, rf"generator is {type(wrong).__name__}, must be a Generator: such as torch.Generator\(\).manual_seed\(0\)$", door, wrong)
    refused(ValueError, "generator is on cpu, must be on meta", binarize, IMAGES.to("meta"), generator())


# --- pictures ------------------------------------------------------------------------------------

@pytest.mark.parametrize("images, error, message", [
    *[(torch.zeros(shape), ValueError, f"images has shape {shape}, must be (N, H, W) or (N, C, H, W), N > 0, with C of 1 (grey), 3 (RGB) or 4 (RGBA)")
      for shape in ((28, 28), (2, 2, 28, 28), (2, 28, 28, 3), (0, 1, 28, 28), (784,), ())],
    *[(images, TypeError, f"images is {type(images).__name__}, must be a Tensor or an array of numbers")
      for images in (None, "digits", [[1, 2], [3]], {"images": 1}, np.array([object()]))],
    (torch.ones(1, 2, 2, dtype=torch.complex64), TypeError, "images is torch.complex64, must hold real numbers"),
    *[(torch.full((2, 28, 28), value), ValueError, f"images has values from {value} to {value}, must be intensities from 0 to 1, or uint8")
      for value in (200, -0.01, 1.01, NAN, INF)]])
def test_what_cannot_be_drawn(images, error, message):
    refused(error, re.escape(message), show_images, images)


# --- codes, ends and places ----------------------------------------------------------------------

@doors({"decode_images": ("z", lambda x: decode_images(MODEL, x)), "active_units": ("mu", active_units),
        "importance_bound": ("log_w", lambda x: importance_bound(x, 1)), "traverse": ("start", lambda x: traverse(MODEL, x.flatten()[:2])),
        "lerp from": ("a", lambda x: lerp(x, torch.ones(3, 2), 0.5)), "slerp to": ("b", lambda x: slerp(torch.ones(3, 2), x, 0.5)),
        "lerp at": ("t", lambda x: lerp(torch.ones(2), torch.ones(2), x))})
def test_numbers_that_are_not_finite_are_counted_at_every_door(door):
    name, call = door
    for value in (NAN, INF, -INF):
        wrong = torch.zeros(3, 2)
        wrong[0, 1] = value
        refused(ValueError, f"{name} holds 1 values that are NaN or infinite, must be finite", call, wrong)
    if name != "t":
        refused(TypeError, f"{name} is torch.int64, must be floating-point", call, torch.ones(3, 2, dtype=torch.int64))


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
            (LINE.where(LINE > 0, INF).numpy(), ValueError, r"holds \d+ values that are not finite, the first inf"),
            (LINE.where(LINE > 0, -1e200), ValueError, r"holds \d+ values that .*the first -1e\+200: must be from -1e100 to 1e100"),
            (LINE[:, 0], ValueError, r"has shape \(12,\), must be \(N, D\)"), (LINE[:, :0], ValueError, r"has shape \(12, 0\), must be \(N, D\)"),
            ([[0.0, 1.0], [2.0]], ValueError, "is .*, must be an array: its rows are of different lengths"),
            ([["0", "1"]] * 12, TypeError, "holds <U1, must hold real numbers"), (LINE.numpy() + 1j, TypeError, "holds complex128, must hold real"),
            ([[None, 1.0]] * 12, TypeError, "holds object, must hold real numbers")]:
        refused(error, f"{name} {message}", call, points)


# --- one wrong argument of one door --------------------------------------------------------------

OTHER = [
    # data and models
    (lambda: Split(IMAGES, torch.zeros(3)), ValueError, "labels has 3 entries, must have one for each of 4 images, or be None"),
    *[(partial(load_data, source="sample", val_fraction=value), ValueError,
       f"val_fraction is {value!r}, must be a finite number of at least 0.002 and at most 0.8") for value in (0, 1.0, NAN, "0.1", None, True)],
    (lambda: evaluating(VAE).__enter__(), TypeError, r"model is type, must be a Module: such as VAE\(\)"),
    (lambda: LatentModel(SHAPE, 2).code(torch.zeros(2, *SHAPE)), NotImplementedError, r"LatentModel must say with code\(x\) which point stands for"),
    (lambda: ConvVAE((1, 8, 9), (2, 3), 2), TypeError, ".*positional"),
    (lambda: CyclicalBeta(0.5), TypeError, "ramp is float, must be a LinearBeta: "),
    # pictures
    *[(partial(show_images, IMAGES, **{name: value}), TypeError, f"{name} is {re.escape(repr(value))}, must be a sequence")
      for name in ("labels", "row_labels") for value in (3, torch.tensor(3), np.zeros((4, 1)))],
    (lambda: show_images(IMAGES, labels=[1, 2]), ValueError, "labels has 2 entries, must have one for each of 4"),
    (lambda: show_images(IMAGES, row_labels=["a", "b"]), ValueError, "row_labels has 2 entries, must have at most 1, one for a row"),
    (lambda: show_images(torch.zeros(11_000, 28, 28), columns=1), ValueError, "images in this many rows and columns need a figure .* too large to draw"),
    (lambda: show_images(IMAGES, ax=Figure().subplots(2)), TypeError, "ax is ndarray, must be an Axes"),
    # evaluation
    (lambda: active_units(torch.ones(3)), ValueError, r"mu has shape \(3,\), must be \(N, D\)"),
    (lambda: active_units(torch.ones(0, 3)), ValueError, r"mu has shape \(0, 3\)"),
    (lambda: importance_bound(torch.ones(3), 1), ValueError, r"log_w has shape \(3,\), must be \(N, D\)"),
    (lambda: evaluate(MODEL, IMAGES, likelihood=lambda logits, x: 0.0), ValueError, r"likelihood\(logits, x\) has shape \(\), must have that of"),
    (lambda: evaluate(MODEL, IMAGES, likelihood=lambda logits, x: torch.zeros(3)), ValueError,
     r"likelihood\(logits, x\) has shape \(3,\), must have that of logits, \(256, 1, 3, 4\)"),
    (lambda: evaluate(nn.DataParallel(MODEL), IMAGES), TypeError, "model is DataParallel, must be a BaseVAE: pass the one inside, model.module"),
    (lambda: evaluate(Autoencoder(SHAPE), IMAGES), TypeError, "model is Autoencoder, must be a BaseVAE: .*reconstruction_at_mean"),
    # generation
    (lambda: decode_images(MODEL, torch.ones(4, 3)), ValueError, r"z has shape \(4, 3\), must be \(\.\.\., 2\)"),
    *[(partial(way, torch.ones(a), torch.ones(b), torch.zeros(2)), ValueError, "a and b have shapes .*, must be .*latent_dim")
      for way in (lerp, slerp) for a, b in [((2, 1), (2, 3)), ((), ())]],
    (lambda: interpolate(MODEL, IMAGES, IMAGES[:2]), ValueError, r"b has shape \(2, 1, 3, 4\), must have that of a"),
    (lambda: traverse(MODEL, torch.ones(3)), ValueError, r"start has shape \(3,\), must be a code, \(2,\), or an image, \(1, 3, 4\)"),
    (lambda: traverse(MODEL, torch.ones(2), dims="01"), ValueError, "dims is '0', must be a whole number of at least 0 and at most 1"),
    (lambda: traverse(MODEL, torch.ones(2), dims=1), TypeError, "dims is 1, must be a list such as"),
    (lambda: traverse(MODEL, torch.ones(2), values=torch.ones(2, 2)), TypeError, "values is tensor.*, must be a list such as"),
    *[(partial(grid_points, 3, value), ValueError, rf"range is {re.escape(repr(value))}, must be .*low < high") for value in ("12", (1, 2, 3), 3, (2, -2))],
    (lambda: manifold_grid(tiny(latent_dim=3)), ValueError, "model has latent_dim 3, must have 2"),
    (lambda: frechet_distance(torch.ones(4, 2), torch.ones(4, 3)), ValueError, r"b\[0\] has shape \(3,\), must have that of a\[0\], \(2,\)"),
    (lambda: frechet_distance(torch.ones(1, 2), torch.ones(4, 2)), ValueError, r"a has shape \(1, 2\), must be \(N, D\) with N of at least 2"),
    (lambda: Judge(SHAPE).read(torch.ones(4, 1, 5, 5)), ValueError, r"images has shape \(4, 1, 5, 5\), must be \(B, 1, 3, 4\)"),
    (lambda: train_judge(Split(IMAGES, None)), TypeError, "split.labels is NoneType, must be a Tensor: a judge learns"),
    (lambda: train_judge(IMAGES), TypeError, "split is Tensor, must be a Split: images with labels"),
    *[(partial(train_judge, Split(*split)), ValueError, message) for split, message in [
        ((IMAGES[:0], torch.arange(0)), r"len\(split\) is 0, must be a whole number of at least 1"),
        ((IMAGES / 100, torch.arange(4)), "split.images holds values from .* divide grey values"),
        ((IMAGES.where(IMAGES > 99, NAN), torch.arange(4)), r"split.images holds \d+ values that are NaN"),
        ((IMAGES, torch.arange(4) - 1), "split.labels are int64 from -1, must be whole numbers from 0"),
        ((IMAGES, torch.arange(4) / 2), "split.labels are float64 from 0.0, must be whole numbers from 0")]],
    # the latent space
    (lambda: tsne(LINE, 12), ValueError, r"perplexity \(12.*\) must be less than n_samples \(12\)"),
    (lambda: tsne(LINE[:, :1], 3), ValueError, r"codes has shape \(12, 1\), must be \(N, D\) with D of at least 2"),
    (lambda: pca(np.full((50, 3), 1 / 3)), ValueError, r"codes are all the same point, array\(.*, must differ"),
    (lambda: tsne(np.full((50, 3), 1 / 3), 3), ValueError, "codes are 0 wide, must be between 1e-15 and 1e15"),
    (lambda: pca(LINE).transform(LINE[:, :1]), ValueError, r"codes has shape \(12, 1\), must be \(N, 2\)"),
    (lambda: nearest_neighbours(LINE, cloud(3, 1)), ValueError, r"queries has shape \(3, 1\), must be \(N, 2\)"),
    (lambda: knn_classify(LINE, [0] * 12, cloud(3, 3)), ValueError, r"test_codes has shape \(3, 3\), must be \(N, 2\)"),
    (lambda: knn_classify(LINE, [0] * 11), ValueError, r"labels has shape \(11,\), must be \(12,\)"),
    (lambda: knn_classify(LINE, [0, [1]]), ValueError, "labels is .*, must be an array"),
    (lambda: knn_classify(LINE, [NAN] + [0.0] * 11), ValueError, "labels holds 1 values that are NaN, must hold classes"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE), ValueError, "test_codes and test_labels must be given together"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE[:0], []), ValueError, r"len\(test_codes\) is 0, must be a whole number of at least 1"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE, [0] * 3), ValueError, r"test_labels has shape \(3,\), must be \(12,\)"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE, ["0"] * 12), ValueError, "test_labels are <U1, must be classes such as labels has, int64"),
    (lambda: shared_neighbours(LINE, LINE[1:]), ValueError, r"others\[:, 0\] has shape \(11,\), must have that of points\[:, 0\]"),
    (lambda: scatter(cloud(12, 3), [0] * 12), ValueError, r"points has shape \(12, 3\), must be \(N, 2\)"),
    (lambda: scatter(LINE, [True] * 12), ValueError, "labels are bool from True, must be whole numbers from 0"),
    (lambda: scatter(LINE, [2] * 12, ["a"]), ValueError, "class_names has 1 entries, but labels go up to 2"),
    (lambda: scatter(LINE, [0] * 12, ax=[1, 2]), TypeError, "ax is list, must be an Axes"),
    # sweeps
    *[(partial(summarize, TABLE, "beta", ["loss"], level=level), ValueError, f"level is {level}") for level in (0, 1, 95)],
    (lambda: mig(np.ones((5, 2)), FOUR), ValueError, r"factors\[0\] has shape \(4,\), must be \(5,\)"),
    (lambda: mig(np.full((4, 2), np.nan), FOUR), ValueError, "codes holds 8 values that are not finite"),
    (lambda: mig(np.ones((4, 2)), np.array([[0], [1], [2], [np.nan]])), ValueError, r"factors\[0\] holds 1 values that are NaN"),
    (lambda: mig(np.ones((4, 1)), FOUR), ValueError, "codes has 1 dimension, must have at least two"),
    (lambda: mig(np.ones((4, 2)), np.zeros((4, 1))), ValueError, r"factors\[0\] is the same in all images"),
    (lambda: mig(np.ones((4, 2)), FOUR / 2), ValueError, r"factors\[0\] holds 0.5, must hold whole numbers: np.digitize makes them .* dci takes it"),
    (lambda: dci(np.ones((4, 2)), np.zeros((4, 1))), ValueError, r"factors\[0\] is the same in all images"),
    (lambda: dci(np.ones((4, 1)), np.tile(FOUR, 2)), ValueError, "codes has 1 column, must have at least two"),
    (lambda: dci(np.ones((4, 2)), FOUR), ValueError, "factors has 1 column, must have at least two"),
    (lambda: kl_parts(torch.zeros(4, 2), torch.zeros(4, 3)), ValueError, "logvar has shape"),
    (lambda: kl_parts(torch.zeros(4, 2), torch.full((4, 2), NAN)), ValueError, "logvar holds 8 values that are not finite"),
    (lambda: kl_parts(torch.zeros(4, 2), torch.zeros(4, 2), 0), ValueError, "n_draws is 0")]


@pytest.mark.parametrize("call, error, message", OTHER, ids=[message[:20] for *_, message in OTHER])
def test_other_wrong_arguments(call, error, message):
    refused(error, message, call)


# --- training ------------------------------------------------------------------------------------

class WithNorm(BaseVAE):
    def __init__(self):
        super().__init__(SHAPE, 2)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
        self.decoder = nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, SHAPE))


def part(name, images):
    return replace(DATA, **{name: Split(images, None)})


FIT = {
    "compiled": (dict(model=torch.compile(tiny())), TypeError,
                 "model is OptimizedModule, must be a LatentModel: pass the model itself; fit(..., compile=True)"),
    "a split": (dict(data=LABELLED), TypeError, "data is Split, must be an ImageData: "),
    **{name: (dict(data=part("train", images)), TypeError, f"data.train.images is torch.float32 from {low} to {high}, must be torch.uint8, "
                                                           f"grey values from 0 to 255: {line} makes them")
       for name, images, low, high, line in [
           ("intensities", RAMP, 0, 1, "(255 * x).round().byte()"), ("floats", 255 * RAMP, 0, 255, "x.round().byte()"),
           ("normalised", 2 * RAMP - 1, -1, 1, "load_images(x, scale=(-1, 1))")]},
    "classes from 1": (dict(data=replace(DATA, train=Split(grey(9), torch.arange(9) % 3 + 1))), ValueError,
                       "data.train.labels go from 1 to 3, must be from 0 to 2, as data has class_names: labels - 1"),
    "zeros and ones": (dict(data=part("train", (grey(9) > 99).byte())), ValueError,
                       "data.train.images holds values from 0 to 1, must hold grey values from 0 to 255: load_images(x, scale=1) makes 1 white"),
    "digits from 0 to 16": (dict(data=part("train", grey(9) % 17)), ValueError,
                            "data.train.images holds values from 0 to 16, must hold grey values from 0 to 255: load_images(x, scale=16) makes 16"),
    "zeros and ones to validate": (dict(data=part("val", (grey(9) > 99).byte())), ValueError, "data.val.images holds values from 0 to 1, must"),
    "none to validate": (dict(data=part("val", grey(0))), ValueError, "len(data.val) is 0, must be a whole number of at least 1"),
    "other images to validate": (dict(data=part("val", grey(4).flatten(2))), ValueError, "data.val.images has shape (4, 1, 12), must be (B, 1, 3, 4)"),
    "autoencoder": (dict(model=Autoencoder(SHAPE, (3,), 2)), TypeError,
                    "model gives AutoencoderOutput without mu, logvar, which elbo needs: objective=reconstruction_only"),
    **{name: (dict(objective=partial(elbo, likelihood=likelihood)), ValueError,
              f"likelihood(logits, x) has shape {shape}, must have that of logits, (5, 1, 3, 4)")
       for name, shape, likelihood in (("a loss per image", (5, 1), lambda logits, x: (x - logits).square().flatten(1).mean(1, keepdim=True)),
                                       ("one loss", (), nn.functional.mse_loss))},
    "batch norm": (dict(model=WithNorm(), batch_size=11), ValueError,
                   "batch_size is 11, which leaves a last batch of one of 12 images, and batch norm needs two"),
    "objective": (dict(objective="elbo"), TypeError, "objective is str, must be a Callable"),
    "frozen": (dict(model=tiny().requires_grad_(False)), ValueError, "objective gives a loss without a gradient: unfreeze some of the parameters"),
    "detached": (dict(objective=lambda *given: elbo(*given)._replace(loss=torch.ones(()))), ValueError, "objective gives a loss without a gradient"),
    "double": (dict(model=tiny().double()), TypeError, "model is torch.float64, must be torch.float32 in training: model.float() makes it so"),
    "half": (dict(model=tiny().half(), objective=tc_elbo), TypeError, "model is torch.float16, must be torch.float32"),
    "optimizer": (dict(optimizer="adam"), TypeError, "optimizer is str, must be a Callable"),
    "optimizer of several losses": (dict(optimizer=partial(LBFGS, history_size=3)), TypeError, "optimizer is LBFGS, which needs several losses"),
    "no optimizer": (dict(optimizer=lambda parameters: None), TypeError, "optimizer(parameters) is NoneType, must be an Optimizer"),
    **{f"schedule {kind.__name__}": (dict(lr_schedule=kind), TypeError,
                                     f"lr_schedule is {kind.__name__}, must be a function of the optimizer and the number of steps, such as lambda")
       for kind in (ReduceLROnPlateau, ExponentialLR, StepLR)},
    "schedule of losses": (dict(lr_schedule=lambda optimizer, steps: ReduceLROnPlateau(optimizer)), TypeError,
                           "lr_schedule(optimizer, steps) is ReduceLROnPlateau, which needs a validation loss"),
    "no schedule": (dict(lr_schedule=lambda optimizer, steps: None), TypeError, "lr_schedule(optimizer, steps) is NoneType, must be a LRScheduler"),
    "beta": (dict(beta=None), ValueError, "beta is None, must be a finite number of at least 0"),
    "beta later": (dict(beta=lambda time: 1 - time), ValueError, "beta is "),
    "beta without return": (dict(beta=lambda time: None), ValueError, "beta is None at time "),
    "a callback": (dict(callbacks=print), TypeError, "callbacks is <built-in function print>, must be a list of functions, [f]"),
    "callbacks": (dict(callbacks=[print, 3]), TypeError, "callbacks is int, must be a Callable: "),
    "device": (dict(device="gpu"), ValueError, "device is 'gpu', must be one of PyTorch's, such as 'cpu' or 'cuda'"),
    "device that is not there": (dict(device="mps"), ValueError, "device is 'mps', which this machine or this PyTorch lacks; the best here is 'c"),
    "resume": (dict(resume=True), ValueError, "resume is True, but there is no checkpoint to resume: give its folder as checkpoint")}


@doors(FIT)
def test_fit_refuses_it_by_name_and_leaves_the_model_as_it_was(door):
    given, error, message = door
    model, called = given.get("model", tiny()), []
    before = {name: t.clone() for name, t in model.state_dict().items()}
    refused(error, re.escape(message), trained, **dict(model=model, callbacks=[lambda *_: called.append(1)]) | given)
    assert not called and all(model.state_dict()[name].equal(t) for name, t in before.items())


# --- files ----------------------------------------------------------------------------------------

class Forgets(BaseVAE):
    """Keeps one of its own two arguments, and that only if told so."""

    def __init__(self, input_shape=SHAPE, latent_dim=2, *, width=4, act="relu", keep=True):
        super().__init__(input_shape, latent_dim, **dict(width=width, act=act, keep=keep) if keep else dict(width=width))
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Linear(width, 2 * latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 12), nn.Unflatten(1, SHAPE))


class Other(VAE):
    pass


def exchanged():
    """A model with another layer than its constructor gave it."""
    model = tiny()
    model.encoder[1] = nn.Linear(12, 7)
    return model


def gone():
    """A model of a class that nobody has defined when it is loaded."""
    return type("Gone", (VAE,), {})(SHAPE, (3,), 2)


SAVING = {
    "forgotten": (lambda path: save_model(Forgets(keep=False), path), ValueError, "the config of Forgets lacks act, keep: hand it on, "),
    "no JSON": (lambda path: save_model(Forgets(act=torch.relu), path), ValueError, "the config of Forgets is {'input_shape': "),
    "other layers": (lambda path: save_model(exchanged(), path), ValueError, "model has other layers than VAE builds from its config (encoder.1.weight has "),
    "load nothing": (load_model, FileNotFoundError, ""),
    "load another class": (lambda path: (save_model(MODEL, path), load_model(path, Other)), ValueError, "model_class is Other, but {path} holds a VAE"),
    "load an unknown class": (lambda path: (save_model(gone(), path), gc.collect(), load_model(path)), ValueError,
                              "{path} holds a Gone, a class that is not defined here: define or import it first, or give it as model_class"),
    "load a checkpoint": (lambda path: (trained(1, checkpoint=path.parent), load_model(path.parent / "run.safetensors")), ValueError,
                          "{folder}/run.safetensors is a checkpoint of a training: continue it with fit(..., checkpoint=its folder, resume=True)"),
    "load a folder": (lambda path: load_model(path.parent), ValueError, "path is '{folder}', a folder, must be a file: a training is continued with fit("),
    "load no file of ours": (lambda path: (path.write_bytes(b"PK"), load_model(path)), ValueError, "{path} is damaged or no file of this package"),
    "train over a run": (lambda path: (trained(1, checkpoint=path.parent), trained(1, checkpoint=path.parent)), FileExistsError,
                         "{folder}/run.safetensors holds a run already: pass resume=True to continue it, or give another folder"),
    "train on a model": (lambda path: (save_model(MODEL, path.parent / "run.safetensors"), trained(checkpoint=path.parent, resume=True)), ValueError,
                         "{folder}/run.safetensors is damaged or no file of this package")}


@doors(SAVING)
def test_files_are_refused_by_name(door, tmp_path):
    call, error, message = door
    path = tmp_path / "model.safetensors"
    refused(error, re.escape(message.replace("{path}", str(path)).replace("{folder}", str(tmp_path))), call, path)


# --- explorers -----------------------------------------------------------------------------------

@doors({"latent": lambda data: LatentExplorer(MODEL, data), "embedding": lambda data: EmbeddingExplorer(MODEL, data),
        "beta": lambda data: BetaExplorer(PAIR, data), "conditional": lambda data: ConditionalExplorer(TOLD, data)})
def test_explorers_name_the_split_that_is_wrong(door):
    refused(TypeError, "data is Split, must be an? ImageData: load_data gives one", door, LABELLED)
    for split, error, message in [
            (Split(IMAGES.mT, torch.zeros(4, dtype=torch.int64)), ValueError, r"data.test has shape \(4, 1, 4, 3\), must be \(B, 1, 3, 4\)"),
            (Split(IMAGES[:0], torch.zeros(0, dtype=torch.int64)), ValueError, r"data.test has 0 images and labels of shape \(0,\), must"),
            (Split(IMAGES, torch.zeros(4, 1)), ValueError, r"data.test has 4 images and labels of shape \(4, 1\), must have a label for each"),
            (Split(IMAGES / 255, torch.zeros(4, dtype=torch.int64)), TypeError, "data.test has images of torch.float32, must be torch.uint8"),
            (Split(IMAGES, torch.full((4,), 3)), ValueError, "data has labels from 3 to 3, must be from 0 to 2")]:
        refused(error, message, door, replace(DATA, test=split))


def test_explorers_refuse_a_model_whose_codes_are_not_finite():
    model = tiny()
    with torch.no_grad():
        model.encoder[-1].bias[0] = NAN
    for explore in (lambda: LatentExplorer(model, DATA), lambda: EmbeddingExplorer(model, DATA), lambda: InterpolationExplorer(model, IMAGES)):
        refused(ValueError, r"model gives \d+ values of codes that are not finite for (data|images).*: was it trained?", explore)
    refused(ValueError, r"model.code\(a\) holds 4 values that are NaN or infinite", interpolate, model, IMAGES, IMAGES)


def test_more_than_256_classes_are_refused_and_one_image_makes_no_map():
    many = replace(DATA, test=Split(IMAGES, torch.full((4,), 299)), class_names=tuple(map(str, range(300))))
    refused(ValueError, "data has labels from 299 to 299, must be from 0 to 255", LatentExplorer, MODEL, many)
    one = replace(DATA, test=Split(IMAGES[:1], torch.zeros(1, dtype=torch.int64)))
    refused(ValueError, "data has 1 image to show, must have at least 2", EmbeddingExplorer, MODEL, one)
    assert len(LatentExplorer(MODEL, one).point_labels) == 1 and len(BetaExplorer(PAIR, one).names) == 1
