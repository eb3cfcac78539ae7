"""Chapter 14: a conditional model is a one-hot model; given the classes it is a VAE; labels go with their images; M2 by hand."""
import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from conftest import run_process
from factories import cloud, generator, made_up, small_data, tiny
from torch import nn

from vae_tutorial.conditional import ConditionalConvVAE, ConditionalVAE, SemiSupervisedVAE, rewrite, semi_supervised
from vae_tutorial.data import ImageData, Split
from vae_tutorial.diagnosis import Watch, diagnose
from vae_tutorial.evaluation import evaluate, log_weights, posterior, reconstruction_at_mean
from vae_tutorial.grid import sweep
from vae_tutorial.latent_space import encodings
from vae_tutorial.priors import fit_mixture
from vae_tutorial.saving import load_model, save_model
from vae_tutorial.training import ShowReconstructions, fit, validate
from vae_tutorial.vae import elbo, kl_divergence, reconstruction_loss

DATA = made_up(train=24, val=9, test=10)
X, Y = DATA.test.images / 255, DATA.test.labels
KINDS = pytest.mark.parametrize("model", [tiny(ConditionalVAE, n_classes=3), tiny(SemiSupervisedVAE, n_classes=3),
                                          tiny(ConditionalVAE, n_classes=3, hidden_dims=()), tiny(ConditionalConvVAE, seed=1, n_classes=3)],
                                ids=["mlp", "m2", "no hidden layer", "conv"])


def with_inputs(layers, vectors):
    """Return the network whose first layer has one more input, or constant channel, for each class."""
    place = next(i for i, layer in enumerate(layers) if hasattr(layer, "weight"))
    first = layers[place]
    if isinstance(first, nn.Linear):
        wide = nn.Linear(first.in_features + len(vectors), first.out_features)
        wide.weight.data, wide.bias.data = torch.cat([first.weight, vectors.T], 1).data, first.bias.data
        return lambda x, one_hot: layers[place + 1:](wide(torch.cat([layers[:place](x), one_hot], 1)))
    return lambda x, one_hot: layers[place + 1:](first(x) + (one_hot @ vectors)[..., None, None])


@KINDS
def test_a_class_is_as_much_as_a_one_hot_input(model):
    one_hot, z, given = F.one_hot(Y, 3).float(), cloud(len(Y), 2), model.given(Y)
    encoded = with_inputs(model.encoder, model.encoder_classes)(X, one_hot)
    torch.testing.assert_close(torch.cat(given.encode(X), 1), encoded)
    torch.testing.assert_close(given.decode(z), with_inputs(model.decoder, model.decoder_classes)(z, one_hot))
    assert model.encoder_classes.std() > 0.5         # a class that shifts nothing at first is ignored


@KINDS
def test_every_image_has_its_own_label_at_every_door(model):
    """Together, in parts or class by class: the same numbers; with a wrong label, others."""
    doors = {"posterior": lambda split, m=model: torch.cat(posterior(m, split, 4), 1), "encodings": lambda split, m=model: encodings(m, split, 4),
             "at mean": lambda split, m=model: reconstruction_at_mean(m, split, batch_size=3),
             "weights": lambda split, m=model: log_weights(m, split, 5, at_once=15, progress=False),
             "evaluate": lambda split, m=model: evaluate(m, split, n_samples=6, at_once=18, progress=False).per_image["loss"],
             "rewrite": lambda split, m=model: rewrite(m, split)}
    order = torch.randperm(len(Y), generator=generator())
    for name, door in doors.items():
        together, wrong = door(DATA.test), door(Split(DATA.test.images, (Y + 1) % 3))
        assert not together.equal(wrong), name
        if name in ("weights", "evaluate"):          # their draws belong to places
            alone = door(DATA.test[:1])
            torch.testing.assert_close(together[:1], alone)
        else:
            torch.testing.assert_close(door(DATA.test[order]), together[order])
    for c in range(3):
        torch.testing.assert_close(encodings(model.given(c), DATA.test.images[Y == c]), encodings(model, DATA.test)[Y == c])
        torch.testing.assert_close(rewrite(model, DATA.test)[:, c], model.given(c).decode(encodings(model, DATA.test)).sigmoid())


def three_kinds(n=900):
    """Return black and white images of six pixels: each class has its own probability of ink, and nothing else is to know."""
    labels, p = torch.arange(n) % 3, torch.tensor([0.1, 0.4, 0.8])
    images = torch.bernoulli(p[labels][:, None, None, None].expand(n, 1, 2, 3), generator=generator(1)).mul(255).byte()
    part = Split(images, labels)
    return ImageData(part, part, part, "made", "own", tuple("abc")), p


