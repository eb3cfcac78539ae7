"""Training: schedules, records, and runs that are stopped, killed, damaged and resumed."""
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_tutorial import training
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split, intensities, load_data
from vae_tutorial.training import (ConstantBeta, CosineBeta, CyclicalBeta, Epoch, History, LinearBeta,
                                   ShowReconstructions, SigmoidBeta, TrainingDiverged, batches, fit, load_model,
                                   save_model, validate)
from vae_tutorial.vae import VAE, Elbo, elbo

RAMPS = [LinearBeta, CosineBeta, SigmoidBeta]


def tiny_model(seed=0):
    torch.manual_seed(seed)
    return VAE(hidden_dims=(8,), latent_dim=3)


@pytest.fixture(scope="module")
def data():
    """300 training and 70 validation images; no batch size below divides either."""
    whole = load_data("mnist", source="sample")
    part = lambda split, n: Split(split.images[:n], split.labels[:n])
    return ImageData(part(whole.train, 300), part(whole.val, 70), None, whole.name, whole.source, whole.class_names)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def rows(history):
    """The history without its timings."""
    return [replace(epoch, seconds=0) for epoch in history]


def train(data, epochs=4, model=None, **kwargs):
    model = model or tiny_model()
    kwargs = dict(batch_size=64, beta=LinearBeta(2), precision="fp32", progress=False) | kwargs
    return model, fit(model, data, epochs, **kwargs)


# --- schedules -----------------------------------------------------------------------------------

@pytest.mark.parametrize("ramp", RAMPS)
@given(epochs=st.integers(1, 50), start=st.floats(0, 5), end=st.floats(0, 5))
def test_ramps_are_exact_at_their_ends(ramp, epochs, start, end):
    by_step, by_epoch = ramp(epochs, start, end), ramp(epochs, start, end, every="epoch")
    assert by_step(0) == start
    assert by_step(epochs) == by_step(epochs + 7.3) == end
    assert by_epoch(epochs - 1) == by_epoch(epochs - 0.01) == by_epoch(3 * epochs) == end
    assert by_epoch(0) == (start if epochs > 1 else end)


@pytest.mark.parametrize("ramp", RAMPS)
@given(times=st.lists(st.floats(0, 12), min_size=2, max_size=20), every=st.sampled_from(["step", "epoch"]))
def test_ramps_never_turn_back_nor_leave_their_range(ramp, times, every):
    values = [ramp(10, 0.5, 2.0, every)(t) for t in sorted(times)]
    assert values == sorted(values) and 0.5 <= values[0] and values[-1] <= 2.0


@pytest.mark.parametrize("ramp, quarter", [(LinearBeta, 0.25), (CosineBeta, (1 - math.sqrt(0.5)) / 2),
                                           (SigmoidBeta, (1 - math.tanh(1.5) / math.tanh(3)) / 2)])
def test_shapes_of_the_ramps(ramp, quarter):
    assert ramp(8)(2) == pytest.approx(quarter, abs=1e-12)
    assert ramp(8)(4) == pytest.approx(0.5, abs=1e-12)


def test_the_schedule_of_the_report_reaches_one_in_epoch_eleven():
    beta = LinearBeta(11, every="epoch")
    assert [round(beta(epoch - 1), 10) for epoch in (1, 5, 10, 11, 50)] == [0, 0.4, 0.9, 1, 1]


def test_cycles_start_again_and_the_last_goes_on():
    beta = CyclicalBeta(LinearBeta(4), period=10, cycles=3)
    assert [beta(t) for t in (0, 2, 4, 9.9, 10, 12, 20, 24, 30, 99)] == [0, 0.5, 1, 1, 0, 0.5, 0, 1, 1, 1]


@pytest.mark.parametrize("make, name", [(lambda: ConstantBeta(-1), "value"), (lambda: ConstantBeta(math.nan), "value"),
                                        (lambda: LinearBeta(-2), "epochs"), (lambda: LinearBeta(end=math.inf), "end"),
                                        (lambda: LinearBeta(every="batch"), "every"),
                                        (lambda: CyclicalBeta(period=0), "period"), (lambda: CyclicalBeta(cycles=0), "cycles")])
