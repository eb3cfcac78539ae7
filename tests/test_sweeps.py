"""Sweeps that are killed, refused and resumed; intervals, mutual information and drawn shapes against what is known of them."""
import functools
import json
import math
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from factories import LearnedWidth, after, digit_model, train, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score
from torch import nn

from vae_tutorial import grid, runs
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split
from vae_tutorial.grid import sweep
from vae_tutorial.saving import load_model
from vae_tutorial.sweeps import (FACTORS, dci, discs, kl_parts, mig, mutual_information, plot_rate_distortion, plot_tradeoff, shapes, summarize,
                                 tc_elbo)
from vae_tutorial.training import LinearBeta, fit, validate
from vae_tutorial.vae import VAE, VAEOutput, elbo, kl_divergence, reparameterize

# most runs here are shorter than their warm-up
pytestmark = pytest.mark.filterwarnings("ignore:beta is on its way")
GRID = {"beta": [1.0, 4.0], "seed": [0, 1]}
PLAIN = dict(epochs=2, hidden_dims=(8,), latent_dim=3, batch_size=64, precision="fp32", device="cpu")


def run(data, folder, grid=GRID, **settings):
    settings = {name: value for name, value in (PLAIN | settings).items() if name not in grid}
    return sweep(data, grid, folder=folder, progress=False, **settings)


def figures(table):
    """The table without its clock readings and places."""
    return table.drop(columns=["seconds", "path"])


def kept(path):
    """The weights in a file of a model."""
    return weights(load_model(path)[0])


def alone(data, row, **settings):
    """The run of a row, trained without a sweep."""
    return train(digit_model(seed=row.seed), data, beta=row.beta, seed=row.seed, **settings)


@pytest.fixture
def fitted(monkeypatch):
    """The arguments of every call of `fit`: of all that is trained by itself."""
    calls = []
    monkeypatch.setattr(grid, "fit", lambda *args, **kwargs: calls.append(kwargs) or fit(*args, **kwargs))
    return calls


# --- the table -----------------------------------------------------------------------------------

def test_rows_are_the_runs_of_the_grid_and_equal_plain_fits(data, tmp_path):
    before = torch.get_rng_state()
    table = run(data, tmp_path)
    assert torch.get_rng_state().equal(before)
    assert table[["beta", "seed"]].values.tolist() == [[1, 0], [1, 1], [4, 0], [4, 1]]
    for row in table.itertuples():
        model, history = alone(data, row)
        best = history.best
        assert (row.epoch, row.loss, row.reconstruction, row.kl) == (best.epoch, best.loss, best.reconstruction, best.kl)
        assert (row.train_loss, row.ended) == (best.train_loss, "all epochs done")
        assert kept(row.path).equal(weights(model)) and len(load_model(row.path)[1]) == 2
    assert table.seconds.gt(0).all() and (table.error == "").all()
    written = pd.read_csv(tmp_path / "sweep.csv", keep_default_na=False)
    for column in ("beta", "seed", "loss", "kl", "ended"):
        assert written[column].tolist() == table[column].tolist()
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == sorted(["sweep.json", "sweep.csv"] + ["model.safetensors", "row.json"] * 4)


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("restore_best", [True, False])
def test_row_describes_the_epoch_whose_weights_are_kept(data, tmp_path, restore_best, at_once):
    row = run(data, tmp_path, {"beta": [0.0, 1.0]}, lr=0.03, epochs=12, restore_best=restore_best, at_once=at_once).iloc[0]
    model, history = load_model(row.path)
    epoch = history.best if restore_best else history[-1]
    assert history.best.epoch < 12, "this test needs a run that gets worse"
    assert (row.epoch, row.loss) == (epoch.epoch, epoch.loss)
    assert validate(model, data.val.images) == pytest.approx((row.reconstruction, row.kl), rel=1e-6)


