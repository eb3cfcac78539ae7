"""Wrong use of `vae_tutorial.data`: a correct result, or an error that names the argument, its value and what is allowed."""
import math
import numbers
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings

from vae_tutorial import data as module
from vae_tutorial.data import binarize, entropy_floor, expect, intensities, load_data, show_images

# What somebody may pass by mistake.
ANYTHING = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
            | st.lists(st.integers(), max_size=3) | st.sampled_from([
                np.float32("nan"), np.int64(3), np.bool_(True), np.array([0.1, 0.2]), np.array("mnist"), torch.tensor(0.1),
                torch.tensor([1, 2]), Decimal("0.1"), Fraction(1, 10), 1j, {}, set(), object(), load_data, ("mnist",), Path("mnist")]))
NUMBERS = st.integers(-3, 2**33) | st.floats(-0.5, 1.5) | ANYTHING


def is_number(value, low, high, whole=False):
    kind = numbers.Integral if whole else numbers.Real
    return isinstance(value, kind) and not isinstance(value, bool) and bool(low <= value <= high)


def complaint(function, *arguments, error=ValueError, **named):
    """The message of the error that a call raises."""
    with pytest.raises(error) as caught:
        function(*arguments, **named)
    return str(caught.value)


@pytest.fixture
def ax():
    _, ax = plt.subplots()
    yield ax
    plt.close("all")


# --- load_data ------------------------------------------------------------------------------------

@pytest.mark.parametrize("argument, allowed", [("name", ("mnist", "fashion")), ("source", ("auto", "full", "sample")),
                                               ("split", ("official", "pooled"))])
@settings(max_examples=50)
@given(value=ANYTHING)
@example(value="")
@example(value="MNIST")
def test_any_other_word_is_named(argument, allowed, value):
    message = complaint(load_data, **{"source": "sample", argument: value})
    assert message.startswith(f"{argument} is {value!r}, must be one of {', '.join(map(repr, allowed))}; the nearest is '")


@settings(max_examples=100)
@given(allowed=st.lists(st.text(max_size=5), max_size=4), value=ANYTHING)
@example(allowed=[], value="a")
@example(allowed=["A"], value="A")
def test_a_choice_is_made_or_the_nearest_is_named(allowed, value):
    if isinstance(value, str) and value in allowed:
        return module._check_choice("argument", value, allowed)
    message = complaint(module._check_choice, "argument", value, allowed)
    assert message.startswith(f"argument is {value!r}, ")
    assert any(message.endswith(f"the nearest is {each!r}") for each in allowed) or message.endswith("nothing to choose from")


@pytest.mark.parametrize("value, nearest", [("mnits", "mnist"), ("FASHION", "fashion"), ("fashion-mnist", "fashion"), ("digits", "mnist")])
def test_the_nearest_name(value, nearest):
    assert complaint(load_data, value).endswith(f"the nearest is {nearest!r}")


@settings(max_examples=200)
@given(split=st.just("official"), val_fraction=NUMBERS, seed=NUMBERS)
def test_numbers_of_the_split(split, val_fraction, seed):
    fine = {"val_fraction": is_number(val_fraction, 0.002, 0.8), "seed": is_number(seed, 0, 2**32 - 1, whole=True)}
    if all(fine.values()):
        return module._check_split(split, val_fraction, seed)
    argument = next(name for name, is_fine in fine.items() if not is_fine)
    value = {"val_fraction": val_fraction, "seed": seed}[argument]
    message = complaint(load_data, source="sample", split=split, val_fraction=val_fraction, seed=seed)
    must = {"val_fraction": "a number from 0.002 to 0.8", "seed": "a whole number from 0 to 4294967295"}[argument]
    assert message == f"{argument} is {value!r}, must be {must}"


@pytest.mark.parametrize("fraction", [np.float32(0.2), np.float64(0.2), Fraction(1, 5)])
def test_any_kind_of_fraction(fraction):
    assert torch.equal(load_data(source="sample", val_fraction=fraction).val.images,
                       load_data(source="sample", val_fraction=0.2).val.images)


@pytest.mark.parametrize("root", [0, False, b"/tmp", 3.5, [], "", "a\0b", object()])
def test_root_is_the_path_of_a_folder(root):
    assert complaint(load_data, source="full", root=root) == f"root is {root!r}, must be the path of a folder"