def test_impossible_schedules_are_refused_by_name(make, name):
    with pytest.raises(ValueError, match=f"^{name} is"):
        make()


# --- batches and validation ----------------------------------------------------------------------

@given(n=st.integers(1, 200), size=st.integers(1, 250), seed=st.integers(0, 9))
def test_an_epoch_has_every_image_once_as_intensities(n, size, seed):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1)
    parts = list(batches(images, size, torch.Generator().manual_seed(seed)))
    assert [len(p) for p in parts[:-1]] == [size] * (len(parts) - 1) and 1 <= len(parts[-1]) <= size
    assert (torch.cat(parts) * 255).round().flatten().sort().values.tolist() == list(range(n))
    again = torch.cat(list(batches(images, size, torch.Generator().manual_seed(seed))))
    assert torch.cat(parts).equal(again)


def test_validation_weighs_every_image_alike_and_disturbs_nothing(data):
    model = tiny_model().train()
    with torch.no_grad():        # draws without spread: the figure must not depend on the size of the parts
        model.encoder[-1].weight[3:] = 0
        model.encoder[-1].bias[3:] = -60
    state = torch.get_rng_state()
    whole, parts = validate(model, data.val.images), validate(model, data.val.images, batch_size=13)
    assert whole == pytest.approx(parts, rel=1e-5)
    assert torch.get_rng_state().equal(state) and model.training
    out = model(intensities(data.val.images))
    assert whole[0] == pytest.approx(elbo(model, intensities(data.val.images)).reconstruction.item(), rel=1e-5)
    assert out.z.allclose(out.mu, atol=1e-6)


# --- fit -----------------------------------------------------------------------------------------

def test_training_lowers_the_loss_and_leaves_a_model_ready_for_use(data):
    model, history = train(data, beta=1.0)
    assert history[-1].loss < history[0].loss < 570           # 543 nats and a little is knowing nothing
    assert [e.epoch for e in history] == [1, 2, 3, 4] and history.ended == "all epochs done"
    assert not model.training
    assert sum(validate(model, data.val.images)) == pytest.approx(history.best.loss, rel=1e-6)


def test_one_seed_one_result_and_nobody_elses_randomness_is_touched(data):
    models = [tiny_model() for _ in range(3)]
    state = torch.get_rng_state()
    histories = [train(data, model=model, seed=seed)[1] for model, seed in zip(models, (5, 5, 6))]
    assert torch.get_rng_state().equal(state)
    assert weights(models[0]).equal(weights(models[1])) and rows(histories[0]) == rows(histories[1])
    assert not weights(models[0]).equal(weights(models[2]))


def test_looking_more_often_does_not_change_the_training(data):
    def look(model, history):
        model.sample(3)
        model.train()
        torch.rand(7)
    assert weights(train(data)[0]).equal(weights(train(data, callbacks=[look])[0]))


def test_beta_is_asked_at_every_step(data):
    asked = []

    class Spy(LinearBeta):
        def __call__(self, time):
            asked.append(time)
            return super().__call__(time)

    _, history = train(data, epochs=2, beta=Spy(2))
    assert asked[:5] == [0, 0.2, 0.4, 0.6, 0.8]               # five batches of 64 from 300
    assert history[0].beta == pytest.approx(0.4) and history[1].beta == pytest.approx(0.9)


def test_training_figures_are_means_over_images_not_over_batches(data):
    def brightness(model, x, beta, generator):
        total = x.sum() / len(x) + 0 * weights_sum(model)
        return Elbo(total, total, torch.zeros(()), beta)

    def weights_sum(model):
        return sum(p.sum() for p in model.parameters())

    _, history = train(data, epochs=1, objective=brightness)
    truth = intensities(data.train.images).flatten(1).sum(1).mean().item()
    assert history[0].train_loss == pytest.approx(truth, rel=1e-5)
    assert history[0].loss == pytest.approx(intensities(data.val.images).flatten(1).sum(1).mean().item(), rel=1e-5)


def test_the_test_set_stays_shut(data):
    class Shut:
        def __getattribute__(self, name):
            raise AssertionError("somebody looked at the test set")
    train(replace(data, test=Shut()), epochs=1)


