"""Training: schedules, records, and runs that are stopped, resumed, saved and loaded."""
import io
import json
import math
import os
import pickle
import shutil
import sys
import warnings
import zlib
from dataclasses import dataclass, replace
from functools import partial

import factories
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import run_process
from factories import LearnedWidth, after, digit_model, rows, tiny, weights
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from vae_tutorial import files, training
from vae_tutorial.autoencoder import Autoencoder, reconstruction_only
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import Split, intensities
from vae_tutorial.evaluation import evaluate
from vae_tutorial.files import read_tensors, write_tensors
from vae_tutorial.grid import sweep
from vae_tutorial.parallel import StopTraining
from vae_tutorial.runs import TrainingDiverged
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.training import (ConstantBeta, CosineBeta, CyclicalBeta, Epoch, History, LinearBeta, ShowReconstructions, SigmoidBeta,
                                   batches, fit, validate)
from vae_tutorial.vae import BaseVAE, Elbo, LatentModel, elbo, reconstruction_loss

# most runs here are shorter than their warm-up
pytestmark = pytest.mark.filterwarnings("ignore:beta is on its way")
every_ramp = pytest.mark.parametrize("ramp", [LinearBeta, CosineBeta, SigmoidBeta])
conv_model, autoencoder = partial(tiny, ConvVAE, input_shape=(1, 28, 28)), partial(tiny, Autoencoder, input_shape=(1, 28, 28))


@pytest.fixture(scope="module")
def worse(data):
    """Training on negatives makes every epoch worse than the one before."""
    return replace(data, train=Split(255 - data.train.images, data.train.labels))


def train(data, epochs=4, model=None, **settings):
    return factories.train(model, data, epochs, **dict(beta=LinearBeta(2)) | settings)


class Own(BaseVAE):
    """A model of somebody's own: convolutions that are flattened with `view`, and arguments that are no sizes."""

    def __init__(self, input_shape=(1, 28, 28), latent_dim=3, *, dropout=0.0, act="tanh", plan=None, norm=False, seed=20_240_101):
        super().__init__(input_shape, latent_dim, dropout=dropout, act=act, plan=plan, norm=norm, seed=seed)
        self.rates = [rate.item() for rate in torch.linspace(0, dropout, 3)]            # looks at numbers in tensors, as for drop paths
        after = [nn.BatchNorm1d(784)] if norm else []
        self.convolutions = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4) if norm else nn.Identity())
        self.head = nn.Sequential(*after, {"relu": nn.ReLU, "tanh": nn.Tanh}[act](), nn.Dropout(dropout), nn.Linear(784, 2 * latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 784), nn.Unflatten(1, self.input_shape))

    def encode(self, x):
        h = self.convolutions(x)
        return self.head(h.view(len(h), -1)).chunk(2, dim=1)


# --- schedules -----------------------------------------------------------------------------------

@every_ramp
@given(epochs=st.integers(2, 50), start=st.floats(0, 5), end=st.floats(0, 5))
def test_ramps_are_exact_at_their_ends(ramp, epochs, start, end):
    by_step, by_epoch = ramp(epochs, start, end), ramp(epochs, start, end, every="epoch")
    assert by_step(0) == by_epoch(0) == start
    assert by_step(epochs) == by_step(epochs + 7.3) == end
    assert by_epoch(epochs - 1) == by_epoch(epochs - 0.01) == by_epoch(3 * epochs) == end


@every_ramp
@given(times=st.lists(st.floats(0, 12), min_size=2, max_size=20), every=st.sampled_from(["step", "epoch"]))
def test_ramps_never_turn_back_nor_leave_their_range(ramp, times, every):
    values = [ramp(10, 0.5, 2.0, every)(t) for t in sorted(times)]
    assert values == sorted(values) and 0.5 <= values[0] and values[-1] <= 2.0


@pytest.mark.parametrize("beta, values", [
    (LinearBeta(8), {2: 0.25, 4: 0.5}), (CosineBeta(8), {2: (1 - math.sqrt(0.5)) / 2, 4: 0.5}),
    (SigmoidBeta(8), {2: (1 - math.tanh(1.5) / math.tanh(3)) / 2, 4: 0.5}),
    (LinearBeta(11, every="epoch"), {0: 0, 4: 0.4, 9: 0.9, 10: 1, 50: 1}),               # that of the report
    (CyclicalBeta(LinearBeta(4), period=10, cycles=3), {0: 0, 2: 0.5, 4: 1, 9.9: 1, 10: 0, 12: 0.5, 20: 0, 24: 1, 30: 1, 99: 1})], ids=str)
