"""Run chapters with other seeds and keep what their figures come to, in book/results/ranges.json.

A page asserts a range for each of its figures with `expect`. This program runs copies of the pages with every seed shifted by
an offset, the split of the data apart, and notes the value of every `expect`, whether it lies in its range or not:

    VAE_TUTORIAL_SOURCE=sample python tools/measure_ranges.py --offsets 0 1000 2000

Trainings are kept in _build/ranges, so that a measurement that was stopped goes on. `--models` names a folder of models from
other seeds, such as mnist-mlp-20d-1000.safetensors, that take the place of the packaged ones where the offset is that number.
On the full data a run of all chapters takes about three hours.
"""
import argparse
import ast
import hashlib
import inspect
import json
import os
import re
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "nbs"
WORK = ROOT / "_build" / "ranges"
RANGES = ROOT / "book" / "results" / "ranges.json"
RECORDS = ROOT / "book" / "results" / "records.json"
# figures that a page itself averages over so many seeds; it gives `expect` their standard deviation
MEANS_OF = {r"s3-latent-.*": 3, r"s3-ae-bce": 3, r"beta-.*-test-loss": 5, r"mig-(tc-)?beta-.*": 8}
LEAST, MOST, SHARE = 3, 20, 0.01        # of a range: room on each side and width, in standard deviations; room as a share of the mean
WIDEST = 0.1                            # a width that is never too much, as a share of the mean: three seeds may agree by chance
ENDS = (0, 1, 10, 32, 50)               # where figures end by themselves: at nothing, at all, at the number of dimensions
SEEDLESS = 0.25                         # the same for a figure that no seed moves, such as the accuracy of a packaged model


# --- inside the kernel that runs a page ---

class _Shifted:
    """Stands for torch's default generator where somebody seeds it."""

    def __init__(self, generator, offset):
        self._generator, self._offset = generator, offset

    def manual_seed(self, seed):
        return self._generator.manual_seed(seed + self._offset)

    def __getattr__(self, name):
        return getattr(self._generator, name)


def shift_seeds(offset):
    """Add `offset` to every seed given to torch, NumPy or scikit-learn from now on; the split of the data keeps its own."""
    import numpy as np
    import sklearn.model_selection
    import torch

    default, state, default_rng = torch.default_generator, np.random.RandomState, np.random.default_rng

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(seed + offset)

    class RandomState(state):
        def __init__(self, seed=None):
            super().__init__(seed + offset if isinstance(seed, (int, np.integer)) else seed)

    unshifted = sklearn.model_selection.train_test_split

    def split(*arrays, **options):
        np.random.RandomState = state
        try:
            return unshifted(*arrays, **options)
        finally:
            np.random.RandomState = RandomState

    sklearn.model_selection.train_test_split = split
    torch.Generator, torch.default_generator = Generator, _Shifted(default, offset)
    torch.manual_seed = lambda seed: default.manual_seed(seed + offset)
    np.random.RandomState = RandomState
    np.random.default_rng = lambda seed=None: default_rng(seed + offset if isinstance(seed, (int, np.integer)) else seed)


def replace_pretrained(folder, offset):
    """Let `load_pretrained` give the model of another seed where the folder has one."""
    from vae_tutorial import saving

    packaged = saving.load_pretrained

    def load_pretrained(name):
        other = Path(folder, f"{name}-{offset}.safetensors")
        return saving.load_model(other)[0] if other.exists() else packaged(name)

    saving.load_pretrained = load_pretrained


def noting(file):
    """Return an `expect` that never raises, but writes to a file what it got and from which line of which cell."""
    def expect(value, data, full, sample, record=None, spread=None):
        cell = get_ipython().get_parent()["content"]["code"]         # noqa: F821 (a kernel has it)
        row = dict(digest=digest(cell), line=inspect.currentframe().f_back.f_lineno, value=float(value), full=full, sample=sample,
                   record=record, spread=None if spread is None else float(spread), source=data.source)
        with open(file, "a", encoding="utf-8") as rows:
            rows.write(json.dumps(row, default=float) + "\n")
        return value
    return expect


def prepare(offset, file, models=None):
    """Make the kernel ready for a page: shifted seeds, and figures that are noted."""
    if offset:
        shift_seeds(offset)
    from vae_tutorial import checks

    checks.expect = noting(file)        # before other modules take it from there
    if models and offset:
        replace_pretrained(models, offset)


