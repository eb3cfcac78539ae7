"""Paths through a latent space and maps of it: closed forms, weak spots, shapes and number formats."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vae_tutorial.data import Split, show_images
from vae_tutorial.evaluation import posterior, reconstruction_at_mean
from vae_tutorial.generation import decode_images, grid_points, interpolate, lerp, manifold_grid, slerp, traverse
from vae_tutorial.latent_space import encodings
from vae_tutorial.vae import VAE, LatentModel, evaluating, kl_divergence

SHAPE = (1, 4, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(latent_dim=3, input_shape=SHAPE):
    torch.manual_seed(0)
    return VAE(input_shape, (6,), latent_dim)


class Points(LatentModel):
    """The least that an autoencoder is: one that answers with points."""

    def __init__(self, latent_dim=3):
        super().__init__(SHAPE, latent_dim)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(20, latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 20), nn.Unflatten(1, SHAPE))

    def code(self, x):
        return self.encoder(x)


class Noisy(VAE):
    """Another answer in each call while in training mode."""

    def __init__(self):
        super().__init__(SHAPE, (6,), 2)
        self.decoder.append(nn.Dropout(0.5))


def cloud(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def images(*leading, seed=0):
    return torch.rand(*leading, *SHAPE, generator=generator(seed))


# --- lines and arcs ------------------------------------------------------------------------------

coordinates = st.floats(-100, 100, width=32)
vectors = st.integers(1, 6).flatmap(lambda d: st.tuples(*[st.lists(coordinates, min_size=d, max_size=d)] * 2))


def angle(a, b):
    """By another way than the code's: the arc tangent of sine and cosine, in float64."""
    a, b = a.double(), b.double()
    cosine = (a * b).sum(-1)
    sine = (a.square().sum(-1) * b.square().sum(-1) - cosine.square()).clamp(min=0).sqrt()
    return torch.atan2(sine, cosine)


@settings(max_examples=50)
@given(vectors, st.floats(0, 1))
def test_arcs_are_finite_and_their_length_changes_evenly(ab, t):
    a, b = torch.tensor(ab, dtype=torch.float64)
    path = slerp(a, b, t)
    assert path.isfinite().all()
    long = max(a.norm(), b.norm())
    opposite_on_a_line = len(a) == 1 and a * b < 0       # there is no way round in one dimension
    if not opposite_on_a_line:
        torch.testing.assert_close(path.norm(), torch.lerp(a.norm(), b.norm(), t), atol=1e-9 * float(long) + 1e-300, rtol=1e-9)


@settings(max_examples=50)
@given(vectors)
def test_paths_begin_and_end_at_their_ends(ab):
    a, b = torch.tensor(ab)
    for path, atol in [(lerp, 0), (slerp, 1e-6 * float(max(a.norm(), b.norm())) + 1e-30)]:
        torch.testing.assert_close(path(a, b, torch.tensor([0.0, 1.0])), torch.stack([a, b]), atol=atol, rtol=0)


@settings(max_examples=50)
@given(vectors.filter(lambda ab: len(ab[0]) > 1), st.floats(0, 1))
def test_arcs_turn_at_an_even_pace(ab, t):
    a, b = torch.tensor(ab, dtype=torch.float64)
    if min(a.norm(), b.norm()) > 1e-3 and angle(a, b) < math.pi - 1e-3:
        assert angle(a, slerp(a, b, t)) == pytest.approx(t * float(angle(a, b)), abs=1e-6)


def test_an_arc_is_shoemakes_for_vectors_of_one_length():
    a, b = nn.functional.normalize(torch.randn(2, 50, 7, dtype=torch.float64, generator=generator()), dim=-1)
    omega = (a * b).sum(1, keepdim=True).acos()
    for t in (0.0, 0.3, 0.5, 1.0):
        formula = (((1 - t) * omega).sin() * a + (t * omega).sin() * b) / omega.sin()
        torch.testing.assert_close(slerp(a, b, t), formula)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("nearly", [0.0, 1e-8, 1e-7, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, -2.0])
def test_nearly_parallel_and_nearly_opposite(dtype, nearly, factor):
    a = torch.randn(20, 5, dtype=torch.float64, generator=generator())
    b = (factor * a + nearly * torch.randn(20, 5, dtype=torch.float64, generator=generator(1))).to(dtype)
    a, t = a.to(dtype), torch.linspace(0, 1, 9)
    path = slerp(a[:, None], b[:, None], t)
    assert path.dtype == dtype and path.shape == (20, 9, 5)
    tolerance = 8 * torch.finfo(dtype).eps + 1e-5 * (dtype == torch.float32)
    lengths = torch.lerp(a.double().norm(dim=1)[:, None], b.double().norm(dim=1)[:, None], t.double())
    torch.testing.assert_close(path.double().norm(dim=2), lengths, atol=0, rtol=tolerance)
    if factor < 0:
        assert (angle(a, path[:, 4]) - math.pi / 2).abs().max() < 0.02         # half way of half a turn