def test_any_argument_can_be_varied(data, tmp_path):
    table = run(data, tmp_path, {"hidden_dims": [(8,), (6, 4)], "beta": [0.5, LinearBeta(2)], "epochs": range(1, 3)})
    assert len(table) == 8 and table.epoch.le(table.epochs).all()
    assert table.hidden_dims.tolist() == [(8,)] * 4 + [(6, 4)] * 4
    assert load_model(table.path[7])[0].config["hidden_dims"] == (6, 4)
    assert len(set(table.path)) == 8


@pytest.mark.parametrize("values, settings", [
    ({"beta": np.array([0.5, 2.0]), "seed": np.arange(2)}, {}),
    ({"beta": torch.tensor([0.5, 2.0]), "seed": torch.arange(2)}, {"epochs": np.int64(2), "batch_size": torch.tensor(64)}),
    ({"beta": [np.array(0.5), torch.tensor(2.0)], "seed": [np.uint8(0), np.int32(1)]}, {"epochs": torch.tensor(2), "lr": np.float64(1e-3)}),
], ids=["arrays", "tensors", "arrays without axes"])
def test_numbers_of_numpy_and_torch_are_numbers(data, tmp_path, fitted, values, settings):
    first = run(data, tmp_path, {"beta": [0.5, 2.0], "seed": [0, 1]}, lr=1e-3)
    fitted.clear()
    again = run(data, tmp_path, values, **{"lr": 1e-3} | settings)
    assert not fitted and figures(again).equals(figures(first))
    new = run(data, tmp_path / "new", values, **{"lr": 1e-3} | settings)
    assert figures(new).equals(figures(first)) and new.path.map(lambda path: len(load_model(path)[1])).eq(2).all()


@pytest.mark.parametrize("at_once", [1, 4])
def test_objective_with_parameters_is_learned_by_each_run_for_itself(data, tmp_path, at_once):
    objective, found = LearnedWidth(), []
    for row in run(data, tmp_path, objective=objective, at_once=at_once).itertuples():
        learned, by_itself = LearnedWidth(), LearnedWidth()
        loaded, _ = load_model(row.path, objective=learned)
        model, _ = alone(data, row, objective=by_itself)
        assert weights(loaded, learned).equal(weights(model, by_itself))
        found.append(learned.log_sigma.item())
    assert objective.log_sigma == 0 and len(set(found)) == 4


@pytest.mark.parametrize("at_once, callbacks", [(1, True), (4, False)])
def test_bar_counts_all_epochs_and_callbacks_are_called_beside_it(data, tmp_path, monkeypatch, capsys, at_once, callbacks):
    monkeypatch.delenv("TQDM_DISABLE")
    seen = []
    sweep(data, GRID, folder=tmp_path, at_once=at_once, callbacks=[lambda m, h: seen.append(len(h))] * callbacks, **PLAIN)
    shown = capsys.readouterr()
    assert "8/8" in shown.out + shown.err and seen == [1, 2] * 4 * callbacks


# --- resuming ------------------------------------------------------------------------------------

def test_finished_runs_are_not_trained_again_and_more_values_are_welcome(data, tmp_path, fitted):
    first = run(data, tmp_path)
    fitted.clear()
    assert run(data, tmp_path).equals(first) and not fitted
    assert run(data, tmp_path, callbacks=[print], device=None, compile=True).equals(first) and not fitted     # these do not matter
    more = run(data, tmp_path, GRID | {"beta": [1.0, 2.0, 4.0]})
    assert len(more) == 6 and len(fitted) == 2
    assert figures(more.query("beta != 2").reset_index(drop=True)).equals(figures(first))


def test_ctrl_c_stops_the_sweep_and_loses_nothing(data, tmp_path):
    left = iter(range(3))            # one whole run of two epochs, then in the second
    stop = lambda model, history: next(left, None) is None and after(len(history))(model, history)
    with pytest.raises(KeyboardInterrupt, match="beta=1,seed=1; the same call goes on"):
        run(data, tmp_path / "a", callbacks=[stop])
    assert [path.parent.name for path in (tmp_path / "a").glob("*/row.json")] == ["beta=1,seed=0"]
    assert figures(run(data, tmp_path / "a")).equals(figures(run(data, tmp_path / "b")))