def test_shapes_of_schedules(beta, values):
    assert {time: beta(time) for time in values} == pytest.approx(values, abs=1e-12)


@dataclass(frozen=True)
class NearlyThere:
    """A ramp whose last step is its end but for rounding: 0.1 * 3 is 0.30000000000000004."""

    end: float = 0.3

    def __call__(self, time):
        return 0.1 * min(3, int(time))


SETTLED = {
    "ramp": (LinearBeta(3), "...xx"), "ramp by epoch": (LinearBeta(3, every="epoch"), "..xxx"), "level": (LinearBeta(3, 1.0, 1.0), "xxxxx"),
    "constant": (ConstantBeta(2), "xx"), "number": (4, "xx"), "rounding": (NearlyThere(), "...xx"), "function": (lambda t: 0.1 * min(3, int(t)), "...xx"),
    "function of numpy": (lambda t: np.minimum(1, np.float32(t) / 2), "..xx"), "list": (lambda t: [0, 0.5, 1, 1][int(t)], "..xx"),
    "falling": (lambda t: 4 if t < 2 else 1, "..xx"), "cycle within an epoch": (CyclicalBeta(LinearBeta(2), period=4.5, cycles=2), "..xx...xx"),
    "cycles": (CyclicalBeta(LinearBeta(1), period=2, cycles=2), ".x.xx"), "never": (LinearBeta(50), "..."), "just not": (LinearBeta(3), "..."),
    "a cycle before": (CyclicalBeta(LinearBeta(1), period=2), ".x.x.")}


@pytest.mark.parametrize("beta, pattern", SETTLED.values(), ids=SETTLED)
def test_settled_epochs_are_those_at_the_end_of_the_schedule_and_a_run_without_one_is_warned_of(data, beta, pattern):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        history = fit(digit_model(), data, len(pattern), beta=beta, lr=0.0, batch_size=64, precision="fp32", progress=False)
    assert "".join(".x"[epoch.settled] for epoch in history) == pattern
    message = f"beta is on its way to 1, and in none of {len(pattern)} epochs is it there"
    assert [(each.filename, str(each.message)[:len(message)]) for each in told] == [(__file__, message)] * ("x" not in pattern)
    assert history.best.epoch == (pattern.index("x") + 1 if "x" in pattern else len(pattern))


@pytest.mark.parametrize("beta", [lambda t: (t % 4) / 4, lambda t: t % 1, lambda t: min(1, t % 50 / 2), lambda t: t / 2, lambda t: 1 - t / 100, math.exp],
                         ids=["cycle", "wave", "long cycle", "rising", "falling", "exploding"])
def test_a_schedule_that_stays_nowhere_settles_nowhere(data, beta):
    with pytest.warns(UserWarning, match="beta has no end at which it stays: none can be the best, .* the last one is kept"):
        history = fit(digit_model(), data, 5, beta=beta, lr=0.0, batch_size=64, precision="fp32", progress=False, patience=1)
    assert not any(epoch.settled for epoch in history) and history.best.epoch == len(history) == 5


# --- batches and validation ----------------------------------------------------------------------

@given(n=st.integers(1, 200), size=st.integers(1, 250), seed=st.integers(0, 9))
def test_an_epoch_has_every_image_once_as_intensities(n, size, seed):
    split = Split(torch.arange(n, dtype=torch.uint8).view(n, 1, 1), torch.arange(n))
    parts, labels = zip(*batches(split, size, torch.Generator().manual_seed(seed)))
    assert [len(p) for p in parts[:-1]] == [size] * (len(parts) - 1) and 1 <= len(parts[-1]) <= size
    assert (torch.cat(parts) * 255).round().flatten().tolist() == torch.cat(labels).tolist()
    assert torch.cat(labels).sort().values.tolist() == list(range(n))
    again, without = zip(*batches(Split(split.images, None), size, torch.Generator().manual_seed(seed)))
    assert torch.cat(parts).equal(torch.cat(again)) and not any(without)


