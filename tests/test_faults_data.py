"""Faults of `data` and `sources`, each really made: damaged caches, lying mirrors, killed processes, full disks, hostile files."""
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tracemalloc
import warnings
import zipfile
from functools import cache
from pathlib import Path

import hypothesis.strategies as st
import mirrors
import numpy as np
import pytest
from conftest import HANG, ROOT, run_process, tries
from hypothesis import given, settings
from mirrors import FILES, HARMLESS, LIARS, NAMES, SLOW, bomb, check_small, fill, idx, md5_of, packed

from vae_tutorial import sources
from vae_tutorial.data import DataUnavailable, load_data
from vae_tutorial.sources import SOURCES, read_idx

server, small = mirrors.server, mirrors.small
pytestmark = pytest.mark.deep


def names_below(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def files_below(folder):
    return {name: (folder / name).read_bytes() for name in names_below(folder)}


CACHE = {f"MNIST/raw/{name}": content for name, content in FILES.items()}


def refused(root, words=""):
    """The full data cannot be had, and the error says so, and why."""
    try:
        load_data(root=root, source="full")
    except DataUnavailable as error:
        return re.search(words, str(error)) is not None
    return False


# --- damage ---------------------------------------------------------------------------------------

# a byte that is another, the end that is gone, a byte too many
DAMAGES = [lambda content, i: content[:i] + bytes([content[i] ^ (1 + i % 255)]) + content[i + 1:], lambda content, i: content[:i],
           lambda content, i: content[:i] + bytes([i % 256]) + content[i:]]


def test_cache_damaged_byte_by_byte(fault, small, tmp_path):
    """Of 20 and 10 images with one pixel each: so few bytes that every one of them can be damaged."""
    arrays = []
    for count in (20, 10):
        images = np.zeros((count, 28, 28), np.uint8)
        images[range(count), 14, range(count)] = 255
        arrays += [images, (np.arange(count) % 10).astype(np.uint8)]
    files, pairs = packed(arrays), zip(np.concatenate(arrays[::2]), np.concatenate(arrays[1::2]).tolist())
    whole = {(image.tobytes(), label) for image, label in pairs}

    def right():
        data = load_data(root=tmp_path, source="full", val_fraction=0.5)
        pairs = {(image.numpy().tobytes(), label) for part in (data.train, data.val, data.test)
                 for image, label in zip(part.images, part.labels.tolist())}
        return pairs == whole

    cases = [(name, damage, i) for name, content in files.items() for i in range(len(content)) for damage in DAMAGES]
    random.Random(0).shuffle(cases)
    for (name, damage, i), trial in zip(cases, fault("cache-damaged", short=30, full=len(cases))):
        raw, damaged = fill(tmp_path, files), damage(files[name], i)
        (raw / name).write_bytes(damaged)
        small("refuses", files=files)
        wrong = not refused(tmp_path) or (raw / name).read_bytes() != damaged
        small("good", files=files)
        wrong = wrong or not right()
        trial.saw(lost=(raw / name).read_bytes() != files[name], wrong=wrong)


# --- mirrors --------------------------------------------------------------------------------------

def test_download(fault, small, tmp_path, monkeypatch):
    """What is slow is given up after half a second; the next mirror, and all that are not slow, have ample time."""
    manners = [*SLOW, *LIARS, *HARMLESS]
    for trial in fault("download", short=len(manners), full=10 * len(manners)):
        manner = manners[trial.number % len(manners)]
        monkeypatch.setattr(sources, "_PATIENCE", 0.5 if manner in SLOW else 20)
        monkeypatch.setattr(sources, "_LARGEST", 2**20 if manner == "endless" else 2**26)
        root = tmp_path / str(trial.number)
        small(manner)
        wrong = manner not in HARMLESS and (not refused(root, (SLOW | LIARS)[manner]) or files_below(tmp_path) != {})
        monkeypatch.setattr(sources, "_PATIENCE", 5 if manner in SLOW else 20)
        small(manner, "good")
        check_small(load_data(root=root, source="full"))
        trial.saw(lost=files_below(root) != CACHE, wrong=wrong)
        shutil.rmtree(root)


# --- processes ------------------------------------------------------------------------------------

# The data set and the mirror of these tests, in a process of its own.
SETTING = """
    import dataclasses, hashlib, json, os, random, signal, sys, time, warnings
    from pathlib import Path
    from vae_tutorial.data import load_data
    from vae_tutorial.sources import SOURCES
    address, root, md5 = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    SOURCES["mnist"] = dataclasses.replace(SOURCES["mnist"], md5=md5, mirrors=(f"{address}/good/0/",))

    def load(root):
        loaded = load_data(root=root, source="full")
        return b"".join(part.images.numpy().tobytes() for part in (loaded.train, loaded.val, loaded.test))

    def damaged(folder):
        return [str(path) for path in folder.rglob("*.gz") if hashlib.md5(path.read_bytes()).hexdigest() != md5[path.name]]
"""


def script(code, server, root, *more, before="", **environment):
    """Run code in a fresh process, after `SETTING`, and return what it prints last, as JSON."""
    code = "\n".join(map(textwrap.dedent, (before, SETTING, code)))
    output = run_process("-c", code, server.address, root, json.dumps(md5_of(FILES)), *more, **environment)
    return json.loads(output.splitlines()[-1])


def test_processes_share_a_cache_and_some_are_killed(fault, small, server, tmp_path):
    """The imports happen once; what is started from there are processes like any other."""
    code = """
    rng, trials = random.Random(0), json.loads(sys.argv[4])
    replace = os.replace

    def start(folder, stuck_at=None):
        # a process that loads the data again and again; or is stuck for ever between writing a file and renaming it
        process, stores = os.fork(), iter(range(10**6))
        if process:
            return process

        def slow(*paths):
            if next(stores) == stuck_at:
                Path(f"{folder}.{os.getpid()}.stuck").touch()
                time.sleep(10**6)
            time.sleep(0.05)
            replace(*paths)

        os.replace = slow
        warnings.simplefilter("error")
        try:
            os._exit(0 if all(load(folder / str(i)) == right for i in range(ROUNDS)) else 3)
        finally:
            os._exit(4)

    def stuck(folder, process):
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended or Path(f"{folder}.{process}.stuck").exists()

    ROUNDS, report, right = 6, [], load(root / "first")
    for number in trials:
        folder, count = root / str(number), (1, 2)[number % 2]
        in_the_middle = number % 4 > 1
        killed = [start(folder, rng.randrange(4) if in_the_middle else None) for _ in range(count)]
        while in_the_middle and not all(stuck(folder, process) for process in killed):
            time.sleep(0.001)
        others = [start(folder) for _ in range(count)]
        time.sleep(rng.uniform(0.02, 0.3))
        for process in killed:
            os.kill(process, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) in (0, -signal.SIGKILL)
        survived = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in others]
        for name in md5:                # the next time that a file is stored, nothing of the dead is left
            for path in folder.rglob(name):
                path.unlink()
        again = all(load(folder / str(i)) == right for i in range(ROUNDS))
        report.append(dict(survived=survived, again=again, still=len(list(folder.rglob("*.part"))), bad=damaged(folder)))
    print(json.dumps(report))
    """
    trials = list(fault("two-processes", short=4, full=60))
    report = script(code, server, tmp_path, json.dumps(list(range(len(trials)))))
    for trial, each in zip(trials, report):
        trial.saw(lost=each["still"] > 0, wrong=set(each["survived"]) != {0} or not each["again"] or each["bad"])


# The clock on the wall: from the moment that `clock["jumps"]` is set, it is years off in either direction each time that it is read.
JUMPS = """
    import random, time
    clock, wall = {"jumps": False, "rng": random.Random(0)}, time.time

    def jumping():
        years = clock["rng"].choice((-1, 1)) * clock["rng"].uniform(1, 50)
        return wall() + years * 365 * 86400 * clock["jumps"]

    time.time, time.time_ns = jumping, lambda: int(jumping() * 1e9)
"""


def test_clock_jumps(fault, small, server, tmp_path):
    code = """
    import hashlib, torch
    from vae_tutorial.training import fit, LinearBeta
    from vae_tutorial.vae import VAE
    start, reports, count = time.monotonic(), [], int(sys.argv[4])

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    def run(folder, **more):
        torch.manual_seed(0)
        model = VAE(hidden_dims=(8,), latent_dim=3)
        history = fit(model, loaded, 4, batch_size=64, beta=LinearBeta(2), precision="fp32", checkpoint=folder, **more)
        parts = [p.detach().numpy().tobytes() for p in model.parameters()]
        return hashlib.sha256(b"".join(parts)).hexdigest(), [epoch.loss for epoch in history], [epoch.seconds for epoch in history]

    for number in range(count + 1):
        clock["jumps"], folder = number > 0, root / str(number)
        right = hashlib.sha256(load(folder)).hexdigest()
        loaded = load_data(root=folder, source="full")
        try:
            run(folder / "run", callbacks=[stop])
        except Stop:
            pass
        for path in folder.rglob("*.*"):
            os.utime(path, (2**31 - 1, 2**31 - 1) if number % 2 else (0, 0))     # files of the future, or of long ago
        assert hashlib.sha256(load(folder)).hexdigest() == right
        weights, losses, seconds = run(folder / "run", resume=True)
        reports.append(dict(right=right, weights=weights, losses=losses, seconds=seconds))
    print("\\n" + json.dumps(dict(reports=reports, took=time.monotonic() - start)))     # the bar may stand on the last line
    """
    trials = list(fault("clock-jumps", short=2, full=20))
    report = script(code, server, tmp_path, len(trials), before=JUMPS, TQDM_DISABLE="")
    true, *jumped = report["reports"]
    for trial, each in zip(trials, jumped):
        sane = all(0 < seconds < report["took"] for seconds in each["seconds"])
        trial.saw(lost=len(each["seconds"]) != 4, wrong=not sane or any(each[key] != true[key] for key in ("right", "weights", "losses")))


# --- disks ----------------------------------------------------------------------------------------

def loaded_with_a_warning(root, *words):
    """The data come nevertheless, and one warning says why they cannot be kept."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_small(load_data(root=root, source="full"))
    messages = [str(each.message) for each in caught]
    return len(messages) == 1 and caught[0].filename == __file__ and all(word in messages[0] for word in ("cannot be kept", *words))


def test_no_file_may_grow(fault, small, tmp_path):
    """A limit on the size of a file is a real failure to write, after as many bytes as the limit allows."""
    small("good")
    load_data(source="sample")         # what is imported when it is first needed writes files, too
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(map(len, FILES.values()))
    for trial in fault("disk-full-data", short=6, full=200):
        limit = (0, 1, 100, largest - 1)[trial.number] if trial.number < 4 else random.Random(trial.number).randrange(largest)
        root = tmp_path / str(trial.number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            warned = loaded_with_a_warning(root, "File too large")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        kept = files_below(root)
        wrong = not kept.items() <= CACHE.items()
        check_small(load_data(root=root, source="full"))
        trial.saw(lost=not warned or files_below(root) != CACHE, wrong=wrong)
        shutil.rmtree(root)


def in_own_mounts(folder, options, *command):
    """The command line that mounts a file system on a folder, for the command and nobody else; None where that is not allowed."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f'mount -t tmpfs -o "{options}" tmpfs "{folder}"'
    if shutil.which("unshare") is None or subprocess.run([*unshare, "sh", "-c", mount], capture_output=True).returncode:
        return None
    return [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh", *command]


@pytest.mark.parametrize("row, options, words", [("disk-full-data", "size=64k", "No space left"),
                                                 ("read-only-data", "size=64k,ro", "Read-only file system")], ids=["full", "read-only"])
def test_full_or_read_only_disk(fault, small, server, tmp_path, row, options, words):
    code = """
    reports = []
    for _ in range(int(sys.argv[4])):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            size = len(load(root))
        reports.append(dict(size=size, warnings=[str(each.message) for each in caught],
                            parts=len(list(root.rglob("*.part"))), kept=[path.name for path in root.rglob("*.gz")],
                            bad=damaged(root)))
    print(json.dumps(reports))
    """
    trials = list(fault(row, short=2, full=50))
    command = in_own_mounts(tmp_path, options, sys.executable, "-c", "\n".join(map(textwrap.dedent, (SETTING, code))),
                            server.address, tmp_path, json.dumps(md5_of(FILES)), str(len(trials)))
    if command is None:
        pytest.skip("no file system may be mounted here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for trial, each in zip(trials, json.loads(done.stdout)):
        warned = len(each["warnings"]) == 1 and words in each["warnings"][0] and "cannot be kept" in each["warnings"][0]
        trial.saw(lost=not warned or each["parts"], wrong=each["size"] != 250 * 784 or each["bad"], row=row)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(fault, small, tmp_path):
    small("good")
    for trial in fault("read-only-data", short=1, full=50):
        tmp_path.chmod(0o555)
        try:
            trial.saw(lost=not loaded_with_a_warning(tmp_path, "Permission denied"), wrong=files_below(tmp_path) != {})
        finally:
            tmp_path.chmod(0o755)


# --- hostile files --------------------------------------------------------------------------------

class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


def tar(name):
    """An archive whose member wants to lie outside of the folder that it is unpacked in."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 7
        archive.addfile(member, io.BytesIO(b"escaped"))
    return file.getvalue()


def npz(**members):
    """A .npz file with these members: bytes as they are, anything else as a pickled array of objects."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members.items():
            if not isinstance(content, bytes):
                member = io.BytesIO()
                np.save(member, content, allow_pickle=True)
                content = member.getvalue()
            zipped.writestr(f"{name}.npy", content)
    return file.getvalue()


def header(shape):
    """The header of a .npy file that promises an array of bytes of this shape, and nothing behind it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


@cache
def hostile():
    """Files that would do harm when unpacked, unpickled, believed or read: bytes, the size of a file of zeros, or what makes a file."""
    objects = np.array([Trap()], dtype=object)
    return {
        "gzip bomb": bomb(),
        "tar with a path": tar("../../escaped"),
        "tar with an absolute path": tar("/escaped"),
        "pickle": pickle.dumps(Trap()),
        "pickled objects": npz(images=objects, labels=objects),
        "absurd IDX": gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12),
        "absurd npz": npz(images=header((2**20, 2**20)), labels=header((2**40,))),
        "zip bomb": npz(images=header((2**28,)) + bytes(2**28), labels=header((0,))),
        "huge": 2**30,
    }


# The device never ends, and to read the pipe would wait for ever.
NO_PLAIN_FILES = {"device": lambda path: path.symlink_to("/dev/zero"), "link to itself": lambda path: path.symlink_to(path), "pipe": os.mkfifo}


def place(path, content):
    """Put a file in the place of another; of a number, a file of so many zero bytes that takes no room on the disk."""
    path.unlink(missing_ok=True)
    if callable(content):
        return content(path)
    with open(path, "wb") as file:
        file.truncate(content) if isinstance(content, int) else file.write(content)


def harm_of(function, most):
    """Call a function with 512 MiB to spare; return its result, and whether it took more than `most` bytes or let something out."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if os.path.exists("/proc/self/statm") else None
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, before[1]))
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1] > most or os.path.exists("trapped") or os.path.exists("/escaped")
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_hostile_files_in_the_cache(fault, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, cases = tmp_path / "a" / "b" / "cache", [(content, name) for content in (hostile() | NO_PLAIN_FILES).values() for name in NAMES]
    refused(tmp_path)              # what is imported when it is first needed takes memory, too
    for (content, name), trial in zip(cases, fault("archives", short=len(cases), full=len(cases))):
        place(fill(root) / name, content)
        small("refuses")
        stopped, harm = harm_of(lambda: refused(root), most=2**23)
        harm = harm or not names_below(tmp_path) <= {f"a/b/cache/{each}" for each in CACHE}
        small("good")
        check_small(load_data(root=root, source="full"))
        trial.saw(lost=files_below(root) != CACHE, wrong=harm or not stopped)


def other_images():
    """A sample like the real one, but for one pixel."""
    with np.load(Path(sources.__file__).parent / "samples" / "mnist.npz") as arrays:
        images, labels = arrays["images"].copy(), arrays["labels"]
    images[0, 0, 0] ^= 1
    file = io.BytesIO()
    np.savez_compressed(file, images=images, labels=labels)
    return file.getvalue()


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """The path of a file that is taken for the sample."""
    monkeypatch.setattr(sources.resources, "files", lambda package: tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").mkdir()
    return tmp_path / "samples" / "mnist.npz"


def called_damaged():
    try:
        load_data(source="sample")
    except RuntimeError as error:
        return "damaged" in str(error)


def test_hostile_files_in_place_of_the_sample(fault, sample, tmp_path):
    files = hostile() | {"other images": other_images()}
    for content, trial in zip(files.values(), fault("archives", short=len(files), full=len(files))):
        place(sample, content)
        stopped, harm = harm_of(called_damaged, most=2**27)
        trial.saw(wrong=harm or not stopped or names_below(tmp_path) != {"samples/mnist.npz"})


def test_no_pickle_is_opened_even_with_the_right_checksum(fault, sample, monkeypatch):
    content = hostile()["pickled objects"]
    place(sample, content)
    info = dataclasses.replace(SOURCES["mnist"], sample_sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(SOURCES, "mnist", info)
    for trial in fault("archives", short=1, full=1):
        with pytest.raises(ValueError, match="allow_pickle"):
            load_data(source="sample")
        trial.saw(wrong=os.path.exists("trapped"))


# --- any bytes ------------------------------------------------------------------------------------

lengths = st.integers(0, 4) | st.sampled_from([255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
headers = st.lists(lengths, max_size=5).map(
    lambda shape: bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape))
exact = st.lists(st.integers(0, 4), max_size=5).map(lambda shape: idx(np.zeros(shape, np.uint8)))
retyped = st.tuples(exact, st.integers(0, 255)).map(lambda parts: parts[0][:2] + bytes([parts[1]]) + parts[0][3:])
nearly = st.tuples(exact, st.integers(0, 20), st.binary(max_size=3)).map(
    lambda parts: parts[0][:parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]):])
anything = st.binary(max_size=64) | retyped | st.tuples(headers | exact, st.binary(max_size=16)).map(b"".join) | nearly


def test_any_bytes_are_read_rightly_or_refused(fault):
    @settings(max_examples=tries(300, 100_000))
    @given(anything)
    def read(content):
        try:
            array = read_idx(content)
        except ValueError:
            fault.saw(row="fuzz-idx")
        else:
            fault.saw(wrong=array.dtype != np.uint8 or not 1 <= array.ndim <= 3 or idx(array) != content, row="fuzz-idx")

    read()
