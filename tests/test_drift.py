"""Results cannot drift unseen: every asserted range is held by several seeds and no wider than they need, and training is as stored."""
import json
from functools import partial

import make_results
import measure_ranges
import pytest
import torch
from conftest import ROOT

from vae_tutorial import vae

RANGES = measure_ranges.load()
PAGES = {path.stem: path for path in measure_ranges.chapters()}
RECORDS = json.loads((ROOT / "book" / "results" / "records.json").read_text(encoding="utf-8"))
PUBLISHED = {row["record"] for group in make_results.load()[0]["figures"] for row in group["rows"]}
NETWORK = RANGES["network"]
# nats: five times what other vector instructions of one processor made of the same seed; a KL that is 2 % off makes 0.4
SAME_SEED = 0.1
AGAIN = "measure it anew with tools/measure_ranges.py"


# --- the pages' ranges ---

def figures_of(chapter):
    return RANGES["chapters"].get(chapter, {})


def with_sources(chapter):
    """Yield name, source and values of all figures of a chapter that have been measured on that source."""
    for name, figure in figures_of(chapter).items():
        for source in ("full", "sample"):
            if figure[source]["values"]:
                yield name, source, figure[source]


@pytest.mark.parametrize("chapter", PAGES)
def test_every_figure_of_a_page_was_measured_on_the_sample_with_three_seeds(chapter):
    measured = {}
    for figure in figures_of(chapter).values():
        measured.setdefault((figure["cell"], figure["call"]), []).append(figure["sample"].get("seeds", 0))
    for cell, source in measure_ranges.cells_with_figures(PAGES[chapter]).items():
        for number, _ in enumerate(measure_ranges.calls_of(source), 1):
            assert min(measured.get((cell, number), [0])) >= 3, f"expect number {number} in cell {cell} of {chapter}: {AGAIN}"


@pytest.mark.parametrize("chapter", PAGES)
def test_the_stored_ranges_are_those_of_the_page(chapter):
    cells = measure_ranges.cells_with_figures(PAGES[chapter])
    for name, figure in figures_of(chapter).items():
        source = cells[figure["cell"]]
        stated = measure_ranges.asserted(measure_ranges.calls_of(source)[figure["call"] - 1])
        for of, limits in stated.items():
            assert figure[of]["range"] == limits, f"{name}: {AGAIN} --ranges"
        if len(stated) < 2:
            assert figure["digest"] == measure_ranges.digest(source), f"{name} has a range that the page computes; {AGAIN}"


@pytest.mark.parametrize("chapter", PAGES)
def test_ranges_hold_what_the_seeds_gave_and_are_not_wider_than_they_need(chapter):
    found = [(source, measure_ranges.fault(name, own, source == "full" and name in PUBLISHED)) for name, source, own in with_sources(chapter)]
    faults = [f"{source}: {fault}" for source, fault in found if fault]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("chapter", RECORDS)
def test_stored_figures_lie_in_the_ranges_of_the_pages(chapter):
    figures = figures_of(chapter)
    for name, record in RECORDS[chapter]["figures"].items():
        low, high = figures[name]["full"]["range"]
        assert low <= record["value"] <= high, name


# --- the network of chapter 02 ---

@pytest.fixture(scope="module")
def trained():
    return {seed: measure_ranges.train_network(int(seed)) for seed in ("0", "1", "2")}


def furthest(run, seed):
    """Return by how many nats the figure that differs most is from the stored one."""
    return max(abs(value - NETWORK["seeds"][seed][name]) for name, value in run.items())


@pytest.mark.deep
def test_three_seeds_train_into_the_band_of_ten(trained):
    for name, (low, high) in NETWORK["bands of three seeds"].items():
        mean = sum(run[name] for run in trained.values()) / len(trained)
        assert low <= mean <= high, f"{name} is {mean:.3f}, not from {low} to {high} nats"


def as_measured():
    return torch.__version__.split(".")[:2] == NETWORK["torch"].split(".")[:2]


# another release of torch may draw other numbers from the same seed; the band above holds for it nevertheless
same_torch = pytest.mark.skipif(not as_measured(), reason=f"the seeds were measured with torch {NETWORK['torch']}")


@same_torch
@pytest.mark.deep
def test_each_seed_trains_to_what_is_stored_of_it(trained):
    for seed, run in trained.items():
        assert furthest(run, seed) < SAME_SEED, f"seed {seed} gives {run}, stored is {NETWORK['seeds'][seed]}; if that is meant, {AGAIN} --network"


def scaled(function, factor):
    return lambda *arguments: function(*arguments) * factor


def wider(function):
    return lambda mu, logvar, *rest: function(mu, 2 * logvar, *rest)


@same_torch
@pytest.mark.deep
@pytest.mark.parametrize("function, change, settings", [
    pytest.param("kl_divergence", partial(scaled, factor=1.02), {}, id="KL of 1.02"),
    pytest.param("reparameterize", wider, {}, id="no half in sigma"),
    pytest.param(None, None, {"lr": 0.8e-3}, id="learning rate"), pytest.param(None, None, {"batch_size": 100}, id="batch size")])
def test_a_wrong_objective_or_recipe_is_seen(function, change, settings, monkeypatch):
    if function:
        monkeypatch.setattr(vae, function, change(getattr(vae, function)))
    assert furthest(measure_ranges.train_network(0, **settings), "0") > 3 * SAME_SEED