def test_validation_weighs_every_image_alike_and_disturbs_nothing(data):
    model = digit_model().train()
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


def test_one_seed_one_result_whoever_looks_and_nobody_elses_randomness_is_touched(data):
    def look(model, history):
        model.sample(3)
        model.train()

    def run(seed, global_seed, *callbacks):
        model = digit_model()
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        _, history = train(data, model=model, seed=seed, callbacks=callbacks)
        assert torch.get_rng_state().equal(state) is not bool(callbacks)           # one who looks draws from it
        return weights(model).tolist(), rows(history)
    assert run(5, 1) == run(5, 2, look) != run(6, 1)


def test_beta_moves_with_every_step_and_callbacks_are_called_after_each_epoch_in_their_order(data):
    asked, called = [], []

    def spy(model, x, beta, generator):
        if model.training:
            asked.append(beta)
        return elbo(model, x, beta, generator)

    callbacks = iter([lambda *_: called.append(len(asked)), lambda model, history: called.append(history[-1].beta)])
    _, history = train(data, epochs=3, objective=spy, callbacks=callbacks)
    assert asked == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, *[1] * 5])      # five batches of 64 from 300
    assert [epoch.beta for epoch in history] == pytest.approx([0.4, 0.9, 1])
    assert called == [5, history[0].beta, 10, history[1].beta, 15, history[2].beta]


def test_training_figures_are_means_over_images_not_over_batches(data):
    def brightness(model, x, beta, generator):
        total = x.sum() / len(x) + 0 * sum(p.sum() for p in model.parameters())
        return Elbo(total, total, torch.zeros(()), beta)

    _, history = train(data, epochs=1, beta=1.0, objective=brightness)
    truth = intensities(data.train.images).flatten(1).sum(1).mean().item()
    assert history[0].train_loss == pytest.approx(truth, rel=1e-5)
    assert history[0].loss == pytest.approx(intensities(data.val.images).flatten(1).sum(1).mean().item(), rel=1e-5)


def test_the_test_set_stays_shut(data):
    class Shut:
        def __getattribute__(self, name):
            raise AssertionError("somebody looked at the test set")
    train(replace(data, test=Shut()), epochs=1, beta=1.0)


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
    for beta, patience, epochs in [(1.0, 2, 3), (1.0, 1, 2), (LinearBeta(5), 2, 8), (NearlyThere(), 1, 5)]:
        _, history = train(data, epochs=20, lr=0.0, beta=beta, patience=patience)     # nothing improves, so the first settled epoch is the best
        assert len(history) == epochs and history.best.epoch == epochs - patience and history.ended == "patience ran out"


@pytest.mark.parametrize("restore_best", [True, False])
def test_it_ends_with_the_weights_it_says_also_those_of_the_objective(data, worse, restore_best):
    for objective in (elbo, LearnedWidth()):
        model, history = train(worse, epochs=4, beta=1.0, lr=1e-2, restore_best=restore_best, objective=objective)
        assert history.best.epoch < 4
        expected = history.best if restore_best else history[-1]
        assert sum(validate(model, data.val.images, objective=objective)) == pytest.approx(expected.loss, rel=1e-6)


def test_rates_follow_their_schedule(data):
    rates = [e.lr for e in train(data, epochs=10, lr=4e-3, lr_schedule="one-cycle")[1]]
    assert max(rates) == pytest.approx(4e-3, rel=0.02) and rates.index(max(rates)) == 2 and rates[-1] < 1e-5
    assert {e.lr for e in train(data, epochs=1, lr=2e-3)[1]} == {2e-3}
    assert [train(data, epochs=1, lr_schedule=name)[1].settings["lr"] for name in ("constant", "one-cycle")] == [1e-3, 8e-3]         # the usual
    assert train(data, epochs=1, optimizer=partial(torch.optim.Adagrad, eps=1e-9))[1][0].lr == 1e-2                                 # Adagrad's own
    rates = [e.lr for e in train(data, lr=2e-3, lr_schedule=CosineAnnealingLR)[1]]
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * step / 20)) for step in (4, 9, 14, 19)])


