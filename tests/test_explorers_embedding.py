"""EmbeddingExplorer in Python: its state against scikit-learn's and PyTorch's numbers, and mistakes named."""
import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from vae_tutorial.data import ImageData, Split
from vae_tutorial.explorers import EmbeddingExplorer
from vae_tutorial.generation import decode_images
from vae_tutorial.latent_space import encodings, pca, shared_neighbours, tsne
from vae_tutorial.vae import VAE

SHAPE = (1, 4, 5)


def split(count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Split(torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=rng), torch.randint(3, (count,), generator=rng))


@pytest.fixture
def data():
    return ImageData(split(20, 1), split(15, 2), split(40), "mnist", "sample", ("zero", "one", "two"))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return VAE(SHAPE, (6,), 3)


def places(count=40, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2))


@pytest.fixture
def explorer(model, data):
    return EmbeddingExplorer(model, data, maps={"first": places(), "second": places(seed=1)})


def numbers(values, columns):
    return np.frombuffer(values, "<f4").reshape(-1, columns)


# --- what the browser gets -----------------------------------------------------------------------

def test_the_state_holds_images_labels_and_codes_of_the_test_images(explorer, model, data):
    sheet = np.asarray(Image.open(io.BytesIO(explorer.images)))
    assert sheet.shape == (2 * 4, 30 * 5)                       # 40 images in rows of 30
    assert (sheet[4:8, 5:10] == data.test.images[31, 0].numpy()).all()
    assert list(explorer.point_labels) == data.test.labels.tolist()
    assert np.array_equal(numbers(explorer.codes, 3), encodings(model, data.test.images).numpy())


def test_codes_in_the_state_decode_to_the_reconstructions(explorer, model, data):
    codes = torch.from_numpy(numbers(explorer.codes, 3).copy())
    torch.testing.assert_close(decode_images(model, codes), model.reconstruct(data.test.images / 255))


@pytest.mark.parametrize("name, count", [("train", 20), ("val", 15), ("test", 40)])
def test_images_come_from_the_split_that_is_named(model, data, name, count):
    explorer = EmbeddingExplorer(model, data, maps={"map": places(count)}, split=name)
    assert list(explorer.point_labels) == getattr(data, name).labels.tolist()


def test_pooled_data_give_their_validation_images(model, data):
    pooled = ImageData(data.train, data.val, None, "mnist", "sample", data.class_names)
    assert len(EmbeddingExplorer(model, pooled, maps={"map": places(15)}).point_labels) == 15
    with pytest.raises(ValueError, match="split is 'test', must be one of 'train', 'val'"):
        EmbeddingExplorer(model, pooled, split="test")


def test_the_first_n_images_are_taken_and_all_where_there_are_fewer(model, data):
    assert len(EmbeddingExplorer(model, data, n=7, maps={"map": places(7)}).point_labels) == 7
    assert len(EmbeddingExplorer(model, data, n=1000, maps={"map": places(40)}).point_labels) == 40


# --- maps ----------------------------------------------------------------------------------------

def test_default_maps_are_the_principal_components_and_the_perplexities_that_fit(model, data):
    explorer, codes = EmbeddingExplorer(model, data), encodings(model, data.test.images)
    assert list(explorer.maps) == ["PCA", "perplexity 5", "perplexity 30"]        # 100 needs more than 40 points
    assert explorer.map == "PCA" and list(explorer.map_control.options) == explorer.map_names
    assert shared_neighbours(explorer.maps["PCA"], pca(codes).points) == 1
    assert shared_neighbours(explorer.maps["perplexity 5"], tsne(codes, 5)) == 1
    assert list(EmbeddingExplorer(model, data, n=5).maps) == ["PCA"]


