"""Wrong use of what looks at models: right results over shapes, kinds of numbers and batches, or an error with name, value and what is allowed."""
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vae_tutorial.data import ImageData, Split
from vae_tutorial.evaluation import active_units, evaluate, importance_bound, log_weights, posterior, reconstruction_at_mean
from vae_tutorial.explorers import BetaExplorer, EmbeddingExplorer, InterpolationExplorer, LatentExplorer
from vae_tutorial.generation import decode_images, grid_points, interpolate, lerp, manifold_grid, slerp, traverse
from vae_tutorial.latent_space import encodings, knn_accuracy, knn_classify, nearest_neighbours, pca, scatter, shared_neighbours, tsne
from vae_tutorial.vae import VAE, evaluating

SHAPE = (1, 3, 4)
NAN = math.nan


class Unguarded(VAE):
    """A model whose own methods look at nothing, as on a device where looking would be waiting."""

    def encode(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def decode(self, z):
        return self.decoder(z)


def tiny(shape=SHAPE, latent_dim=2, kind=Unguarded):
    torch.manual_seed(0)
    return kind(shape, (5,), latent_dim)


def grey(n=4, shape=SHAPE, seed=0):
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def cloud(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image_data(n=12, labels=3, **changes):
    split = Split(grey(n), torch.arange(n) % labels)
    return replace(ImageData(split, split, split, "mnist", "sample", ("zero", "one", "two")), **changes)


MODEL, IMAGES, LINE = tiny(), grey(), cloud(12, 2)

# Everything that takes images, with the name under which it does.
DOORS = {
    "posterior": ("images", lambda x, **more: posterior(MODEL, x, **more)),
    "reconstruction_at_mean": ("images", lambda x, **more: reconstruction_at_mean(MODEL, x, **more)),
    "log_weights": ("split", lambda x, **more: log_weights(MODEL, x, 2, **more)),
    "evaluate": ("split", lambda x, **more: evaluate(MODEL, x, n_samples=2, **more)),
    "interpolate from": ("a", lambda x: interpolate(MODEL, x, IMAGES)),
    "interpolate to": ("b", lambda x: interpolate(MODEL, IMAGES, x)),
    "traverse": ("start", lambda x: traverse(MODEL, x[0] if len(x.shape) == 4 else x)),
    "InterpolationExplorer": ("images", lambda x: InterpolationExplorer(MODEL, x)),
}
doors = pytest.mark.parametrize("name, door", DOORS.values(), ids=DOORS)


# --- right results -------------------------------------------------------------------------------

@settings(max_examples=12)
@given(n=st.integers(1, 5), shape=st.sampled_from([(3,), (2, 2), (1, 3, 4), (2, 1, 2, 2)]), batch_size=st.integers(1, 7),
       dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), whole=st.booleans())
def test_any_batch_of_any_shape_gives_what_its_images_give_one_by_one(n, shape, batch_size, dtype, whole):
    model, images = tiny(shape, kind=VAE).to(dtype), grey(n, shape)
    close = dict(atol=1e-2, rtol=1e-2) if dtype is torch.bfloat16 else dict(atol=1e-5, rtol=1e-5)
    given = images if whole else images / 255

    def same(found, each):
        torch.testing.assert_close(found, torch.cat([each(given[i:i + 1]) for i in range(n)]), **close)

    same(torch.cat(posterior(model, given, batch_size=batch_size), dim=1), lambda one: torch.cat(posterior(model, one), dim=1))
    same(reconstruction_at_mean(model, given, batch_size=batch_size), lambda one: reconstruction_at_mean(model, one))
    same(interpolate(model, given, given.flip(0), steps=3)[:, 0], lambda one: interpolate(model, one, one, steps=2)[:, 0])
    torch.testing.assert_close(encodings(model, images, batch_size), posterior(model, given)[0].to(encodings(model, images).dtype), **close)
    with evaluating(model):
        decoded = model.decode(posterior(model, given)[0]).sigmoid()
    torch.testing.assert_close(decode_images(model, posterior(model, given)[0].double(), batch_size), decoded, **close)


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


@settings(max_examples=10)
@given(seed=st.integers(0, 99), k=st.integers(1, 5))
def test_points_are_the_same_in_any_kind_of_array(seed, k):
    points = cloud(9, 3, seed=seed).float()
    labels, queries = torch.arange(9) % 3, cloud(4, 3, seed=seed + 1).float()
    for kind in (torch.Tensor.double, torch.Tensor.numpy, torch.Tensor.tolist):
        made = kind(points)
        assert (nearest_neighbours(made, kind(queries), k) == nearest_neighbours(points, queries, k)).all()
        assert (knn_classify(made, labels.tolist(), queries, k) == knn_classify(points, labels, queries, k)).all()
        assert np.allclose(pca(made).points, pca(points).points) and shared_neighbours(made, points, k) == 1
        assert knn_accuracy(made, labels.numpy(), k=k) == knn_accuracy(points, labels, k=k)


@settings(max_examples=30)
@given(st.sampled_from([1e-200, 1e-160, 1e-30, 1.0, 1e30, 1e99]), st.integers(2, 12))
def test_components_do_not_depend_on_the_unit(unit, n):
    points = cloud(n, 3).numpy()
    assert np.allclose(pca(unit * points).explained, pca(points).explained)


def test_one_point_can_be_drawn_and_one_neighbour_found():
    (drawn,) = scatter([[1.0, 2.0]], [3], size=0).collections
    assert len(drawn.get_offsets()) == 1 and drawn.get_sizes().tolist() == [0]
    plt.close("all")
    assert nearest_neighbours([[1.0]], [[5.0], [6.0]], k=1).tolist() == [[0], [0]]


def test_an_own_likelihood_may_know_pixels_beyond_intensities():
    x = 3 * cloud(4, *SHAPE).float()
    for likelihood in ("gaussian", lambda logits, x: (x - logits).square()):
        assert math.isfinite(evaluate(MODEL, x, n_samples=2, likelihood=likelihood).loss)
        assert reconstruction_at_mean(MODEL, x, likelihood=likelihood).isfinite().all()
        for wrong in (IMAGES.float(), torch.where(x > x.mean(), NAN, x)):
            with pytest.raises(ValueError, match=r"split holds \d+ values that are NaN or outside \[0, 1\]"):
                log_weights(MODEL, wrong, 2, likelihood=likelihood)


# --- images --------------------------------------------------------------------------------------

@doors
@settings(max_examples=12)
@given(value=st.sampled_from([NAN, math.inf, -math.inf, -1.0, -1e-3, 1.001, 255.0]), place=st.tuples(*[st.integers(0, size - 1) for size in SHAPE]),
       dtype=st.sampled_from([torch.float32, torch.float64]), count=st.integers(1, 3))
def test_one_pixel_that_is_no_intensity_is_found_at_every_door(name, door, value, place, dtype, count):
    images = IMAGES.to(dtype) / 255
    images[:count, *place] = value
    count = 1 if name == "start" else count
    with pytest.raises(ValueError, match=rf"^{name} holds {count} values that are NaN or outside \[0, 1\], the first of them "
                                         rf"{value:g}, must be intensities in \[0, 1\] or uint8 grey values"):
        door(images)


@doors
@pytest.mark.parametrize("kind", [torch.Tensor.long, torch.Tensor.bool, lambda x: x.to(torch.complex64)], ids=["int64", "bool", "complex"])
def test_images_of_other_numbers_are_refused_at_every_door(name, door, kind):
    images = kind(IMAGES)
    with pytest.raises(TypeError, match=rf"^{name} is {images.dtype}, must be intensities in \[0, 1\] or uint8 grey values"):
        door(images)


@doors
@settings(max_examples=20)
@given(shape=st.lists(st.integers(0, 5), max_size=5).map(tuple).filter(lambda shape: shape not in (SHAPE, (2,)) and shape[1:] != SHAPE))
def test_images_of_another_shape_are_refused_at_every_door(name, door, shape):
    assume(not (name == "start" and len(shape) == 4 and (shape[0] == 0 or shape[1:] == SHAPE)))
    with pytest.raises(ValueError, match=rf"^{name} has shape \(.*\), must be .*1, 3, 4\)"):
        door(torch.zeros(shape))


@doors
@pytest.mark.parametrize("wrong", [None, "mnist", 3, np.zeros((4, *SHAPE))], ids=["None", "str", "int", "array"])
def test_what_holds_no_images_is_refused_at_every_door(name, door, wrong):
    if name == "start":
        door = lambda x: traverse(MODEL, x)
    with pytest.raises(TypeError, match=rf"^{name} is {type(wrong).__name__}, must be"):
        door(wrong)


@pytest.mark.parametrize("door", ["posterior", "reconstruction_at_mean", "log_weights", "evaluate"])
def test_no_images_are_refused_and_a_split_is_looked_at_like_its_images(door):
    name, door = DOORS[door]
    with pytest.raises(ValueError, match=f"^{name} holds no images"):
        door(Split(IMAGES[:0], None))
    with pytest.raises(ValueError, match=f"^{name} holds 48 values that are NaN or outside"):
        door(Split(IMAGES / 255 - 2, None))
    with pytest.raises(TypeError, match=f"^{name} is list, must be a Split"):
        door(Split([1, 2], None))


# --- codes ---------------------------------------------------------------------------------------

FLOATS = {
    "decode_images": ("z", (2,), lambda z: decode_images(MODEL, z)),
    "lerp a": ("a", (2,), lambda a: lerp(a, torch.ones(2), 0.5)),
    "lerp b": ("b", (2,), lambda b: lerp(torch.ones(2), b, 0.5)),
    "slerp a": ("a", (2,), lambda a: slerp(a, torch.ones(2), 0.5)),
    "slerp b": ("b", (2,), lambda b: slerp(torch.ones(2), b, 0.5)),
    "traverse": ("start", (2,), lambda start: traverse(MODEL, start)),
    "active_units": ("mu", (4, 2), active_units),
    "importance_bound": ("log_w", (4, 2), lambda log_w: importance_bound(log_w, 2)),
}
floats = pytest.mark.parametrize("name, shape, use", FLOATS.values(), ids=FLOATS)


@floats
@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_found_in_codes(name, shape, use, value):
    numbers = torch.ones(shape)
    use(numbers + torch.arange(2))
    numbers[..., 1] = value
    count = numbers.isfinite().logical_not().sum()
    with pytest.raises(ValueError, match=f"^{name} holds {count} values that are NaN or infinite, must be finite"):
        use(numbers)


@floats
@pytest.mark.parametrize("kind", [torch.Tensor.long, torch.Tensor.bool, torch.Tensor.numpy, torch.Tensor.tolist])
def test_codes_that_are_no_floating_point_tensor_are_refused(name, shape, use, kind):
    with pytest.raises(TypeError, match=f"^{name} is (torch.int64|torch.bool|ndarray|list), must be a"):
        use(kind(torch.ones(shape)))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 3), max_size=3), st.lists(st.integers(1, 3), max_size=3), st.lists(st.integers(1, 3), max_size=2))