def test_the_best_epoch_is_never_one_of_the_warm_up(data):
    _, history = train(data, epochs=5, beta=LinearBeta(3, start=1.0, end=1.0, every="step"), lr=1e-2)
    assert [e.settled for e in history] == [True] * 5          # a ramp from 1 to 1 is settled from the start
    _, history = train(data, epochs=5, beta=LinearBeta(3))
    assert [e.settled for e in history] == [False, False, False, True, True]
    assert history.best.epoch in (4, 5)


def test_the_best_is_chosen_at_beta_one():
    def epoch(number, loss, train_loss, settled=True):
        return Epoch(number, loss, loss, 0, train_loss, train_loss, 0, 4.0, 1e-3, settled, 0)
    history = History([epoch(1, 90, 300, settled=False), epoch(2, 120, 100), epoch(3, 110, 200), epoch(4, 115, 90)])
    assert history.best.epoch == 3
    assert history.out_of_patience(1) and not history.out_of_patience(2) and not history.out_of_patience(None)
    assert History(history.epochs[:1]).best.epoch == 1         # while nothing is settled, the last
    with pytest.raises(ValueError, match="no epoch"):
        _ = History().best


def test_patience_counts_settled_epochs_only(data):
    frozen = partial(train, data, epochs=20, lr=0.0)           # nothing improves, so the first settled epoch is the best
    assert len(frozen(beta=1.0, patience=2)[1]) == 3
    _, history = frozen(beta=LinearBeta(5), patience=2)
    assert len(history) == 8 and history.best.epoch == 6 and history.ended == "patience ran out"
    assert len(frozen(beta=1.0, patience=1)[1]) == 2


@pytest.mark.parametrize("restore_best", [True, False])
def test_it_ends_with_the_weights_it_says(data, restore_best):
    worse = replace(data, train=Split(255 - data.train.images, data.train.labels))       # learns the negatives: gets worse
    model, history = train(worse, epochs=4, beta=1.0, lr=1e-2, restore_best=restore_best)
    assert history.best.epoch < 4
    expected = history.best if restore_best else history[-1]
    assert sum(validate(model, data.val.images)) == pytest.approx(expected.loss, rel=1e-6)


def test_one_cycle_rises_to_lr_and_falls(data):
    _, history = train(data, epochs=10, lr=4e-3, lr_schedule="one-cycle")
    rates = [e.lr for e in history]
    assert max(rates) == pytest.approx(4e-3, rel=0.02) and rates.index(max(rates)) == 2 and rates[-1] < 1e-5
    assert {e.lr for e in train(data, lr=2e-3)[1]} == {2e-3}


def test_bfloat16_comes_close_to_float32(data):
    full, half = (train(data, precision=p, beta=1.0)[1] for p in ("fp32", "bf16"))
    assert half[-1].loss != full[-1].loss
    assert half[-1].loss == pytest.approx(full[-1].loss, rel=0.02)


@pytest.mark.parametrize("bad", [dict(batch_size=0), dict(batch_size=2.5), dict(lr=-1.0), dict(lr=math.nan), dict(beta=-1.0),
                                 dict(lr_schedule="one_cycle"), dict(precision="fp16"), dict(patience=0), dict(seed=-1),
                                 dict(epochs=0), dict(epochs=1.5), dict(beta=lambda time: 1.0)])
def test_bad_arguments_are_refused_by_name_before_anything_happens(data, bad):
    model = tiny_model()
    before, name = weights(model), "value" if bad.get("beta") == -1.0 else next(iter(bad))
    with pytest.raises(ValueError, match=f"^{name} is"):
        train(data, model=model, **bad)
    assert weights(model).equal(before)


def test_no_images_are_refused(data):
    with pytest.raises(ValueError, match="data.val holds no images"):
        train(replace(data, val=Split(data.val.images[:0], data.val.labels[:0])))


def test_a_batch_larger_than_the_data_is_all_of_it(data):
    assert train(data, epochs=1, batch_size=10_000)[1][0].loss < 600


# --- interruptions and divergence ----------------------------------------------------------------

@dataclass(frozen=True)
class InterruptedRamp(LinearBeta):
    """Ctrl-C in the middle of an epoch."""

    at: float = 2.5

    def __call__(self, time):
        if time > self.at:
            raise KeyboardInterrupt
        return super().__call__(time)


