"""Chapter 16: thresholds keep their rate, what is filled in is the conditional mean, and files are lossless and as short as the probabilities say."""
import math
import random

import numpy as np
import pytest
import torch
from factories import digit_model, generator, small_data, tiny
from torch import nn

from vae_tutorial.conditional import ConditionalVAE
from vae_tutorial.data import binarize, entropy_floor
from vae_tutorial.evaluation import evaluate
from vae_tutorial.likelihoods import Bernoulli, ContinuousBernoulli, DiscretizedLogistic, Gaussian, Likelihood
from vae_tutorial.priors import VampPrior
from vae_tutorial.uses import AnsStack, BitsBack, anomaly_scores, fill_in, threshold_at
from vae_tutorial.vae import BaseVAE, Prior

DIGITS = small_data(40).train.images
BLACK = binarize(DIGITS, generator())


# --- anomalies ---

def test_scores_are_those_of_evaluate_and_the_floor_belongs_to_grey_values():
    model, found = digit_model(), anomaly_scores(digit_model(), DIGITS, n_samples=3, seed=5)
    wanted = evaluate(model, DIGITS, n_samples=3, seed=5, progress=False).per_image
    for name in ("loss", "nll", "distortion", "rate"):
        np.testing.assert_allclose(found[name], wanted[name])
    np.testing.assert_allclose(found["loss"] - found["above_floor"], entropy_floor(DIGITS), rtol=1e-5)
    assert len(found) == 40 and (found["above_floor"] > 0).all()
    for images, likelihood in [(BLACK, "bernoulli"), (DIGITS, DiscretizedLogistic())]:
        assert "above_floor" not in anomaly_scores(model, images, likelihood=likelihood)


def test_a_model_is_used_with_the_likelihood_that_it_was_given():
    own, plain, logistic = digit_model(), digit_model(), DiscretizedLogistic(0.2)
    own.likelihood = logistic
    known = torch.rand(1, 28, 28, generator=generator()) > 0.5
    for use in (lambda m, **given: anomaly_scores(m, DIGITS, 2, **given)["loss"].to_numpy(),
                lambda m, **given: fill_in(m, DIGITS, known, 2, steps=3, generator=generator(), **given).numpy(),
                lambda m, **given: np.frombuffer(BitsBack(m, buckets=64, **given).encode(DIGITS[:2]), np.uint8)):
        np.testing.assert_array_equal(use(own), use(plain, likelihood=logistic))
    assert "above_floor" not in anomaly_scores(own, DIGITS) and "above_floor" in anomaly_scores(own, DIGITS, likelihood="bernoulli")


@pytest.mark.parametrize("n, alpha", [(19, 0.05), (20, 0.05), (9, 0.1), (10, 0.1), (250, 0.3), (1, 0.5), (7, 1.0)])
def test_a_threshold_is_exceeded_as_often_as_it_says(n, alpha):
    scores = np.random.default_rng(0).permutation(n).astype(float)
    # one more score is as likely to fall into each of the n + 1 gaps between the others
    ranks = np.arange(n + 1) - 0.5
    expected = (ranks > threshold_at(scores, alpha)).mean()
    assert alpha - 1 / (n + 1) - 1e-9 < expected <= alpha + 1e-9


def test_too_few_scores_for_a_rate_and_scores_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="18 entries, must have 19 or more for false_alarms=0.05"):
        threshold_at(range(18))
    with pytest.raises(ValueError, match="not finite"):
        threshold_at([0.0, math.nan])


# --- missing pixels ---

class Plain(Likelihood):
    """A Gaussian whose mean is what the decoder says."""

    sigma = 0.3

    def log_prob(self, logits, x):
        return -((x - logits) / self.sigma).square() / 2 - math.log(self.sigma * math.sqrt(2 * math.pi))

    def mean(self, logits):
        return logits


class Linear(BaseVAE):
    def __init__(self):
        super().__init__((5,), 2)
        self.encoder, self.decoder = nn.Linear(5, 4), nn.Linear(2, 5)
        weights = torch.tensor([[1.0, 0.2], [0.8, -0.5], [-0.3, 0.9], [0.5, 0.5], [0.1, -1.0]])
        self.decoder.weight.data, self.decoder.bias.data = weights, torch.full((5,), 0.5)


