"""Files from elsewhere: what they say is checked before anything is built of it, and nothing in them is run."""
import json
import os
import pickle
import re
import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import tries
from factories import digit_model, small_data, tiny, train, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import MB, in_process, used_memory

import vae_tutorial
from vae_tutorial.conv import ConvVAE
from vae_tutorial.files import check_same, read_json, read_tensors, write_tensors
from vae_tutorial.grid import sweep
from vae_tutorial.saving import about_pretrained, load_model, load_pretrained, save_model
from vae_tutorial.training import History
from vae_tutorial.vae import VAE

pytestmark = pytest.mark.deep


def saved(path, model=None):
    """Return the tensors and the notes of a file that `save_model` wrote."""
    save_model(model or digit_model(), path, History())
    return read_tensors(path)


def forged(path, tensors, notes):
    """Write a file whose notes are somebody's own; they have a checksum that is right if they can have one."""
    if isinstance(notes, dict):
        write_tensors(path, tensors, notes)
    else:
        path.write_bytes(safetensors.torch.save(tensors, {"vae_tutorial": json.dumps(notes)}))


class Bomb:
    """A pickle that makes a folder when it is opened."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_unpickles(fault, tmp_path):
    """In place of every file that is read: model, checkpoint, the files of a sweep."""
    target, path = tmp_path / "executed", tmp_path / "run" / "run.safetensors"
    path.parent.mkdir()
    bombs = {"pickle": lambda file: pickle.dump(Bomb(target), file), "torch": lambda file: torch.save(Bomb(target), file),
             "numpy": lambda file: np.save(file, np.array([Bomb(target)], dtype=object), allow_pickle=True)}
    readers = {"model": lambda: load_model(path), "checkpoint": lambda: train(checkpoint=path.parent, resume=True),
               "row": lambda: read_json(path), "history": lambda: read_tensors(path)}
    pairs = [(bomb, reader) for bomb in bombs for reader in readers]
    for trial in fault("pickle", short=len(pairs), full=len(pairs)):
        bomb, reader = pairs[trial.number]
        with open(path, "wb") as file:
            bombs[bomb](file)
        with pytest.raises(ValueError, match="is damaged"):
            readers[reader]()
        trial.saw(wrong=target.exists())


def header_only(path, header, length=None, body=b""):
    """Write a safetensors file by hand."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)