def test_ends_and_places_that_do_not_fit_are_refused_and_never_broadcast(first, second, places):
    a, b, t = torch.ones(first), torch.ones(second), torch.zeros(places)
    try:
        torch.broadcast_shapes(first[:-1], second[:-1], places)
        leading = True
    except RuntimeError:
        leading = False
    for way in (lerp, slerp):
        if first and second and first[-1] == second[-1] and leading:
            torch.testing.assert_close(way(a, b, t), a.expand_as(way(a, b, t)))
        else:
            shape, axes = r"(a|b) has shape \(.*\), must be \(\.\.\., ", "a, b and t have leading axes .*must have such as broadcast"
            with pytest.raises(ValueError, match=f"^{shape}|^{axes}"):
                way(a, b, t)


@pytest.mark.parametrize("way", [lerp, slerp])
@pytest.mark.parametrize("t, error, message", [
    (NAN, ValueError, "t holds 1 values that are NaN or infinite"), (torch.tensor([0.0, math.inf]), ValueError, "t holds 1"),
    ("half", TypeError, "t is 'half', must be a number or a Tensor"), (None, TypeError, "t is None, must be a number")])
def test_places_that_are_none_are_refused(way, t, error, message):
    with pytest.raises(error, match=f"^{message}"):
        way(torch.ones(3, 2), torch.ones(3, 2), t)