def test_missing_pixels_are_the_conditional_mean_of_a_linear_model_and_known_ones_stay():
    model, x = Linear(), torch.rand(6, 5, generator=generator(1))
    known = torch.tensor([True, False, True, True, False])
    found = fill_in(model, x, known, n=1500, likelihood=Plain(), steps=400, generator=generator())
    w = model.decoder.weight.detach()
    covariance = w @ w.T + Plain.sigma**2 * torch.eye(5)
    gain = covariance[~known][:, known] @ torch.linalg.inv(covariance[known][:, known])
    torch.testing.assert_close(found.mean(0)[:, ~known], 0.5 + (x[:, known] - 0.5) @ gain.T, atol=0.06, rtol=0)
    assert found[:, :, known].equal(x[:, known].expand(1500, -1, -1))
    # the completions differ as much as the mean-field Gaussian that is nearest to the posterior says
    precision = torch.eye(2) + w[known].T @ w[known] / Plain.sigma**2
    spread = ((w[~known] ** 2) @ (1 / precision.diag())).sqrt()
    torch.testing.assert_close(found.std(0)[:, ~known], spread.expand(6, -1), rtol=0.15, atol=0)


class Elsewhere(Prior):
    """N(3, I)."""

    def log_prob(self, z):
        return -((z - 3) ** 2 + math.log(2 * math.pi)).sum(-1) / 2


def test_where_nothing_is_known_completions_are_draws_from_the_prior_of_the_model():
    model, none = Linear(), torch.zeros(5, dtype=torch.bool)
    model.prior = Elsewhere(model)
    found = fill_in(model, torch.zeros(40, 5), none, n=50, likelihood=Plain(), steps=400, generator=generator())
    torch.testing.assert_close(found.mean((0, 1)), model.decode(torch.full((1, 2), 3.0))[0].detach(), atol=0.1, rtol=0)


def test_what_stands_in_missing_pixels_does_not_matter_and_the_model_stays_as_it_was():
    model, known = digit_model().train(), torch.zeros(1, 28, 28, dtype=torch.bool)
    known[:, :14] = True
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    found = [fill_in(model, torch.where(known, BLACK, other), known.expand(BLACK.shape), n=2, steps=5, generator=generator(2))
             for other in (0.0, 1.0)]
    assert found[0].equal(found[1]) and found[0].shape == (2, *BLACK.shape) and not found[0][0].equal(found[0][1])
    assert model.training and all(p.grad is None and p.equal(b) for p, b in zip(model.parameters(), before))
    assert torch.get_rng_state().equal(state)
    grey = fill_in(model, DIGITS, known, n=1, steps=1)
    assert grey[0][:, :, :14].equal((DIGITS.float() / 255)[:, :, :14])


def test_a_conditional_model_is_used_with_the_class_that_it_is_told():
    model = tiny(ConditionalVAE, input_shape=(1, 28, 28), hidden_dims=(8,), latent_dim=3)
    known, seeds = torch.zeros(1, 28, 28, dtype=torch.bool), (generator(), generator())
    three, five = (fill_in(model.given(c), BLACK[:4], known, 2, steps=3, generator=g) for c, g in zip((3, 5), seeds))
    assert not three.equal(five)
    coder = BitsBack(model.given(3), buckets=64)
    assert coder.decode(coder.encode(BLACK[:3])).equal(BLACK[:3].byte())
    for use in (lambda: fill_in(model, BLACK[:4], known), lambda: BitsBack(model)):
        with pytest.raises(TypeError, match="must be told a class: pass model.given"):
            use()


@pytest.mark.parametrize("known, says", [(torch.ones(28, 28), "must be torch.bool"), (torch.ones(3, 28, 28, dtype=torch.bool), "that of x"),
                                         ([True], "known is list")])
def test_masks_of_another_kind_are_refused(known, says):
    with pytest.raises((TypeError, ValueError), match=says):
        fill_in(digit_model(), BLACK, known)


# --- compression ---

def test_a_stack_has_the_length_that_the_probabilities_say_and_gives_all_back():
    rng, sizes = random.Random(0), [1, 1000, 1 << 20, (1 << 24) - (1 << 20) - 1001]
    starts = np.cumsum([0, *sizes]).tolist()
    symbols = rng.choices(range(4), weights=[1e6, *sizes[1:]], k=20_000)
    stack = AnsStack()
    for s in symbols:
        stack.push(starts[s], sizes[s])
    ideal = sum(24 - math.log2(sizes[s]) for s in symbols)
    assert ideal - 1 < 32 * len(stack.words) + stack.head.bit_length() - 32 < ideal * 1.001 + 1
    back = []
    for _ in symbols:
        s = next(s for s in range(4) if starts[s] <= stack.slot() < starts[s + 1])
        stack.pop(starts[s], sizes[s])
        back.append(s)
    assert back[::-1] == symbols and stack.head == 1 << 32 and not stack.words


EXTREME = {"digits": BLACK[:5], "empty": torch.zeros(2, 1, 28, 28), "full": torch.ones(2, 1, 28, 28),
           "noise": torch.randint(0, 2, (3, 1, 28, 28), generator=generator()), "none": BLACK[:0]}


