"""Faults of training, each really brought about: processes killed at random moments, full disks, damaged files, no memory left."""
import os
import random
import resource
import signal
import time
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import factories
import pytest
import torch
from conftest import tries
from factories import digit_model, small_data, tiny, weights
from processes import MB, PROCESSES, in_process, used_memory

from vae_tutorial import files
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import load_data
from vae_tutorial.evaluation import evaluate
from vae_tutorial.grid import sweep
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.training import LinearBeta
from vae_tutorial.vae import VAE

EPOCHS = 6
# most runs here are shorter than their warm-up
pytestmark = [pytest.mark.deep, pytest.mark.filterwarnings("ignore:beta is on its way")]


def some_data():
    return small_data(1000, 100)


def train(model, folder, epochs=EPOCHS, data=None, **settings):
    settings = dict(batch_size=128, beta=LinearBeta(2), checkpoint=folder, resume=folder is not None) | settings
    return factories.train(model, data or some_data(), epochs, **settings)


# --- processes that are killed --------------------------------------------------------------------

def tell(told):
    """Return a callback that writes a letter for each epoch, which `fit` has saved by then, and stays a while to be killed there."""
    def callback(model, history):
        with open(told, "a") as file:
            file.write("x")
        time.sleep(0.1)
    return callback


def train_and_tell(folder):
    model = digit_model()
    train(model, folder, callbacks=[tell(folder / "told")])
    save_model(model, folder / "end.safetensors")


def sweep_and_tell(folder):
    sweep(some_data(), {"beta": [1.0, 4.0], "seed": [0, 1]}, folder=folder, epochs=2, hidden_dims=(8,),
          latent_dim=3, precision="fp32", device="cpu", progress=False, callbacks=[tell(folder / "told")])


def epochs_told(folder):
    return (folder / "told").stat().st_size if (folder / "told").exists() else 0


def epochs_saved(folder):
    path = folder / "run.safetensors"
    return len(files.read_tensors(path)[1]["history"]["epochs"]) if path.exists() else 0


def killed(work, folder, more, seconds):
    """Kill the work so many epochs and seconds later, with SIGKILL: no handler, no clean-up; whether it had not ended by itself."""
    process, wanted = PROCESSES.Process(target=work, args=(folder,)), epochs_told(folder) + more
    process.start()
    while process.is_alive() and epochs_told(folder) < wanted:
        time.sleep(0.001)
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_training_killed_at_random_moments(fault, tmp_path):
    (tmp_path / "whole").mkdir()
    assert in_process(train_and_tell, tmp_path / "whole") == 0
    whole, draw = (tmp_path / "whole" / "end.safetensors").read_bytes(), random.Random(0)
    for trial in fault("training-killed", short=1, full=20):
        folder, lost = tmp_path / str(trial.number), False
        folder.mkdir()
        while killed(train_and_tell, folder, draw.randrange(1, 4), draw.uniform(0, 0.2)):
            lost |= epochs_told(folder) > epochs_saved(folder)
        trial.saw(lost=lost, wrong=(folder / "end.safetensors").read_bytes() != whole)


def models_of(folder):
    """The weights of models, as bytes; their histories hold the seconds of each epoch."""
    return {(path.parent.name, name): t.numpy().tobytes() for path in folder.glob("*/model.safetensors")
            for name, t in files.read_tensors(path)[0].items()}


def test_sweep_killed_at_random_moments(fault, tmp_path):
    (tmp_path / "whole").mkdir()
    assert in_process(sweep_and_tell, tmp_path / "whole") == 0
    draw = random.Random(1)
    for trial in fault("sweep-killed", short=1, full=10):
        folder = tmp_path / str(trial.number)
        folder.mkdir()
        killed(sweep_and_tell, folder, 1, 0)               # in the middle of a run of two epochs
        while killed(sweep_and_tell, folder, draw.randrange(1, 5), draw.uniform(0, 0.2)):
            pass
        # an epoch that was told is saved, so none is ever told again
        lost = epochs_told(folder) > epochs_told(tmp_path / "whole")
        trial.saw(lost=lost, wrong=models_of(folder) != models_of(tmp_path / "whole"))