# --- what a page asserts ---

def calls_of(source):
    """Return the calls of `expect` in a cell, in order; each starts on a line of its own."""
    try:
        tree = ast.parse(source)
    except SyntaxError:        # a cell with a command to IPython
        return []
    calls = sorted((node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "expect"),
                   key=lambda node: node.lineno)
    if len({node.lineno for node in calls}) < len(calls):
        raise SystemExit(f"error: two calls of expect begin in one line of {source!r}")
    return calls


def asserted(call):
    """Return the ranges that a call states as numbers, by source; a range that is computed is not among them."""
    ranges = {}
    for keyword in call.keywords:
        if keyword.arg in ("full", "sample"):
            try:
                ranges[keyword.arg] = list(ast.literal_eval(keyword.value))
            except (ValueError, TypeError):
                pass
    return ranges


def digest(source):
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def cells_with_figures(path):
    """Return the cells of a notebook that call `expect`, by id."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}
    return {name: source for name, source in code.items() if calls_of(source)}


def chapters():
    """Return the notebooks that assert figures."""
    return [path for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")) if cells_with_figures(path)]


# --- running ---

def copy_of_page(path, offset, file, models):
    """Return a notebook that notes its figures: the page with a cell before it."""
    import nbformat

    notebook = nbformat.read(path, 4)
    before = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport measure_ranges\n"
    before += f"measure_ranges.prepare({offset}, {str(file)!r}, {models and str(models.resolve())!r})"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(before))
    notebook.metadata.pop("widgets", None)
    return notebook


def folder_of(source, offset):
    """Return the folder in which the pages of one offset run, with what they read beside them."""
    folder = WORK / f"{source}-{offset}"
    shutil.copytree(NOTEBOOKS, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs", "*.ipynb", ".*"))
    return folder


def run(path, source, offset, models=None, timeout=4 * 3600):
    """Run a copy of a page; return its figures as rows, and the errors of cells that failed."""
    from execute_notebooks import Client, execute_in_thread, kernel_environment
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "figures.jsonl")
        notebook = copy_of_page(path, offset, file, models)
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{temporary}/kernel"}})
        client = Client(notebook, timeout=timeout, kernel_name="python3", config=config, allow_errors=True,
                        resources={"metadata": {"path": str(folder_of(source, offset))}})
        execute_in_thread(client, kernel_environment(temporary) | {"VAE_TUTORIAL_SOURCE": source})
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    executed = {digest(cell.source): cell for cell in notebook.cells if cell.cell_type == "code"}
    errors = {cell.id: f"{output.ename}: {output.evalue}" for cell in notebook.cells for output in cell.get("outputs", [])
              if output.output_type == "error"}
    return named(rows, executed), errors


def named(rows, executed):
    """Return the rows by name: that of their record, else their cell and the number of the call in it."""
    figures, count = {}, {}
    for row in rows:
        cell = executed[row["digest"]]
        number = count[cell.id] = count.get(cell.id, 0) + 1
        lines = [call.lineno for call in calls_of(cell.source)]
        place = dict(cell=cell.id, call=lines.index(row.pop("line")) + 1)
        name = row.pop("record") or f"cell {cell.id}, figure {number}"
        if name in figures:
            raise SystemExit(f"error: two figures are named {name}")
        figures[name] = row | place
    return figures


# --- the network of chapter 02, for a few epochs on the sample ---

def sorted_sample():
    """Return the sample in the pooled split of chapter 02, its training images sorted by class: unshuffled they teach little."""
    from vae_tutorial.data import Split, load_data

    data = load_data("mnist", source="sample", split="pooled")
    order = data.train.labels.argsort(stable=True)
    return replace(data, train=Split(data.train.images[order], data.train.labels[order]))


def train_network(seed, **settings):
    """Train the network of chapter 02 by its recipe, with a ramp of 3 instead of 11 epochs, for 5; return its figures in nats."""
    import torch

    from vae_tutorial.training import LinearBeta, fit
    from vae_tutorial.vae import VAE

    torch.manual_seed(seed)
    history = fit(VAE(hidden_dims=(400,), latent_dim=20), sorted_sample(), epochs=5, beta=LinearBeta(3, every="epoch"), seed=seed,
                  device="cpu", precision="fp32", restore_best=False, progress=False, **settings)
    last = history[-1]
    return {"first training loss": history[0].train_loss, "training loss": last.train_loss, "validation loss": last.loss,
            "reconstruction": last.reconstruction, "KL": last.kl}


def band(values, several=3):
    """Return where the mean of `several` seeds must lie, from the values of more seeds: four standard errors of the difference."""
    room = 4 * statistics.stdev(values) * (1 / several + 1 / len(values)) ** 0.5
    return [round(statistics.fmean(values) - room, 4), round(statistics.fmean(values) + room, 4)]


def measure_network(seeds=range(10)):
    """Train the network with some seeds; return the figures of each and the bands that follow from their spread."""
    import torch

    runs = {str(seed): {name: round(value, 5) for name, value in train_network(seed).items()} for seed in seeds}
    bands = {name: band([run[name] for run in runs.values()]) for name in runs["0"]}
    return {"seeds": runs, "bands of three seeds": bands, "torch": torch.__version__}


# --- numbers of threads ---

OF_THREADS = ("ConvVAE", "VAE")
# of loss (nats per image) and weights, between one thread and more
TOLERANCE = {"float32": 1e-3, "float64": 1e-10}


def in_double(model, x, beta, generator):
    """The objective of the course in float64."""
    from vae_tutorial.vae import elbo

    return elbo(model, x.double(), beta, generator)


def train_with(threads, name, precision):
    """Train a model for two epochs on 250 images; return its last loss and its weights."""
    import torch

    from vae_tutorial.conv import ConvVAE
    from vae_tutorial.data import Split
    from vae_tutorial.training import fit
    from vae_tutorial.vae import VAE, elbo

    data, double = sorted_sample(), precision == "float64"
    data = replace(data, train=Split(data.train.images[::18], data.train.labels[::18]))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.manual_seed(0)
        model = VAE() if name == "VAE" else ConvVAE(channels=(8, 16, 32), latent_dim=8)
        history = fit(model.double() if double else model, data, epochs=2, seed=0, device="cpu", precision="fp32", progress=False,
                      restore_best=False, objective=in_double if double else elbo)
    finally:
        torch.set_num_threads(before)
    return history[-1].loss, torch.cat([p.detach().flatten() for p in model.parameters()])


def differences_of_threads(name, precision):
    """Return how far loss (nats) and weights are at most from those of one thread, with 2, 3 and 4 of them."""
    (loss, weights), *others = (train_with(threads, name, precision) for threads in (1, 2, 3, 4))
    return {"loss": max(abs(other - loss) for other, _ in others),
            "weights": max((other - weights).abs().max().item() for _, other in others)}


def measure_threads():
    return {name: {precision: differences_of_threads(name, precision) for precision in TOLERANCE} for name in OF_THREADS}


# --- keeping ---

def load():
    return json.loads(RANGES.read_text(encoding="utf-8")) if RANGES.exists() else {"chapters": {}}


def save(ranges):
    RANGES.parent.mkdir(parents=True, exist_ok=True)
    unfinished = RANGES.with_suffix(".part")
    text = json.dumps(ranges, indent=1, sort_keys=True, ensure_ascii=False)
    text = re.sub(r"\[\s+(-?[\d.e+-]+),\s+(-?[\d.e+-]+)\s+\]", r"[\1, \2]", text)        # a range in one line
    unfinished.write_text(text + "\n", encoding="utf-8")
    os.replace(unfinished, RANGES)


def seeds_of(name, values):
    """Return from how many seeds a figure comes: those of the offsets, or those over which the page takes its mean."""
    own = next((count for pattern, count in MEANS_OF.items() if re.fullmatch(pattern, name)), 1)
    return max(len(values), own)


def merge(known, figures, source, offset, whole):
    """Put one run's figures among those known of a chapter; what a run without errors has not met is forgotten."""
    if whole:
        gone = [name for name in known if source in known[name] and name not in figures]
        for name in gone:
            del known[name]
    for name, figure in figures.items():
        entry = known.setdefault(name, {})
        entry |= {key: figure[key] for key in ("cell", "call", "digest")}        # the digest tells whether a computed range is of now
        for other in ("full", "sample"):
            entry.setdefault(other, {"values": {}})["range"] = list(figure[other])
        own = entry[source]
        own["values"][str(offset)] = round(figure["value"], 10)
        if figure["spread"] is not None and offset == 0:
            own["spread"] = round(figure["spread"], 10)
        own["seeds"] = seeds_of(name, own["values"])