def test_known_answer_the_bound_is_the_entropy_given_the_class_and_no_code_is_needed():
    data, p = three_kinds()
    model = tiny(ConditionalVAE, n_classes=3)
    fit(model, data, 40, lr=1e-2, batch_size=100, progress=False)
    found = evaluate(model, data.test, n_samples=4, progress=False)
    entropy = -6 * (p * p.log() + (1 - p) * (1 - p).log()).mean().item()
    assert found.rate < 0.02 and found.loss == pytest.approx(entropy, rel=0.02)
    ink = [model.given(c).sample(50, generator()).mean().item() for c in range(3)]
    assert ink == pytest.approx(p.tolist(), abs=0.03)


def test_labels_are_part_of_a_run(tmp_path):
    """A run that was stopped goes on to the same bits; with other labels it is refused."""
    whole, halted = (tiny(ConditionalVAE, n_classes=3) for _ in range(2))
    fit(whole, DATA, 3, progress=False, checkpoint=tmp_path / "a")
    fit(halted, DATA, 1, progress=False, checkpoint=tmp_path / "b")
    again = tiny(ConditionalVAE, seed=5, n_classes=3)
    fit(again, DATA, 3, progress=False, checkpoint=tmp_path / "b", resume=True)
    assert all(a.equal(b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))
    other = replace(DATA, train=Split(DATA.train.images, DATA.train.labels.flip(0)))
    with pytest.raises(ValueError, match="labels"):
        fit(again, other, 4, progress=False, checkpoint=tmp_path / "b", resume=True)


def test_it_is_saved_with_its_classes_and_loads_by_name_in_a_new_process(tmp_path):
    model = tiny(ConditionalConvVAE, n_classes=3).eval()
    save_model(model, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert loaded.given(2).sample(3, generator()).equal(model.given(2).sample(3, generator()))
    run_process("-c", "import vae_tutorial as vt, sys; m, _ = vt.load_model(sys.argv[1]); assert m.n_classes == 3", tmp_path / "model.safetensors")


def test_a_view_leaves_the_mode_as_it_was_and_shows_reconstructions_of_each_class():
    model = tiny(ConditionalVAE, n_classes=3).eval()
    model.given(1).sample(2)
    assert not model.training and not any(each.training for each in model.modules())
    assert model.given([0, 2]).sample(2).shape == (2, 1, 2, 3)
    ShowReconstructions(DATA.val[:4])(model, fit(model, DATA, 1, progress=False))


@pytest.mark.parametrize("known", [[True] * 6, [False] * 6, [True, False] * 3], ids=["all labels", "no label", "some"])
def test_m2_is_the_sum_over_classes(known):
    """By hand, class by class, of a model so sure of its codes that the draws do not matter."""
    model, x = tiny(SemiSupervisedVAE, n_classes=3), X[:6]
    model.encoder[-1].bias.data[2:] = -60
    labels = torch.where(torch.tensor(known), Y[:6], -1)
    found = semi_supervised(model.given(labels), x, 0.7, generator(), weight=2.0)
    log_q, each = model.classify(x).log_softmax(1), []
    for c in range(3):
        given = model.given(c)
        mu, logvar = given.encode(x)
        each.append((reconstruction_loss(given.decode(mu), x), kl_divergence(mu, logvar).sum(1)))
    loss = 0
    for i, label in enumerate(labels.tolist()):
        q = log_q[i].exp() if label < 0 else F.one_hot(torch.tensor(label), 3)
        of_label = math.log(3) + (0 if label >= 0 else (q * log_q[i]).sum())
        loss += sum(q[c] * (each[c][0][i] + 0.7 * each[c][1][i]) for c in range(3)) + 0.7 * of_label
        loss -= 0 if label < 0 else 2.0 * log_q[i, label]
    torch.testing.assert_close(found.loss, loss / 6, rtol=1e-5, atol=1e-5)


def test_images_without_labels_teach_the_classifier():
    """Three labels and nine hundred images: the labels alone cannot say what the images do."""
    data, _ = three_kinds()
    clear = replace(data, train=Split(data.train.images, torch.where(torch.arange(900) < 3, data.train.labels, -1)))
    torch.manual_seed(0)
    model = SemiSupervisedVAE((1, 2, 3), (8,), 1, 3)
    fit(model, clear, 2, batch_size=100, progress=False, objective=semi_supervised)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.classifier.parameters())
    assert validate(model, data.val, objective=semi_supervised)[1] > 1.0          # log 3, for the label


class Doubled(ConditionalVAE):
    def decode(self, z):
        return 2 * super().decode(z)


class Nested(ConditionalVAE):
    def learn_classes(self, n_classes):
        self.encoder = nn.Sequential(self.encoder)
        super().learn_classes(n_classes)


MODEL, M2 = tiny(ConditionalVAE, n_classes=3), tiny(SemiSupervisedVAE, n_classes=3)
BARE = replace(DATA, train=Split(DATA.train.images, None))
PART = replace(DATA, train=Split(DATA.train.images, torch.full((24,), -1)))