@pytest.mark.parametrize("way", [lerp, slerp])
def test_ends_on_two_devices_are_refused(way):
    with pytest.raises(ValueError, match="^b is on meta, must be on cpu, as a is"):
        way(torch.ones(2), torch.ones(2, device="meta"), 0.5)


# --- one wrong argument --------------------------------------------------------------------------

NUMBERS = [NAN, math.inf, "3", None, True, 2.5, -1]
WHOLE = [*NUMBERS, 0]


@pytest.mark.parametrize("name, value, call", [(name, value, call) for name, values, call in [
    ("batch_size", WHOLE, lambda v: posterior(MODEL, IMAGES, v)),
    ("batch_size", WHOLE, lambda v: reconstruction_at_mean(MODEL, IMAGES, batch_size=v)),
    ("batch_size", WHOLE, lambda v: encodings(MODEL, IMAGES, v)),
    ("batch_size", WHOLE, lambda v: decode_images(MODEL, torch.ones(1, 2), v)),
    ("n_samples", WHOLE, lambda v: log_weights(MODEL, IMAGES, v)),
    ("n_samples", WHOLE, lambda v: evaluate(MODEL, IMAGES, n_samples=v)),
    ("at_once", [v for v in WHOLE if v is not None], lambda v: evaluate(MODEL, IMAGES, at_once=v)),
    ("seed", [*NUMBERS, 2**32], lambda v: evaluate(MODEL, IMAGES, seed=v)),
    ("seed", [*NUMBERS, 2**32], lambda v: tsne(LINE, 3, v)),
    ("seed", [*NUMBERS, 2**32], lambda v: BetaExplorer({1: MODEL, 2: MODEL}, image_data(), seed=v)),
    ("k", [*WHOLE, 3], lambda v: importance_bound(torch.ones(4, 2), v)),
    ("k", [*WHOLE, 12], lambda v: nearest_neighbours(LINE, k=v)),
    ("k", [*WHOLE, 13], lambda v: nearest_neighbours(LINE, LINE, v)),
    ("k", [*WHOLE, 12], lambda v: knn_accuracy(LINE, torch.zeros(12), k=v)),
    ("k", [*WHOLE, 12], lambda v: shared_neighbours(LINE, LINE, v)),
    ("threshold", [v for v in NUMBERS if v != 2.5], lambda v: active_units(LINE, v)),
    ("steps", [*WHOLE, 1], lambda v: interpolate(MODEL, IMAGES, IMAGES, v)),
    ("n", WHOLE, grid_points), ("n", WHOLE, lambda v: manifold_grid(MODEL, v)),
    ("n", [*WHOLE, 3], lambda v: pca(LINE, v)),
    ("n", WHOLE, lambda v: LatentExplorer(MODEL, image_data(), v)),
    ("n", [*WHOLE, 1], lambda v: EmbeddingExplorer(MODEL, image_data(), v)),
    ("n", WHOLE, lambda v: BetaExplorer({1: MODEL, 2: MODEL}, image_data(), v)),
    ("perplexity", [v for v in [*NUMBERS, 0, 12] if v != 2.5], lambda v: tsne(LINE, v)),
    ("size", [v for v in NUMBERS if v not in (None, 2.5)], lambda v: scatter(LINE, [0] * 12, size=v)),
] for value in values])
def test_a_number_that_is_not_allowed_is_named_with_those_that_are(name, value, call):
    with pytest.raises(ValueError, match=f"^{name} is {value!r}, must be "):
        call(value)
    assert not plt.get_fignums()