@pytest.mark.parametrize("images", EXTREME.values(), ids=EXTREME)
def test_black_and_white_images_come_back_whatever_the_model_thinks_of_them(images):
    model = digit_model()
    model.decoder[-2].bias.data.fill_(-40)       # certain of empty pixels
    coder = BitsBack(model, buckets=64)
    file = coder.encode(images)
    back = coder.decode(file)
    assert back.dtype == torch.uint8 and back.equal(images.byte()) and coder.encode(back) == file


@pytest.mark.parametrize("levels", [4, 256])
def test_grey_images_come_back_and_cost_what_the_bound_says(levels):
    likelihood, model = DiscretizedLogistic(0.2, levels), digit_model()
    images = (DIGITS[:16].long() * levels // 256).byte()
    coder = BitsBack(model, likelihood)
    file = coder.encode(images)
    assert coder.decode(file).equal(images)
    promised = evaluate(model, images / (levels - 1), likelihood=likelihood, n_samples=16, progress=False).loss / math.log(2)
    assert 8 * len(file) / len(images) == pytest.approx(promised, rel=0.01)


def spoken(model):
    """Return a model whose encoder says something: means that differ from image to image, and narrow."""
    last, d = model.encoder[-1], model.latent_dim
    last.weight.data[:d] *= 6
    last.weight.data[d:] *= 0.1
    last.bias.data[d:] = -4
    return model


def test_the_rate_of_digits_is_within_a_percent_of_the_bound():
    model, images = spoken(digit_model()), BLACK
    promised = evaluate(model, images, n_samples=64, progress=False).loss / math.log(2)
    assert 8 * len(BitsBack(model).encode(images)) / len(images) == pytest.approx(promised, rel=0.01)


def test_codes_cost_their_divergence_from_the_prior_and_no_more():
    model = spoken(tiny(input_shape=(12,), latent_dim=4))
    for p in model.decoder.parameters():
        p.data.zero_()                           # each pixel is one bit
    images = torch.randint(0, 2, (600, 12), generator=generator())
    kl = evaluate(model, images.float(), n_samples=1, progress=False).rate / math.log(2)
    coder = BitsBack(model)
    both = [8 * len(coder.encode(part)) for part in (images, images[:100])]
    assert (both[0] - both[1]) / 500 == pytest.approx(12 + kl, rel=0.01)      # the initial bits are in neither


def test_a_file_that_is_damaged_or_of_another_coder_is_refused():
    coder, images = BitsBack(digit_model(), buckets=64), BLACK[:3]
    file = coder.encode(images)
    others = [BitsBack(digit_model(seed=1), buckets=64), BitsBack(digit_model(), buckets=128)]
    for each, damaged in [*((other, file) for other in others), (coder, file[:-4]), (coder, file[:-1]), (coder, b""),
                          (coder, b"\xff" * 4 + file[4:]), (coder, bytes([file[0] - 1]) + file[1:])]:
        with pytest.raises(ValueError, match="file is damaged, or written with another model"):
            each.decode(damaged)


def test_any_flipped_bit_of_a_file_is_told_in_the_same_words():
    coder = BitsBack(spoken(digit_model()), buckets=64)
    file, refused = coder.encode(BLACK[:2]), 0
    for place in range(16, 8 * len(file), 61):
        damaged = bytearray(file)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(ValueError, match="file is damaged"):
            coder.decode(bytes(damaged))
        refused += 1
    assert refused > 5


def with_vamp_prior(model):
    model.prior = VampPrior(model, 3)
    return model


@pytest.mark.parametrize("make, says", [
    (lambda: BitsBack(with_vamp_prior(digit_model())), "StandardNormal"),
    (lambda: BitsBack(digit_model(), "gaussian"), "likelihood is str"),
    (lambda: BitsBack(digit_model(), DiscretizedLogistic(levels=257)), "257 levels, must have at most 256"),
    (lambda: threshold_at(anomaly_scores(digit_model(), DIGITS, 2), 0.1), r"scores\["),
    (lambda: BitsBack(digit_model(), buckets=100), "power of two"), (lambda: BitsBack(digit_model(), ContinuousBernoulli()), "its probability"),
    (lambda: BitsBack(digit_model(), Gaussian()), "its probability"), (lambda: BitsBack(nn.Linear(2, 2)), "must be a BaseVAE"),
    (lambda: BitsBack(digit_model()).encode(DIGITS), "other values than 0 to 1"), (lambda: BitsBack(digit_model()).encode(BLACK / 2), "whole"),
    (lambda: BitsBack(digit_model(), Bernoulli()).encode(BLACK[0]), "images has shape")])
def test_wrong_use_of_a_coder_is_named(make, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make()