@pytest.mark.parametrize("lr", [None, 1e-4])
def test_the_optimizer_is_the_one_that_is_asked_for(data, lr):
    """One step of gradient descent on the mean over the batch, which can be done by hand."""
    one = replace(data, train=Split(data.train.images[:50], None))
    model, by_hand = digit_model(), digit_model()
    _, history = train(one, epochs=1, model=model, optimizer=partial(SGD, momentum=0.9), lr=lr, beta=1.0, seed=3)
    rng = torch.Generator().manual_seed(3)
    elbo(by_hand, next(batches(one.train, 64, rng))[0], 1.0, rng).loss.backward()
    for p, trained in zip(by_hand.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(trained, p - history[0].lr * p.grad)
    assert history[0].lr == (lr or 1e-3)


def test_bfloat16_comes_close_to_float32(data):
    full, half = (train(data, precision=p, beta=1.0)[1] for p in ("fp32", "bf16"))
    assert half[-1].loss != full[-1].loss
    assert half[-1].loss == pytest.approx(full[-1].loss, rel=0.02)


# --- models and objectives of one's own -----------------------------------------------------------

def test_a_model_that_can_only_be_asked_in_ones_own_way_is_trained(data):
    class Bare(LatentModel):
        def __init__(self):
            super().__init__((1, 28, 28), 3)
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
            self.decoder = nn.Sequential(nn.Linear(3, 784), nn.Unflatten(1, self.input_shape))

    class NoGenerator(Bare):
        def forward(self, x):
            return self.decode(self.encoder(x))

    def own(model, x, beta, generator):
        loss = reconstruction_loss(model.decode(model.encoder(x)), x).mean()
        return Elbo(loss, loss, torch.zeros_like(loss), beta)
    for model in (Bare(), NoGenerator()):
        assert train(data, epochs=1, model=model, objective=own, beta=1.0)[1][0].loss < 570


def test_a_decoder_that_ends_in_a_sigmoid_is_warned_about_and_one_of_logits_never(data):
    few = replace(data, train=Split(data.train.images[:2], None), val=Split(data.val.images[:2], None))
    wrong = digit_model()
    wrong.decoder.append(nn.Sigmoid())
    with pytest.warns(UserWarning, match="model.decode gives numbers from 0 to 1 alone, must give logits.*leave that out") as told:
        fit(wrong, data, 1, progress=False)
    assert len(told) == 1 and told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(40):
            for make in (conv_model, autoencoder, digit_model):
                train(few, epochs=1, model=make(seed=seed, latent_dim=1), beta=1.0, objective=reconstruction_only)


def test_batch_norm_is_trained_where_it_can_be(data):
    images = lambda n: replace(data, train=Split(data.train.images[:n], None))
    two, only_maps = Own(norm=True), Own()
    only_maps.convolutions[1] = nn.BatchNorm2d(4)
    before = weights(two)
    assert train(images(66), epochs=1, model=two, beta=1.0)[1][0].loss < 700 and not weights(two).equal(before)
    assert train(images(65), epochs=1, model=only_maps, beta=1.0)[1][0].loss < 700       # each map has 196 values
    for n, size in [(65, 64), (65, 8), (4, 1)]:
        with pytest.raises(ValueError, match=f"^batch_size is {size}.*batch of one.*batch norm needs"):
            train(images(n), epochs=1, model=Own(norm=True), beta=1.0, batch_size=size)


@pytest.mark.parametrize("hidden", [lambda f: lambda *given: f(*given), lambda f: partial(elbo, likelihood=lambda logits, x: (logits - x) ** 2 * f.log_sigma)],
                         ids=["in a function", "in a likelihood"])
@pytest.mark.parametrize("compile", [False, True])
def test_a_parameter_that_nothing_would_train_is_refused_unless_it_is_frozen(data, hidden, compile):
    model, objective = digit_model(), LearnedWidth()
    objective.log_sigma.data += 1
    before, call = weights(model), partial(train, data=data, model=model, epochs=1, beta=1.0, objective=hidden(objective), compile=compile)
    with pytest.raises(ValueError, match=r"^objective depends on a parameter of shape \(\) that nothing trains: make it an nn.Module.*or freeze it"):
        call()
    assert weights(model).equal(before)
    objective.requires_grad_(False)
    assert len(call()[1]) == 1


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: partial(f), lambda f: f.forward], ids=["module", "partial", "method"])
def test_an_objective_is_in_training_mode_when_the_model_is(data, wrap):
    class Noisy(LearnedWidth):
        def forward(self, model, *args):
            modes.append((self.training, model.training))
            return super().forward(model, *args)

    modes, objective = [], Noisy().eval()
    train(data, epochs=2, objective=wrap(objective), beta=1.0)
    assert modes == [(True, True)] * 5 + [(False, False)] + [(True, True)] * 5 + [(False, False)] and not objective.training
    validate(digit_model(), data.val.images, objective=wrap(objective.train()))
    assert modes[-1] == (False, False) and objective.training


