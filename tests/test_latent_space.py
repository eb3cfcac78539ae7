"""Projections, neighbours and their pictures: known answers and invariances."""
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from factories import cloud, double_cloud, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from vae_tutorial.latent_space import CLASS_COLORS, knn_accuracy, knn_classify, nearest_neighbours, pca, scatter, shared_neighbours, tsne


# --- principal components ------------------------------------------------------------------------

@given(n=st.integers(2, 30), dims=st.integers(1, 8), seed=st.integers(0, 100))
def test_all_components_are_a_rotation(n, dims, seed):
    points = double_cloud(n, dims, seed=seed).numpy()
    whole = pca(points, n=min(n, dims))
    assert np.allclose(whole.points @ whole.components + whole.mean, points)
    assert np.allclose(whole.components @ whole.components.T, np.eye(len(whole.components)))
    assert np.isclose(whole.explained.sum(), 1) and (np.diff(whole.explained) <= 1e-12).all()
    assert np.allclose(whole.points.var(0) / points.var(0).sum(), whole.explained)
    for other in (points + 1e6, 1e-200 * points, 1e-30 * points, 1e99 * points):
        assert np.allclose(pca(other, len(whole.explained)).explained, whole.explained)


def test_signs_are_fixed_and_other_points_can_be_projected():
    points = cloud(40, 5)
    first, mirrored = pca(points), pca(-points)
    assert np.allclose(first.components, mirrored.components) and np.allclose(first.points, -mirrored.points)
    assert (first.components[range(2), np.abs(first.components).argmax(1)] > 0).all()
    assert np.allclose(first.transform(points), first.points)
    assert first.transform(points[:1]).shape == (1, 2) and first.transform(points[:0]).shape == (0, 2)


# --- t-SNE ---------------------------------------------------------------------------------------

def test_a_map_is_repeated_to_the_bit_from_noise_with_its_seed_and_touches_no_global_generator():
    points, torch_state, numpy_state = cloud(40, 5), torch.get_rng_state(), np.random.get_state()[1].copy()
    for init, one_for_all in (("pca", True), ("random", False)):
        first, again, other = (tsne(points, 5, seed=seed, init=init) for seed in (3, 3, 4))
        assert (first == again).all() and (first == other).all() == one_for_all
    assert torch.get_rng_state().equal(torch_state) and (np.random.get_state()[1] == numpy_state).all()


def test_islands_are_found_in_any_kind_of_array():
    points, labels = torch.cat([cloud(30, 5), cloud(30, 5) + 50]).bfloat16(), torch.arange(2).repeat_interleave(30)
    points_on_paper = tsne(points.requires_grad_(), 10)
    assert points_on_paper.shape == (60, 2) and points_on_paper.dtype == np.float32
    assert knn_accuracy(points_on_paper, labels, k=5) == 1
    assert tsne(points.detach().float().tolist(), 10).tolist() == points_on_paper.tolist()


# --- neighbours ----------------------------------------------------------------------------------

@given(n=st.integers(3, 30), dims=st.integers(1, 6), seed=st.integers(0, 100), data=st.data())
def test_neighbours_agree_with_the_table_of_all_distances(n, dims, seed, data):
    k = data.draw(st.integers(1, n - 1))
    points = double_cloud(n, dims, seed=seed)
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert (nearest_neighbours(points, k=k) == distances.argsort(1)[:, :k].numpy()).all()
    queries = double_cloud(4, dims, seed=seed + 1)
    assert (nearest_neighbours(points, queries, n) == torch.cdist(queries, points).argsort(1).numpy()).all()
    assert nearest_neighbours(points, queries[:0], k).shape == (0, k)


def test_twins_do_not_answer_for_themselves():
    twins = torch.zeros(6, 2)
    assert all(i not in row for i, row in enumerate(nearest_neighbours(twins, k=5)))


def test_the_class_of_the_majority_wins_and_ties_go_to_the_nearer():
    points, labels = [[0.0], [1.0], [2.0], [3.0]], ["a", "b", "b", "a"]
    assert knn_classify(points, labels, [[0.1]], k=1).tolist() == ["a"]
    assert knn_classify(points, labels, [[0.1]], k=2).tolist() == ["a"]
    assert knn_classify(points, labels, [[0.1]], k=3).tolist() == ["b"]
    assert knn_classify(points, labels, [[2.9]], k=4).tolist() == ["a"]
    assert knn_classify(points, labels, [[1.4]], k=4).tolist() == ["b"]