@pytest.mark.parametrize("call", [
    lambda wrong: evaluate(MODEL, IMAGES, likelihood=wrong), lambda wrong: interpolate(MODEL, IMAGES, IMAGES, method=wrong),
    lambda wrong: tsne(LINE, 3, init=wrong), lambda wrong: EmbeddingExplorer(MODEL, image_data(), split=wrong)])
@pytest.mark.parametrize("wrong", ["", "bernouly", "slurp", "PCA", "Test", 3, ()])
def test_a_name_that_is_unknown_gets_the_nearest(call, wrong):
    with pytest.raises(ValueError, match=r"^(likelihood|method|init|split) is .*, must be one of ('.*'); the nearest is '.*'") as raised:
        call(wrong)
    assert repr(wrong) in str(raised.value)


@pytest.mark.parametrize("nats", [0.0, None, np.zeros((1, 2, *SHAPE)), torch.zeros(3)], ids=["float", "None", "array", "shape"])
def test_a_likelihood_that_gives_something_else_is_refused(nats):
    with pytest.raises(ValueError, match=r"^likelihood gave .*, must give a Tensor of the shape of logits, \(.*\): one figure a pixel"):
        evaluate(MODEL, IMAGES, likelihood=lambda logits, x: nats)


WITHOUT_SPACE = {
    "posterior": lambda model: posterior(model, IMAGES), "reconstruction_at_mean": lambda model: reconstruction_at_mean(model, IMAGES),
    "log_weights": lambda model: log_weights(model, IMAGES), "evaluate": lambda model: evaluate(model, IMAGES),
    "decode_images": lambda model: decode_images(model, torch.ones(1, 2)), "interpolate": lambda model: interpolate(model, IMAGES, IMAGES),
    "traverse": lambda model: traverse(model, IMAGES[0]), "manifold_grid": manifold_grid, "encodings": lambda model: encodings(model, IMAGES),
    "LatentExplorer": LatentExplorer, "InterpolationExplorer": lambda model: InterpolationExplorer(model, IMAGES),
    "EmbeddingExplorer": lambda model: EmbeddingExplorer(model, image_data())}