NOTES = {"vae_tutorial": json.dumps({"model": "VAE", "config": {"input_shape": [1, 28, 28], "hidden_dims": [8], "latent_dim": 3}, "history": None})}
ABSURD_HEADERS = [
    ({"__metadata__": NOTES, "a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, None, b""),
    ({"__metadata__": NOTES, "a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 0]}}, None, b""),
    ({"__metadata__": NOTES, "a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, None, bytes(4)),
    ({"__metadata__": NOTES, "a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, None, bytes(4)),
    ({"__metadata__": NOTES}, 2**63, b""),
    ({"__metadata__": NOTES}, 2**40, b""),
    ({"__metadata__": {"vae_tutorial": "[" * 100_000}}, None, b""),
    ({"__metadata__": {"vae_tutorial": "{}"}}, None, b""),
    ({"__metadata__": {"vae_tutorial": "1" + "0" * 10_000}}, None, b""),
    ({"__metadata__": {}}, None, b""),
    ([], None, b""),
]
ABSURD_CONFIGS = [
    {"hidden_dims": [10**9]}, {"hidden_dims": [10**18]}, {"hidden_dims": [1] * 200_000}, {"hidden_dims": [2_500, 2_500]},
    {"hidden_dims": [2**31 - 1] * 3}, {"latent_dim": 10**12}, {"latent_dim": -3}, {"latent_dim": True}, {"latent_dim": 2.5},
    {"latent_dim": "3"}, {"latent_dim": None}, {"input_shape": [10**6, 10**6, 10**6]}, {"input_shape": []}, {"input_shape": "784"},
    {"hidden_dims": [[8]]}, {"hidden_dims": {"8": 8}}, {"unknown": 1}, {"self": 1},
]


def refuse_absurd(path, limit):
    """Exits with 0 if the file is refused by name, soon, and with next to no memory."""
    resource.setrlimit(resource.RLIMIT_AS, (used_memory() + limit, resource.RLIM_INFINITY))
    start = time.process_time()
    with pytest.raises(ValueError, match="is damaged") as refused:
        load_model(path)
    assert "memory" not in str(refused.value)
    assert time.process_time() - start < 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc")
def test_absurd_shapes_are_refused_before_memory_is_asked_for(fault, tmp_path):
    path = tmp_path / "model.safetensors"
    tensors, notes = saved(path)
    cases = [("header", each) for each in ABSURD_HEADERS] + [("config", each) for each in ABSURD_CONFIGS]
    for trial in fault("absurd-shapes", short=len(cases), full=len(cases)):
        kind, content = cases[trial.number]
        if kind == "header":
            header_only(path, *content)
        else:
            forged(path, tensors, notes | {"config": notes["config"] | content})
        trial.saw(wrong=in_process(refuse_absurd, path, 20 * MB) != 0)


def put(name, value):
    """Put something else in the place of a tensor or a note; a function makes it of what is there."""
    return lambda parts: parts.update({name: value(parts[name]) if callable(value) else value})


# what is changed in a checkpoint: its tensors, or its notes
SPOILED = {
    "moments": (0, put("optimizer/0/exp_avg", lambda moments: moments[:1])),         # would be broadcast
    "moments of no weight": (0, put("optimizer/99/exp_avg", torch.zeros(8))),
    "weights": (0, put("last/encoder.1.weight", lambda weight: weight[:, :1])),
    "no best": (0, lambda tensors: tensors.pop("best/encoder.1.weight")),
    "generator": (0, put("rng", lambda state: state[:10])),
    "rate": (1, lambda notes: notes["param_groups"][0].update(lr="fast")),
    "no groups": (1, put("param_groups", [])),
    "schedule": (1, put("scheduler", lambda state: dict.fromkeys(state, "x"))),
    "step": (1, lambda notes: notes["scheduler"].update(last_epoch=None))}


@pytest.mark.parametrize("which, spoil", SPOILED.values(), ids=SPOILED)
def test_checkpoint_that_does_not_fit_is_refused_and_the_model_is_left_alone(fault, tmp_path, which, spoil):
    train(epochs=1, checkpoint=tmp_path)
    path, model = tmp_path / "run.safetensors", digit_model()
    parts, before = read_tensors(path), weights(model)
    spoil(parts[which])
    forged(path, *parts)
    for trial in fault("misfit", short=1, full=1):
        with pytest.raises(ValueError, match="is damaged"):
            train(model, checkpoint=tmp_path, resume=True)
        trial.saw(wrong=not weights(model).equal(before))


HISTORY = {"epochs": [], "settings": {}, "ended": "running"}
EPOCH = dict.fromkeys(("loss", "reconstruction", "kl", "train_loss", "train_reconstruction", "train_kl", "beta", "lr", "seconds"), 1.0)


@pytest.mark.parametrize("history", [
    [], "running", {"epochs": []}, HISTORY | {"ended": "well"}, HISTORY | {"epochs": [{}]}, HISTORY | {"epochs": {"1": 1}},
    HISTORY | {"epochs": [EPOCH | {"epoch": 2, "settled": True}]}, HISTORY | {"epochs": [EPOCH | {"epoch": 1, "settled": 1}]},
    HISTORY | {"epochs": [EPOCH | {"epoch": 1, "settled": True, "loss": "low"}]}, HISTORY | {"settings": [1]}, HISTORY | {"more": 1, "ended": None}])
def test_notes_that_are_no_history_are_refused(tmp_path, history):
    path = tmp_path / "model.safetensors"
    tensors, notes = saved(path)
    forged(path, tensors, notes | {"history": history})
    with pytest.raises(ValueError, match="is damaged"):
        load_model(path)


@pytest.mark.parametrize("asked, saved, same", [
    (1, 1.0, True), ("Ramp(epochs=2.0, end=10.0)", "Ramp(epochs=2, end=10)", True), (1.05, 15, False), ("(1.05)", "(1.5)", False), (10.0, 1, False),
    (1e-3, "0.0010", False), (None, 0, False)])
def test_settings_are_compared_as_numbers(asked, saved, same):
    if same:
        return check_same("run", {"beta": asked}, {"beta": saved})
    with pytest.raises(ValueError, match=f"^beta is {re.escape(repr(asked))}, but run was made with {re.escape(repr(saved))}: ask for the same"):
        check_same("run", {"beta": asked}, {"beta": saved})


def test_names_of_pretrained_models_stay_in_their_folder(fault, tmp_path):
    outside = tmp_path / "mine.safetensors"
    save_model(digit_model(), outside)
    here = os.path.relpath(outside, Path(vae_tutorial.__file__).parent / "pretrained").removesuffix(".safetensors")
    names = [here, str(outside).removesuffix(".safetensors"), outside, "../pretrained/mnist-mlp-2d", "mnist-mlp-2d.safetensors", "..", ".", "",
             "mnist-mlp-2d\0", "MNIST-MLP-2D", "index", None, 3, ["mnist-mlp-2d"], b"mnist-mlp-2d"]
    for trial in fault("pretrained-names", short=len(names), full=len(names)):
        for reader in (load_pretrained, about_pretrained):
            with pytest.raises(ValueError, match="name is .*, must be one of .*'mnist-mlp-2d'.*; the nearest is"):
                reader(names[trial.number])
        trial.saw()


@pytest.mark.parametrize("file, content", [
    ("sweep.json", "{"), ("sweep.json", "[]"), ("sweep.json", "[" * 100_000), ("sweep.json", "\xff"), ("seed=0/row.json", "null"),
    ("seed=0/row.json", "{}"), ("seed=0/row.json", '{"settings": {}, "row": {}, "more": 1}'), ("seed=0/row.json", "")])
def test_damaged_files_of_a_sweep_are_named(fault, tmp_path, file, content):
    def run():
        return sweep(small_data(), {"seed": [0]}, folder=tmp_path, epochs=1, hidden_dims=(4,), latent_dim=2, precision="fp32",
                     progress=False)
    table = run()
    for trial in fault("sweep-files", short=1, full=1):
        (tmp_path / file).write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match=f"{Path(file).name} is damaged .*; delete it, and the same call goes on without it"):
            run()
        (tmp_path / file).unlink()
        again = run()
        columns = ["seed", "epoch", "loss", "reconstruction", "kl"]
        trial.saw(wrong=not again[columns].equals(table[columns]))


# --- fuzzing --------------------------------------------------------------------------------------

def fuzzed(short, full=100_000):
    return settings(max_examples=tries(short, full), suppress_health_check=list(HealthCheck))


anything = st.recursive(st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=5),
                        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=8)
edits = st.lists(st.tuples(st.sampled_from(["set", "cut", "put"]), st.floats(0, 1), st.binary(min_size=1, max_size=9)), min_size=1, max_size=4)


def edited(content, changes):
    """Return bytes with some of them overwritten, cut out from a place on, or put in."""
    for what, where, piece in changes:
        at = int(where * len(content))
        tail = {"set": content[at + len(piece):], "cut": b"", "put": content[at:]}[what]
        content = content[:at] + (b"" if what == "cut" else piece) + tail
    return content


def test_checkpoint_reader_fuzzed(fault, tmp_path):
    """Any bytes: the model that was saved, or a ValueError."""
    path, model = tmp_path / "model.safetensors", tiny()
    save_model(model, path)
    whole, before = path.read_bytes(), weights(model)

    # half of the changes are to the header, which is the longer part to understand
    @fuzzed(200)
    @given(st.binary(max_size=200) | edits.map(lambda changes: edited(whole, changes))
           | edits.map(lambda changes: edited(whole[:900], changes) + whole[900:]))
    def check(content):
        path.write_bytes(content)
        wrong = False
        try:
            wrong = not weights(load_model(path)[0]).equal(before)
        except ValueError:
            pass
        fault.saw(row="fuzz-checkpoint", wrong=wrong)
    check()


def test_recipe_reader_fuzzed(fault, tmp_path):
    """Notes that nobody of this package wrote, in a file that is whole: a model of these very sizes, or a ValueError."""
    path = tmp_path / "model.safetensors"
    small = tiny()
    before, (tensors, notes) = weights(small), saved(path, small)
    names = st.sampled_from(["model", "config", "history", "version"])
    sizes = st.fixed_dictionaries({}, optional={"input_shape": anything | st.just([1, 2, 3]), "hidden_dims": anything | st.just([5]),
                                                "latent_dim": anything | st.just(2), "channels": anything})
    history = st.fixed_dictionaries({"epochs": anything | st.lists(anything, max_size=2), "settings": anything, "ended": st.just("running") | anything})

    @fuzzed(200)
    @given(anything | st.dictionaries(names, anything).map(lambda change: notes | change) | sizes.map(lambda c: notes | {"config": c})
           | history.map(lambda h: notes | {"history": h}))
    def check(found):
        forged(path, tensors, found)
        wrong = False
        for kind in (None, VAE, ConvVAE):
            try:
                model, history = load_model(path, kind)
                wrong |= kind is ConvVAE or not weights(model).equal(before) or not isinstance(history, (History, type(None)))
            except ValueError:
                pass
        fault.saw(row="fuzz-recipe", wrong=wrong)
    check()