@pytest.mark.parametrize("kind", [str, Path])
def test_root_is_a_file(tmp_path, monkeypatch, kind):
    path = tmp_path / "file"
    path.write_text("here")
    for source in ("auto", "full"):
        monkeypatch.setenv("VAE_TUTORIAL_SOURCE", source)
        message = complaint(load_data, source=source, root=kind(path))
        assert message == f"root is {str(path)!r}, must be the path of a folder: that is something else"
    monkeypatch.setenv("VAE_TUTORIAL_DATA", str(path))
    assert complaint(load_data, source="full").startswith(f"VAE_TUTORIAL_DATA is {str(path)!r}, must be")
    assert path.read_text() == "here"


# --- pixels ---------------------------------------------------------------------------------------

DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
          torch.float64, torch.complex64]


@settings(max_examples=50)
@given(shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), dtype=st.sampled_from(DTYPES))
def test_pixels_of_any_shape_and_type(shape, dtype):
    images = torch.ones(shape, dtype=dtype)
    if dtype != torch.uint8:
        for function in (intensities, binarize, entropy_floor):
            assert complaint(function, images, error=TypeError).startswith(f"images is {dtype}, must be torch.uint8")
        return
    assert torch.equal(intensities(images), torch.full(shape, 1 / 255))
    assert binarize(images).shape == shape
    if len(shape) < 2:
        assert complaint(entropy_floor, images).startswith(f"images has shape {tuple(shape)}, must be (N, ...)")
    else:
        per_pixel = -(1 / 255 * math.log(1 / 255) + 254 / 255 * math.log(254 / 255))
        expected = torch.full(shape[:1], math.prod(shape[1:]) * per_pixel)
        torch.testing.assert_close(entropy_floor(images), expected)


@pytest.mark.parametrize("images", [np.zeros((1, 28, 28), np.uint8), [[0, 255]], None, 3, "digits", torch.uint8])
def test_pixels_are_a_tensor(images):
    for function in (intensities, binarize, entropy_floor):
        assert complaint(function, images, error=TypeError).startswith(
            f"images is a {type(images).__name__}, must be a Tensor of torch.uint8")


@pytest.mark.parametrize("generator", [0, True, "cpu", np.random.default_rng(0)])
def test_what_is_no_generator_is_named(generator):
    message = complaint(binarize, torch.zeros(1, 1, 2, 2, dtype=torch.uint8), generator, error=TypeError)
    assert message == f"generator is {generator!r}, must be a torch.Generator or None"


def test_generator_of_another_device():
    with pytest.raises(ValueError, match="generator is on cpu, must be on meta"):
        binarize(torch.zeros(1, 1, 2, 2, dtype=torch.uint8, device="meta"), torch.Generator())


# --- show_images ----------------------------------------------------------------------------------

def picture(ax):
    return np.ma.filled(np.ma.asarray(ax.images[-1].get_array(), dtype=np.float64), np.nan)


VALUES = st.floats(0, 1, width=32) | st.sampled_from([-0.01, 1.01, 255, math.nan, math.inf, -math.inf])


@settings(max_examples=60)
@given(images=hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3), elements=VALUES))
def test_images_are_drawn_as_they_are_or_refused(images):
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[1] == 1)) or images.size == 0:
        assert complaint(show_images, images) == (f"images has shape {images.shape}, must be (N, 1, H, W) or (N, H, W), N > 0")
        return
    if not (0 <= images.min() and images.max() <= 1):
        assert "must be intensities from 0 to 1, or grey values as torch.uint8" in complaint(show_images, torch.from_numpy(images))
        return
    _, ax = plt.subplots()
    try:
        show_images(images, ax=ax, columns=1, gap=0)
        assert (picture(ax) == images.reshape(-1, images.shape[-1])).all()
    finally:
        plt.close("all")


@pytest.mark.parametrize("dtype", DTYPES)
def test_images_of_any_type(ax, dtype):
    images = torch.tensor([[[0, 1], [1, 0]]]).to(dtype)
    if dtype == torch.complex64:
        assert complaint(show_images, images, error=TypeError) == "images is torch.complex64, must be torch.uint8 or floating-point"
    else:
        show_images(images, ax=ax)
        np.testing.assert_allclose(picture(ax), [[0, 1], [1, 0]] if dtype != torch.uint8 else [[0, 1 / 255], [1 / 255, 0]], rtol=1e-6)


def test_grey_values_in_another_type_are_refused():
    message = complaint(show_images, torch.full((2, 28, 28), 200))
    assert message == "images has values from 200 to 200, must be intensities from 0 to 1, or grey values as torch.uint8"


