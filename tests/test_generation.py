"""Paths through a latent space and maps of it: closed forms, weak spots, shapes and number formats."""
import math

import numpy as np
import pytest
import torch
from factories import cloud, double_cloud, generator, small_data, split, tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import nn

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.data import show_images
from vae_tutorial.generation import Judge, decode_images, frechet_distance, grid_points, interpolate, lerp, manifold_grid, slerp, train_judge, traverse
from vae_tutorial.vae import VAE, kl_divergence

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
@example(([0.0] * 4, [0.0] * 4), 0.5)
@example(([0.0] * 4, [3.0, 0, 4, 0]), 0.5)
@example(([1.0], [-3.0]), 1.0)
def test_paths_have_their_ends_and_the_length_of_arcs_changes_evenly(ab, t):
    a, b = torch.tensor(ab, dtype=torch.float64)
    path, tolerance = slerp(a, b, t), 1e-9 * float(max(a.norm(), b.norm())) + 1e-300
    assert path.isfinite().all()
    for way in (lerp, slerp):
        torch.testing.assert_close(way(a, b, torch.tensor([0.0, 1.0])), torch.stack([a, b]), atol=tolerance, rtol=0)
    if len(a) > 1 or a * b >= 0:                             # there is no way round in one dimension
        torch.testing.assert_close(path.norm(), torch.lerp(a.norm(), b.norm(), t), atol=tolerance, rtol=1e-9)


@settings(max_examples=50)
@given(vectors.filter(lambda ab: len(ab[0]) > 1), st.floats(0, 1))
def test_arcs_turn_at_an_even_pace(ab, t):
    a, b = torch.tensor(ab, dtype=torch.float64)
    if min(a.norm(), b.norm()) > 1e-3 and angle(a, b) < math.pi - 1e-3:
        assert angle(a, slerp(a, b, t)) == pytest.approx(t * float(angle(a, b)), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("nearly", [0.0, 1e-8, 1e-7, 1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, -2.0])
def test_nearly_parallel_and_nearly_opposite(dtype, nearly, factor):
    a = double_cloud(20, 5)
    b = (factor * a + nearly * double_cloud(20, 5, seed=1)).to(dtype)
    a, t = a.to(dtype), torch.linspace(0, 1, 9)
    path = slerp(a[:, None], b[:, None], t)
    assert path.dtype == dtype and path.shape == (20, 9, 5)
    tolerance = 8 * torch.finfo(dtype).eps + 1e-5 * (dtype == torch.float32)
    lengths = torch.lerp(a.double().norm(dim=1)[:, None], b.double().norm(dim=1)[:, None], t.double())
    torch.testing.assert_close(path.double().norm(dim=2), lengths, atol=0, rtol=tolerance)
    if factor < 0:
        assert (angle(a, path[:, 4]) - math.pi / 2).abs().max() < 0.02         # half way of half a turn


@settings(max_examples=25)
@given(data=st.data(), leading=st.lists(st.integers(1, 3), max_size=2), way=st.sampled_from([lerp, slerp]),
       kinds=st.tuples(*[st.sampled_from([torch.float64, torch.float32, torch.bfloat16])] * 2))
def test_ways_of_any_shape_and_number_format_are_those_of_their_points(data, leading, way, kinds):
    shapes = [[data.draw(st.sampled_from([1, size])) for size in leading] for _ in range(3)]
    a, b = (double_cloud(*shape, 4, seed=i).to(kind) for i, (shape, kind) in enumerate(zip(shapes, kinds)))
    t = double_cloud(*shapes[2], seed=2).sigmoid()
    found = way(a, b, t)
    assert found.dtype == torch.result_type(a, b) and found.shape == (*torch.broadcast_shapes(*shapes), 4)
    a, b, t = (each.expand(found.shape[:-1] + each.shape[len(leading):]) for each in (a, b, t))
    for place in np.ndindex(*found.shape[:-1]):
        one = way(a[place].to(found.dtype), b[place].to(found.dtype), float(t[place]))
        torch.testing.assert_close(found[place], one, atol=2e-2 if found.dtype is torch.bfloat16 else 1e-5, rtol=0)


@settings(max_examples=30)
@given(st.integers(-30, 30), st.sampled_from([torch.float32, torch.float64]), st.floats(0, 1))
def test_arcs_between_the_smallest_and_the_largest_codes_are_arcs(power, dtype, t):
    a, b = double_cloud(2, 6, 3)
    scaled = slerp((a * 10.0**power).to(dtype), (b * 10.0**power).to(dtype), t).double() / 10.0**power
    torch.testing.assert_close(scaled, slerp(a, b, t), atol=1e-5, rtol=0)


def test_arcs_have_gradients():
    a, b = double_cloud(2, 3, 4).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda a, b: slerp(a, b, 0.3), (a, b))


