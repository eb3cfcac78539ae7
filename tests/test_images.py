"""Images of one's own: what `load_images` makes of folders, arrays, datasets and lists, what it refuses, and that all of it trains."""
import os
import re
import warnings
from functools import cache, partial
from io import BytesIO

import numpy as np
import pytest
import torch
from factories import generator, tiny
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

import vae_tutorial as vt
from vae_tutorial import training
from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split
from vae_tutorial.evaluation import evaluate, log_weights, posterior, reconstruction_at_mean
from vae_tutorial.explorers import LatentExplorer
from vae_tutorial.generation import interpolate, manifold_grid, traverse
from vae_tutorial.images import Frame, as_image_data, load_images
from vae_tutorial.latent_space import encodings
from vae_tutorial.pictures import show_images
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.training import ShowReconstructions, fit
from vae_tutorial.vae import VAE

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
fit_once = partial(fit, epochs=1, batch_size=64, device="cpu", precision="fp32", progress=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep decoded pictures in a folder of the test's own; return it."""
    monkeypatch.setenv("VAE_TUTORIAL_DATA", str(tmp_path_factory.mktemp("cache")))
    return tmp_path_factory.getbasetemp()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def plain(color, size=(24, 16), mode="RGB"):
    return Image.new(mode, size, color)


def halves(left=RED, right=BLUE, size=(24, 16)):
    """Return a picture, the left half in one colour and the right half in another."""
    picture = plain(left, size)
    picture.paste(right, (size[0] // 2, 0, *size))
    return picture


def folder_of(path, pictures):
    """Write pictures under their names, sub-folders included; return the folder."""
    for name, picture in pictures.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, bytes):
            file.write_bytes(picture)
        else:
            picture.save(file)
    return path


def turned(picture, orientation):
    """Return the bytes of a JPEG that says how it is to be turned."""
    exif, file = Image.Exif(), BytesIO()
    exif[0x0112] = orientation
    picture.save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@cache
def photographs():
    """Return the two photographs that come with scikit-learn, (427, 640, 3)."""
    return load_sample_images().images


def photos(path, count, smallest=40, largest=120):
    """Write JPEGs of mixed sizes, upright and across, some turned by their camera, some grey; return the folder."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(rng.integers(smallest, largest, (count, 2))):
        top, left = rng.integers((427 - height, 640 - width))
        part = Image.fromarray(photographs()[i % 2][top:top + height, left:left + width])
        (path / f"{i}.jpg").write_bytes(turned(part.convert("L") if i % 10 == 7 else part, orientation=(1, 1, 3, 6, 8)[i % 5]))
    return path


def small(shape, **config):
    return tiny(ConvVAE, input_shape=shape, channels=(4, 8), **config)


def everything(data):
    """Return all images of a data set, in no certain order, as a set of bytes."""
    return {image.numpy().tobytes() for part in (data.train, data.val, data.test) if part for image in part.images}


# --- the five lines ------------------------------------------------------------------------------

class Items(Dataset):
    """A map-style dataset of anything."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def tensors(n=60, shape=(3, 16, 16)):
    return TensorDataset(torch.rand(n, *shape, generator=generator()), torch.arange(n) % 3)


ROADS = {
    "200 photographs": (lambda path: photos(path / "holiday", 200), {"size": 16}, (160, 20, 20), (3, 16, 16), 0),
    "sub-folders": (lambda path: photos(photos(path / "pets" / "cat", 30).parent / "dog", 30).parent, {"size": 16}, (48, 6, 6), (3, 16, 16), 2),
    "an array": (lambda path: noise(60, 16, 12, 3) / 255, {}, (48, 6, 6), (3, 16, 12), 0),
    "a tensor": (lambda path: torch.rand(60, 1, 9, 9), {}, (48, 6, 6), (1, 9, 9), 0),
    "a TensorDataset": (lambda path: tensors(), {}, (48, 6, 6), (3, 16, 16), 3),
    "a DataLoader": (lambda path: DataLoader(tensors(), batch_size=7), {}, (48, 6, 6), (3, 16, 16), 3),
    "pictures": (lambda path: [plain((i, 0, 99), (20 + i, 30)) for i in range(60)], {"size": (12, 14)}, (48, 6, 6), (3, 12, 14), 0),
    "three photographs": (lambda path: photos(path / "three", 3), {"size": 17, "mode": "L"}, (3, 3, 3), (1, 17, 17), 0),
    "5,000 colour images": (lambda path: noise(5000, 96, 96, 3), {"size": 64}, (4000, 500, 500), (3, 64, 64), 0)}


def trained(name, folder):
    """Go down a road: load, train, save, load; return data, history and both models, the trained one and the one that came back."""
    make, given, *_ = ROADS[name]
    data = vt.load_images(make(folder), **given)
    model = small(data.image_shape, latent_dim=2 + list(ROADS).index(name) % 2)     # an explorer with a plane, or with sliders alone
    history = fit_once(model, data)
    save_model(model, folder / "model.safetensors", history)
    return data, history, model, load_model(folder / "model.safetensors")[0]


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.deep) if name.startswith("5,000") else name for name in ROADS])
@pytest.mark.filterwarnings("ignore:3 images are too few")
def test_every_road_leads_to_a_trained_model_that_is_kept_and_explored(name, tmp_path):
    *_, sizes, shape, classes = ROADS[name]
    data, history, model, again = trained(name, tmp_path)
    assert isinstance(data, ImageData) and data.source == "own" and data.image_shape == shape and len(data.class_names) == classes
    assert tuple(len(part) for part in (data.train, data.val, data.test)) == sizes and data.train.images.dtype == torch.uint8
    losses = [evaluate(each, data.test, n_samples=2, progress=False).loss for each in (model, again)]
    assert len(history) == 1 and losses[0] == losses[1] > 0
    assert LatentExplorer(again, data).start_names == list(data.class_names or [data.name])


