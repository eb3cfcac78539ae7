"""Wrong use of `data` and `pictures`: a correct result, or an error that names the argument, its value and the way out."""
import math
from pathlib import Path

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from vae_tutorial.data import binarize, entropy_floor, intensities, load_data, show_images
from vae_tutorial.sources import read_official

NAN = float("nan")


def complaint(function, *arguments, **named):
    """The message of the error with which a call is refused."""
    with pytest.raises((TypeError, ValueError)) as caught:
        function(*arguments, **named)
    return f"{caught.type.__name__}: {caught.value}"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


# --- load_data ------------------------------------------------------------------------------------

@pytest.mark.parametrize("argument, value, words", [
    *[("name", value, f"must be one of 'mnist', 'fashion'; the nearest is {near!r}")
      for value, near in (("mnits", "mnist"), ("FASHION", "fashion"), ("FashionMNIST", "fashion"), ("", "mnist"))],
    *[("name", value, "must be one of 'mnist', 'fashion'") for value in (None, 3, ["mnist"], np.array("mnist"))],
    ("source", "samples", "must be one of 'auto', 'full', 'sample'; the nearest is 'sample'"),
    ("source", True, "must be one of 'auto', 'full', 'sample'"),
    ("split", "pool", "must be one of 'official', 'pooled'; the nearest is 'pooled'"),
    *[("val_fraction", value, "must be a finite number of at least 0.002 and at most 0.8")
      for value in (0, 1.0, NAN, "0.1", None, np.array([0.1, 0.2]), True)],
    *[("seed", value, "must be a whole number of at least 0 and at most 4294967295")
      for value in (-1, 0.5, None, True, 2**32, torch.tensor([1, 2]))]])
def test_wrong_arguments_of_load_data(argument, value, words):
    message = complaint(load_data, **{"source": "sample", argument: value})
    assert message.startswith(f"ValueError: {argument} is {value!r}, {words}")


@pytest.mark.parametrize("load", [load_data, read_official])
@pytest.mark.parametrize("root", [0, False, b"/tmp", [], "", "a\0b", object()])
def test_root_is_a_path(load, root):
    assert complaint(load, source="full", root=root).startswith(f"ValueError: root is {root!r}, must be the path of a")


@pytest.mark.parametrize("kind", [str, Path])
def test_root_is_a_file(tmp_path, monkeypatch, kind):
    path = tmp_path / "file"
    path.write_text("here")
    wrong = f"is {str(path)!r}, must be the path of a folder: that is a file"
    assert complaint(load_data, source="full", root=kind(path)) == f"ValueError: root {wrong}"
    monkeypatch.setenv("VAE_TUTORIAL_DATA", str(path))
    assert complaint(load_data, source="full") == f"ValueError: VAE_TUTORIAL_DATA {wrong}"
    assert path.read_text() == "here"


# --- pixels ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("function", [intensities, binarize, entropy_floor])
@pytest.mark.parametrize("images, words", [
    *[(torch.ones(2, 1, 3, 3, dtype=dtype), f"images is {dtype}, must be grey values, torch.uint8: (x * 255).round().byte()")
      for dtype in (torch.bool, torch.int8, torch.int64, torch.bfloat16, torch.float32)],
    *[(images, f"images is {type(images).__name__}, must be a Tensor: torch.as_tensor makes one")
      for images in (np.zeros((1, 28, 28), np.uint8), [[0, 255]], None)]])
def test_pixels_are_bytes(function, images, words):
    assert complaint(function, images) == f"TypeError: {words}"


@pytest.mark.parametrize("generator", [0, "cpu", np.random.default_rng(0)])
def test_what_is_no_generator_is_named(generator):
    message = complaint(binarize, torch.zeros(1, 1, 2, 2, dtype=torch.uint8), generator)
    assert message == (f"TypeError: generator is {type(generator).__name__}, must be a Generator: "
                       "such as torch.Generator().manual_seed(0)")


def test_generator_of_another_device():
    images = torch.zeros(1, 1, 2, 2, dtype=torch.uint8, device="meta")
    assert "generator is on cpu, must be on meta" in complaint(binarize, images, torch.Generator())


# --- show_images ----------------------------------------------------------------------------------

IMAGES = torch.zeros(3, 2, 2)


@pytest.mark.parametrize("images, words", [
    *[(torch.zeros(shape), f"ValueError: images has shape {shape}, must be (N, 1, H, W) or (N, H, W)")
      for shape in ((28, 28), (2, 3, 28, 28), (0, 1, 28, 28), (784,), ())],
    *[(images, f"TypeError: images is {type(images).__name__}, must be a Tensor or an array of numbers")
      for images in (None, "digits", [[1, 2], [3]], {"images": 1}, np.array([object()]))],
    (torch.ones(1, 2, 2, dtype=torch.complex64), "TypeError: images is torch.complex64, must hold real numbers"),
    (torch.full((2, 28, 28), 200), "ValueError: images has values from 200 to 200, must be intensities from 0 to 1, or uint8")])
def test_what_cannot_be_drawn(images, words):
    assert complaint(show_images, images).startswith(words)


VALUES = st.floats(0, 1, width=32) | st.sampled_from([-0.01, 1.01, 255, math.nan, math.inf, -math.inf])


@settings(max_examples=40)
@given(images=hnp.arrays(np.float32, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=3), elements=VALUES))
def test_images_are_drawn_as_they_are_or_refused(images):
    if not (0 <= images.min() and images.max() <= 1):
        assert "must be intensities from 0 to 1" in complaint(show_images, torch.from_numpy(images))
        return
    _, ax = plt.subplots()
    try:
        drawn = show_images(images, ax=ax, columns=1, gap=0).images[-1].get_array()
        assert (drawn == images.reshape(-1, images.shape[-1])).all()
    finally:
        plt.close("all")


@pytest.mark.parametrize("argument, value, words", [
    *[("columns", value, "must be a whole number of at least 1") for value in (0, -1, 2.0, "3", True, None)],
    *[("gap", value, "must be a whole number of at least 0 and at most 100") for value in (-1, 101, 0.5)],
    *[("size", value, "must be a finite number of at least 0.01 and at most 20") for value in (0, NAN, 21, "1")],
    *[(argument, value, "must be a sequence") for argument in ("labels", "row_labels")
      for value in (3, torch.tensor(3), np.zeros((3, 1)))]])
def test_wrong_arguments_of_show_images(argument, value, words):
    assert f": {argument} is {value!r}, {words}" in complaint(show_images, IMAGES, **{argument: value})


def test_labels_that_do_not_fit_and_figures_that_are_too_large():
    assert "labels has 2 entries, must have one for each of 3" in complaint(show_images, IMAGES, labels=[1, 2])
    assert "row_labels has 2 entries, must have at most 1, one for a row" in complaint(show_images, IMAGES, row_labels=["a", "b"])
    assert "too large to draw" in complaint(show_images, torch.zeros(11_000, 28, 28), columns=1)
    assert plt.get_fignums() == []
    for wrong in (plt.figure(), plt.subplots(2)[1], "left"):
        assert complaint(show_images, IMAGES, ax=wrong).startswith(f"TypeError: ax is {type(wrong).__name__}, must be an Axes")
    for columns, gap, size in ((np.int64(2), torch.tensor(1), np.float32(0.5)), (2**40, 0, 1)):
        assert show_images(IMAGES, columns=columns, gap=gap, size=size).images
