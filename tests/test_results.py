"""The models that are shipped are what they say, and the results page says what the records say."""
import json
import re
import shutil

import make_results
import make_speed
import nbformat
import pytest
import torch
from conftest import ROOT, run_process

from vae_tutorial import saving
from vae_tutorial.checks import expect
from vae_tutorial.data import load_data
from vae_tutorial.saving import about_pretrained, load_pretrained
from vae_tutorial.training import validate
from vae_tutorial.vae import BaseVAE, LatentModel

PRETRAINED = ROOT / "vae_tutorial" / "pretrained"
INDEX = json.loads((PRETRAINED / "index.json").read_text())
NAMES = {"mnist-mlp-20d", "mnist-mlp-2d", "mnist-ae-20d", "mnist-conditional-2d", "mnist-vamp-20d", "fashion-conv-2d", "fashion-conv-50d"} | {
    f"mnist-beta-{beta}" for beta in ("0.25", "0.5", "1", "2", "4", "8", "16")}


# --- pretrained models ---

def test_all_models_are_there_and_small():
    assert INDEX.keys() == NAMES == {path.stem for path in PRETRAINED.glob("*.safetensors")}
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) <= 13.5e6


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_model_loads_ready_for_use_with_its_recipe_and_its_figures(name):
    model, about = load_pretrained(name), about_pretrained(name)
    assert isinstance(model, LatentModel) and not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32} and {p.device.type for p in model.parameters()} == {"cpu"}
    assert all(p.isfinite().all() for p in model.parameters())
    assert about["recipe"]["training images"] in (54_000, 48_000) and about["history"].ended == "all epochs done"
    assert len(about["history"]) == about["recipe"]["epochs"]
    if isinstance(model, BaseVAE):
        figures = about["metrics"]
        assert figures["nll_draws"] == 5000 and figures["nll"] <= figures["loss_of_these"]
        assert figures["loss"] == pytest.approx(figures["distortion"] + figures["rate"], abs=1e-3)


@pytest.mark.parametrize("name", ["mnist-mlp-20d", "fashion-conv-2d"])
def test_a_model_knows_the_images_it_was_trained_on(name):
    data = load_data(name.split("-")[0], source="sample")
    reconstruction, kl = validate(load_pretrained(name), data.test.images)
    figures = about_pretrained(name)["metrics"]
    # the sample's images are of the official training set, on which the loss is not above that of the test set by more than chance
    assert abs(reconstruction + kl - figures["loss"]) < 12


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_file_is_refused(damage, tmp_path, monkeypatch):
    shutil.copyfile(PRETRAINED / "index.json", tmp_path / "index.json")
    content = bytearray((PRETRAINED / "mnist-mlp-2d.safetensors").read_bytes())
    content[len(content) // 2] ^= damage == "flipped"
    if damage != "gone":
        (tmp_path / "mnist-mlp-2d.safetensors").write_bytes(content[:-100] if damage == "cut" else content)
    monkeypatch.setattr(saving, "_PRETRAINED", tmp_path)
    with pytest.raises(ValueError, match="mnist-mlp-2d.safetensors is missing or damaged: install vae-tutorial again"):
        load_pretrained("mnist-mlp-2d")


# --- records and the page ---

def test_a_named_figure_is_recorded(data, tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    expect(1.0, data, full=(0, 2), sample=(0, 3), record="unheard")
    monkeypatch.setenv("VAE_TUTORIAL_RECORDS", str(path))
    expect(1.0, data, full=(0, 2), sample=(0, 3))
    assert not path.exists()
    expect(torch.tensor(1.5), data, full=(0, 2), sample=(0, 3), record="loss", spread=torch.tensor(0.25))
    with pytest.raises(AssertionError):
        expect(9.0, data, full=(0, 2), sample=(0, 3), record="wrong")
    (row,) = map(json.loads, path.read_text().splitlines())
    assert row == {"record": "loss", "value": 1.5, "spread": 0.25, "low": 0, "high": 3, "source": "sample"}


def test_the_page_is_what_the_records_say():
    page = (ROOT / "nbs" / "results.md").read_text(encoding="utf-8")
    run_process("tools/make_results.py")
    assert (ROOT / "nbs" / "results.md").read_text(encoding="utf-8") == page, "run make results and commit what it changes"


def test_chapter_10_shows_what_the_benchmarks_have_measured():
    chapter = nbformat.read(make_speed.CHAPTER, as_version=4)
    shown = [cell.source for cell in chapter.cells]
    make_speed.fill(chapter)
    assert [cell.source for cell in chapter.cells] == shown, "run make results and commit what it changes"


def test_what_chapter_10_says_of_its_races_has_been_measured():
    """Five seeds of each recipe are at the target; the recipe is worth more than the loop; threads that sleep do not mind a busy process."""
    race = make_speed.load("time_to_target")
    for kind in ("constant", "one-cycle"):
        runs = [run for run in race["runs"] if run["kind"] == kind]
        assert len({run["seed"] for run in runs}) >= 5 and all(run["loss"] < race["target"] for run in runs)
    loop, _, recipe, both = race["times_as_long"].values()
    assert 1 < loop[1] and loop[2] < recipe[1] < both[1]
    busy = make_speed.load("busy_core")["times_as_long_beside_a_busy_process"]
    assert max(busy["OMP_WAIT_POLICY=passive"][2], busy["one thread"][2]) < busy["PyTorch's default"][1]


def test_the_recipe_that_chapter_10_shows_is_the_one_that_was_raced():
    best = make_speed.load("time_to_target")["recipes"]["one-cycle"]
    [page] = [cell.source for cell in nbformat.read(make_speed.CHAPTER, as_version=4).cells if 'recipe("one-cycle"' in cell.source]
    assert f'"one-cycle", {best["epochs"]}' in page and f"batch_size={best['batch_size']}" in page
    assert float(re.search(r"lr=([\d.e-]+)", page)[1]) == best["lr"]


def test_every_published_figure_is_met_or_explained():
    sources, records = make_results.load()
    figures = make_results.by_name(records)
    for group in sources["figures"]:
        for row in group["rows"]:
            figure = figures[row["record"]]
            assert figure["low"] <= figure["value"] <= figure["high"], row
            if not isinstance(row["theirs"], str):
                assert figure["low"] <= row["theirs"] <= figure["high"], f"the range of {row} does not hold the published figure"


def test_a_row_without_a_record_is_named():
    group = {"group": "g", "protocol": "p", "decides": "d", "rows": [{"record": "absent", "what": "w", "theirs": 1.0}]}
    with pytest.raises(SystemExit, match="no record 'absent'"):
        make_results.comparison(group, {})


def test_every_plus_minus_on_the_page_is_explained():
    sources, figures = {"figures": [], "own": {"a": "one"}, "spreads": {}}, {"a": dict(value=1.0, spread=0.1, chapter="03_evaluation")}
    with pytest.raises(SystemExit, match="does not say what the ± of a is"):
        make_results.own(sources, figures)
    sources["spreads"]["a"] = "s.e. over images"
    assert "| one | 1.00 ± 0.100 | s.e. over images | {doc}`3 <03_evaluation>` |" in make_results.own(sources, figures)
