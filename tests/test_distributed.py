"""Training in several processes: as one process would, and never one that waits for another in vain.

Run by `torchrun`, this file is also the script that trains.
"""
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import run_process
from hypothesis import given
from hypothesis import strategies as st

from vae_tutorial.data import ImageData, Split, load_data
from vae_tutorial.parallel import SameDraws, StopTraining, share
from vae_tutorial.runs import TrainingDiverged
from vae_tutorial.training import LinearBeta, fit
from vae_tutorial.vae import VAE, Elbo, elbo

EPOCHS = 4


# --- what each process does -----------------------------------------------------------------------

def small_data():
    """100 training images, in batches of 33: the last batch has one image."""
    whole = load_data("mnist", source="sample")
    part = lambda split, n: Split(split.images[:n], split.labels[:n])
    return ImageData(part(whole.train, 100), part(whole.val, 40), None, whole.name, whole.source, whole.class_names)


def train(seed=0, model=None, epochs=EPOCHS, **kwargs):
    """History and weights of a short run, in a form that JSON keeps to the last digit."""
    torch.manual_seed(seed)
    model = model or VAE(hidden_dims=(8,), latent_dim=3)
    kwargs = dict(batch_size=33, beta=LinearBeta(2), device="cpu", precision="fp32", progress=False) | kwargs
    history = fit(model, small_data(), epochs, **kwargs)
    rows = [asdict(epoch) | {"seconds": 0} for epoch in history]
    learned = kwargs["objective"].state_dict() if isinstance(kwargs.get("objective"), torch.nn.Module) else {}
    weights = {name: t.tolist() for name, t in (model.state_dict() | learned).items()}
    return dict(rows=rows, weights=weights, ended=history.ended)


def outcome(*args, **kwargs):
    """What `train` gives, or the name and the message of its error."""
    try:
        return train(*args, **kwargs)
    except Exception as error:
        return [type(error).__name__, str(error)]


def ctrl_c_in_last_process(step):
    steps = iter(range(1, 1000))

    def objective(*args):
        if next(steps) == step and dist.get_rank() == dist.get_world_size() - 1:
            signal.raise_signal(signal.SIGINT)
        return elbo(*args)
    return objective


def nan_in_last_process(*args):
    terms = elbo(*args)
    is_last = dist.get_rank() == dist.get_world_size() - 1
    return terms._replace(loss=terms.loss * float("nan")) if is_last else terms


def after_two(do, *args):
    """A callback that does something after the second epoch."""
    return lambda model, history: do(*args) if len(history) == 2 else None


def fail(error):
    raise error


class Weighted(torch.nn.Module):
    """An objective with a parameter of its own, of which each process must get the same gradient."""

    def __init__(self):
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(float(os.environ.get("RANK", 0))))

    def forward(self, *args):
        loss, reconstruction, kl, beta = elbo(*args)
        return Elbo(loss + (self.log_scale - reconstruction.detach() / 100).square(), reconstruction, kl, beta)


def three_processes(folder):
    return dict(plain=outcome(seed=int(os.environ["RANK"])))


def two_processes(folder):
    rank, called = int(os.environ["RANK"]), []
    os.environ.pop("TQDM_DISABLE")
    model = VAE(hidden_dims=(8,), latent_dim=3)
    return {
        "resumed": outcome(checkpoint=folder / "run", resume=True),
        "plain": outcome(seed=rank, progress=True, callbacks=[lambda *_: called.append(1)]),
        "callbacks": len(called),
        "again": [outcome(model=model), outcome(model=model)],
        "nan": outcome(objective=nan_in_last_process),
        "ctrl-c": outcome(objective=ctrl_c_in_last_process(step=6)),
        "ctrl-c in a callback": outcome(callbacks=[after_two(fail, KeyboardInterrupt())]),
        "stopped by a callback": outcome(callbacks=[after_two(fail, StopTraining("enough"))], checkpoint=folder / "stopped"),
        "resumed after a stop": outcome(checkpoint=folder / "stopped", resume=True),
        "error in a callback": outcome(callbacks=[after_two(fail, OSError("disk full"))]),
        "learned": outcome(objective=Weighted()),
        "other arguments": outcome(lr=1e-3 * (1 + rank)),
        "other patience": outcome(lr=0.0, patience=1 + rank),
        "compiled": outcome(compile=True),
        "other folders": outcome(checkpoint=folder / ("run" if rank == 0 else "elsewhere"), resume=True),
    }


if __name__ == "__main__":
    scenario, folder = sys.argv[1], Path(sys.argv[2])
    found = globals()[scenario](folder)
    (folder / f"{scenario}_{dist.get_rank()}.json").write_text(json.dumps(found))
    if scenario == "three_processes":
        train(checkpoint=folder / "run", callbacks=[after_two(os.kill, os.getpid(), signal.SIGKILL)])


# --- what is asked of them ------------------------------------------------------------------------

def launch(scenario, processes, folder):
    """All that the processes print; what each of them found lies in the folder."""
    return run_process("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, __file__, scenario, folder,
                       timeout=120)