def test_ctrl_c_returns_the_history_and_the_best_weights(data, capsys):
    model, history = train(data, beta=InterruptedRamp(1))
    assert len(history) == 2 and history.ended == "interrupted" and not model.training
    assert "interrupted after 2 finished epochs" in capsys.readouterr().out
    assert sum(validate(model, data.val.images)) == pytest.approx(history.best.loss, rel=1e-6)


def test_ctrl_c_in_the_first_epoch_gives_back_the_initial_weights(data):
    model = tiny_model()
    before = weights(model)
    _, history = train(data, model=model, beta=InterruptedRamp(at=0.5))
    assert len(history) == 0 and weights(model).equal(before)


def test_divergence_names_epoch_step_and_cause_and_keeps_the_last_good_weights(data):
    def poisoned(model, x, beta, generator):
        terms = elbo(model, x, beta, generator)
        calls.append(1)
        return terms._replace(loss=terms.loss * (math.nan if len(calls) == 8 else 1)) if model.training else terms

    calls, model = [], tiny_model()
    with pytest.raises(TrainingDiverged, match=r"epoch 2 diverged: the loss was nan in step 2 of 5") as caught:
        # validation of epoch 1 is one call, so call 8 is the second step of epoch 2
        train(data, model=model, objective=poisoned, beta=1.0)
    assert len(caught.value.history) == 1
    assert sum(validate(model, data.val.images)) == pytest.approx(caught.value.history[0].loss, rel=1e-6)


def test_a_learning_rate_far_too_high_is_named(data):
    model = tiny_model()
    before = weights(model)
    with pytest.raises(TrainingDiverged, match="lower lr"):
        train(data, model=model, lr=1e7, beta=1.0)
    assert weights(model).equal(before)


def test_weights_that_are_nan_to_begin_with_are_named(data):
    model = tiny_model()
    with torch.no_grad():
        model.decoder[0].bias[0] = math.nan
    with pytest.raises(TrainingDiverged, match="step 1 of 5.*before this epoch's first update"):
        train(data, model=model)


def test_an_error_in_a_callback_loses_nothing(data, tmp_path):
    def fail(model, history):
        if len(history) == 2:
            raise OSError("the disk of the callback is full")
    model = tiny_model()
    with pytest.raises(OSError, match="callback"):
        train(data, model=model, callbacks=[fail], checkpoint=tmp_path, beta=1.0)
    assert not model.training
    resumed, history = train(data, checkpoint=tmp_path, resume=True, beta=1.0)
    assert weights(resumed).equal(weights(train(data, beta=1.0)[0])) and len(history) == 4


# --- checkpoints ---------------------------------------------------------------------------------

@pytest.mark.parametrize("lr_schedule", ["constant", "one-cycle"])
def test_resumed_is_the_same_to_the_bit_as_never_stopped(data, tmp_path, lr_schedule):
    kwargs = dict(lr_schedule=lr_schedule, beta=CyclicalBeta(LinearBeta(1), period=2, cycles=2), epochs=5)
    whole, history = train(data, **kwargs)
    _, stopped = train(data, checkpoint=tmp_path, callbacks=[interrupt_after(2)], **kwargs)
    model, resumed = train(data, model=tiny_model(seed=123), checkpoint=tmp_path, resume=True, **kwargs)
    assert len(stopped) == 2
    assert weights(model).equal(weights(whole)) and rows(resumed) == rows(history)
    assert resumed.ended == history.ended == "all epochs done"


def test_resumed_convolutions_are_the_same_to_the_bit(data, tmp_path):
    """Their weights lie in memory in another order than in a file; moments that did not follow them would be mixed up."""
    def model(seed):
        torch.manual_seed(seed)
        return ConvVAE(3, channels=(4, 6))
    kwargs = dict(epochs=4, beta=1.0)
    whole, history = train(data, model=model(0), **kwargs)
    train(data, model=model(0), checkpoint=tmp_path, callbacks=[interrupt_after(2)], **kwargs)
    resumed, resumed_history = train(data, model=model(5), checkpoint=tmp_path, resume=True, **kwargs)
    assert weights(resumed).equal(weights(whole)) and rows(resumed_history) == rows(history)