@pytest.mark.parametrize("use", WITHOUT_SPACE.values(), ids=WITHOUT_SPACE)
@pytest.mark.parametrize("model", [torch.nn.Linear(2, 12), None, "mnist-mlp-2d"], ids=["Linear", "None", "str"])
def test_what_is_no_model_with_a_latent_space_is_refused(use, model):
    with pytest.raises(TypeError, match=f"^model is {type(model).__name__}, must be a (LatentModel|BaseVAE): "):
        use(model)


@pytest.mark.parametrize("call, error, message", [
    (lambda: active_units(torch.ones(3)), ValueError, r"mu has shape \(3,\), must be \(N, latent_dim\)"),
    (lambda: active_units(torch.ones(0, 3)), ValueError, r"mu has shape \(0, 3\)"),
    (lambda: importance_bound(torch.ones(3), 1), ValueError, r"log_w has shape \(3,\), must be \(N, n_samples\)"),
    (lambda: interpolate(MODEL, IMAGES, IMAGES[:2]), ValueError, r"b has shape \(2, 1, 3, 4\), must have that of a"),
    (lambda: traverse(MODEL, torch.ones(2), dims=[True, False]), ValueError, r"dims is \[True, False\], must be a list of whole numbers from 0 to 1"),
    (lambda: traverse(MODEL, torch.ones(2), dims="01"), ValueError, "dims is '01'"),
    (lambda: traverse(MODEL, torch.ones(2), dims=[[0]]), ValueError, r"dims is \[\[0\]\]"),
    (lambda: traverse(MODEL, torch.ones(2), dims=[2]), ValueError, r"dims is \[2\]"),
    (lambda: traverse(MODEL, torch.ones(2), values=[0, NAN]), ValueError, r"values is \[0, nan\], must be a list of finite numbers"),
    (lambda: traverse(MODEL, torch.ones(2), values=[1e39]), ValueError, "values is .1e.39., must be"),
    (lambda: traverse(MODEL, torch.ones(2), values=["a"]), ValueError, r"values is \['a'\]"),
    (lambda: grid_points(3, "12"), ValueError, "range is '12', must be two numbers"),
    (lambda: grid_points(3, (1, NAN)), ValueError, r"range is \(1, nan\), must be two numbers"),
    (lambda: grid_points(3, (2, -2)), ValueError, r"range is \(2, -2\), must be .* low < high"),
    (lambda: encodings(MODEL, IMAGES / 255), TypeError, "images is torch.float32, must be torch.uint8"),
    (lambda: encodings(MODEL, Split(IMAGES, None)), TypeError, "images is Split, must be a Tensor of uint8"),
    (lambda: encodings(MODEL, IMAGES[0]), ValueError, r"images has shape \(1, 3, 4\), must be \(B, 1, 3, 4\)"),
])
def test_other_wrong_arguments_of_evaluation_and_generation(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


# --- points and labels ---------------------------------------------------------------------------

POINTS = {"pca": ("codes", pca), "Pca.transform": ("codes", pca(LINE).transform), "tsne": ("codes", lambda p: tsne(p, 3)),
          "nearest_neighbours": ("codes", lambda p: nearest_neighbours(p, k=2)),
          "queries": ("queries", lambda p: nearest_neighbours(LINE, p, 2)),
          "knn_classify": ("codes", lambda p: knn_classify(p, [0] * 12, k=2)),
          "test_codes": ("test_codes", lambda p: knn_classify(LINE, [0] * 12, p, 2)),
          "knn_accuracy": ("test_codes", lambda p: knn_accuracy(LINE, [0] * 12, p, [0] * 12, 2)),
          "shared": ("points", lambda p: shared_neighbours(p, LINE, 2)), "others": ("others", lambda p: shared_neighbours(LINE, p, 2)),
          "scatter": ("points", lambda p: scatter(p, [0] * 12))}


@pytest.mark.parametrize("name, use", POINTS.values(), ids=POINTS)
@pytest.mark.parametrize("points, error, message", [
    (LINE.where(LINE != LINE[3, 1], NAN), ValueError, "holds 1 values that are not finite, the first of them nan: must be numbers from"),
    (LINE.where(LINE > 0, math.inf).numpy(), ValueError, r"holds \d+ values that are not finite, the first of them inf"),
    (LINE.where(LINE > 0, -1e200), ValueError, r"holds \d+ values that .* the first of them -1e\+200: must be numbers from -1e100 to 1e100"),
    (LINE[:, 0], ValueError, r"has shape \(12,\), must be \(N, D\)"), (LINE[:, :0], ValueError, r"has shape \(12, 0\), must be \(N, D\)"),
    ([[0.0, 1.0], [2.0]], ValueError, r"is \[\[0.0, 1.0\], \[2.0\]\], must be an array: its rows are of different lengths"),
    ([["0", "1"]] * 12, TypeError, "holds <U1, must hold real numbers"), (LINE.numpy() + 1j, TypeError, "holds complex128, must hold real"),
    ([[None, 1.0]] * 12, TypeError, "holds object, must hold real numbers")],
    ids=["nan", "inf", "huge", "one axis", "no columns", "ragged", "text", "complex", "None"])
def test_points_that_are_none_are_refused_by_name(name, use, points, error, message):
    with pytest.raises(error, match=f"^{name} {message}"):
        use(points)
    assert not plt.get_fignums()


@settings(max_examples=30)
@given(st.floats(-1e90, 1e90), st.integers(2, 50), st.integers(2, 4))
def test_points_that_are_all_the_same_are_refused(value, n, dims):
    points = np.full((n, dims), value)
    with pytest.raises(ValueError, match=r"^codes are all the same point, array\(.*, must differ"):
        pca(points)
    for init in ("pca", "random"):
        with pytest.raises(ValueError, match="^codes are 0 wide, must be between 1e-15 and 1e15"):
            tsne(points, 1, init=init)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_points_too_near_or_too_far_for_a_map_are_refused(unit):
    with pytest.raises(ValueError, match="^codes are .* wide, must be between"):
        tsne(unit * LINE, 3)


@pytest.mark.parametrize("call, error, message", [
    (lambda: pca(LINE).transform(LINE[:, :1]), ValueError, r"codes has shape \(12, 1\), must be \(M, 2\)"),
    (lambda: nearest_neighbours(LINE, cloud(3, 1)), ValueError, r"queries has shape \(3, 1\), must be \(M, 2\)"),
    (lambda: knn_classify(LINE, [0] * 12, cloud(3, 3)), ValueError, r"test_codes has shape \(3, 3\), must be \(M, 2\)"),
    (lambda: knn_classify(LINE, [0] * 11), ValueError, r"labels has shape \(11,\), must be \(12,\)"),
    (lambda: knn_classify(LINE, [[0]] * 12), ValueError, r"labels has shape \(12, 1\)"),
    (lambda: knn_classify(LINE, [0, [1]]), ValueError, "labels is .*, must be an array"),
    (lambda: knn_classify(LINE, [NAN] + [0.0] * 11), ValueError, "labels holds 1 values that are NaN, must hold classes"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE[:0], []), ValueError, "test_codes has no points, must have at least one"),
    (lambda: knn_accuracy(LINE, [0] * 12, LINE, ["0"] * 12), ValueError, "test_labels are <U1, must be classes such as labels has, int64"),
    (lambda: scatter(LINE, [0.5] * 12), ValueError, "labels are float64 from 0.5, must be whole numbers from 0"),
    (lambda: scatter(LINE, [True] * 12), ValueError, "labels are bool from True, must be whole"),
    (lambda: scatter(LINE, [2] * 12, 3), TypeError, "class_names is 3, must be a sequence of names"),
    (lambda: scatter(LINE, [2] * 12, ["a"]), ValueError, "class_names has 1 entries, but labels go up to 2"),
    (lambda: scatter(LINE, [0] * 12, ax=[1, 2]), TypeError, "ax is a list, must be one matplotlib Axes"),
    (lambda: scatter(LINE[:0], []), ValueError, r"points has shape \(0, 2\), must be \(N, D\) with N of at least 1"),
])
def test_other_wrong_points_and_labels(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
    assert not plt.get_fignums()


# --- explorers -----------------------------------------------------------------------------------

EXPLORERS = {"latent": lambda data, model=MODEL: LatentExplorer(model, data), "embedding": lambda data, model=MODEL: EmbeddingExplorer(model, data),
             "beta": lambda data, model=MODEL: BetaExplorer({1: model, 2: MODEL}, data)}
explorers = pytest.mark.parametrize("explore", EXPLORERS.values(), ids=EXPLORERS)


@explorers
@pytest.mark.parametrize("split, error, message", [
    (Split(IMAGES[:0], torch.zeros(0, dtype=torch.int64)), ValueError, r"data.test has 0 images and labels of shape \(0,\), must"),
    (Split(IMAGES, torch.zeros(3, dtype=torch.int64)), ValueError, r"data.test has 4 images and labels of shape \(3,\), must have a label for each"),
    (Split(IMAGES / 255, torch.zeros(4, dtype=torch.int64)), TypeError, "data.test has images of torch.float32, must be torch.uint8"),
    (Split(IMAGES, torch.full((4,), 3)), ValueError, "data has labels from 3 to 3, must be from 0 to 2"),
], ids=["empty", "labels", "intensities", "class"])
def test_explorers_name_the_split_that_is_wrong(explore, split, error, message):
    with pytest.raises(error, match=f"^{message}"):
        explore(image_data(test=split))


@pytest.mark.parametrize("explore", [EXPLORERS["latent"], EXPLORERS["embedding"], lambda data, model: InterpolationExplorer(model, IMAGES)])
def test_explorers_refuse_a_model_whose_codes_are_not_finite(explore):
    model = tiny()
    with torch.no_grad():
        model.encoder[-1].bias[0] = NAN
    with pytest.raises(ValueError, match=r"^model gives \d+ values of codes that are not finite for (data|images): was it trained?"):
        explore(image_data(), model)


def test_more_than_256_classes_are_refused():
    names = tuple(map(str, range(300)))
    with pytest.raises(ValueError, match="data has labels from 299 to 299, must be from 0 to 255"):
        LatentExplorer(MODEL, image_data(test=Split(IMAGES, torch.full((4,), 299)), class_names=names))


def test_a_single_image_makes_no_map_but_is_explored():
    one = image_data(1)
    with pytest.raises(ValueError, match="^data has 1 image to show, must have at least 2"):
        EmbeddingExplorer(MODEL, one)
    assert len(LatentExplorer(MODEL, one).point_labels) == 1 and len(BetaExplorer({1: MODEL, 2: MODEL}, one).names) == 1