def test_maps_are_moved_and_scaled_alike_in_both_directions(model, data):
    explorer = EmbeddingExplorer(model, data, n=3, maps={"map": [[10, 5], [14, 5], [10, 7]], "point": np.ones((3, 2))})
    assert explorer.maps["map"].tolist() == [[-1, -0.5], [1, -0.5], [-1, 0.5]]
    assert explorer.maps["point"].tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("maps, error, message", [
    ([1, 2], TypeError, r"maps is \[1, 2\], must be a dict from names to arrays of shape \(40, 2\)"),
    ({5: places()}, TypeError, "must be a dict from names"),
    ({}, ValueError, "maps is empty"),
    ({"good": places(), "short": places(39)}, ValueError, r"maps\['short'\] has shape \(39, 2\), must be \(40, 2\)"),
    ({"deep": np.zeros((40, 3))}, ValueError, r"maps\['deep'\] has shape \(40, 3\)"),
    ({"flat": np.zeros(40)}, ValueError, r"maps\['flat'\] has shape \(40,\)"),
    ({"broken": np.full((40, 2), np.nan)}, ValueError, r"maps\['broken'\] holds 80 values that are not finite"),
])
def test_maps_that_are_none_are_refused_by_name(model, data, maps, error, message):
    with pytest.raises(error, match=message):
        EmbeddingExplorer(model, data, maps=maps)


def test_one_latent_dimension_has_no_default_maps(data):
    line = VAE(SHAPE, (6,), 1)
    with pytest.raises(ValueError, match="model has latent_dim 1, must have at least 2, or maps must be given"):
        EmbeddingExplorer(line, data)
    assert EmbeddingExplorer(line, data, maps={"map": places()}).point == 0


# --- traits --------------------------------------------------------------------------------------

def test_it_starts_with_the_first_image_of_all_classes_on_the_first_map(explorer):
    assert (explorer.point, explorer.held, explorer.map, explorer.classes) == (0, False, "first", [0, 1, 2])


def test_attributes_are_set_and_observed(explorer):
    seen = []
    explorer.observe(lambda change: seen.append((change["name"], change["new"])), ["point", "map", "classes", "held"])
    explorer.point, explorer.map, explorer.classes, explorer.held = np.int64(39), "second", torch.tensor([2, 0, 2]), True
    assert seen == [("point", 39), ("map", "second"), ("classes", [0, 2]), ("held", True)]
    explorer.point, explorer.classes = -1, []
    assert (explorer.point, explorer.classes) == (-1, [])


@pytest.mark.parametrize("name, value, message", [
    ("point", 40, "point is 40, must be from 0 to 39, or -1 for none"),
    ("point", -2, "point is -2"),
    ("map", "third", r"map is 'third', must be one of \['first', 'second'\]"),
    ("classes", [0, 3], r"classes is \[0, 3\], must hold class indices from 0 to 2"),
    ("classes", [-1], "must hold class indices from 0 to 2"),
    ("classes", ["zero"], "classes"),
])
def test_what_does_not_exist_is_refused_and_nothing_changes(explorer, name, value, message):
    before = getattr(explorer, name)
    with pytest.raises(traitlets.TraitError, match=message):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


# --- mistakes ------------------------------------------------------------------------------------

def test_labels_out_of_range_are_refused(model, data):
    wrong = ImageData(data.train, data.val, Split(data.test.images, data.test.labels + 1), "mnist", "sample", data.class_names)
    with pytest.raises(ValueError, match="data has labels from 1 to 3, must be from 0 to 2"):
        EmbeddingExplorer(model, wrong)


@pytest.mark.parametrize("n", [0, 1, 2.5, True])
def test_n_that_makes_no_map_is_refused(model, data, n):
    with pytest.raises(ValueError, match="n is .*, must be a whole number of at least 2"):
        EmbeddingExplorer(model, data, n=n)


def test_models_of_other_images_and_untrained_weights_are_refused(data):
    with pytest.raises(ValueError, match=r"data.test has shape \(40, 1, 4, 5\), must be \(B, 1, 28, 28\)"):
        EmbeddingExplorer(VAE(latent_dim=2), data)
    broken = VAE(SHAPE, (6,), 2)
    with torch.no_grad():
        broken.decoder[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="1 weights that are NaN"):
        EmbeddingExplorer(broken, data)


# --- the still -----------------------------------------------------------------------------------

def test_the_still_is_a_small_picture_of_the_map_that_is_shown(explorer):
    explorer.map = "second"
    html = explorer._repr_mimebundle_()[0]["text/html"]
    assert "40 encoded images in the colours of their classes, on the map second" in html
    assert html.count("data:image/png;base64,") == 1 and len(html) < 30_000