def test_zero_vectors():
    zero, a = torch.zeros(4), torch.tensor([3.0, 0, 4, 0])
    assert slerp(zero, zero, 0.5).eq(0).all()
    torch.testing.assert_close(slerp(zero, a, 0.5), a / 2)
    torch.testing.assert_close(slerp(a, zero, 0.25), 0.75 * a)
    torch.testing.assert_close(slerp(torch.ones(1), -3 * torch.ones(1), 1.0), torch.tensor([-3.0]))


@pytest.mark.parametrize("path", [lerp, slerp])
def test_a_path_runs_backward_as_it_runs_forward_and_turns_with_space(path):
    a, b = torch.randn(2, 10, 6, dtype=torch.float64, generator=generator())
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=generator(1)))[0]
    torch.testing.assert_close(path(a, b, 0.3), path(b, a, 0.7))
    torch.testing.assert_close(path(a @ rotation, b @ rotation, 0.3), path(a, b, 0.3) @ rotation)
    torch.testing.assert_close(path(5 * a, 5 * b, 0.3), 5 * path(a, b, 0.3))


@settings(max_examples=25)
@given(data=st.data(), leading=st.lists(st.integers(1, 3), max_size=2), way=st.sampled_from([lerp, slerp]),
       kinds=st.tuples(*[st.sampled_from([torch.float64, torch.float32, torch.bfloat16])] * 2))
def test_ways_of_any_shape_and_number_format_are_those_of_their_points(data, leading, way, kinds):
    shapes = [[data.draw(st.sampled_from([1, size])) for size in leading] for _ in range(3)]
    a, b = (cloud(*shape, 4, seed=i).to(kind) for i, (shape, kind) in enumerate(zip(shapes, kinds)))
    t = cloud(*shapes[2], seed=2).sigmoid()
    found = way(a, b, t)
    assert found.dtype == torch.result_type(a, b) and found.shape == (*torch.broadcast_shapes(*shapes), 4)
    a, b, t = (each.expand(found.shape[:-1] + each.shape[len(leading):]) for each in (a, b, t))
    for place in np.ndindex(*found.shape[:-1]):
        one = way(a[place].to(found.dtype), b[place].to(found.dtype), float(t[place]))
        torch.testing.assert_close(found[place], one, atol=2e-2 if found.dtype is torch.bfloat16 else 1e-5, rtol=0)


@settings(max_examples=30)
@given(st.integers(-30, 30), st.sampled_from([torch.float32, torch.float64]), st.floats(0, 1))
def test_arcs_between_the_smallest_and_the_largest_codes_are_arcs(power, dtype, t):
    a, b = cloud(2, 6, 3)
    scaled = slerp((a * 10.0**power).to(dtype), (b * 10.0**power).to(dtype), t).double() / 10.0**power
    torch.testing.assert_close(scaled, slerp(a, b, t), atol=1e-5, rtol=0)


def test_arcs_have_gradients():
    a, b = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator()).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda a, b: slerp(a, b, 0.3), (a, b))


# --- decoding ------------------------------------------------------------------------------------

@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 5))
def test_decoding_takes_any_leading_axes(leading, batch_size):
    model, z = tiny(), torch.randn(*leading, 3, generator=generator())
    decoded = decode_images(model, z, batch_size)
    assert decoded.shape == (*leading, *SHAPE)
    torch.testing.assert_close(decoded.reshape(-1, *SHAPE), model.decode(z.reshape(-1, 3)).sigmoid().detach())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("make", [lambda m: manifold_grid(m, 3), lambda m: interpolate(m, *images(2), method="slerp"),
                                  lambda m: traverse(m, images()), lambda m: decode_images(m, torch.ones(5, 2))],
                         ids=["manifold_grid", "interpolate", "traverse", "decode_images"])
def test_nothing_is_left_behind(make, training):
    model = Noisy().train(training)
    state = torch.get_rng_state()
    first = make(model)
    assert make(model).equal(first) and not first.requires_grad
    assert 0 <= first.min() and first.max() <= 1
    assert model.training is training and all(p.grad is None for p in model.parameters())
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_number_formats(dtype):
    model = tiny(2).to(dtype)
    for made in (manifold_grid(model, 3), interpolate(model, *images(2)), traverse(model, images()), traverse(model, torch.ones(2))):
        assert made.dtype == dtype


# --- between images ------------------------------------------------------------------------------

@pytest.mark.parametrize("model", [tiny(), Points()], ids=["VAE", "autoencoder"])
@pytest.mark.parametrize("method", ["lerp", "slerp"])
def test_interpolation_leads_from_one_reconstruction_to_the_other(model, method):
    a, b = images(4), images(4, seed=1)
    path = interpolate(model, a, b, steps=6, method=method)
    assert path.shape == (4, 6, *SHAPE)
    torch.testing.assert_close(path[:, 0], model.reconstruct(a))
    torch.testing.assert_close(path[:, -1], model.reconstruct(b))
    torch.testing.assert_close(path[2], interpolate(model, a[2], b[2], steps=6, method=method))
    with torch.no_grad():
        half = {"lerp": lerp, "slerp": slerp}[method](model.code(a), model.code(b), 0.4)
    torch.testing.assert_close(path[:, 2], decode_images(model, half))


