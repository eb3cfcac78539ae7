"""The draw and the objective: closed forms, gradients, bounds and extremes."""
import math

import pytest
import torch
from factories import generator, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.distributions import ContinuousBernoulli, Laplace, Normal

from vae_tutorial.vae import LIKELIHOODS, elbo, evaluating, kl_divergence, reconstruction_loss, reparameterize


# --- the draw ------------------------------------------------------------------------------------

# --- the two terms -------------------------------------------------------------------------------

@given(mu=st.floats(-20, 20), logvar=st.floats(-30, 30))
def test_kl_is_the_closed_form(mu, logvar):
    mu, logvar = torch.tensor([[mu]], dtype=torch.float64), torch.tensor([[logvar]], dtype=torch.float64)
    truth = torch.distributions.kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mu, logvar), truth, atol=1e-9, rtol=1e-9)
    assert kl_divergence(mu, logvar) >= 0


def test_kl_keeps_the_dimensions_apart_and_its_digits_near_zero():
    assert kl_divergence(torch.zeros(3, 5), torch.zeros(3, 5)).shape == (3, 5)
    tiny_kl = kl_divergence(torch.zeros(1, 1), torch.full((1, 1), 1e-3)).item()
    assert tiny_kl == pytest.approx(1e-6 / 4, rel=0.01)      # v^2 / 4; lost to rounding without expm1


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_gradients_are_those_of_finite_differences(likelihood):
    logits = (3 * torch.randn(2, 1, 2, 3, dtype=torch.float64, generator=generator())).requires_grad_()
    x = torch.rand(2, 1, 2, 3, dtype=torch.float64, generator=generator(1))
    assert gradcheck(lambda t: reconstruction_loss(t, x, likelihood), logits)
    mu, logvar = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator()).requires_grad_().unbind()
    assert gradcheck(kl_divergence, (mu, logvar)) and gradcheck(lambda m, v: reparameterize(m, v, generator()), (mu, logvar))


def test_continuous_bernoulli_is_pytorchs_and_smooth_where_the_series_ends():
    logits = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([0.0, 0.0999, 0.1001, -0.0999, -0.1001])]).double()
    x = torch.rand(len(logits), 1, dtype=torch.float64, generator=generator())
    ours = reconstruction_loss(logits[:, None], x, "continuous-bernoulli")
    torch.testing.assert_close(ours, -ContinuousBernoulli(logits=logits[:, None]).log_prob(x).sum(1), atol=1e-4, rtol=1e-5)
    left, right = (reconstruction_loss(torch.tensor([[0.1 + d]], dtype=torch.float64), torch.zeros(1, 1).double(),
                                       "continuous-bernoulli") for d in (-1e-9, 1e-9))
    assert abs(left - right) < 1e-8


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "gaussian"])
def test_a_likelihood_integrates_to_one(likelihood):
    x = torch.linspace(-12, 12, 48_001).double() if likelihood == "gaussian" else torch.linspace(0, 1, 4001).double()
    for logit in (-5.0, 0.0, 0.05, 3.0):
        density = (-reconstruction_loss(torch.full((len(x), 1), logit).double(), x[:, None], likelihood)).exp()
        assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-5)


def test_sums_over_pixels_in_full_precision_and_leaves_images_apart():
    logits, x = torch.randn(3, 2, 4, 5, generator=generator()), torch.rand(3, 2, 4, 5, generator=generator(1))
    whole = reconstruction_loss(logits, x)
    halves = reconstruction_loss(logits[..., :2], x[..., :2]) + reconstruction_loss(logits[..., 2:], x[..., 2:])
    assert whole.shape == (3,)
    torch.testing.assert_close(whole, halves)
    torch.testing.assert_close(whole[1:], reconstruction_loss(logits[1:], x[1:]))
    logits, x = logits.bfloat16(), x.bfloat16()
    torch.testing.assert_close(reconstruction_loss(logits, x), reconstruction_loss(logits.float(), x.float()))
    assert reconstruction_loss(logits, x).dtype == kl_divergence(logits, x).dtype == torch.float32