def deviation(name, own):
    """Return mean and standard deviation over seeds of a figure; the deviation is None where there is one seed only."""
    values = list(own["values"].values())
    mean = statistics.fmean(values)
    if len(values) >= 3:
        return mean, statistics.stdev(values)
    if own.get("seeds", 0) >= 3:
        return mean, own["spread"] / own["seeds"] ** 0.5
    return mean, None


def fault(name, own, published=False):
    """Say what is wrong with the range of a figure, None where nothing is; one around a published figure is as wide as that asks."""
    (low, high), values = own["range"], list(own["values"].values())
    mean, spread = deviation(name, own)
    if not low <= min(values) or not max(values) <= high:
        return f"{name}: {min(values):.6g} to {max(values):.6g} is not within {low} to {high}"
    if spread is None or published:
        return None
    if high - low > max(MOST * spread, (WIDEST if spread else SEEDLESS) * abs(mean)):
        return f"{name}: {low} to {high} is too wide for {mean:.6g} ± {spread:.2g}"
    room = 0 if spread == 0 else max(LEAST * spread, SHARE * abs(mean))
    if mean - room < low not in ENDS or mean + room > high not in ENDS:
        return f"{name}: {low} to {high} leaves {mean:.6g} ± {spread:.2g} too little room"
    return None


