"""A small data set in the files of MNIST, a mirror that can misbehave, and what is looked at after loading."""
import dataclasses
import gzip
import hashlib
import itertools
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from vae_tutorial.sources import SOURCES

MNIST = SOURCES["mnist"]
NAMES = list(MNIST.md5)
CALLS = itertools.count()


def sizes(data):
    return [len(part) for part in (data.train, data.val, data.test) if part is not None]


def contents(split):
    return {image.numpy().tobytes() for image in split.images}


def idx(array):
    lengths = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


def packed(arrays):
    """The files of a data set, name -> bytes: images and labels to train on, then to test on."""
    return {name: gzip.compress(idx(array), mtime=0) for name, array in zip(NAMES, arrays)}


def make_arrays():
    """200 training and 50 test images, each with its labels."""
    rng = np.random.default_rng(0)
    for count in (200, 50):
        yield rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        yield rng.permutation(np.arange(count) % 10).astype(np.uint8)


ARRAYS = list(make_arrays())
FILES = packed(ARRAYS)


def md5_of(files):
    return {name: hashlib.md5(content).hexdigest() for name, content in files.items()}


def set_mnist(monkeypatch, files, *urls):
    """Make "mnist" the data set of these files, at these addresses."""
    monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(MNIST, md5=md5_of(files), mirrors=urls or ("http://127.0.0.1:9/",)))


def fill(root, files=FILES):
    """Write the cache of a data set; returns its folder."""
    raw = Path(root) / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (raw / name).write_bytes(content)
    return raw


def check_small(data):
    """The tensors are those of the small data set, every image with its own label."""
    train_images, train_labels, test_images, test_labels = ARRAYS
    assert data.source == "full" and sizes(data) == [180, 20, 50]
    assert (data.test.images.numpy()[:, 0] == test_images).all()
    assert (data.test.labels.numpy() == test_labels).all()
    label_of = {image.tobytes(): label for image, label in zip(train_images, train_labels)}
    for part in (data.train, data.val):
        assert [label_of[image.numpy().tobytes()] for image in part.images] == part.labels.tolist()
    assert contents(data.train) | contents(data.val) == set(label_of)


# What a mirror may do that sends no right file, and what the error then says of it. The slow ones are silent for longer than anybody waits.
SLOW = {"silent": r"within [\d.]+ seconds|timed out", "stalls": r"timed out|bytes in \d+ sec", "trickles": r"bytes in \d+ sec"}
LIARS = {"status": "404", "html": "MD5", "other": "MD5", "lies/shorter": "MD5", "early": "MD5", "bomb": "MD5", "circles": "infinite loop",
         "to-a-file": "302", "no-http": "SSH", "endless": "more than", "refuses": "refused"}
HARMLESS = ["no-length", "lies/nonsense", "lies/longer", "lies/negative"]
MOST = 60        # seconds


@cache
def bomb():
    """A gzip file of one megabyte that unpacks to one gigabyte."""
    return gzip.compress(bytes(2**24), mtime=0) * 64


class Mirror(BaseHTTPRequestHandler):
    """Sends the files of `server.files` in the manner that stands before their names in the path."""

    def do_GET(self):
        *manner, _, name = self.path.strip("/").split("/")
        manner = "/".join(manner)
        self.server.asked.append((manner, name))
        if manner == "silent":
            self.server.over.wait(MOST)
        elif manner == "status" or manner == "later" and not self.server.recovered:
            self.send_error(404)
        elif manner == "no-http":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        elif manner in ("circles", "to-a-file"):
            self.send_response(302)
            self.send_header("Location", self.path if manner == "circles" else "file:///etc/hostname")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file(manner, self.server.files[name])

    def send_file(self, manner, content):
        if manner == "html":
            content = b"<html>Please log in to the wireless network</html>"
        if manner == "other":
            content = gzip.compress(b"something else", mtime=0)
        if manner == "bomb":
            content = bomb()
        length = len(content) + {"lies/longer": 1000, "lies/shorter": -1000}.get(manner, 0)
        self.send_response(200)
        if manner not in ("endless", "no-length"):
            self.send_header("Content-Length", {"lies/nonsense": "nonsense", "lies/negative": "-5"}.get(manner, str(length)))
        self.end_headers()
        try:
            if manner == "endless":
                for _ in range(2**12):                # it does end, so that no test fills the memory
                    self.wfile.write(bytes(2**16))
            elif manner in ("stalls", "trickles"):
                end = time.monotonic() + MOST
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    if self.server.over.wait(MOST if manner == "stalls" else 0.02) or time.monotonic() > end:
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
    server.files, server.asked, server.over, server.recovered = FILES, [], threading.Event(), False
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def small(monkeypatch, server):
    """Make "mnist" our small data set; returns a function that sets the manners of its mirrors.

    Each call gives new addresses, of which no earlier failure is remembered.
    """
    def mirrors(*manners, files=FILES):
        at = lambda manner: "http://127.0.0.1:9/" if manner == "refuses" else f"{server.address}/{manner}/{next(CALLS)}/"
        server.files = files
        set_mnist(monkeypatch, files, *map(at, manners))

    for name in ("VAE_TUTORIAL_SOURCE", "VAE_TUTORIAL_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    server.asked.clear()
    mirrors("refuses")
    return mirrors
