"""Training in several processes: as one process would, and never one that waits for another in vain.

Run by `torchrun`, this file is also the script that trains.
"""
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import factories
import pytest
import torch
import torch.distributed as dist
from factories import digit_model, found, launch, rows, small_data
from hypothesis import given
from hypothesis import strategies as st

from vae_tutorial.conditional import ConditionalVAE
from vae_tutorial.parallel import SameDraws, StopTraining, share
from vae_tutorial.runs import TrainingDiverged
from vae_tutorial.training import LinearBeta
from vae_tutorial.vae import Elbo, elbo

EPOCHS = 4


# --- what each process does -----------------------------------------------------------------------

def train(seed=0, model=None, **settings):
    """History and weights of a short run, in a form that JSON keeps to the last digit; in batches of 33, the last has one image."""
    model = model or digit_model(seed=seed)
    settings = dict(batch_size=33, beta=LinearBeta(2)) | settings
    _, history = factories.train(model, small_data(100, 40), EPOCHS, **settings)
    learned = settings["objective"].state_dict() if isinstance(settings.get("objective"), torch.nn.Module) else {}
    weights = {name: t.tolist() for name, t in (model.state_dict() | learned).items()}
    return dict(rows=[asdict(epoch) for epoch in rows(history)], weights=weights, ended=history.ended)


def outcome(**settings):
    """What `train` gives, or the name and the message of its error."""
    try:
        return train(**settings)
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
    model = digit_model()
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
        "learned": outcome(objective=Weighted()), "labelled": outcome(model=digit_model(kind=ConditionalVAE)),
        "other arguments": outcome(lr=1e-3 * (1 + rank)),
        "other patience": outcome(lr=0.0, patience=1 + rank),
        "compiled": outcome(compile=True),
        "other folders": outcome(checkpoint=folder / ("run" if rank == 0 else "elsewhere"), resume=True),
    }


if __name__ == "__main__":
    scenario, folder = sys.argv[1], Path(sys.argv[2])
    outcomes = globals()[scenario](folder)
    (folder / f"{scenario}_{dist.get_rank()}.json").write_text(json.dumps(outcomes))
    if scenario == "three_processes":
        train(checkpoint=folder / "run", callbacks=[after_two(os.kill, os.getpid(), signal.SIGKILL)])


# --- what is asked of them ------------------------------------------------------------------------

@pytest.fixture(scope="module")
def alone():
    return train()


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder in which three processes trained until the first was killed, and two went on; and what the two printed."""
    folder = tmp_path_factory.mktemp("distributed")
    with pytest.raises(pytest.fail.Exception, match="SIGKILL"):
        launch(__file__, "three_processes", 3, folder)
    return folder, launch(__file__, "two_processes", 2, folder)


@pytest.fixture(scope="module")
def two(launched):
    return found(launched[0], "two_processes", 2)


def assert_same_run(run, expected, tolerance=1e-5, epochs=EPOCHS, ended="all epochs done"):
    assert run["ended"] == ended and len(run["rows"]) == epochs
    for row, row_expected in zip(run["rows"], expected["rows"]):
        assert row == pytest.approx(row_expected, rel=tolerance, abs=0)


@pytest.mark.deep
def test_all_processes_train_as_one_whatever_they_began_with(launched, two, alone):
    for processes in (two, found(launched[0], "three_processes", 3)):
        first, *others = [process["plain"] for process in processes]
        assert_same_run(first, alone)
        assert all(other == first for other in others)


STOPPED = "stopped by a callback: enough"


@pytest.mark.deep
@pytest.mark.parametrize("case, epochs, ended", [
    ("resumed", EPOCHS, "all epochs done"),                # by two what three began, until one of them was killed
    ("ctrl-c", 2, "interrupted"), ("ctrl-c in a callback", 2, "interrupted"),
    ("stopped by a callback", 2, STOPPED), ("resumed after a stop", 2, STOPPED)])
def test_a_run_goes_on_or_ends_in_all_processes_after_the_same_epoch(case, epochs, ended, two, alone):
    assert two[0][case] == two[1][case]
    assert_same_run(two[0][case], alone, epochs=epochs, ended=ended)


@pytest.mark.deep
@pytest.mark.parametrize("case, error, message", [
    ("nan", TrainingDiverged, "epoch 1 diverged: the loss was nan in step 1"),            # in one process, so in all
    ("other arguments", ValueError, "lr must be the same in all processes, is [0.001, 0.002]"),
    ("other patience", ValueError, "patience must be the same in all processes, is [1, 2]"),
    ("other folders", ValueError, "epochs in the checkpoint must be the same in all processes, is [4, 0]"),
    ("compiled", ValueError, "compile is True, must be False with several processes")])
def test_an_error_is_raised_in_all_processes(case, error, message, two):
    assert two[0][case] == two[1][case] and two[0][case][0] == error.__name__ and two[0][case][1].startswith(message)


@pytest.mark.deep
def test_only_the_first_process_shows_progress_calls_back_and_writes(launched, two):
    folder, output = launched
    assert output.count("0.00/400") == 1 and output.count("interrupted after") == 2      # of two interrupted runs
    assert [process["callbacks"] for process in two] == [EPOCHS, 0]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors*")) == ["run/run.safetensors", "stopped/run.safetensors"]
    # so an error in a callback is raised there, and ends the others
    assert two[0]["error in a callback"] == ["OSError", "disk full"]
    assert two[1]["error in a callback"]["ended"] == "interrupted" and len(two[1]["error in a callback"]["rows"]) == 2


@pytest.mark.deep
def test_a_model_can_be_trained_again_and_the_parameter_of_an_objective_is_trained_as_in_one_process(two):
    first, second = two[0]["again"]
    assert second["ended"] == "all epochs done" and second["rows"][0]["loss"] < first["rows"][-1]["loss"]
    assert two[1]["again"] == [first, second] and two[0]["learned"] == two[1]["learned"]
    one = train(objective=Weighted())
    assert two[0]["learned"]["weights"]["log_scale"] == pytest.approx(one["weights"]["log_scale"], rel=1e-4) and one["weights"]["log_scale"] > 0
    assert_same_run(two[0]["learned"], one, tolerance=1e-4)


@pytest.mark.deep
def test_every_process_takes_the_labels_of_its_own_images(two):
    assert two[0]["labelled"] == two[1]["labelled"]
    assert_same_run(two[0]["labelled"], train(model=digit_model(kind=ConditionalVAE)))


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