# --- between images, and one dimension at a time ---------------------------------------------------

@pytest.mark.parametrize("kind", [VAE, Autoencoder])
@pytest.mark.parametrize("method", [lerp, slerp])
def test_interpolation_leads_from_one_reconstruction_to_the_other(kind, method):
    model, a, b = tiny(kind), torch.rand(4, 1, 2, 3, generator=generator()), torch.rand(4, 1, 2, 3, generator=generator(1))
    path = interpolate(model, a, b, steps=6, method=method.__name__)
    assert path.shape == (4, 6, 1, 2, 3)
    torch.testing.assert_close(path[:, 0], model.reconstruct(a))
    torch.testing.assert_close(path[:, -1], model.reconstruct(b))
    torch.testing.assert_close(path[2], interpolate(model, a[2], b[2], steps=6, method=method.__name__))
    with torch.no_grad():
        torch.testing.assert_close(path[:, 2], decode_images(model, method(model.code(a), model.code(b), 0.4)))


def test_a_traversal_moves_one_dimension_and_no_other():
    model, z, values = tiny(latent_dim=3), torch.zeros(3), (-1.5, 0.0, 4.0)
    made = traverse(model, z, dims=[2, 0], values=values)
    assert made.shape == (2, 3, 1, 2, 3) and z.eq(0).all()
    for row, dim in enumerate([2, 0]):
        for column, value in enumerate(values):
            torch.testing.assert_close(made[row, column], decode_images(model, nn.functional.one_hot(torch.tensor(dim), 3) * value))


def test_rows_are_ordered_by_what_the_image_pays_and_keep_their_order_where_there_is_no_kl():
    model, x = tiny(latent_dim=6), torch.rand(1, 2, 3, generator=generator())
    order = kl_divergence(*model.encode(x[None]))[0].argsort(descending=True)
    for dims in (order, order.tolist()):
        assert traverse(model, x).equal(traverse(model, x, dims=dims))
    for other, start in [(model, torch.ones(6)), (tiny(Autoencoder), x)]:
        assert traverse(other, start).equal(traverse(other, start, dims=range(other.latent_dim)))


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
    assert grid_points(1, (0, 1)).tolist() == [[0.5, 0.5]]                              # a single point is no corner
    torch.testing.assert_close(grid[:, :, 0].diff(dim=1), torch.full((4, 3), 2.0))


def test_a_map_is_the_grid_decoded():
    for model in (tiny(), tiny(Autoencoder)):
        torch.testing.assert_close(manifold_grid(model, 5, (-1, 2)), decode_images(model, grid_points(5, (-1, 2))))
    assert show_images(manifold_grid(tiny(), 5), columns=5, gap=0).images[0].get_array().shape == (10, 15)


# --- the judge -----------------------------------------------------------------------------------

def test_the_distance_is_that_of_a_matrix_root_also_where_a_covariance_has_no_inverse():
    a, b = double_cloud(300, 6) @ double_cloud(6, 6, seed=1), double_cloud(200, 6, seed=2) + 0.5
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    root = np.trace(linalg.sqrtm((cov_a @ cov_b).numpy())).real
    assert frechet_distance(a, b) == pytest.approx(float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root))
    alike = torch.ones(50, 6)
    assert frechet_distance(alike, b) == pytest.approx(float((b.mean(0) - 1).square().sum() + cov_b.trace()))
    fewer = cloud(20, 30)                       # than dimensions: most of the eigenvalues are nothing but rounding
    assert 0 <= frechet_distance(fewer, fewer) < 1e-5
    assert math.isfinite(frechet_distance(cloud(3, 6), b)) and frechet_distance(a[:, :1], b[:, :1]) >= 0


def test_a_judge_reads_images_of_any_shape_in_batches():
    judge, images = Judge((3, 5, 6), 4), split(7, (3, 5, 6)).images
    features, probability = judge.read(images)
    assert features.shape == (7, 32) and probability.shape == (7, 4) and judge.training
    torch.testing.assert_close(probability.sum(1), torch.ones(7))
    torch.testing.assert_close(judge(images / 255).softmax(1), probability)
    for part, whole in zip(judge.read(images / 255, batch_size=2), (features, probability)):
        torch.testing.assert_close(part, whole)


def test_a_judge_learns_the_same_from_the_same_seed_and_disturbs_nobody():
    data = small_data(train=300)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    judges = [train_judge(data.train, steps=60, seed=seed) for seed in (1, 1, 2)]
    assert torch.rand(2).equal(expected)
    one, same, other = (judge.read(data.val.images)[1] for judge in judges)
    assert one.equal(same) and not one.equal(other)
    assert (one.argmax(1) == data.val.labels).float().mean() > 0.6