def take_records(known, records):
    """Take the figures that a chapter recorded on the full data as those of its own seeds."""
    for name, record in records.items():
        own = known[name]["full"]
        own["values"]["0"] = round(record["value"], 10)
        if record["spread"] is not None:
            own["spread"] = round(record["spread"], 10)
        own["seeds"] = seeds_of(name, own["values"])


def take_ranges(known, path):
    """Take from a page the ranges that it states as numbers, for the figures known of it."""
    cells = cells_with_figures(path)
    for figure in known.values():
        source = cells[figure["cell"]]
        stated = asserted(calls_of(source)[figure["call"] - 1])
        for name, limits in stated.items():
            figure[name]["range"] = limits
        if len(stated) == 2:
            figure["digest"] = digest(source)


def measure(path, source, offset, models):
    """Run one page with one offset and keep its figures."""
    figures, errors = run(path, source, offset, models)
    ranges = load()
    merge(ranges["chapters"].setdefault(path.stem, {}), figures, source, offset, whole=not errors)
    save(ranges)
    print(f"{path.name}, {source}, offset {offset}: {len(figures)} figures", flush=True)
    for cell, error in errors.items():
        print(f"  cell {cell} fails: {error[:300]}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks to run (default: all that assert figures)")
    parser.add_argument("--offsets", type=int, nargs="+", default=[0, 1000, 2000], help="what to add to the seeds")
    parser.add_argument("--network", action="store_true", help="instead train chapter 02's network on the sample, ten seeds, 1 to 4 threads")
    parser.add_argument("--ranges", action="store_true",
                        help="instead take the ranges that the pages state as numbers and the records of the full data, and run nothing")
    parser.add_argument("--models", type=Path, help="folder of models that take the place of the packaged ones")
    options = parser.parse_args()
    if options.network:
        save(load() | {"network": measure_network(), "threads": measure_threads(), "tolerance of threads": TOLERANCE})
        return
    if options.ranges:
        ranges, records = load(), json.loads(RECORDS.read_text(encoding="utf-8"))
        for path in chapters():
            known = ranges["chapters"].get(path.stem, {})
            take_ranges(known, path)
            take_records(known, records.get(path.stem, {"figures": {}})["figures"])
        save(ranges)
        return
    source = os.environ.get("VAE_TUTORIAL_SOURCE")
    if source not in ("full", "sample"):
        parser.error("VAE_TUTORIAL_SOURCE must be 'full' or 'sample'")
    for path in options.chapters or chapters():
        for offset in options.offsets:
            measure(path.resolve(), source, offset, options.models)


if __name__ == "__main__":
    main()