class DyingFile:
    """A file whose process dies after some bytes were written to it."""

    def __init__(self, file, after):
        self.file, self.after = file, after

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        self.file.write(content[:int(self.after * len(content))])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def save_and_die(folder, after):
    """Train an epoch more, and die while it is saved: when a share of its bytes is written, or at the call named."""
    model = digit_model()
    if isinstance(after, str):
        setattr(files.os, after, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    else:
        files.open = lambda path, mode: DyingFile(open(path, mode), after)
    train(model, folder, epochs=3)


def test_killed_while_saving(fault, tmp_path):
    """The checkpoint before is whole, and the run ends with the bytes of one that was never killed."""
    model = digit_model()
    train(model, None, epochs=3)
    moments = [0.5, 1.0, "fsync", "replace", 0.0, 0.001, 0.999]
    for trial in fault("killed-while-saving", short=4, full=10 * len(moments)):
        after = moments[trial.number] if trial.number < len(moments) else random.Random(trial.number).random()
        folder = tmp_path / str(trial.number)
        train(digit_model(), folder, epochs=2)
        assert in_process(save_and_die, folder, after) == -signal.SIGKILL
        try:
            lost, again = epochs_saved(folder) != 2, digit_model()
            train(again, folder, epochs=3)
            trial.saw(lost=lost, wrong=not weights(again).equal(weights(model)))
            assert [path.name for path in folder.iterdir()] == ["run.safetensors"], "what the dead left is still there"
        except ValueError:                    # the checkpoint is damaged
            trial.saw(lost=True)


# --- disks and memory -----------------------------------------------------------------------------

@contextmanager
def limited(what, value):
    """In the `with` block, this process may use no more of a resource."""
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def fill_disk(folder, how):
    """Leave less room than a checkpoint needs, and return a function that makes room again."""
    if how == "disk":
        (folder / "filler").write_bytes(b"x" * max(0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize - 4096))
        return (folder / "filler").unlink
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def train_on_a_full_disk(folder, how):
    """The disk is full for epochs 2 and 3 of 5; exits with 0 if the training ends right, and is saved as soon as it can be."""
    saved, room = [], []

    def watch(model, history):
        saved.append(epochs_saved(folder))
        if len(history) == 1:
            room.append(fill_disk(folder, how))
        if len(history) == 3:
            room.pop()()

    model, untouched = digit_model(), digit_model()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(model, folder, epochs=5, callbacks=[watch])
    train(untouched, None, epochs=5)
    said = [str(each.message) for each in told if "could not be saved" in str(each.message)]
    assert saved == [1, 1, 1, 4, 5] and len(said) == 2 and "epoch 2" in said[0] and "Make room" in said[0], (saved, said)
    assert weights(model).equal(weights(untouched))
    assert sorted(path.name for path in folder.iterdir()) == ["run.safetensors"]


def save_on_a_full_disk(folder, how):
    path, before = folder / "model.safetensors", digit_model()
    save_model(before, path)
    make_room = fill_disk(folder, how)
    try:
        save_model(VAE(hidden_dims=(30,)), path)
    except OSError:
        make_room()
        assert sorted(each.name for each in folder.iterdir()) == ["model.safetensors"]
        assert weights(load_model(path)[0]).equal(weights(before))
    else:
        raise AssertionError("a full disk took a file")


@pytest.fixture(params=["limit", "disk"])
def small_disk(request, tmp_path):
    """Return a folder, and how to fill it: it is on a disk of 512 kB, or the process may write no more than some kB to a file."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "disk" and os.system(f"mount -t tmpfs -o size=512k tmpfs '{folder}' 2>/dev/null"):
        pytest.skip("mounting a small disk is not allowed here")
    yield folder, request.param
    if request.param == "disk":
        os.system(f"umount '{folder}'")


@pytest.mark.parametrize("work", [train_on_a_full_disk, save_on_a_full_disk])
def test_full_disk(fault, small_disk, work):
    folder, how = small_disk
    for trial in fault("disk-full", short=1, full=5):
        for file in folder.iterdir():
            file.unlink()
        trial.saw(lost=in_process(work, folder, how) != 0)


def train_without_rights(folder, shut):
    """What root may do is no test: the process becomes nobody, once all that is needed has been read."""
    data = some_data()
    train(digit_model(), None, epochs=1)
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    model = digit_model()
    before, said = weights(model), ""
    try:
        train(model, shut, data=data, callbacks=[lambda *_: os._exit(3)])         # it must say so before the first epoch, not after it
    except OSError as error:
        said = str(error)
    assert ("checkpoint is" if shut.name == "shut" else "Permission denied") in said, said
    assert weights(model).equal(before)


def test_folder_that_cannot_be_written_to(fault):
    with TemporaryDirectory() as above:             # pytest's own folders are shut for nobody
        shut = Path(above, "shut")
        shut.mkdir(mode=0o555)
        Path(above).chmod(0o755)
        for trial in fault("read-only", short=2, full=20):
            trial.saw(lost=in_process(train_without_rights, above, shut / "below" if trial.number % 2 else shut) != 0)
            assert not list(shut.iterdir())


def train_without_memory(folder):
    """Memory runs out in the second epoch."""
    model, kept, blocks = VAE(hidden_dims=(4000,)), [], []

    def run_short(model, history):
        kept.append(weights(model).clone())
        resource.setrlimit(resource.RLIMIT_AS, (used_memory() + 20 * MB, resource.RLIM_INFINITY))
        with suppress(RuntimeError):             # what the first epoch has given back is taken, too
            while True:
                blocks.append(torch.empty(MB))

    try:
        train(model, folder, batch_size=1000, callbacks=[run_short])
    except MemoryError as error:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        blocks.clear()
        assert "cpu has not enough memory: lower batch_size, which is 1000" in str(error), error
        assert weights(model).equal(kept[0]) and epochs_saved(folder) == 1
    else:
        raise AssertionError("it had enough memory")


def evaluate_without_memory(folder):
    model, images = VAE(), load_data("mnist", source="sample").val.images
    evaluate(model, images[:4], n_samples=2, progress=False)
    with limited(resource.RLIMIT_AS, used_memory() + 20 * MB), pytest.raises(MemoryError, match="cpu has not enough memory: lower at_once"):
        evaluate(model, images, n_samples=1000, at_once=500_000, progress=False)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc")
@pytest.mark.parametrize("work", [train_without_memory, evaluate_without_memory])
def test_no_memory_left(fault, tmp_path, work):
    for trial in fault("out-of-memory", short=1, full=5):
        trial.saw(lost=in_process(work, tmp_path / str(trial.number)) != 0)


# --- damaged files --------------------------------------------------------------------------------

def refused(model, folder, data):
    """Whether a run is refused by name, and the model left as it was."""
    before = weights(model)
    try:
        train(model, folder, epochs=2, data=data)
    except ValueError as error:
        return "run.safetensors is damaged" in str(error) and weights(model).equal(before)
    return False


def test_checkpoint_truncated(fault, tmp_path):
    """At every boundary of 4 kB, of a small run in the tests and of one of 10 MB for the reliability page."""
    train(tries(digit_model(), VAE()), tmp_path, epochs=1)
    path = tmp_path / "run.safetensors"
    content, model, data = path.read_bytes(), tries(digit_model(), VAE()), some_data()
    lengths = [0, 1, 7, 8, 100, *range(4096, len(content), 4096), len(content) - 1]
    for trial in fault("checkpoint-truncated", short=len(lengths), full=len(lengths)):
        path.write_bytes(content[:lengths[trial.number]])
        trial.saw(wrong=not refused(model, tmp_path, data))


conv_model = partial(tiny, ConvVAE, input_shape=(1, 28, 28), channels=(2, 3))


def flipped(content, draw):
    """Return bytes with one bit changed."""
    damaged = bytearray(content)
    damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return damaged


def test_checkpoint_with_flipped_bits(fault, tmp_path):
    """Refused; or, where the bit only named the checksum, resumed to the right end."""
    path, draw, data = tmp_path / "run.safetensors", random.Random(0), some_data()
    train(conv_model(), tmp_path, epochs=1, data=data)
    content, whole = path.read_bytes(), conv_model()
    train(whole, tmp_path, epochs=2, data=data)
    for trial in fault("checkpoint-flipped", short=100, full=5000):
        path.write_bytes(flipped(content, draw))
        model = conv_model()
        trial.saw(wrong=not (refused(model, tmp_path, data) or weights(model).equal(weights(whole))))


def test_model_with_flipped_bits(fault, tmp_path):
    """Refused; or, where the bit only named the checksum, the right weights."""
    path, draw, model = tmp_path / "model.safetensors", random.Random(0), digit_model()
    save_model(model, path)
    content = path.read_bytes()
    for trial in fault("model-flipped", short=100, full=5000):
        path.write_bytes(flipped(content, draw))
        try:
            trial.saw(wrong=not weights(load_model(path)[0]).equal(weights(model)))
        except ValueError as error:
            trial.saw(wrong="model.safetensors is damaged" not in str(error))