def test_what_becomes_an_array_is_drawn(ax):
    grey = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    read_only = np.frombuffer(grey.tobytes(), np.uint8).reshape(2, 2, 2)
    backwards = grey[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    for images in (grey, read_only, backwards, torch.from_numpy(grey), list(torch.from_numpy(grey)), list(grey)):
        show_images(images, ax=ax, gap=0)
        np.testing.assert_allclose(picture(ax), np.hstack(grey) / 255, rtol=1e-6)


@pytest.mark.parametrize("images", [None, "digits", object(), [[1, 2], [3]], {"images": 1}, [torch.zeros(2, 2), torch.zeros(3, 3)],
                                    np.array([object()])])
def test_what_becomes_no_array_is_named(images):
    message = complaint(show_images, images, error=TypeError)
    assert message.startswith(f"images is a {type(images).__name__}, must be a Tensor or an array of numbers")


@pytest.mark.parametrize("argument, low, high, whole, must", [
    ("columns", 1, 2**31, True, "a whole number from 1 to"), ("gap", 0, 100, True, "a whole number from 0 to 100"),
    ("size", 0.01, 20, False, "a number from 0.01 to 20")])
@settings(max_examples=40)
@given(value=NUMBERS)
@example(value=0)
@example(value=-1)
@example(value=math.nan)
def test_numbers_of_the_grid(argument, low, high, whole, must, value):
    images = torch.zeros(3, 2, 2)
    try:
        if is_number(value, low, high, whole):
            assert np.nansum(picture(show_images(images, **{argument: value}))) == 0
        else:
            assert complaint(show_images, images, **{argument: value}).startswith(f"{argument} is {value!r}, must be {must}")
    finally:
        plt.close("all")


def test_entries_below_and_beside(ax):
    images = torch.zeros(3, 2, 2)
    assert complaint(show_images, images, labels=[1, 2]) == "labels has 2 entries, must have one for each of 3"
    assert complaint(show_images, images, row_labels=["a", "b"]) == "row_labels has 2 entries, must have at most 1, one for each row"
    for entries in (3, iter("abc"), torch.tensor(3), torch.zeros(3, 1), np.zeros((3, 1))):
        for argument in ("labels", "row_labels"):
            assert complaint(show_images, images, error=TypeError, **{argument: entries}) == f"{argument} is {entries!r}, must be a sequence"
    show_images(images, labels=np.array([1, 2, 3]), columns=1, row_labels=["first"], ax=ax)
    assert [text.get_text() for text in ax.texts] == ["1", "2", "3"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["first"]


def test_ax_is_one_axes():
    figure, axes = plt.subplots(2)
    for wrong in (figure, axes, "left"):
        message = complaint(show_images, torch.zeros(3, 2, 2), ax=wrong, error=TypeError)
        assert message == f"ax is a {type(wrong).__name__}, must be one matplotlib Axes"
    plt.close("all")


def test_more_images_than_a_figure_holds():
    before = plt.get_fignums()
    assert "too large to draw" in complaint(show_images, torch.zeros(11_000, 28, 28), columns=1)
    assert plt.get_fignums() == before


# --- expect ---------------------------------------------------------------------------------------

DATA = SimpleNamespace(source="sample", name="mnist")


@settings(max_examples=100)
@given(value=ANYTHING)
@example(value=np.array([1.0]))
@example(value=torch.tensor([[1.0]]))
@example(value="1.0")
def test_expect_wants_one_number(value):
    number = value.item() if getattr(value, "size", None) == 1 or (isinstance(value, torch.Tensor) and value.numel() == 1) else value
    if isinstance(number, (numbers.Real, Decimal)):
        if -5 <= number <= 5:
            assert expect(value, DATA, (0, 1), (-5, 5)) is value
        else:
            assert "is not from -5 to 5 on mnist" in complaint(expect, value, DATA, (0, 1), (-5, 5), error=AssertionError)
    else:
        assert complaint(expect, value, DATA, (0, 1), (-5, 5), error=TypeError) == f"value is {value!r}, must be one number"


@pytest.mark.parametrize("argument", ["full", "sample"])
@pytest.mark.parametrize("ends", [None, 1, (1,), (1, 2, 3), (2, 1), (math.nan, 1), (0, math.nan), ("a", 1), "ab", (None, 1), torch.ones(2, 2)])
def test_expect_wants_ranges(argument, ends):
    """The range for the other source is looked at, too: its page is seldom run."""
    message = complaint(expect, 1, DATA, **({"full": (0, 1), "sample": (0, 1)} | {argument: ends}))
    assert message == f"{argument} is {ends!r}, must be a pair (low, high) with low <= high"


@pytest.mark.parametrize("data", [None, 3, "sample", SimpleNamespace(source="ful", name="mnist")])
def test_expect_wants_data(data):
    source = getattr(data, "source", None)
    assert complaint(expect, 1, data, (0, 1), (0, 1)).startswith(f"data.source is {source!r}, must be one of 'full', 'sample'")