def test_weights_of_convolutions_lie_channels_last_and_their_file_is_whole(data, tmp_path):
    model, _ = train(data, epochs=1, model=ConvVAE(3, channels=(4, 6)))
    assert model.encoder[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.encoder[2].weight.is_contiguous()
    save_model(model, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors", ConvVAE)
    assert weights(loaded).equal(weights(model)) and loaded.encoder[2].weight.is_contiguous()


def interrupt_after(epochs):
    def callback(model, history):
        if len(history) == epochs:
            raise KeyboardInterrupt
    return callback


def test_more_epochs_can_be_asked_of_a_finished_run(data, tmp_path):
    train(data, epochs=2, checkpoint=tmp_path)
    model, history = train(data, epochs=4, checkpoint=tmp_path, resume=True)
    assert weights(model).equal(weights(train(data, epochs=4)[0])) and len(history) == 4
    model, history = train(data, epochs=4, checkpoint=tmp_path, resume=True)
    assert weights(model).equal(weights(train(data, epochs=4)[0])) and len(history) == 4


def test_resume_starts_afresh_where_nothing_is(data, tmp_path):
    model, _ = train(data, checkpoint=tmp_path / "new" / "folder", resume=True)
    assert weights(model).equal(weights(train(data)[0]))


def test_a_run_is_not_overwritten_unasked(data, tmp_path):
    train(data, epochs=1, checkpoint=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"):
        train(data, epochs=1, checkpoint=tmp_path)


@pytest.mark.parametrize("name, other", [("lr", 5e-4), ("batch_size", 32), ("beta", 1.0), ("seed", 7), ("precision", "bf16"),
                                         ("objective", partial(elbo, free_bits=0.1)), ("lr_schedule", "one-cycle")])
def test_resuming_with_another_setting_is_refused_by_name(data, tmp_path, name, other):
    train(data, epochs=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=f"^{name} is .*made with"):
        train(data, checkpoint=tmp_path, resume=True, **{name: other})


def test_resuming_with_another_model_or_other_images_is_refused(data, tmp_path):
    train(data, epochs=1, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="^model is"):
        train(data, model=VAE(hidden_dims=(8,), latent_dim=4), checkpoint=tmp_path, resume=True)
    images = data.train.images.clone()
    images[5, 0, 3, 3] += 1
    with pytest.raises(ValueError, match="^images is"):
        train(replace(data, train=Split(images, data.train.labels)), checkpoint=tmp_path, resume=True)


def test_a_crash_while_saving_leaves_the_checkpoint_before(data, tmp_path, monkeypatch):
    train(data, epochs=2, checkpoint=tmp_path)
    before = (tmp_path / "run.safetensors").read_bytes()

    def power_cut(*_):
        raise OSError("power cut")
    monkeypatch.setattr(training.os, "replace", power_cut)
    with pytest.warns(UserWarning, match=r"epoch 3 could not be saved .*power cut.*; training goes on"):
        train(data, epochs=4, checkpoint=tmp_path, resume=True)
    monkeypatch.undo()
    assert (tmp_path / "run.safetensors").read_bytes() == before
    model, _ = train(data, epochs=4, checkpoint=tmp_path, resume=True)
    assert weights(model).equal(weights(train(data, epochs=4)[0]))


# --- saved models and histories ------------------------------------------------------------------

def test_a_model_comes_back_with_its_history(data, tmp_path):
    model, history = train(data, epochs=2)
    save_model(model, tmp_path / "model.safetensors", history)
    loaded, its_history = load_model(tmp_path / "model.safetensors")
    assert weights(loaded).equal(weights(model)) and loaded.config == model.config and not loaded.training
    assert its_history == history and its_history.settings["lr"] == 1e-3
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors")[1] is None


def test_loading_the_wrong_thing_says_what_is_wrong(data, tmp_path):
    class Other(VAE):
        pass
    save_model(tiny_model(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="Other.*holds a VAE"):
        load_model(tmp_path / "model.safetensors", Other)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.safetensors")


@given(st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 8, st.booleans()), max_size=4))
def test_a_history_survives_json_exactly(values):
    history = History([Epoch(i + 1, *v[:8], v[8], 0.5) for i, v in enumerate(values)], {"lr": 1e-3}, "interrupted")
    assert History.from_dict(json.loads(json.dumps(asdict(history)))) == history


def test_frame_and_plot_hold_what_was_recorded(data):
    _, history = train(data)
    frame = history.to_frame()
    assert list(frame.index) == [1, 2, 3, 4]
    torch.testing.assert_close(torch.tensor(frame.loss.values), torch.tensor((frame.reconstruction + frame.kl).values))
    figure = history.plot()
    assert [ax.get_title() for ax in figure.axes] == ["loss (validation at β = 1)", "reconstruction", "KL", "β"]
    assert {ax.get_ylabel() for ax in figure.axes[:3]} == {"nats per image"}
    assert list(figure.axes[0].lines[1].get_ydata()) == list(frame.loss)
    assert list(figure.axes[0].lines[1].get_xdata()) == [1, 2, 3, 4]
    plt.close(figure)


def test_the_bar_tells_the_terms_and_the_speed(data, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")
    train(data, epochs=2, progress=True)
    shown = capsys.readouterr().err
    for word in ("epoch=2", "loss=", "reconstruction=", "KL=", "β=", "images/s", "600/600"):
        assert word in shown


def test_reconstructions_are_redrawn_after_every_epoch(data, monkeypatch):
    plt.close("all")          # those of other tests
    shown = []

    class Picture:
        def update(self, figure):
            shown.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Picture()
    monkeypatch.setattr(training, "display", display)
    train(data, epochs=3, callbacks=[ShowReconstructions(data.val.images[:8])])
    pictures = [figure.axes[0].images[0].get_array() for figure in shown]
    assert len(pictures) == 3 and (pictures[0] != pictures[2]).any()
    assert not plt.get_fignums()


def test_a_model_with_a_history_of_no_epochs_is_saved_and_loaded(tmp_path):
    save_model(VAE((1, 2, 2), (3,), 2), tmp_path / "model.safetensors", History(ended="diverged"))
    assert load_model(tmp_path / "model.safetensors")[1] == History(ended="diverged")


# --- rates and compiling -------------------------------------------------------------------------

def test_each_schedule_has_a_usual_rate(data):
    for lr_schedule, lr in {"constant": 1e-3, "one-cycle": 8e-3}.items():
        usual, named = (train(data, epochs=3, lr_schedule=lr_schedule, **given)[1] for given in ({}, {"lr": lr}))
        assert usual.settings == named.settings and rows(usual) == rows(named)


def test_unknown_schedule_is_named_whatever_the_rate(data):
    with pytest.raises(ValueError, match="lr_schedule is 'cosine'"):
        train(data, lr_schedule="cosine")


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="compiling wants a C++ compiler")
def test_compiled_is_the_same_but_for_rounding(data):
    """Also while β moves with every step, which must not be compiled into the objective."""
    (_, eager), (_, compiled) = (train(data, epochs=2, batch_size=50, compile=compile) for compile in (False, True))
    for one, other in zip(eager, compiled, strict=True):
        assert other.beta == one.beta
        assert (other.train_loss, other.loss, other.kl) == pytest.approx((one.train_loss, one.loss, one.kl), rel=1e-4)


def test_without_a_compiler_training_goes_on_uncompiled(tmp_path):
    """In a process of its own, whose compiler and cache are not there."""
    script = """
import torch, warnings
from dataclasses import replace
from vae_tutorial.data import Split, load_data
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE
data = load_data("mnist", source="sample")
data = replace(data, train=Split(data.train.images[:100], data.train.labels[:100]))
for compile in (True, False):
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        history = fit(VAE(hidden_dims=(8,)), data, 1, compile=compile, precision="fp32", device="cpu", progress=False)
    print(round(history[0].loss, 6), sum("training goes on without it" in str(each.message) for each in said))
"""
    environment = os.environ | {"CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True)
    compiled, eager = (line.split() for line in done.stdout.splitlines())
    assert compiled[1:] == ["1"] and eager[1:] == ["0"]
    assert float(compiled[0]) == pytest.approx(float(eager[0]), rel=1e-3)