@pytest.mark.parametrize("call, error, words", [
    (lambda: MODEL.sample(3), TypeError, "fill the classes in, model.given(3)"), (lambda: elbo(MODEL, X), TypeError, "must be told the class"),
    (lambda: evaluate(MODEL, DATA.test.images, progress=False), TypeError, "a Split with labels"),
    (lambda: fit(MODEL, BARE, 1, progress=False), TypeError, "labels is None"),
    (lambda: fit(MODEL, PART, 1, progress=False), ValueError, "labels go from -1 to -1, must be from 0 to 2"),
    (lambda: MODEL.given(3), ValueError, "from 3 to 3, must be from 0 to 2"), (lambda: MODEL.given([0.5]), TypeError, "must be whole numbers"),
    (lambda: MODEL.given([]), TypeError, "must be whole numbers"), (lambda: MODEL.given([0, 1, 2]).reconstruct(X), ValueError, "labels has 3 entries"),
    (lambda: MODEL.given([0, 1, 2]).sample(4), ValueError, "labels has 3 entries, must have one for each of 4"),
    (lambda: ConditionalVAE(n_classes=1), ValueError, "n_classes is 1"),
    (lambda: save_model(MODEL.given(1), "x.safetensors"), ValueError, "take the conditional model itself"),
    (lambda: M2.given(-1).sample(2), ValueError, "model.classify(x).argmax(1) guesses them"),
    (lambda: M2.given(-1).reconstruct(X), ValueError, "model.classify(x).argmax(1) guesses them"),
    (lambda: rewrite(MODEL.given(1), DATA.test), TypeError, "must be a Conditional"),
    (lambda: rewrite(MODEL, Split(255 * X, Y)), ValueError, "divide grey values by 255"),
    (lambda: MODEL.given(["a", "b"]), TypeError, "must be whole numbers"), (lambda: MODEL.given([True]), TypeError, "must be whole numbers"),
    (lambda: encodings(MODEL.given([0, 1, 2, 0, 1]), DATA.test), ValueError, "labels has 5 entries, must have one for each of 10"),
    (lambda: tiny(Doubled, n_classes=3), TypeError, "Doubled has decode of its own"),
    (lambda: tiny(Nested, n_classes=3), TypeError, "encoder must be an nn.Sequential with a Linear layer"),
    (lambda: fit(tiny(ConditionalVAE, n_classes=3), DATA, 1, objective=semi_supervised, progress=False), TypeError, "must be a SemiSupervisedVAE")])
def test_what_cannot_be_is_refused_with_the_way_out(call, error, words):
    with pytest.raises(error) as refusal:
        call()
    assert words in str(refusal.value)


def test_a_view_follows_its_model():
    """Kept in a notebook while the model is trained, given another prior and copied."""
    model, fresh = tiny(ConditionalVAE, n_classes=3), lambda: model.given(2)
    kept = fresh()
    fit(model, DATA, 2, lr=0.05, progress=False)
    model.prior = fit_mixture(model, cloud(50, 2) + 3, 2)
    for view in (kept, copy.deepcopy(kept)):
        assert view.reconstruct(X).equal(fresh().reconstruct(X)) and view.sample(4, generator()).equal(fresh().sample(4, generator()))
    assert kept.prior is model.prior and model.eval().given(1).training is False


@pytest.mark.parametrize("labels", [Y.tolist(), Y.numpy(), Y.int(), Y.numpy().astype("u2"), Y.numpy()[::-1][::-1]],
                         ids=["list", "numpy", "int32", "uint16", "strides"])
def test_labels_of_every_kind_are_the_same_labels(labels):
    assert MODEL.given(labels).reconstruct(X).equal(MODEL.given(Y).reconstruct(X))
    assert encodings(MODEL.given(labels), DATA.test.images, 3).equal(encodings(MODEL, DATA.test, 3))


def test_m2_sums_nats_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        assert semi_supervised(M2.given(Y), X).loss.dtype == torch.float32


def test_a_sweep_trains_m2(tmp_path):
    found = sweep(DATA, {"seed": [0]}, folder=tmp_path, model_class=SemiSupervisedVAE, input_shape=(1, 2, 3), hidden_dims=(4,), latent_dim=2,
                  n_classes=3, epochs=1, objective=semi_supervised, progress=False)
    assert math.isfinite(found.loss[0]) and load_model(found.path[0])[0].n_classes == 3


def test_a_plain_model_does_not_mind_labels():
    model, data = tiny(), small_data(20, 10)
    assert model.given(data.train.labels) is model and not model.conditional


def test_diagnose_and_watch_look_at_one_class(capsys):
    model, data = tiny(ConditionalVAE, n_classes=10, input_shape=(1, 28, 28), hidden_dims=(32,), latent_dim=3), small_data(600, 90)
    history = fit(model, data, 2, callbacks=[Watch()], progress=False)
    found = diagnose(model, data, history)
    assert capsys.readouterr().out == "" and "of the training" in str(found.unseen) and "effective-beta" in found.looked
