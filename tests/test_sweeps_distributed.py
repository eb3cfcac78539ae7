"""Sweeps spread over processes: each run in one of them, one table for all, whatever is killed and whoever goes on.

Run by `torchrun`, this file is also the script that sweeps.
"""
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch.distributed as dist
from conftest import until
from factories import found, launch, small_data

from vae_tutorial.grid import sweep

GRID = {"beta": [1.0, 4.0], "seed": [0, 1, 2], "lr": [1e-3]}
WILD = {"beta": [1.0], "seed": [0], "lr": [1e-3, 1e6]}       # the second run diverges
EPOCHS = 4
SETTINGS = dict(epochs=EPOCHS, hidden_dims=(8,), latent_dim=3, batch_size=33, precision="fp32", device="cpu")


# --- what each process does -----------------------------------------------------------------------

def data():
    return small_data(100, 40)


def run(folder, grid=GRID, images=None, callbacks=(), progress=False):
    """The table of a small sweep, without its clock readings and places, and how many epochs were trained here of each run."""
    trained = []
    note = lambda model, history: trained.append([history.settings["beta"], history.settings["seed"]])
    table = sweep(images or data(), grid, folder=folder, progress=progress, callbacks=[note, *callbacks], **SETTINGS)
    assert table.path.map(os.path.exists).all()
    return dict(table=table.drop(columns=["seconds", "path"]).to_json(double_precision=15), trained=trained,
                loss=table.loss.tolist())


def die_in_second_process(model, history):
    """Killed after two epochs of a run, when the first process has finished one."""
    if os.environ["RANK"] == "1" and len(history) == 2:
        until(lambda: list(Path(sys.argv[2], "killed").glob("*/row.json")), "finished run")
        os.kill(os.getpid(), signal.SIGKILL)


def three_processes(folder):
    outcomes = {"fewer runs": run(folder / "few", WILD)}
    (folder / f"three_processes_{os.environ['RANK']}.json").write_text(json.dumps(outcomes))
    run(folder / "killed", callbacks=[die_in_second_process])


def two_processes(folder):
    os.environ.pop("TQDM_DISABLE")
    outcomes = {"resumed": run(folder / "killed"), "whole": run(folder / "whole", progress=True)}
    assert not dist.is_initialized()
    (folder / f"two_processes_{os.environ['RANK']}.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))


# --- what is asked of them ------------------------------------------------------------------------

@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder in which three processes swept until the second was killed, and two went on; and what the two printed."""
    folder, by_name = tmp_path_factory.mktemp("sweeps"), ("--tee", "3")         # the name of each process stands before its lines
    with pytest.raises(pytest.fail.Exception, match="SIGKILL"):
        launch(__file__, "three_processes", 3, folder, *by_name)
    before = {path.parent.name for path in (folder / "killed").glob("*/row.json")}
    return folder, before, launch(__file__, "two_processes", 2, folder, *by_name)


@pytest.fixture(scope="module")
def two(launched):
    return found(launched[0], "two_processes", 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"))


@pytest.mark.deep
@pytest.mark.parametrize("name, folder", [("whole", "whole"), ("resumed", "killed")])
def test_table_is_that_of_one_process_in_all_of_them_and_nothing_else_is_left(launched, two, alone, name, folder):
    for process in two:
        assert process[name]["table"] == alone["table"] and process[name]["loss"] == alone["loss"]
    assert sorted(pd.read_csv(launched[0] / folder / "sweep.csv").loss) == sorted(alone["loss"])
    # a process that is killed while it writes leaves its part
    files = sorted(path.name for path in (launched[0] / folder).rglob("*") if path.is_file() and path.suffix != ".part")
    assert files == sorted(["sweep.json", "sweep.csv"] + ["model.safetensors", "row.json"] * 6)


@pytest.mark.deep
def test_each_run_is_trained_in_one_process(two):
    members = [[repr_of(beta), seed] for beta in GRID["beta"] for seed in GRID["seed"]]
    for rank, process in enumerate(two):
        assert process["whole"]["trained"] == [member for member in members[rank::2] for _ in range(EPOCHS)]


def repr_of(beta):
    return f"ConstantBeta(value={beta})"


@pytest.mark.deep
def test_killed_launch_goes_on_from_what_is_there(launched, two):
    finished = launched[1]
    trained = [tuple(member) for process in two for member in process["resumed"]["trained"]]
    assert 0 < len(finished) < 6
    for name in finished:
        beta, seed, _ = (float(part.split("=")[1]) for part in name.split(","))
        assert (repr_of(beta), seed) not in trained
    assert trained.count((repr_of(1.0), 1)) == EPOCHS - 2         # of the run that was killed after two


@pytest.mark.deep
def test_fewer_runs_than_processes(launched, tmp_path):
    expected = run(tmp_path, WILD)
    processes = [process["fewer runs"] for process in found(launched[0], "three_processes", 3)]
    assert [process["table"] for process in processes] == [expected["table"]] * 3
    assert "diverged" in expected["table"] and [len(process["trained"]) for process in processes] == [EPOCHS, 0, 0]


@pytest.mark.deep
def test_only_the_first_process_shows_a_bar_and_it_counts_all_epochs(launched):
    printed = launched[2].split("[default")[1:]
    bars = [text for text in printed if "/24 [" in text]
    assert bars and all(text.startswith("0]") for text in bars) and "24/24 [" in bars[-1]


# --- one process of several, by itself --------------------------------------------------------------

@pytest.fixture
def as_process(monkeypatch):
    """Return a function that makes this process one of several, and has it give up as soon as it waits."""
    def give_up(seconds):
        raise KeyboardInterrupt

    def set_place(rank, world):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        monkeypatch.setattr(time, "sleep", give_up)
    return set_place


def test_waiting_for_the_others_can_be_interrupted_and_loses_nothing(as_process, tmp_path):
    as_process(0, 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {"seed": [0, 1], "beta": [1.0]})
    assert [path.parent.name for path in tmp_path.glob("*/row.json")] == ["seed=0,beta=1"]
    as_process(1, 2)
    last = run(tmp_path, {"seed": [0, 1], "beta": [1.0]})               # the last process has nothing to wait for
    assert len(last["trained"]) == EPOCHS and len(last["loss"]) == 2


def test_others_touch_nothing_before_the_first_has_opened_the_folder(as_process, tmp_path):
    as_process(1, 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_processes_that_were_given_other_images_are_told_so(as_process, tmp_path):
    as_process(0, 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    as_process(1, 2)
    with pytest.raises(ValueError, match="train images is .* but .*sweep.json was made with"):
        run(tmp_path, images=replace(data(), train=data().val, val=data().train))