# --- interruptions and divergence ----------------------------------------------------------------

def at_call(number, error=None):
    """An objective that fails, or gives NaN, when it is called for the n-th time; an epoch has five calls, and one to validate."""
    calls = []

    def objective(*args):
        calls.append(1)
        if len(calls) == number and error:
            raise error
        terms = elbo(*args)
        return terms._replace(loss=terms.loss * math.nan) if len(calls) == number else terms
    return objective


@pytest.mark.parametrize("call, finished", [(15, 2), (3, 0)])
def test_ctrl_c_returns_the_history_and_the_best_weights(data, capsys, call, finished):
    before, (model, history) = digit_model(), train(data, beta=LinearBeta(1), objective=at_call(call, KeyboardInterrupt))
    assert len(history) == finished and history.ended == "interrupted" and not model.training
    assert f"interrupted after {finished} finished epochs" in capsys.readouterr().out
    loss = history.best.loss if finished else sum(validate(before, data.val.images))
    assert sum(validate(model, data.val.images)) == pytest.approx(loss, rel=1e-6)


def test_divergence_names_epoch_step_and_cause_and_keeps_the_last_good_weights(data):
    model = digit_model()
    with pytest.raises(TrainingDiverged, match=r"^epoch 2 diverged: the loss was nan in step 2 of 5") as caught:
        train(data, model=model, objective=at_call(8), beta=1.0)
    again = pickle.loads(pickle.dumps(caught.value))
    for error in (caught.value, again):
        assert len(error.history) == 1 and error.history.ended == "diverged" and str(error) == str(caught.value)
    assert type(again) is TrainingDiverged and again.history == caught.value.history
    assert sum(validate(model, data.val.images)) == pytest.approx(caught.value.history[0].loss, rel=1e-6)


@pytest.mark.parametrize("lr, bad, message", [(1e7, False, "lower lr"), (1e-3, True, "step 1 of 5.*before this epoch's first update")])
def test_causes_of_a_divergence_are_named(data, lr, bad, message):
    model = digit_model()
    with torch.no_grad():
        model.decoder[0].bias[0] = math.nan if bad else 0
    before = weights(model)
    with pytest.raises(TrainingDiverged, match=message):
        train(data, model=model, lr=lr, beta=1.0)
    assert torch.equal(weights(model).nan_to_num(), before.nan_to_num())


def test_an_error_in_a_callback_loses_nothing(data, tmp_path):
    model = digit_model()
    with pytest.raises(OSError, match="callback"):
        train(data, model=model, callbacks=[after(2, OSError("the disk of the callback is full"))], checkpoint=tmp_path, beta=1.0)
    assert not model.training
    resumed, history = train(data, checkpoint=tmp_path, resume=True, beta=1.0)
    assert weights(resumed).equal(weights(train(data, beta=1.0)[0])) and len(history) == 4


@pytest.mark.parametrize("stop, ended", [(StopTraining("91 nats are enough"), "stopped by a callback: 91 nats are enough"),
                                         (StopTraining, "stopped by a callback")])
def test_a_callback_may_stop_the_training_for_good(data, worse, tmp_path, stop, ended):
    calls = []
    model, history = train(worse, callbacks=[after(2, stop), lambda *_: calls.append(1)], checkpoint=tmp_path, beta=1.0, lr=1e-2)
    assert history.ended == ended and len(history) == 2 and len(calls) == 1 and not model.training
    assert history.best.epoch == 1 and sum(validate(model, data.val.images)) == pytest.approx(history.best.loss, rel=1e-6)
    for epochs in (2, 6):
        resumed, again = train(worse, epochs, model=digit_model(seed=9), checkpoint=tmp_path, resume=True, beta=1.0, lr=1e-2)
        assert again == history and weights(resumed).equal(weights(model))
    save_model(model, tmp_path / "model.safetensors", history)
    assert load_model(tmp_path / "model.safetensors")[1] == history