@pytest.mark.parametrize("writer", ["write_json", "save_model"])
def test_death_between_the_files_of_a_run(data, tmp_path, writer, monkeypatch):
    """Killed after the checkpoint of the last epoch but before the model or a row was written."""
    whole = run(data, tmp_path / "whole")
    run(data, tmp_path / "killed", {"beta": [1.0], "seed": [0]})                 # so that sweep.json is there
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(grid, writer, lambda *args, **kwargs: exec("raise SystemExit"))
        run(data, tmp_path / "killed")
    assert not (tmp_path / "killed" / "beta=1,seed=1" / "row.json").exists()
    assert figures(run(data, tmp_path / "killed")).equals(figures(whole))


# --- many models at once --------------------------------------------------------------------------

FIGURES = ["loss", "reconstruction", "kl", "train_loss", "train_reconstruction", "train_kl"]
MIXED = {"beta": [1.0, LinearBeta(2, every="step"), 4.0], "seed": [0, 1]}


class Double(VAE):
    """In double precision, so that nothing but a mistake can be seen."""

    def __init__(self, latent_dim=3, hidden_dims=(8,)):
        super().__init__(hidden_dims=hidden_dims, latent_dim=latent_dim)
        self.config = dict(latent_dim=latent_dim, hidden_dims=hidden_dims)
        self.double()


class DoubleConv(ConvVAE):
    def __init__(self, latent_dim=3, hidden_dims=(4,)):
        super().__init__(latent_dim=latent_dim, channels=hidden_dims)
        self.config = dict(latent_dim=latent_dim, hidden_dims=hidden_dims)
        self.double()


def elbo_in_double(model, x, beta, generator):
    return elbo(model, x.double(), beta, generator)


class WithLayer(Double):
    def __init__(self, latent_dim=3, hidden_dims=(8,)):
        super().__init__(latent_dim, hidden_dims)
        self.encoder.insert(2, self.layer)
        self.float()


class Normalised(WithLayer):
    layer = property(lambda self: nn.BatchNorm1d(8))


class Dropped(WithLayer):
    layer = property(lambda self: nn.Dropout(0.1))


def assert_close(found, expected, tolerance):
    for column in FIGURES:
        np.testing.assert_allclose(found[column], expected[column], rtol=tolerance, atol=0, err_msg=column)
    rest = ["seed", "epoch", "ended", "error"]
    assert found[rest].equals(expected[rest])


@pytest.mark.parametrize("values, at_once, settings", [
    (MIXED, 2, {}), (MIXED, 99, {"lr_schedule": "one-cycle"}), (MIXED, 4, {"restore_best": False, "lr": 0.03}),
    ({"seed": [0, 1], "lr": [1e-3, 1e-2], "latent_dim": [2, 3]}, 4, {}),        # in a group, only seed and β may differ
    ({"seed": [0, 1]}, 2, {"optimizer": torch.optim.AdamW}),
    ({"seed": [0, 1]}, 2, {"model_class": DoubleConv, "hidden_dims": (4,)})])
