"""Pictures a second that `load_images` decodes from a folder of JPEGs, beside what Pillow's decoder alone needs for them.

The pictures are 500 pixels wide, smooth shapes with some grain, which makes them as large as photographs of that size. "decoder" opens each,
asks for the smallest scale that is large enough and decodes it, in one thread; "load_images" also turns, converts, scales, cuts and collects
them, with a thread for each core, and keeps them; "one thread" is what it does to each of them, one after the other; "cached" is the second
call for the same folder. The contestants take turns. Seconds of the processor say what a picture costs a core, also on a machine that others
use; seconds of the clock say what all cores gain.

    python benchmarks/load_images.py --out benchmarks/results/load_images.json
"""
import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measuring import machine, store
from PIL import Image

from vae_tutorial.images import Frame, load_images

SIZE, WIDE, HIGH = 64, 500, 375


def draw_photos(folder, count):
    """Write JPEGs with the sizes of photographs."""
    rng = np.random.default_rng(0)
    for number in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (18, 24, 3), dtype=np.uint8)).resize((WIDE, HIGH), Image.Resampling.BICUBIC)
        grain = np.asarray(shapes) + rng.normal(0, 4, (HIGH, WIDE, 1))
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=85)


def decode(paths):
    """What nobody can leave out: the file, and its pixels at the smallest scale that will do."""
    for path in paths:
        with Image.open(path) as picture:
            picture.draft("RGB", (SIZE, SIZE))
            picture.load()


def one_by_one(paths):
    frame = Frame(SIZE)
    for path in paths:
        frame.read(path)


def seconds(work):
    """Seconds of the clock, and of the processor in all threads, that `work()` takes."""
    started = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place) / "photos", Path(place) / "cache"
        folder.mkdir()
        draw_photos(folder, args.pictures)
        paths = sorted(folder.iterdir())

        def anew():
            shutil.rmtree(cache, ignore_errors=True)
            load_images(folder, SIZE, root=cache, progress=False)

        load_images(folder, SIZE, root=Path(place) / "kept", progress=False)
        contestants = {"decoder": lambda: decode(paths), "one thread": lambda: one_by_one(paths), "load_images": anew,
                       "cached": lambda: load_images(folder, SIZE, root=Path(place) / "kept", progress=False)}
        times = {name: [] for name in contestants}
        for turn in range(args.rounds):
            for name in list(contestants)[::(-1) ** turn]:
                times[name].append(seconds(contestants[name]))
        bytes_each = sum(path.stat().st_size for path in paths) / len(paths)
    rates = {name: [round(args.pictures / median(each)) for each in zip(*rows)] for name, rows in times.items()}
    for name, (clock, core) in rates.items():
        print(f"{name:12s}{clock:8,} pictures a second, {core:8,} a second and core")
    store(dict(machine=machine(torch.device("cpu")) | {"cores": len(os.sched_getaffinity(0))}, pictures=args.pictures, bytes_each=round(bytes_each),
               seconds={name: [[round(each, 3) for each in row] for row in rows] for name, rows in times.items()},
               pictures_a_second={name: dict(zip(("clock", "core"), each)) for name, each in rates.items()}), args.out)


if __name__ == "__main__":
    main()