@settings(max_examples=12)
@given(n=st.integers(1, 5), shape=st.sampled_from([(3,), (2, 2), (1, 3, 4), (2, 1, 2, 2)]), batch_size=st.integers(1, 7),
       dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), whole=st.booleans())
def test_any_batch_of_any_shape_gives_what_its_images_give_one_by_one(n, shape, batch_size, dtype, whole):
    model = tiny(2, shape).to(dtype)
    grey = torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator())
    close = dict(atol=1e-2, rtol=1e-2) if dtype is torch.bfloat16 else dict(atol=1e-5, rtol=1e-5)
    given = grey if whole else grey / 255

    def same(found, each):
        torch.testing.assert_close(found, torch.cat([each(given[i:i + 1]) for i in range(n)]), **close)

    mu, logvar = posterior(model, given, batch_size)
    same(torch.cat([mu, logvar], dim=1), lambda one: torch.cat(posterior(model, one), dim=1))
    same(reconstruction_at_mean(model, given, batch_size=batch_size), lambda one: reconstruction_at_mean(model, one))
    same(interpolate(model, given, given.flip(0), steps=3)[:, 0], lambda one: interpolate(model, one, one, steps=2)[:, 0])
    codes = encodings(model, Split(given, None), batch_size)
    torch.testing.assert_close(codes, mu.to(codes.dtype), **close)
    with evaluating(model):
        decoded = model.decode(mu).sigmoid()
    torch.testing.assert_close(decode_images(model, mu.double(), batch_size), decoded, **close)


def test_grey_values_are_taken_as_intensities():
    model, grey = tiny(), (255 * images(2)).to(torch.uint8)
    torch.testing.assert_close(interpolate(model, *grey), interpolate(model, *(grey.float() / 255)))
    torch.testing.assert_close(traverse(model, grey[0]), traverse(model, grey[0].float() / 255))


# --- one dimension at a time ---------------------------------------------------------------------

def test_a_traversal_moves_one_dimension_and_no_other():
    model, z = tiny(), torch.randn(3, generator=generator())
    values = (-1.5, 0.0, 4.0)
    made = traverse(model, z, dims=[2, 0], values=values)
    assert made.shape == (2, 3, *SHAPE)
    for row, dim in enumerate([2, 0]):
        for column, value in enumerate(values):
            moved = z.clone()
            moved[dim] = value
            torch.testing.assert_close(made[row, column], decode_images(model, moved))


def test_rows_are_ordered_by_what_the_image_pays():
    model, x = tiny(6), images()
    kl = kl_divergence(*model.encode(x[None]))[0]
    assert traverse(model, x).equal(traverse(model, x, dims=kl.argsort(descending=True)))
    assert traverse(model, x).equal(traverse(model, x, dims=kl.argsort(descending=True).tolist()))


def test_rows_keep_their_order_where_there_is_no_kl():
    for model, start in [(tiny(), torch.ones(3)), (Points(), images())]:
        assert traverse(model, start).equal(traverse(model, start, dims=range(3)))


def test_a_traversal_does_not_write_into_its_start():
    z = torch.zeros(3)
    traverse(tiny(), z)
    assert z.eq(0).all()


# --- maps ----------------------------------------------------------------------------------------

@given(st.integers(1, 30))
def test_every_point_stands_for_an_equal_share_of_the_prior(n):
    points = grid_points(n)
    assert points.shape == (n * n, 2)
    expected = (torch.arange(n) + 0.5) / n
    columns, rows = points.view(n, n, 2).unbind(2)
    torch.testing.assert_close(torch.special.ndtr(columns), expected.expand(n, n), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.special.ndtr(rows), expected.flip(0)[:, None].expand(n, n), atol=1e-6, rtol=0)


def test_an_even_range_has_its_ends_in_the_corners_and_its_top_above():
    grid = grid_points(4, (-3, 3)).view(4, 4, 2)
    assert grid[0, 0].tolist() == [-3, 3] and grid[0, -1].tolist() == [3, 3]
    assert grid[-1, 0].tolist() == [-3, -3] and grid[-1, -1].tolist() == [3, -3]
    torch.testing.assert_close(grid[:, :, 0].diff(dim=1), torch.full((4, 3), 2.0))


def test_a_map_is_the_grid_decoded():
    for model in (tiny(2), Points(2)):
        made = manifold_grid(model, 5, (-1, 2))
        assert made.shape == (25, *SHAPE)
        torch.testing.assert_close(made, decode_images(model, grid_points(5, (-1, 2))))
    assert show_images(manifold_grid(tiny(2), 5), columns=5, gap=0).images[0].get_array().shape == (20, 25)