def test_models_trained_at_once_are_those_trained_one_by_one(data, tmp_path, fitted, values, at_once, settings):
    """In double precision, to ten digits; with another noise or order they differ in the third."""
    settings = dict(epochs=3, model_class=Double, objective=elbo_in_double) | settings
    expected = run(data, tmp_path / "one", values, **settings)
    fitted.clear()
    before, started = torch.get_rng_state(), time.perf_counter()
    found = run(data, tmp_path / "many", values, at_once=at_once, **settings)
    assert 0 < found.seconds.min() and found.seconds.sum() < time.perf_counter() - started      # they share the time of a group
    assert not fitted and torch.get_rng_state().equal(before)
    assert_close(found, expected, tolerance=1e-6)                                               # figures are kept in float32
    for path, path_expected in zip(found.path, expected.path):
        (model, history), (model_expected, history_expected) = load_model(path), load_model(path_expected)
        assert history.settings == history_expected.settings and not model.training
        assert [(e.beta, e.lr, e.settled) for e in history] == [(e.beta, e.lr, e.settled) for e in history_expected]
        for one, other in zip(model.state_dict().values(), model_expected.state_dict().values(), strict=True):
            assert one.dtype == torch.float64 and (one - other).abs().max() <= 1e-10 * other.abs().max()
    files = lambda name: sorted(path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*"))
    assert files("many") == files("one")


def test_draws_are_each_members_own(data, tmp_path, fitted):
    """An objective that draws three times and reports its noise alone, so that any draw of another member would be seen."""
    def noise(model, x, beta, generator):
        first, second = torch.randn(len(x), 3, generator=generator), torch.randn((len(x),), generator=generator)
        terms = elbo(model, x, beta, generator)
        return terms._replace(reconstruction=first.mean() + 10 * second.mean(), kl=terms.kl * 0)
    both = [run(data, tmp_path / str(n), {"seed": [0, 1, 2]}, objective=noise, at_once=n) for n in (1, 3)]
    assert len(fitted) == 3 and both[0].train_reconstruction.nunique() == 3
    np.testing.assert_allclose(both[1].train_reconstruction, both[0].train_reconstruction, rtol=1e-4)


def test_diverged_member_leaves_the_others_alone(data, tmp_path, fitted):
    bomb = LinearBeta(epochs=2, start=0.0, end=1e39, every="epoch")         # more than float32 holds, from the second epoch on
    values = {"beta": [1.0, bomb, 4.0], "seed": [0]}
    one, many = (run(data, tmp_path / str(n), values, epochs=3, at_once=n) for n in (1, 3))
    assert len(fitted) == 3
    assert many.ended.tolist() == ["all epochs done", "diverged", "all epochs done"]
    assert many.error[1].startswith("epoch 2 diverged: the loss was inf in step 1")
    assert_close(many, one, tolerance=1e-5)
    _, history = load_model(many.path[1])
    assert len(history) == 1 and torch.isfinite(kept(many.path[1])).all()
    torch.testing.assert_close(kept(many.path[1]), kept(one.path[1]), rtol=0, atol=1e-5)


def test_bfloat16_at_once_is_within_its_rounding(data, tmp_path, fitted):
    exact, one, many = (run(data, tmp_path / name, precision=precision, at_once=n)
                        for name, precision, n in [("exact", "fp32", 1), ("one", "bf16", 1), ("many", "bf16", 4)])
    assert len(fitted) == 8 and not many.loss.equals(exact.loss)
    for column in ("loss", "train_loss"):
        np.testing.assert_allclose(many[column], one[column], rtol=1e-3)


def from_elsewhere(model, x, beta, generator):
    return elbo(model, (x + 0.1 * torch.rand_like(x)).clamp(0, 1), beta, generator)


def with_a_decision(model, x, beta, generator):
    return elbo(model, x, beta if elbo(model, x).kl < 1 else 0.0, generator)


@pytest.mark.parametrize("settings", [dict(patience=1), dict(callbacks=[lambda *_: None]), dict(model_class=Normalised),
                                      dict(model_class=Dropped), dict(objective=from_elsewhere), dict(objective=with_a_decision)],
                         ids=["patience", "callbacks", "batch norm", "dropout", "other draws", "decision"])
def test_what_cannot_be_batched_is_trained_one_by_one(data, tmp_path, fitted, settings):
    tables = []
    for n in (1, 4):
        torch.manual_seed(0)                 # for those that draw from PyTorch's generator
        tables.append(run(data, tmp_path / str(n), at_once=n, **settings))
    assert len(fitted) == 8 and figures(tables[0]).equals(figures(tables[1]))


def test_interrupted_group_starts_again_and_what_is_finished_stays(data, tmp_path, fitted):
    stop = True

    def objective(*args):
        if stop and len(list((tmp_path / "a").glob("*/row.json"))) == 2:           # in the second group of two runs
            raise KeyboardInterrupt
        return elbo(*args)

    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "a", objective=objective, at_once=2)
    stop = False
    assert len(list((tmp_path / "a").glob("*/row.json"))) == 2
    tables = [run(data, tmp_path / name, objective=objective, at_once=2) for name in ("a", "b")]
    assert figures(tables[0]).equals(figures(tables[1])) and not fitted