@given(st.integers(1, 12), st.integers(0, 50))
def test_a_rank_never_outweighs_a_vote(k, seed):
    points = cloud(30, 2, seed=seed)
    labels = torch.randint(3, (30,), generator=generator(seed)).numpy()
    votes = np.stack([(labels[nearest_neighbours(points, k=k)] == c).sum(1) for c in range(3)], 1)
    assert (votes[np.arange(30), knn_classify(points, labels, k=k)] == votes.max(1)).all()


def test_shared_neighbours_from_all_to_none():
    points = cloud(50, 3)
    assert shared_neighbours(points, -3 * points.double() + 1) == 1
    assert abs(shared_neighbours(cloud(800, 3), cloud(800, 3, seed=1)) - 10 / 799) < 0.01
    assert shared_neighbours(points, cloud(50, 2, seed=1), k=49) == 1      # all others are neighbours


@settings(max_examples=10)
@given(seed=st.integers(0, 99), k=st.integers(1, 5))
def test_points_are_the_same_in_any_kind_of_array(seed, k):
    points = cloud(9, 3, seed=seed)
    labels, queries = torch.arange(9) % 3, cloud(4, 3, seed=seed + 1)
    for kind in (torch.Tensor.double, torch.Tensor.numpy, torch.Tensor.tolist):
        made = kind(points)
        assert (nearest_neighbours(made, kind(queries), k) == nearest_neighbours(points, queries, k)).all()
        assert (knn_classify(made, labels.tolist(), queries, k) == knn_classify(points, labels, queries, k)).all()
        assert np.allclose(pca(made).points, pca(points).points) and shared_neighbours(made, points, k) == 1
        assert knn_accuracy(made, labels.numpy(), k=k) == (knn_classify(points, labels, k=k) == labels.numpy()).mean()
        found = knn_classify(points, labels, queries, k)
        assert knn_accuracy(made, labels, queries, found, k) == 1 and knn_accuracy(made, labels, queries, found + 1, k) == 0


# --- the picture ---------------------------------------------------------------------------------

def test_points_have_the_colours_of_their_classes_and_every_class_its_name():
    points, labels = torch.tensor([[0.0, 0.0], [2.0, 4.0], [5.0, 5.0]]), torch.tensor([3, 3, 0])
    _, ax = plt.subplots()
    assert scatter(points, labels, ["zero", "one", "two", "three"], ax) is ax
    (drawn,) = ax.collections
    assert [to_hex(c).upper() for c in drawn.get_facecolors()] == [CLASS_COLORS[3]] * 2 + [CLASS_COLORS[0]]
    assert np.allclose(drawn.get_offsets(), points) and drawn.get_rasterized()
    assert {t.get_text(): t.get_position() for t in ax.texts} == {"zero": (5, 5), "three": (1, 2)}
    assert ax.get_aspect() == 1


def test_a_new_figure_numbers_for_names_and_colours_that_begin_again():
    ax = scatter(cloud(12, 2), np.arange(12), ticks=False, title="twelve", size=0)
    assert [t.get_text() for t in ax.texts] == [str(i) for i in range(12)]
    colours = ax.collections[0].get_facecolors()
    assert (colours[0] == colours[10]).all() and len(np.unique(colours[:10], axis=0)) == 10
    assert not len(ax.get_xticks()) and ax.get_title() == "twelve" and ax.collections[0].get_sizes().tolist() == [0]
    assert len(scatter([[1.0, 2.0]], [3]).collections[0].get_offsets()) == 1        # one point is a picture, too


def seen(colour, matrix):
    """A colour in CIELAB, as somebody sees it whose cones mix by `matrix` (in linear RGB)."""
    rgb = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(np.array(matrix) @ linear, 0, 1) / to_xyz.sum(1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("matrix", [
    np.eye(3),
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
], ids=["trichromat", "deuteranope", "protanope", "tritanope"])
def test_no_two_class_colours_look_alike_to_anyone(matrix):
    # Machado, Oliveira & Fernandes (2009), severity 1; a difference of 2 is just visible side by side
    places = np.array([seen(colour, matrix) for colour in CLASS_COLORS])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(10, 1)]
    assert apart.min() > 12


def test_class_colours_are_those_of_the_style_sheet():
    with plt.style.context("vae_tutorial.static.style"):
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(CLASS_COLORS)