def test_fit_takes_what_load_images_takes_and_a_folder_in_the_size_of_the_model(tmp_path):
    folder = photos(tmp_path / "holiday", 30)
    for channels, source in ((1, str(folder)), (3, folder), (3, torch.rand(30, 3, 16, 16)), (3, noise(30, 16, 16, 3)), (3, tensors(30)),
                             (3, DataLoader(tensors(30), batch_size=8))):
        model = small((channels, 16, 16))
        assert len(fit_once(model, source)) == 1 and not model.training
        found = as_image_data(source, model)
        assert (len(found.train), len(found.val), found.test) == (27, 3, None) and found.image_shape == model.input_shape
    with pytest.raises(ValueError, match=r"^data.train.images has shape \(27, 3, 16, 16\), must be \(B, 3, 8, 8\)"):
        fit_once(small((3, 8, 8)), torch.rand(30, 3, 16, 16))           # an array is not resized unasked


def test_labels_that_nothing_is_trained_with_are_no_obstacle():
    targets = TensorDataset(torch.rand(20, 1, 5, 6, generator=generator()), torch.linspace(0, 1, 20))
    assert len(fit_once(tiny(input_shape=(1, 5, 6)), targets)) == 1


def test_sweep_takes_them_too(tmp_path):
    table = vt.sweep(torch.rand(20, 1, 5, 6), {"seed": [0, 1]}, folder=tmp_path / "sweep", epochs=1, latent_dim=2, hidden_dims=(3,),
                     input_shape=(1, 5, 6), progress=False)
    assert len(table) == 2 and (table.error == "").all()


def test_three_images_stand_in_for_one_another_and_a_warning_says_what_that_means(tmp_path):
    with pytest.warns(UserWarning, match="^3 images are too few to hold some back: the training images stand in for val and test.*nothing of new ones"):
        data = vt.load_images(photos(tmp_path / "three", 3), size=16)
    assert len(everything(data)) == len(data.train) == len(data.val) == len(data.test) == 3


# --- arrays --------------------------------------------------------------------------------------