def test_run_with_a_checkpoint_goes_on_by_itself(data, tmp_path, fitted):
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path, callbacks=[after(1)])
    assert (tmp_path / "beta=1,seed=0" / "run.safetensors").exists()
    fitted.clear()
    table = run(data, tmp_path, at_once=4)
    assert [call["seed"] for call in fitted] == [0] and len(table) == 4
    assert figures(run(data, tmp_path, at_once=1)).equals(figures(table))
    assert not list(tmp_path.rglob("run.safetensors"))


# --- what goes wrong -----------------------------------------------------------------------------

def test_diverged_run_is_a_row_and_the_sweep_goes_on(data, tmp_path):
    table = run(data, tmp_path, {"lr": [1e6, 1e-3]})
    assert table.ended.tolist() == ["diverged", "all epochs done"]
    assert "epoch 1 diverged" in table.error[0] and table.error[1] == ""
    assert table.loc[0, ["loss", "reconstruction", "kl", "epoch", "train_loss"]].isna().all() and table.loss.notna()[1]
    assert run(data, tmp_path, {"lr": [1e6, 1e-3]}).equals(table)
    assert summarize(table.assign(all="x"), "all", ["loss"]).runs.item() == 1


@pytest.mark.parametrize("change, message", [
    (dict(epochs=3), r"epochs is 3, but .*sweep\.json was made with 2: ask for the same .* or give another folder"),
    (dict(hidden_dims=(9,)), r"hidden_dims is '\(9,\)', but .* was made with '\(8,\)'"),
    (dict(objective=functools.partial(elbo, free_bits=1.0)), r"objective is 'elbo\(free_bits=1.0\)', but .* 'elbo'"),
    (dict(optimizer=torch.optim.AdamW, lr=1e-3), "optimizer is 'AdamW', but .* was made with"),
    (dict(grid={"beta": [1.0]}), "varied is 'beta', but .* 'beta, seed'"),
    ("train", "train images is .* but .* was made with"), ("val", "val images is .* but .* was made with"),
])
def test_folder_of_another_sweep_is_refused(data, tmp_path, change, message):
    run(data, tmp_path, {"beta": [1.0], "seed": [0]})
    if isinstance(change, str):
        images = getattr(data, change).images.clone()
        images[0, 0, 5, 5] ^= 1
        data, change = replace(data, **{change: Split(images, getattr(data, change).labels)}), {}
    with pytest.raises(ValueError, match=message):
        run(data, tmp_path, **dict(grid={"beta": [1.0], "seed": [0]}) | change)


@pytest.mark.parametrize("values, settings, message", [
    ({"betta": [1]}, {}, "a setting of the sweep is 'betta', must be one of .*'beta'.*'latent_dim'.*the nearest is 'beta'"),
    ({"seed": [0]}, {"checkpoint": "x"}, "'checkpoint', must be one of"),
    ({"seed": []}, {}, r"seed in the grid is \[\], must be a list of at least one"),
    ({"hidden_dims": (8, 4)}, {}, r"hidden_dims in the grid is \(8, 4\), must be a list"),
    ({"seed": np.array([1, 1])}, {}, "must not hold a value twice"),
    ({"seed": [0]}, {"seed": 1}, "seed is in the grid and is also set to 1"),
    # all values are looked at before the first is trained: those of the recipe, of the model, and of the sweep
    ({"lr": [0.1, math.nan]}, {}, "lr is nan"),
    ({"hidden_dims": [(4,), (0,)]}, {}, "hidden_dims"),
    ({"seed": [0]}, {"epochs": 0}, "epochs is 0"),
    ({"seed": [0]}, {"epochs": None}, "epochs is None|epochs: no value given"),
    ({"seed": [0]}, {"at_once": True}, "at_once is True, must be a whole number of at least 1"),
    ({"seed": [0]}, {"folder": ""}, "folder is '', must be the path of a"),
])
def test_mistakes_are_named_before_anything_is_trained(data, tmp_path, values, settings, message):
    with pytest.raises(ValueError, match=message):
        sweep(data, values, progress=False, **dict(epochs=1, folder=tmp_path / "new") | settings)
    assert not (tmp_path / "new").exists()