# --- checkpoints ---------------------------------------------------------------------------------

def linear_to_zero(optimizer, steps):
    return LambdaLR(optimizer, lambda step: 1 - step / steps)


RESUMED = {
    "constant": {}, "one-cycle": dict(lr_schedule="one-cycle"), "cosine": dict(lr_schedule=CosineAnnealingLR),
    "own schedule of an own optimizer": dict(lr_schedule=linear_to_zero, optimizer=torch.optim.NAdam),
    "weight decay": dict(optimizer=partial(AdamW, weight_decay=1e-2)), "weight decay, one-cycle": dict(optimizer=partial(AdamW, weight_decay=1e-2),
                                                                                                   lr=4e-3, lr_schedule="one-cycle"),
    "momentum": dict(optimizer=partial(SGD, momentum=0.9), lr=1e-4), "plain descent": dict(optimizer=SGD, lr=1e-4),
    "learned width": dict(objective=LearnedWidth), "convolutions": dict(model=conv_model),
    "batch norm": dict(model=lambda seed: Own(norm=True)), "the best before": dict(lr=1e-2, worse=True, beta=1.0),
    "autoencoder": dict(model=autoencoder, objective=reconstruction_only)}


@pytest.mark.parametrize("kind", RESUMED)
def test_resumed_is_the_same_to_the_bit_as_never_stopped(data, worse, tmp_path, kind):
    given = dict(beta=CyclicalBeta(LinearBeta(1), period=2, cycles=2), epochs=5) | RESUMED[kind]
    images = worse if given.pop("worse", False) else data
    make, objective = given.pop("model", digit_model), given.pop("objective", elbo)

    def run(seed, **more):
        torch.manual_seed(seed)
        model, learned = make(seed=seed), [objective()] if objective is LearnedWidth else []
        _, history = train(images, model=model, objective=[*learned, objective][0], **given, **more)
        return weights(model, *learned), history

    whole, history = run(0)
    _, stopped = run(0, checkpoint=tmp_path, callbacks=[after(2)])
    resumed, its_history = run(123, checkpoint=tmp_path, resume=True)
    assert len(stopped) == 2 and stopped.ended == "interrupted"
    assert resumed.equal(whole) and rows(its_history) == rows(history) and its_history.steps == history.steps > 0
    assert its_history.ended == history.ended == "all epochs done"


def test_resume_starts_afresh_where_nothing_is_and_more_epochs_can_be_asked_of_a_finished_run(data, tmp_path):
    for epochs in (3, 4, 4):
        model, history = train(data, epochs, model=digit_model(seed=9 * (epochs > 3)), checkpoint=tmp_path / "new" / "folder", resume=True)
        assert weights(model).equal(weights(train(data, epochs)[0])) and len(history) == epochs


def test_a_run_that_was_begun_on_another_kind_of_device_goes_on_with_new_draws(data, tmp_path):
    """A GPU's generator has a state of 16 bytes, which a CPU's cannot take; a finished run needs neither."""
    whole, history = train(data, checkpoint=tmp_path / "whole")
    train(data, checkpoint=tmp_path / "half", callbacks=[after(2)])
    for folder in ("whole", "half"):
        path = tmp_path / folder / "run.safetensors"
        tensors, notes = read_tensors(path)
        write_tensors(path, tensors | {"rng": torch.zeros(16, dtype=torch.uint8)}, notes | {"device": "cuda"})
    assert weights(train(data, model=digit_model(seed=1), checkpoint=tmp_path / "whole", resume=True)[0]).equal(weights(whole))
    with pytest.warns(UserWarning, match="begun on 'cuda' and goes on on 'cpu'"):
        _, longer = train(data, checkpoint=tmp_path / "half", resume=True)
    assert len(longer) == 4 and longer.best.loss == pytest.approx(history.best.loss, rel=0.03)