def test_a_likelihood_of_ones_own_is_a_function_of_logits_and_pixels():
    laplace = lambda logits, x: (x - logits).abs() + math.log(2)
    model, x = tiny().double(), torch.rand(4, 1, 2, 3, generator=generator()).double()
    logits = model(x, generator()).logits
    truth = -Laplace(logits, 1.0).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(reconstruction_loss(logits, x, laplace), truth)
    torch.testing.assert_close(elbo(model, x, 1.0, generator(), likelihood=laplace).reconstruction, truth.mean())


@given(a=st.lists(st.integers(1, 3), max_size=3), b=st.lists(st.integers(1, 3), max_size=3))
def test_nothing_is_broadcast_in_silence(a, b):
    first, second = torch.zeros(a), torch.zeros(b)
    for function, names in {kl_divergence: ("mu", "logvar"), reparameterize: ("mu", "logvar"), reconstruction_loss: ("logits", "x")}.items():
        if a == b:
            assert function is reconstruction_loss or function(first, second).shape == first.shape
            continue
        with pytest.raises(ValueError, match="^{1} has shape .*, must have that of {0}, ".format(*names)) as caught:
            function(first, second)
        assert f"shape {tuple(b)}," in str(caught.value) and str(caught.value).endswith(f" {tuple(a)}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_extremes_stay_finite_forward_and_backward(dtype, likelihood):
    logvar = torch.tensor([[-50.0, 0.0, 50.0]], dtype=dtype, requires_grad=True)
    mu = torch.tensor([[-100.0, 0.0, 100.0]], dtype=dtype, requires_grad=True)
    logits = torch.tensor([[-1e4, -0.0, 1e4, 88.0]], dtype=dtype, requires_grad=True)
    x = torch.tensor([[1.0, 0.5, 0.0, 1.0]], dtype=dtype)
    total = kl_divergence(mu, logvar).sum() + reparameterize(mu, logvar, generator()).sum().float()
    total = total + reconstruction_loss(logits, x, likelihood).sum()
    total.backward()
    assert total.isfinite() and all(t.grad.isfinite().all() for t in (mu, logvar, logits))


# --- the bound -----------------------------------------------------------------------------------

def test_elbo_is_the_evidence_less_the_gap():
    """One latent dimension, so that every integral can be done on a grid."""
    model, x = tiny(latent_dim=1).double(), torch.rand(1, 1, 2, 3, generator=generator()).round().double()
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    with evaluating(model):
        log_joint = Normal(0.0, 1.0).log_prob(z[:, 0]) - reconstruction_loss(model.decode(z), x.expand(len(z), -1, -1, -1))
        mu, logvar = model.encode(x)
        log_q = Normal(mu[0, 0], (logvar[0, 0] / 2).exp()).log_prob(z[:, 0])
        log_evidence = torch.logsumexp(log_joint, 0) + math.log(z[1, 0] - z[0, 0])
        gap = torch.trapezoid(log_q.exp() * (log_q - (log_joint - log_evidence)), z[:, 0])
        bound = -elbo(model, x.expand(400_000, -1, -1, -1), generator=generator()).loss
    assert gap > 0.001
    assert bound.item() == pytest.approx((log_evidence - gap).item(), abs=0.002)


@given(beta=st.floats(0, 10), batch=st.integers(1, 5))
def test_the_loss_is_its_terms(beta, batch):
    model, x = tiny(), torch.rand(batch, 1, 2, 3, generator=generator())
    terms = elbo(model, x, beta, generator())
    assert terms.beta == beta
    torch.testing.assert_close(terms.loss, terms.reconstruction + beta * terms.kl)
    out = model(x, generator())
    torch.testing.assert_close(terms.kl, kl_divergence(out.mu, out.logvar).sum() / batch)
    torch.testing.assert_close(terms.reconstruction, reconstruction_loss(out.logits, x).sum() / batch)


def test_free_bits_charge_the_floor_and_pull_on_nothing_below_it():
    model, x = tiny(), torch.rand(8, 1, 2, 3, generator=generator())
    plain = elbo(model, x, 2.0, generator())
    floor = plain.kl.item() + 1                      # above what each dimension has
    free = elbo(model, x, 2.0, generator(), free_bits=floor)
    assert free.kl == plain.kl and free.reconstruction == plain.reconstruction
    torch.testing.assert_close(free.loss, plain.reconstruction + 2.0 * 2 * floor)
    (free.loss - free.reconstruction).backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in model.parameters())