def test_defaults_are_noted_as_what_they_stand_for(data, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "has_native_bf16", lambda device: False)
    first = run(data, tmp_path, {"seed": [0]}, precision="auto")
    noted = json.loads((tmp_path / "sweep.json").read_text())
    assert (noted["precision"], noted["lr"]) == ("fp32", 1e-3)
    assert run(data, tmp_path, {"seed": [0]}, precision="fp32", lr=1e-3).equals(first)
    monkeypatch.setattr(runs, "has_native_bf16", lambda device: True)
    with pytest.raises(ValueError, match="precision is 'bf16', but .* was made with 'fp32'"):
        run(data, tmp_path, {"seed": [0]}, precision="auto")


# --- intervals -----------------------------------------------------------------------------------

def test_interval_of_two_runs_is_known():
    table = pd.DataFrame({"beta": [1.0, 1.0, 2.0], "loss": [3.0, 5.0, 7.0]})
    found = summarize(table, "beta", ["loss"])
    # t with one degree of freedom is Cauchy: its 97.5 % point is tan(0.475 pi); s / sqrt(2) is half the difference
    assert found.loc[1.0, "loss ±"] == pytest.approx(math.tan(0.475 * math.pi))
    assert found.loc[1.0, "loss"] == 4 and found.loc[2.0, "loss"] == 7
    assert math.isnan(found.loc[2.0, "loss ±"]) and found.runs.tolist() == [2, 1]
    assert summarize(table, "beta", ["loss"], level=0.5).loc[1.0, "loss ±"] == pytest.approx(1.0)


@pytest.mark.parametrize("values", [[None, None, 0.01, 0.01], [None, None, (8,), (8,)]], ids=["numbers", "objects"])
def test_runs_whose_setting_is_none_are_a_group_like_any_other(values):
    table = pd.DataFrame({"by": values, "kl": [1.0, 3.0, 5.0, 7.0], "reconstruction": 80.0})
    for by in ("by", ["by", "reconstruction"]):
        assert summarize(table, by, ["kl"])[["kl", "runs"]].values.tolist() == [[2, 2], [6, 2]]
    assert [text.get_text() for text in plot_rate_distortion(table, by="by").texts] == ["None", str(values[-1])]
    if values[-1] == 0.01:
        assert plot_tradeoff(table, "by", ["kl"]).lines[0].get_xydata().tolist() == [[0.01, 6]]
    plt.close("all")


def test_plots_show_means_intervals_and_the_best_bound():
    table = pd.DataFrame({"beta": [0.5, 0.5, 1.0, 1.0, 16.0, 16.0], "kl": [30.0, 31, 25, 26, 10, 11],
                          "reconstruction": [80.0, 81, 82, 83, 120, 121]})
    ax = plot_rate_distortion(table)
    assert [text.get_text() for text in ax.texts] == ["0.5", "1", "16"]
    assert ax.get_legend().get_texts()[0].get_text() == "−ELBO 108.0"
    assert plot_rate_distortion(table, ax=ax) is ax
    ax = plot_tradeoff(table, "beta", ["kl", "reconstruction"])
    assert ax.get_xscale() == "log" and [t.get_text() for t in ax.get_legend().get_texts()] == ["kl", "reconstruction"]
    assert plot_tradeoff(table.query("beta < 2"), "beta", ["kl"]).get_xscale() == "linear"


# --- mutual information --------------------------------------------------------------------------