def test_paths_may_begin_at_home(data, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    model, _ = train(data, epochs=1, beta=1.0, checkpoint="~/runs/first")
    save_model(model, "~/model.safetensors")
    table = sweep(data, {"seed": [0]}, folder="~/kept", epochs=1, hidden_dims=(8,), latent_dim=3, progress=False)
    assert weights(load_model("~/model.safetensors")[0]).equal(weights(model)) and load_model(table.path[0])
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors"))
    assert found == ["home/kept/seed=0/model.safetensors", "home/model.safetensors", "home/runs/first/run.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("name, other", [("lr", 5e-4), ("batch_size", 32), ("beta", 1.0), ("beta", LinearBeta(2.5)), ("beta", LinearBeta(2, end=1.05)),
                                         ("beta", LinearBeta(20)), ("seed", 7), ("seed", 420), ("precision", "bf16"),
                                         ("objective", partial(elbo, free_bits=0.1)),
                                         ("lr_schedule", "one-cycle"), ("lr_schedule", CosineAnnealingLR), ("optimizer", AdamW),
                                         ("model", digit_model(latent_dim=4)), ("images", "train"), ("val images", "val")])
def test_resuming_with_another_setting_is_refused_by_name(data, tmp_path, name, other):
    train(data, epochs=1, checkpoint=tmp_path, lr=1e-3, beta=LinearBeta(2))
    changed = {} if "images" in name else {name: other}
    if not changed:
        images = getattr(data, other).images.clone()
        images[5, 0, 3, 3] += 1
        data = replace(data, **{other: Split(images, None)})
    with pytest.raises(ValueError, match=f"^{name} is .*made with"):
        train(data, checkpoint=tmp_path, resume=True, **{"lr": 1e-3} | changed)


def test_a_run_of_version_0_2_is_continued(data, tmp_path):
    """It kept three things, wrote its settings in other words, knew no other optimizer than Adam, and looked at no images to validate with."""
    settings = dict(model="ConvVAE {'input_shape': (1, 28, 28), 'latent_dim': 3, 'channels': (4, 6)}", objective="elbo(free_bits=0.1)", batch_size=64,
                    lr_schedule="one-cycle", lr=0.008, precision="fp32", seed=42, epochs=4,
                    images=f"(300, 1, 28, 28) crc32 {zlib.crc32(data.train.images.numpy()):08x}",
                    beta="CyclicalBeta(ramp=SigmoidBeta(epochs=1, start=0, end=2, every='step'), period=2, cycles=2)")

    def run(**more):
        model = conv_model(latent_dim=3)
        beta, objective = CyclicalBeta(SigmoidBeta(1, 0, 2), period=2, cycles=2), partial(elbo, free_bits=0.1)
        return weights(train(data, model=model, beta=beta, objective=objective, lr_schedule="one-cycle", **more)[0])
    run(checkpoint=tmp_path, callbacks=[after(2)])
    tensors, notes = read_tensors(tmp_path / "run.safetensors")
    files.check_same("run.safetensors", notes["history"]["settings"], settings | {"val images": files.fingerprint(data.val.images)})
    notes = dict(history=notes["history"] | {"settings": settings}, scheduler=notes["scheduler"], param_groups=notes["param_groups"])
    write_tensors(tmp_path / "run.safetensors", tensors, notes)
    assert run(checkpoint=tmp_path, resume=True).equal(run())
    assert "val images" in read_tensors(tmp_path / "run.safetensors")[1]["history"]["settings"]


# --- saved models and histories ------------------------------------------------------------------

@pytest.mark.parametrize("make", [digit_model, conv_model, autoencoder,
                                  lambda: Own(dropout=np.float32(0.5), act="relu", plan={"widths": [3, 4], "on": None}, norm=True, seed=20_250_202)])
def test_a_model_comes_back_with_its_history_also_compiled_and_of_a_class_of_ones_own(tmp_path, make):
    model, path = make(), tmp_path / "model.safetensors"
    for history in (None, History(ended="diverged"), History([Epoch(1, *[0.1 + 0.2] * 8, True, 5e-324)], {"lr": 1e-3}, "interrupted")):
        for one in (model, torch.compile(model)):
            save_model(one, path, history, seed=3)
            for loaded, its_history in (load_model(path), load_model(path, type(model))):
                assert type(loaded) is type(model) and weights(loaded).equal(weights(model)) and not loaded.training
                assert json.dumps(loaded.config) == json.dumps(model.config) and its_history == history
    if isinstance(model, Own):
        assert loaded.config["dropout"] == loaded.head[2].p == 0.5 and type(model.config["dropout"]) is float and isinstance(loaded.head[1], nn.ReLU)
        assert loaded.config["seed"] == 20_250_202 and loaded.rates == [0, 0.25, 0.5]