GREYS = noise(7, 9, 8)                                      # seven images, 9 high and 8 wide
COLOURS = noise(7, 9, 8, 3)
FIRST = np.moveaxis(COLOURS, -1, 1)
DARK = (GREYS // 16).astype(np.float32)                     # from 0 to 15, as scikit-learn has digits

# array, what is said of it, and the pixels that must come out, shape (N, C, H, W), or the error
ARRAYS = {
    "grey": (GREYS, {}, GREYS[:, None]), "grey with a channel": (GREYS[:, None], {}, GREYS[:, None]),
    "grey, channel last": (GREYS[..., None], {}, GREYS[:, None]), "channels first": (FIRST, {}, FIRST), "channels last": (COLOURS, {}, FIRST),
    "tensor": (torch.from_numpy(FIRST.copy()), {}, FIRST), "with alpha": (noise(7, 9, 8, 4), {}, np.moveaxis(noise(7, 9, 8, 4), -1, 1)),
    "one grey image": (GREYS[:1], {}, GREYS[:1, None]), "one image, said": (COLOURS[0], {"layout": "HWC"}, FIRST[:1]),
    "reversed": (GREYS[::-1], {}, GREYS[::-1, None]),
    "three or one": (GREYS[:3], {}, "which may be NHW or CHW: say which with layout='NHW' or layout='CHW'"),
    "three, said": (GREYS[:3], {"layout": "NHW"}, GREYS[:3, None]), "one, said": (GREYS[:3], {"layout": "CHW"}, GREYS[None, :3]),
    "3 wide and 3 channels": (noise(7, 3, 9, 3), {}, "which may be NCHW or NHWC: say which with layout='NCHW'"),
    "3 wide, said": (noise(7, 3, 9, 3), {"layout": "NCHW"}, noise(7, 3, 9, 3)),
    "two channels": (noise(7, 2, 9, 8), {}, "has shape (7, 2, 9, 8), must be .*: images[:, 0] or images[..., 0] keeps the first channel"),
    "two channels last": (noise(7, 9, 8, 2), {}, "has shape (7, 9, 8, 2), must be .*: images[:, 0] or images[..., 0] keeps the first channel"),
    "said wrongly": (FIRST, {"layout": "NHWC"}, "has shape (7, 3, 9, 8), must be NHWC, with C of 1"),
    "flat": (noise(7, 72), {}, "has shape (7, 72), must be NHW or NCHW.*, images.reshape(-1, 28, 28) undoes a flattening"),
    "none": (GREYS[:0], {}, "has shape (0, 9, 8), must hold at least one image"),
    # types and scales
    "floats to 1": (GREYS / 255, {}, GREYS[:, None]), "float32 to 1": ((GREYS / 255).astype(np.float32), {}, GREYS[:, None]),
    "floats to 255": (GREYS.astype(float), {}, GREYS[:, None]), "whole numbers": (GREYS.astype(np.int64), {}, GREYS[:, None]),
    "bfloat16": (torch.from_numpy(GREYS // 2 * 2 % 129 > 64).bfloat16(), {}, 255 * (GREYS // 2 * 2 % 129 > 64)[:, None]),
    "bool": (GREYS > 99, {}, 255 * (GREYS > 99)[:, None]), "big-endian": (GREYS.astype(">f4"), {}, GREYS[:, None]),
    "all black": (0 * GREYS, {}, 0 * GREYS[:, None]), "16 bits": (GREYS.astype(np.uint16) * 257, {"scale": 65535}, GREYS[:, None]),
    "normalised": (GREYS / 127.5 - 1, {"scale": (-1, 1)}, GREYS[:, None]), "inverted": (GREYS, {"scale": (255, 0)}, 255 - GREYS[:, None]),
    "to 15": (DARK, {}, "holds float32 from 0 to 15, which leaves open what is white: scale=15 says that 15 is"),
    "bytes to 15": (DARK.astype(np.uint8), {}, "holds uint8 from 0 to 15, which leaves open what is white: scale=15 says that 15 is"),
    "dark bytes": (GREYS // 8 + 1, {}, (GREYS // 8 + 1)[:, None]),
    "to 15, said": (DARK, {"scale": 15}, 17 * (GREYS // 16)[:, None]),
    "bytes of 0 and 1": ((GREYS > 99).astype(np.uint8), {}, "holds uint8 from 0 to 1, which leaves open what is white: scale=1"),
    "bytes of 0 and 1, said": ((GREYS > 99).astype(np.uint8), {"scale": 1}, 255 * (GREYS > 99)[:, None]),
    "normalised, not said": (GREYS / 127.5 - 1, {}, "holds float64 from -1 to 1, which leaves open what is white: scale=(-1, 1) says that -1 is black and"),
    "mean and deviation": (((FIRST / 255 - [[[0.485]], [[0.456]], [[0.406]]]) / 0.225).astype(np.float32), {},
                           "holds float32 from -2.15.* to 2.64.*, which leaves open what is white: undo the normalisation, x * std + mean for each channel"),
    "16 bits, not said": (GREYS.astype(np.uint16) * 257, {}, GREYS[:, None]),
    "12 bits, not said": (GREYS.astype(np.uint16) * 16, {}, r"holds uint16 from \d+ to 4\d+, which leaves open what is white: scale=4\d+ says"),
    "NaN": (GREYS / np.where(GREYS, 255, np.nan), {}, r"holds \d+ values that are NaN or infinite"),
    "beyond the scale": (GREYS, {"scale": 100}, "holds values from 0 to 255, must be from 0 to 100, as scale=100 says"),
    "no scale": (GREYS, {"scale": "white"}, "scale is 'white', must be the number that is white"),
    "one number twice": (GREYS, {"scale": (1, 1)}, r"scale is \(1, 1\), must be the number that is white")}


@pytest.mark.parametrize("array, given, wanted", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.filterwarnings("ignore:. images are too few", "ignore:images holds the same image")
def test_what_is_certain_is_found_out_and_what_is_not_is_refused(array, given, wanted):
    if isinstance(wanted, str):
        message = wanted if "\\" in wanted else re.escape(wanted).replace(r"\.\*", ".*")
        with pytest.raises(ValueError, match=message):
            load_images(array, **given)
        return
    data = load_images(array, val_fraction=0, test_fraction=0, seed=1, **given)
    assert everything(data) == {image.astype(np.uint8).tobytes() for image in wanted} and data.image_shape == wanted.shape[1:]


@pytest.mark.parametrize("wrong, error, message", [
    (None, TypeError, "images is NoneType, must be a folder, an array, a tensor, a Dataset, a DataLoader or a list"), (3, TypeError, "images is int"),
    (np.array(["a"]), TypeError, "images holds <U1, must hold images"), ("not there", FileNotFoundError, "images is 'not there', must be a folder"),
    ([], ValueError, "images is empty"), ([np.zeros((3, 4, 5)), np.zeros((3, 5, 5))], ValueError, "the images have shapes from .* must have one size"),
    ([*GREYS, *GREYS / 255], TypeError, "images holds float and uint8, must hold one type, in which one number is white: x / 255 of bytes"),
    ([*torch.from_numpy(GREYS), *GREYS.astype(int)], TypeError, "images holds int64 and uint8, must hold one type"),
    ([Image.fromarray(GREYS[0]), GREYS[0] / 255], TypeError, "images holds float and uint8"),
    (Items({"image": GREYS[0], "label": 0}), TypeError, r'images holds dict, .*: \[\(each\["image"\], each\["label"\]\) for each in images\]'),
    (DataLoader(Items(*[{"image": FIRST[0], "label": 0}] * 4), 2), TypeError, r"images.dataset holds dict, .* for each in images.dataset\]"),
    ([[GREYS[0], 0], [GREYS[1], 1]], TypeError, r"images holds list, must hold .* a tuple \(image, label\): \[tuple\(each\) for each in images\]"),
    ([Image.fromarray(GREYS[0]), "a.png"], TypeError, r"images holds str, must hold images \(.*\) or nothing but paths")])
def test_what_holds_no_images(wrong, error, message):
    with pytest.raises(error, match=f"^{message}"):
        load_images(wrong)


SMALL, LARGE = noise(6, 8), noise(20, 30)
# lists of arrays that differ, and the shape that comes out
MIXED = {
    "sizes": ([SMALL, LARGE], {"size": 16}, (1, 16, 16)), "sizes, last channels": ([COLOURS[0], noise(20, 30, 3)], {"size": (5, 6)}, (3, 5, 6)),
    "grey and colour": ([GREYS[0], COLOURS[0]], {}, (3, 9, 8)), "colour and clear": ([FIRST[0], noise(4, 9, 8)], {}, (3, 9, 8)),
    "grey and clear": ([GREYS[0], noise(4, 9, 8)], {"mode": "L"}, (1, 9, 8))}


@pytest.mark.parametrize("images, given, shape", MIXED.values(), ids=MIXED)
@pytest.mark.filterwarnings("ignore:2 images are too few")
def test_arrays_that_differ_are_made_alike_as_pictures_are(images, given, shape):
    data = load_images(images, **given)
    assert data.image_shape == shape
    pictures = [Image.fromarray(np.moveaxis(each, 0, -1) if each.shape[0] in (3, 4) else each) for each in images]
    assert everything(data) == everything(load_images(pictures, **given))


@pytest.mark.parametrize("given, message", [
    ({"size": 0}, "size is "), ({"size": (1, 2, 3)}, "size is .* must be one number or two"), ({"mode": "CMYK"}, "mode is 'CMYK', must be one of"),
    ({"fit": "cut"}, "fit is 'cut', must be one of .* the nearest is"), ({"background": "whitish"}, "unknown color"),
    ({"background": (1, 2, 3)}, "background is tuple, must be a str: 'rgb"), ({"layout": "NWH"}, "layout is 'NWH'"),
    ({"val_fraction": 0.9}, "val_fraction is 0.9, must be"),
    ({"val_fraction": 0.5, "test_fraction": 0.5}, "val_fraction and test_fraction are 0.5 and"), ({"seed": -1}, "seed is -1"),
    ({"labels": [0, 1]}, r"labels has shape \(2,\), must be \(7,\).*labels=None does without"),
    ({"val": noise(6, 5, 5)}, r"val has images of shape \(1, 5, 5\), must have that of the others, \(1, 9, 8\)")])
def test_wrong_settings(given, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        load_images(GREYS, **given)


# --- lists, datasets and loaders -----------------------------------------------------------------

class Stream(IterableDataset):
    def __len__(self):
        return 7

    def __iter__(self):
        return zip(torch.from_numpy(FIRST.copy()), range(7))


CLASSES = [0, 1, 2, 0, 1, 2, 0]
PICTURES = [Image.fromarray(each) for each in COLOURS]
TENSORS = TensorDataset(torch.from_numpy(FIRST.copy()), torch.tensor(CLASSES))
NAMED = Items(*zip(PICTURES, CLASSES))
NAMED.classes = ["ant", "bee", "cat"]
LISTS = {
    "pictures": (PICTURES, None, ()), "pairs": (list(zip(PICTURES, CLASSES)), CLASSES, ("0", "1", "2")), "arrays": (list(COLOURS), None, ()),
    "torchvision's": (NAMED, CLASSES, ("ant", "bee", "cat")), "TensorDataset": (TENSORS, CLASSES, ("0", "1", "2")),
    "without labels": (TensorDataset(TENSORS.tensors[0]), None, ()), "DataLoader": (DataLoader(TENSORS, 3), CLASSES, ("0", "1", "2")),
    "DataLoader without labels": (DataLoader(TENSORS.tensors[0], 3), None, ()), "one by one": (DataLoader(TENSORS, None), CLASSES, ("0", "1", "2")),
    "a stream": (Stream(), list(range(7)), tuple("0123456")), "names": (Items(*zip(PICTURES, ["x", "y", "z", "x", "y", "z", "x"])), CLASSES, ("x", "y", "z")),
    "flat": ([each[..., 0] for each in COLOURS[:3]], None, ())}


@pytest.mark.parametrize("source, classes, names", LISTS.values(), ids=LISTS)
@pytest.mark.filterwarnings("ignore:. images are too few")
def test_items_keep_their_labels(source, classes, names):
    data = load_images(source, val_fraction=0, test_fraction=0)
    assert data.class_names == names
    if classes is None:
        assert data.train.labels is None and data.image_shape in ((3, 9, 8), (1, 9, 8))
    else:
        found = {image.numpy().tobytes(): label.item() for image, label in zip(data.train.images, data.train.labels)}
        assert found == {image.tobytes(): label for image, label in zip(FIRST, classes)}


def test_a_loader_is_asked_for_the_images_that_its_sampler_chooses():
    loader = DataLoader(TENSORS, 2, sampler=SubsetRandomSampler([1, 4]))
    assert everything(load_images(loader, class_names="abc", val_fraction=0, test_fraction=0)) == {FIRST[1].tobytes(), FIRST[4].tobytes()}


@pytest.mark.parametrize("labels, message", [
    ([1, 2, 3, 1, 2, 3, 1], r"labels are 1, 2, 3, must count the classes from 0 to 2: labels - 1 does, class_names=range\(4\) allows for empty classes"),
    ([1, 2, 4, 1, 2, 4, 1], r"labels are 1, 2, 4, must count the classes from 0 to 2: \[str\(each\) for each in labels\] makes names of them"),
    ([-1, 0, 0, 0, 0, 0, 0], "labels are -1, 0, must count"),
    (range(2001, 2008), "labels are 2001, 2002, 2003, 2004, 2005, …, must count the classes from 0 to 6"),
    ([0, 0, 0, 0, 0, 0, 10**9], "labels are 0, 1000000000, must count"), (torch.zeros(7, 40), r"labels has shape \(7, 40\), must be \(7,\)"),
    ([0.5] * 7, "labels are float64, must be numbers of classes or their names; labels=None")])
@pytest.mark.filterwarnings("ignore:. images are too few")
def test_labels_that_are_no_classes(labels, message):
    for call in (partial(load_images, GREYS, labels=labels), partial(load_images, list(zip(GREYS, labels)))):
        with pytest.raises((ValueError, TypeError), match=f"^{message}"):
            call()
    assert load_images(list(zip(GREYS, labels)), labels=None).train.labels is None


def test_numbers_of_classes_and_their_names():
    gaps = [2, 3, 2, 3, 2, 3, 2]
    for names in (range(4), np.arange(4), "0123"):
        data = load_images(GREYS, labels=gaps, class_names=names, val_fraction=0)
        assert data.class_names == ("0", "1", "2", "3") and set(data.train.labels.tolist()) == {2, 3}
    for named in (list(map(str, gaps)), np.array(list(map(str, gaps)), dtype=object)):
        data = load_images(GREYS, labels=named, val_fraction=0)
        assert data.class_names == ("2", "3") and set(data.train.labels.tolist()) == {0, 1}
    assert load_images(GREYS, labels=[1, 1, 2, 0, 0, 1, 2], class_names="abc").class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match="^labels are 1, 2, 3, must count the classes from 0 to 2: labels - 1 does"):
        load_images(GREYS, labels=[1, 2, 3, 1, 2, 3, 1], class_names="abc")
    assert load_images(GREYS, labels=list("abababa"), class_names=["b", "a"], val_fraction=0, test_fraction=0).train.labels.tolist().count(1) == 4


# --- the split -----------------------------------------------------------------------------------

def test_each_class_is_split_in_proportion_and_no_image_is_in_two_parts():
    images, labels = noise(400, 4, 5), np.repeat([0, 1, 2], [300, 80, 20])
    data = load_images(images, labels=labels, val_fraction=0.2)
    assert [torch.bincount(part.labels).tolist() for part in (data.train, data.val, data.test)] == [[210, 56, 14], [60, 16, 4], [30, 8, 2]]
    assert len(everything(data)) == 400
    same, other = (load_images(images, labels=labels, val_fraction=0.2, seed=seed) for seed in (42, 43))
    assert torch.equal(same.val.images, data.val.images) and not torch.equal(other.val.images, data.val.images)


def test_a_rare_class_is_trained_on():
    data = load_images(noise(42, 4, 5), labels=[0] * 40 + [1, 2])
    assert {1, 2} <= set(data.train.labels.tolist()) and len(data.val) == len(data.test) == 4


def test_given_parts_and_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_images(list(zip(GREYS, "abababa")), val=list(zip(GREYS[:3], "bbb")), test=GREYS[:6])
        assert torch.equal(data.val.images[:, 0], torch.from_numpy(GREYS[:3])) and data.val.labels.tolist() == [1, 1, 1]
        assert len(data.train) == 7 and len(data.test) == 6 and data.test.labels is None
        data = load_images(GREYS, val_fraction=0, test_fraction=0)
        assert data.test is None and torch.equal(data.val.images, data.train.images)
    with pytest.raises(ValueError, match=r"^labels hold 'c', must be one of \('a', 'b'\)"):
        load_images(list(zip(GREYS, "abababa")), val=[(GREYS[0], "c")])


# --- pictures ------------------------------------------------------------------------------------

def near(array, color):
    """Whether the mean of each channel is about that of a colour."""
    return np.abs(array.reshape(len(array), -1).mean(1) - np.array(color)).max() < 12


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    upright = Frame(16)(halves())
    assert near(upright[..., :7], RED) and near(upright[..., 9:], BLUE)
    for orientation, moved in {1: lambda x: x, 3: lambda x: np.rot90(x, 2, (1, 2)), 6: lambda x: np.rot90(x, -1, (1, 2)),
                               8: lambda x: np.rot90(x, 1, (1, 2))}.items():
        path = tmp_path / f"{orientation}.jpg"
        path.write_bytes(turned(halves(size=(400, 400)), orientation))
        assert np.abs(Frame(16).read(path).astype(int) - moved(Frame(16)(halves(size=(400, 400)))))[:, 3:-3, 3:-3].mean() < 12


# a picture; the colour that Frame(8) makes of it, and its mean grey level with mode="L"
KINDS = {
    "RGB": (plain(RED), RED, 76), "L": (plain(99, mode="L"), (99,), 99), "1": (plain(1, mode="1"), (255,), 255),
    "CMYK": (plain((0, 255, 255, 0), mode="CMYK"), RED, 76), "palette": (plain(GREEN).quantize(4), GREEN, 150),
    "YCbCr": (plain(RED).convert("YCbCr"), (254, 0, 0), 76), "clear": (plain((*RED, 0), mode="RGBA"), WHITE, 255),
    "half clear": (plain((0, 0, 0, 128), mode="RGBA"), (127,) * 3, 127), "grey and clear": (plain((9, 0), mode="LA"), (255,), 255),
    "grey": (plain((9, 255), mode="LA"), (9,), 9)}


@pytest.mark.parametrize("picture, color, grey", KINDS.values(), ids=KINDS)
def test_a_picture_of_any_mode(picture, color, grey):
    before = picture.tobytes()
    assert Frame(8)(picture).shape == (len(color), 8, 8) and near(Frame(8)(picture), color)
    assert near(Frame(8, "L")(picture), (grey,)) and Frame(8, "RGB")(picture).shape == (3, 8, 8) and Frame(8, "RGBA")(picture).shape == (4, 8, 8)
    assert picture.tobytes() == before


STEPS = np.linspace(0, 1, 256).reshape(16, 16)


def two(path, white, dtype, end="tif"):
    """Write a picture from 0 to white, and a dark one; return the folder."""
    return folder_of(path, {f"{i}.{end}": Image.fromarray((STEPS * white / (1 + 3 * i)).astype(dtype)) for i in range(2)})


# white, type and end of two files, what is said of them, and what must come out where 8 bits give x, or the error
DEEP = {
    "16 bits": ((65535, np.uint16, "png"), {}, lambda x: x), "16 bits, said": ((65535, np.uint16, "png"), {"scale": 65535}, lambda x: x),
    "dark, said": ((20000, np.uint16), {"scale": 65535}, lambda x: x * 20000 / 65535), "12 bits, said": ((4095, np.uint16), {"scale": 4095}, lambda x: x),
    "12 bits": ((4095, np.uint16), {}, "holds int32 from 0 to 4095, which leaves open what is white: scale=4095 says that 4095 is"),
    "below": ((4095, np.uint16), {"scale": 255}, "holds values from 0 to 4095, must be from 0 to 255, as scale=255 says"),
    "inverted": ((65535, ">u2"), {"scale": (65535, 0)}, lambda x: 255 - x), "int32": ((255, np.int32), {}, lambda x: x),
    "floats to 1": ((1, np.float32), {}, lambda x: x), "floats": ((9, np.float32), {}, "holds float32 from 0 to 9, which leaves open what is white: scale=9"),
    "smaller": ((65535, np.uint16), {"size": 8}, lambda x: x), "larger": ((65535, np.uint16), {"size": 33}, lambda x: x),
    "padded": ((4095, np.uint16), {"scale": 4095, "size": (16, 24), "fit": "pad", "mode": "RGB", "background": "#f00"}, lambda x: x)}


@pytest.mark.parametrize("written, given, wanted", DEEP.values(), ids=DEEP)
@pytest.mark.filterwarnings("ignore:2 images are too few")
def test_pictures_of_more_than_8_bits_are_read_as_the_numbers_they_hold(written, given, wanted, tmp_path):
    paths = sorted(two(tmp_path / "deep", *written).iterdir())
    plainly = load_images(two(tmp_path / "plain", 255, np.uint8), **given | {"scale": None}).val.images.numpy()
    for source in (tmp_path / "deep", paths, list(map(Image.open, paths))):
        if isinstance(wanted, str):
            with pytest.raises(ValueError, match=f"^images {wanted}"):
                load_images(source, **given)
        else:
            assert np.abs(load_images(source, **given).val.images.numpy() - wanted(plainly.astype(float))).max() <= 2


def test_bytes_beside_16_bits_and_another_scale_is_read_again(tmp_path):
    folder = folder_of(tmp_path / "f", {"a.png": Image.fromarray((STEPS * 65535).astype(np.uint16)), "b.png": Image.fromarray((STEPS * 20).astype(np.uint8))})
    load = partial(load_images, folder, val_fraction=0, test_fraction=0)
    assert sorted(image.max() for image in load().train.images) == [20, 255]
    with pytest.raises(TypeError, match="^images holds int32 and uint8, must hold one type"):
        load(scale=65535)
    (folder / "b.png").unlink()
    assert torch.equal(load().train.images, 255 - load(scale=(65535, 0)).train.images)


def test_what_is_transparent_shows_the_background_and_no_hidden_colour():
    clear = plain((*RED, 0), mode="RGBA")
    assert near(Frame(8, background="#00f")(clear), BLUE) and near(Frame(8, "RGBA", background="#00f")(clear)[3:], (0,))
    clear.paste((*GREEN, 255), (0, 0, 12, 16))
    assert Frame((16, 6), fit="stretch")(clear)[2].astype(int).max() >= 250 and Frame((16, 6), fit="stretch", background="black")(clear)[0].max() < 20


def test_a_picture_fits_in_three_ways():
    wide = halves(size=(60, 20))
    wide.paste(GREEN, (20, 0, 40, 20))                      # red, green, blue: three squares
    assert near(Frame(20)(wide), GREEN)
    assert near(Frame(21, fit="stretch")(wide)[..., :6], RED) and near(Frame(21, fit="stretch")(wide)[..., 15:], BLUE)
    padded = Frame(21, fit="pad", background="white")(wide)
    assert near(padded[:, :6], WHITE) and near(padded[:, 15:], WHITE) and near(padded[:, 8:13, 8:13], GREEN)
    assert Frame(21, "L", fit="pad")(wide).shape == (1, 21, 21) and Frame((5, 9))(wide).shape == (3, 5, 9)


# --- folders -------------------------------------------------------------------------------------

def broken_ones(path):
    """Write ten pictures, and three files that only claim to be some; return the folder."""
    folder_of(path, {f"{i}.png": plain((i, 0, 0)) for i in range(10)})
    whole = turned(Image.fromarray(noise(90, 90, 3)), 1)
    return folder_of(path, {"cut.jpg": whole[:len(whole) // 2], "notes.jpg": b"no picture", "empty.png": b"", "notes.txt": b"text", ".hidden.jpg": b""})


def test_what_cannot_be_read_is_named_once_and_ends_nothing(tmp_path):
    folder, labels = broken_ones(tmp_path / "mixed"), [0] * 10 + [1, 1, 1]
    for _ in range(2):                                      # decoded, and from the cache
        message = r"^3 of 13 pictures cannot be read and are left out: .*cut.jpg \(.*truncated.*empty.png.*notes.jpg \(cannot"
        with pytest.warns(UserWarning, match=message) as said:
            data = load_images(folder, size=8, labels=labels, val_fraction=0, test_fraction=0)
        assert len(said) == 1 and sorted(data.train.images[:, 0, 0, 0].tolist()) == list(range(10)) and not data.train.labels.any()
    for i in range(10):
        (folder / f"{i}.png").unlink()
    with pytest.raises(ValueError, match="^none of 3 pictures can be read; the first, .*cut.jpg: "):
        load_images(folder, size=8)


def test_a_list_of_paths_which_may_begin_at_home(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos", 12)
    paths = sorted(folder.iterdir())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    at_home = [f"~/photos/{path.name}" for path in paths]
    for source in (paths, list(map(str, paths)), tuple(paths), at_home, "~/photos"):
        assert everything(load_images(source, size=16)) == everything(load_images(folder, size=16))


def test_sub_folders_are_classes(tmp_path):
    folder = folder_of(tmp_path / "pets", {"cat/1.png": plain(RED), "cat/2.png": plain(RED), "ant/deep/er/3.png": plain(BLUE), "empty/notes.txt": b"",
                                          ".thumbnails/4.png": plain(BLUE)})
    data = load_images(folder, val_fraction=0, test_fraction=0)
    assert data.name == "pets" and data.class_names == ("ant", "cat") and sorted(data.train.labels.tolist()) == [0, 1, 1]
    assert all(near(image.numpy(), (BLUE, RED)[label]) for image, label in zip(data.train.images, data.train.labels))
    assert load_images(folder, labels=None, val_fraction=0, test_fraction=0).class_names == ()
    negatives = load_images(folder, val_fraction=0, test_fraction=0, scale=(255, 0))
    assert torch.equal(negatives.train.images, 255 - data.train.images)


@pytest.mark.parametrize("names, message", [
    (["a.png", "b/c.png"], "holds 1 pictures beside folders of pictures, b: give a list of paths"),
    (["train/a.png", "Test/b.png"], "are parts of a data set and no classes"),
    (["a.txt"], "holds no pictures: their names must end in .jpg"), (["a.jpg.part"], "holds no pictures")])
def test_folders_that_leave_a_doubt(names, message, tmp_path):
    folder = folder_of(tmp_path / "f", {name: plain(RED) if name.endswith("png") else b"" for name in names})
    with pytest.raises(ValueError, match=f"^images is '.*f', .*{message}"):
        load_images(folder)


def test_sizes_that_differ_and_modes_that_differ(tmp_path):
    folder = folder_of(tmp_path / "f", {"a.png": plain(RED), "b.png": plain(7, mode="L")})
    data = load_images(folder, val_fraction=0, test_fraction=0)
    assert data.image_shape == (3, 16, 24) and near(data.train.images[data.train.images[:, 0, 0, 0] == 7][0].numpy(), (7, 7, 7))
    plain(BLUE, (20, 16)).save(folder / "c.png")
    with pytest.raises(ValueError, match=r"^the images have shapes from \(1, 16, 24\) to \(3, 16, 24\), must have one size: size=64 makes"):
        load_images(folder)


def test_a_folder_is_decoded_again_when_and_only_when_it_or_the_settings_changed(tmp_path):
    folder = folder_of(tmp_path / "f", {"a.png": plain(RED), "b.png": plain(WHITE)})
    load = partial(load_images, folder, val_fraction=0, test_fraction=0, root=tmp_path / "cache")
    load()
    (kept,) = (tmp_path / "cache").rglob("*.safetensors")
    written = kept.stat().st_mtime_ns
    load()
    load(seed=3, labels=[0, 1])
    assert kept.stat().st_mtime_ns == written and len(list(kept.parent.iterdir())) == 1
    load(size=8)
    assert len(list(kept.parent.iterdir())) == 2
    plain(BLUE).save(folder / "b.png")                      # of the same size
    os.utime(folder / "b.png", ns=(0, 1))
    assert near(load().train.images.numpy().max(0), (255, 0, 255)) and kept.stat().st_mtime_ns > written
    (folder / "b.png").rename(folder / "c.png")
    plain(GREEN).save(folder / "d.png")
    assert len(load().train) == 3
    kept.write_bytes(kept.read_bytes()[:-40])               # damaged
    assert len(load().train) == 3
    (folder / "c.png").unlink()
    assert len(load().train) == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    folder, place = folder_of(tmp_path / "f", {f"{i}.png": plain((i, 0, 0)) for i in range(10)}), tmp_path / "cache"
    (place / "images").parent.mkdir()
    (place / "images").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be kept in .*: next time they are decoded again"):
        assert len(load_images(folder, root=place).train) == 8


def test_images_that_no_memory_holds_are_refused_before_any_is_decoded(tmp_path):
    folder = folder_of(tmp_path / "f", {f"{i}.png": plain(RED) for i in range(3)})
    with pytest.raises(MemoryError, match=r"^3 pictures of size \(100000, 100000\) need 270.0 GB, and .* GB are free: size=\(\d{4,5}, \d{4,5}\) fits"):
        load_images(folder, size=100_000)


# --- what a model can tell, and what training looks at first ---------------------------------------

def test_ink_that_a_model_was_not_trained_on_is_named():
    digits = vt.load_data("mnist", source="sample").test.images[:100]
    model = vt.load_pretrained("mnist-mlp-20d")
    with pytest.warns(UserWarning, match="^the model reconstructs the negatives of these images far better than the images"):
        evaluate(model, 255 - digits, n_samples=2, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(model, digits, n_samples=2, progress=False)
        evaluate(tiny(input_shape=(1, 28, 28)), 255 - digits, n_samples=2, progress=False)


def test_one_image_read_again_and_again_is_named():
    with pytest.warns(UserWarning) as said:
        data = load_images(np.repeat(GREYS[:1], 30, axis=0))
        fit_once(tiny(input_shape=(1, 9, 8)), data)
    assert [str(each.message) for each in said] == [
        f"{name} holds the same image {count} times: was every one of them read?" for name, count in (("images", 30), ("data.train.images", 24))]
    assert said[0].filename == __file__


@pytest.mark.parametrize("door", [posterior, encodings, reconstruction_at_mean, partial(log_weights, n_samples=2), partial(evaluate, n_samples=2)])
def test_what_looks_at_many_images_takes_what_fit_takes_and_keeps_their_order(door, tmp_path):
    model, images = small((3, 9, 8)), torch.from_numpy(FIRST.copy())
    folder = folder_of(tmp_path / "f", {f"{i}.png": picture for i, picture in enumerate(PICTURES)})
    for same in (COLOURS, np.flip(np.flip(FIRST, 2).copy(), 2), PICTURES, TENSORS, DataLoader(TENSORS, 3), folder, str(folder), Split(images, None)):
        assert str(door(model, same)) == str(door(model, images))


# --- colours and sizes everywhere ------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 8), (3, 8, 13), (3, 17, 17), (4, 11, 10), (3, 32, 20), (1, 33, 9)], ids=str)
@pytest.mark.parametrize("kind", [VAE, ConvVAE, Autoencoder])
def test_any_size_and_any_number_of_channels(kind, shape):
    model = tiny(kind, input_shape=shape, **({"channels": (4, 5, 6)} if kind is ConvVAE else {}))
    images = torch.from_numpy(noise(12, *shape))
    data = ImageData(Split(images, None), Split(images[:4], None), None, "own", "own", ())
    fit_once(model, data, objective=vt.reconstruction_only if kind is Autoencoder else vt.elbo)
    assert data.image_shape == shape and model.sample(2).shape == model.reconstruct(images[:2]).shape == (2, *shape)
    assert interpolate(model, images[0], images[1], 3).shape == (3, *shape) and traverse(model, images[0]).shape == (2, 7, *shape)
    assert manifold_grid(model, 2).shape == (4, *shape) and encodings(model, images).shape == (12, 2)
    if kind is not Autoencoder:
        assert evaluate(model, images, n_samples=2, progress=False).loss > 0


def test_pictures_in_colour_are_drawn_as_they_are():
    for images in (FIRST, torch.from_numpy(FIRST.copy()), FIRST / 255):
        (drawn,) = show_images(images, columns=4, gap=2, labels=range(7)).images
        grid = drawn.get_array()
        assert grid.shape == (2 * (9 + 3) + 2, 4 * 8 + 3 * 2, 4)
        assert np.abs(grid[:9, :8, :3] - COLOURS[0] / 255).max() < 1e-6 and np.abs(grid[14:23, 10:18, :3] - COLOURS[5] / 255).max() < 1e-6
        assert (grid[:9, :8, 3] == 1).all() and (grid[:9, 8:10] == 0).all() and (grid[14:, 30:] == 0).all()
    with_alpha = noise(2, 4, 5, 5)
    (drawn,) = show_images(with_alpha).images
    assert np.abs(drawn.get_array()[:, :5] - np.moveaxis(with_alpha[0], 0, -1) / 255).max() < 1e-6


def test_photographs_in_grey_are_drawn_light_on_dark():
    assert show_images(GREYS).images[0].cmap.name == "gray_r" and show_images(GREYS, cmap="gray").images[0].cmap.name == "gray"


def test_reconstructions_in_colour_are_shown(monkeypatch):
    data, shown = load_images(FIRST.repeat(4, 0), val_fraction=0), []
    monkeypatch.setattr(training, "display", lambda figure, **_: shown.append(figure))
    fit_once(small((3, 9, 8)), data, callbacks=[ShowReconstructions(data.train.images[:3])])
    assert np.abs(shown[0].axes[0].images[0].get_array()[:9, :8, :3] - data.train.images[0].permute(1, 2, 0).numpy() / 255).max() < 1e-6