def test_mig_in_closed_form():
    every = np.stack(np.meshgrid(*map(np.arange, (3, 4, 5)), indexing="ij"), -1).reshape(-1, 3)      # each combination once
    factors = np.repeat(every, 2, 0)
    assert mig(factors, factors) == pytest.approx(1) and mig(np.hstack([factors, factors]), factors) == 0
    half = np.stack([factors[:, 0], factors[:, 1], factors[:, 1] // 2], 1)                 # the last factor is unknown
    assert mig(half, factors) == pytest.approx(np.mean([1, 1 - math.log(2) / math.log(4), 0]))


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_mig_does_not_see_order_sign_scale_nor_names(seed, scale, shift):
    rng = np.random.default_rng(seed)
    factors, codes = rng.integers(3, size=(200, 2)), rng.normal(size=(200, 4))
    codes[:, 0] += 2 * factors[:, 0]
    value = mig(codes, factors)
    assert 0 <= value <= 1
    assert mig(codes[:, rng.permutation(4)], factors) == pytest.approx(value)
    assert mig(codes, (factors + 5) * 7) == pytest.approx(value)
    assert mig(codes * scale + shift, factors) == pytest.approx(value, abs=0.02)           # a code on the edge of a bin may move
    assert mig(torch.from_numpy(codes), pd.DataFrame(factors)) == value


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), bins=st.integers(2, 30))
def test_mutual_information_agrees_with_scikit_learn(seed, bins):
    rng = np.random.default_rng(seed)
    codes, factors = rng.normal(size=(300, 2)), rng.integers(4, size=(300, 3))
    found = mutual_information(codes, factors, bins)
    for i in range(2):
        edges = np.histogram(codes[:, i], bins)[1][:-1]                 # as disentanglement_lib does
        for k in range(3):
            assert found[k][i] == pytest.approx(mutual_info_score(np.digitize(codes[:, i], edges), factors[:, k]), abs=1e-9)


# --- DCI, and the parts of the KL ----------------------------------------------------------------

def test_dci_of_codes_whose_quality_is_known():
    rng = np.random.default_rng(0)
    factors = rng.integers(6, size=(3000, 3))
    assert min(dci(factors[:, ::-1] * -2.0, factors)) > 0.99
    random = dci(rng.normal(size=(3000, 5)), factors)
    assert random.disentanglement < 0.05 and random.completeness < 0.05 and random.informativeness < 0
    twice = dci(np.tile(factors, 2), factors)                        # no dimension is mixed, but no factor has one of its own
    assert twice.disentanglement > 0.99 and twice.completeness < 0.8 and twice.informativeness > 0.99
    assert dci(torch.from_numpy(factors), pd.DataFrame(factors)) == dci(factors, factors)


@pytest.mark.parametrize("scale, shift", [(1, 0), (1e-7, 0), (1e-3, 1e6), (1e30, 0)])
def test_dci_sees_neither_the_order_of_the_images_nor_scale_and_place_of_the_codes(scale, shift):
    factors = np.repeat(np.stack(np.meshgrid(*map(np.arange, (6, 6, 6)), indexing="ij"), -1).reshape(-1, 3), 4, 0)
    constant = np.full((len(factors), 1), 1 / 3)
    assert min(dci(np.hstack([factors * scale + shift, constant]), factors)) > 0.99
    assert min(dci(factors * scale + shift, factors / 10)) > 0.99                  # a factor may be continuous


def gaussian_codes(n=8000, sigma=0.5):
    """Means with a known covariance, posteriors of one width, and the three parts of their KL."""
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.5]])
    mu = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) @ mixing.T
    covariance = mixing @ mixing.T + sigma**2 * torch.eye(3)
    log_det, variance = covariance.logdet(), covariance.diagonal()
    parts = (0.5 * (log_det - 6 * math.log(sigma)), 0.5 * (variance.log().sum() - log_det), 0.5 * (variance - 1 - variance.log()).sum())
    return mu, torch.full_like(mu, 2 * math.log(sigma)), [float(part) for part in parts]


def test_parts_of_the_kl_of_gaussian_codes_are_the_exact_ones_and_sum_to_it():
    mu, logvar, exact = gaussian_codes()
    found = kl_parts(mu, logvar, 8000)
    assert found == pytest.approx(exact, abs=0.06)
    assert sum(found) == pytest.approx(kl_divergence(mu, logvar).sum(1).mean().item(), abs=0.06)
    assert kl_parts(mu, logvar, 50, seed=3) == kl_parts(mu, logvar, 50, seed=3) != kl_parts(mu, logvar, 50, seed=4)