def test_convolutions_are_trained_channels_last_and_kept_as_usual_but_not_where_a_model_flattens_with_view(data, tmp_path):
    class Flat(ConvVAE):
        def encode(self, x):
            h = self.encoder[:-2](x)
            return self.encoder[-1](h.view(len(h), -1)).chunk(2, 1)

    model, own, x = conv_model(), Own(), intensities(data.val.images[:5])
    flat = Flat(**model.config)
    for each in (model, own, flat):
        train(data, epochs=1, model=each, beta=1.0)
    assert all(p.is_contiguous() for p in flat.parameters()) and flat.reconstruct(x).shape == x.shape
    weight = model.encoder[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    assert all(p.is_contiguous() for p in own.parameters()) and own.reconstruct(x).shape == x.shape
    save_model(model, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert weights(loaded).equal(weights(model)) and loaded.encoder[2].weight.is_contiguous()


def test_an_objective_is_kept_with_its_model(data, tmp_path):
    objective, again, path = LearnedWidth(), LearnedWidth(), tmp_path / "model.safetensors"
    model, _ = train(data, epochs=2, objective=objective, beta=1.0, lr=1e-2)
    save_model(model, path, objective=objective)
    loaded, _ = load_model(path, objective=again)
    assert objective.log_sigma != 0 and again.log_sigma == objective.log_sigma and weights(loaded).equal(weights(model))
    assert weights(load_model(path)[0]).equal(weights(model))           # one who wants the model alone gets it


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


def test_what_is_printed_needs_no_more_than_windows_has(data, monkeypatch):
    """Bar, interruption, history and evaluation, on a stdout that knows 256 characters."""
    monkeypatch.delenv("TQDM_DISABLE")
    shown = {name: io.TextIOWrapper(io.BytesIO(), "cp1252", write_through=True) for name in ("stdout", "stderr")}
    with monkeypatch.context() as patch:
        for name, stream in shown.items():
            patch.setattr(sys, name, stream)
        model, history = train(data, epochs=3, progress=True, callbacks=[after(3)])
        print(history, repr(history[-1]), evaluate(model, data.val, n_samples=2), model)
    out, err = (stream.buffer.getvalue().decode("cp1252") for stream in shown.values())
    assert "interrupted after 3 finished epochs" in out and "LinearBeta(epochs=2" in out
    for word in ("epoch=3", "loss=", "reconstruction=", "KL=", "beta=", "images/s", "900/900"):
        assert word in err


def test_reconstructions_are_redrawn_after_every_epoch(data, monkeypatch):
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


# --- compiling -----------------------------------------------------------------------------------

@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="compiling wants a C++ compiler")
def test_compiled_is_the_same_but_for_rounding(data):
    """Also while β moves with every step, which must not be compiled into the objective."""
    (_, eager), (_, compiled) = (train(data, epochs=3, batch_size=50, compile=compile) for compile in (False, True))
    for one, other in zip(eager, compiled, strict=True):
        assert other.beta == one.beta
        assert (other.train_loss, other.loss, other.kl) == pytest.approx((one.train_loss, one.loss, one.kl), rel=1e-4)


@pytest.mark.deep
def test_without_a_compiler_training_goes_on_uncompiled(tmp_path):
    """In a process of its own, whose compiler and cache are not there."""
    output = run_process("-c", """if True:
        import warnings
        from factories import small_data, train
        for compile in (True, False):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                _, history = train(data=small_data(100, 70), epochs=1, compile=compile)
            print(round(history[0].loss, 6), sum("training goes on without it" in str(each.message) for each in said))
        """, CXX=str(tmp_path / "no-such-compiler"), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"), PYTHONPATH=os.pathsep.join(sys.path))
    compiled, eager = (line.split() for line in output.splitlines()[-2:])
    assert compiled[1:] == ["1"] and eager[1:] == ["0"]
    assert float(compiled[0]) == pytest.approx(float(eager[0]), rel=1e-3)