def read(folder, scenario, processes):
    return [json.loads((folder / f"{scenario}_{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def alone():
    return train()


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder in which three processes trained until the first was killed, and two went on; and what the two printed."""
    folder = tmp_path_factory.mktemp("distributed")
    with pytest.raises(pytest.fail.Exception, match="SIGKILL"):
        launch("three_processes", 3, folder)
    return folder, launch("two_processes", 2, folder)


@pytest.fixture(scope="module")
def two(launched):
    return read(launched[0], "two_processes", 2)


@pytest.fixture(scope="module")
def three(launched):
    return read(launched[0], "three_processes", 3)


def assert_same_run(run, expected, tolerance):
    assert run["ended"] == expected["ended"] and len(run["rows"]) == len(expected["rows"])
    for row, row_expected in zip(run["rows"], expected["rows"]):
        assert row == pytest.approx(row_expected, rel=tolerance, abs=0)


@pytest.mark.parametrize("number", ["two", "three"])
def test_losses_are_those_of_one_process(number, alone, request):
    for process in request.getfixturevalue(number):
        assert_same_run(process["plain"], alone, tolerance=1e-5)


@pytest.mark.parametrize("number", ["two", "three"])
def test_histories_and_weights_are_equal_in_all_processes_whatever_they_began_with(number, request):
    first, *others = [process["plain"] for process in request.getfixturevalue(number)]
    assert all(other == first for other in others)


def test_run_of_three_that_was_killed_is_resumed_by_two(two, alone):
    assert two[0]["resumed"] == two[1]["resumed"]
    assert_same_run(two[0]["resumed"], alone, tolerance=1e-5)


def test_only_the_first_process_shows_progress_calls_back_and_writes(launched, two):
    folder, output = launched
    assert output.count("0.00/400") == 1 and output.count("interrupted after") == 2      # of two interrupted runs
    assert [process["callbacks"] for process in two] == [EPOCHS, 0]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors*")) == ["run/run.safetensors", "stopped/run.safetensors"]


def test_model_can_be_trained_again(two):
    first, second = two[0]["again"]
    assert second["ended"] == "all epochs done" and second["rows"][0]["loss"] < first["rows"][-1]["loss"]
    assert two[1]["again"] == [first, second]


def test_nan_in_one_process_is_a_divergence_in_all(two):
    for process in two:
        assert process["nan"][0] == TrainingDiverged.__name__ and "epoch 1 diverged: the loss was nan in step 1" in process["nan"][1]


@pytest.mark.parametrize("cause, ended", {"ctrl-c": "interrupted", "ctrl-c in a callback": "interrupted",
                                          "stopped by a callback": "stopped by a callback: enough",
                                          "resumed after a stop": "stopped by a callback: enough"}.items())
def test_what_stops_one_process_ends_all_after_the_same_epoch(cause, ended, two, alone):
    assert two[0][cause] == two[1][cause]
    assert_same_run(two[0][cause], dict(ended=ended, rows=alone["rows"][:2]), tolerance=1e-5)


def test_a_parameter_of_the_objective_is_trained_as_in_one_process(two):
    one = train(objective=Weighted())
    assert two[0]["learned"] == two[1]["learned"] and one["weights"]["log_scale"] > 0
    assert two[0]["learned"]["weights"]["log_scale"] == pytest.approx(one["weights"]["log_scale"], rel=1e-4)
    assert_same_run(two[0]["learned"], one, tolerance=1e-4)


def test_error_in_a_callback_is_raised_in_the_first_process_and_ends_the_others(two):
    assert two[0]["error in a callback"] == ["OSError", "disk full"]
    assert two[1]["error in a callback"]["ended"] == "interrupted" and len(two[1]["error in a callback"]["rows"]) == 2


@pytest.mark.parametrize("case, message", {"other arguments": "lr must be the same in all processes, is [0.001, 0.002]",
                                           "other patience": "patience must be the same in all processes, is [1, 2]",
                                           "other folders": "epochs in the checkpoint must be the same in all processes, is [4, 0]"}.items())
def test_processes_that_disagree_are_told_so(case, message, two):
    assert two[0][case] == two[1][case] == ["ValueError", message]


def test_compiling_is_refused(two):
    assert two[0]["compiled"] == two[1]["compiled"] == ["ValueError", "compile is True, must be False with several processes"]


@given(n=st.integers(1, 20), world=st.integers(1, 8))
def test_shares_cover_each_batch_once_and_their_weights_average_to_one(n, world):
    shares = [share(n, rank, world) for rank in range(world)]
    assert sum(weight for _, weight in shares) == pytest.approx(world)
    assert [i for rows, weight in shares if weight for i in range(n)[rows]] == list(range(n))
    assert all(len(range(n)[rows]) for rows, _ in shares)


@pytest.mark.parametrize("draw", [lambda n, g: torch.randn((n, 3), generator=g), lambda n, g: torch.randn(n, 3, generator=g)])
def test_draws_of_a_share_are_rows_of_the_draws_of_the_batch(draw):
    seeded, own = lambda: torch.Generator().manual_seed(5), torch.Generator()
    generator, whole = seeded(), draw(7, seeded())
    with SameDraws(generator, 7, own, slice(2, 4)):
        assert draw(2, own).equal(whole[2:4])
        state = generator.get_state()
        draw(5, own), torch.randn(2, generator=torch.Generator()), torch.randn(2)
    assert generator.get_state().equal(state)