@pytest.mark.parametrize("logvar", [-12.0, -50.0, -90.0, -1000.0])
def test_parts_of_a_narrow_posterior_sum_to_its_kl(logvar):
    mu = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    found, kl = kl_parts(mu, torch.full_like(mu, logvar)), kl_divergence(mu, torch.full_like(mu, logvar)).sum(1).mean().item()
    assert sum(found) == pytest.approx(kl, abs=0.2)                                 # rounding away the noise would make it 3 too much
    assert found.mutual_information == pytest.approx(math.log(200), abs=1e-6)


def test_tc_elbo_is_the_elbo_at_beta_1_and_charges_total_correlation_alone():
    class Fixed(torch.nn.Module):
        def forward(self, x, generator=None):
            return VAEOutput(torch.zeros_like(x), mu, logvar, reparameterize(mu, logvar, generator))

    mu, logvar, exact = gaussian_codes(2000)
    x, seeded = torch.zeros(2000, 1, 2, 2), lambda: torch.Generator().manual_seed(1)
    plain, same = elbo(Fixed(), x, 1.0, seeded()), tc_elbo(Fixed(), x, 1.0, seeded())
    assert same.loss.item() == pytest.approx(plain.loss.item(), rel=1e-6) and same.kl.item() == pytest.approx(plain.kl.item(), rel=1e-6)
    dear = tc_elbo(Fixed(), x, 3.0, seeded())
    assert (dear.loss - same.loss).item() == pytest.approx(2 * exact[1], abs=0.1)


# --- discs ---------------------------------------------------------------------------------------

def test_discs_have_the_form_of_the_course_and_are_drawn_again_alike():
    drawn, factors = discs(300, 20, 50, seed=3)
    assert isinstance(drawn, ImageData) and (len(drawn.train), len(drawn.val), len(drawn.test)) == (300, 20, 50)
    assert drawn.train.images.shape == (300, 1, 16, 16) and drawn.train.images.dtype == torch.uint8
    for name, n in FACTORS.items():
        assert factors[name].between(0, n - 1).all() and factors[name].nunique() == n
    again, same = discs(300, 20, 50, seed=np.int64(3))
    assert again.train.images.equal(drawn.train.images) and same.equals(factors)
    assert not discs(300, 20, 50, seed=4)[1].equals(factors) and shapes is discs


@pytest.fixture(scope="module")
def drawn():
    """Every combination of factors, and the images that were drawn for it."""
    found, (data, factors) = {}, discs()
    for image, values in zip(data.train.images, factors.loc["train"].itertuples(index=False)):
        found.setdefault(tuple(values), []).append(image)
    return found


def test_images_of_the_same_factors_are_equal_and_of_others_differ(drawn):
    assert len(drawn) > 0.99 * math.prod(FACTORS.values())
    assert all(image.equal(images[0]) for images in drawn.values() for image in images)
    assert len({images[0].numpy().tobytes() for images in drawn.values()}) == len(drawn)


def centre(image):
    grey = image[0].double()
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return float((grey * columns).sum() / grey.sum()), float((grey * rows).sum() / grey.sum())


def test_factors_do_what_their_names_say(drawn):
    def draw(x=3, y=3, size=2):
        return drawn[x, y, size][0]

    ink = [draw(size=s).sum().item() for s in range(FACTORS["size"])]
    assert ink == sorted(ink) and ink[-1] > 5 * ink[0]
    assert centre(draw(x=7))[0] - centre(draw(x=0))[0] == pytest.approx(7, abs=0.1)
    assert centre(draw(y=0))[1] - centre(draw(y=7))[1] == pytest.approx(7, abs=0.1)
    assert draw().max() == 255 and ((draw() > 0) & (draw() < 255)).sum() > 5            # antialiased
    middle = draw(4, 4, 5).sum().item()
    for x, y in [(0, 0), (0, 7), (7, 0), (7, 7)]:
        assert draw(x, y, 5).sum().item() == middle                                     # nothing is cut off
