"""Run notebooks on this machine and store their outputs in them.

Cells marked `#| eval: false`, or with one of nbdev's test flags, are not run and keep the outputs they have. A notebook is
written when it has run to its end and its outputs can be shown to readers: no error, no warning, no path of
this machine. Until then, and when the run is interrupted, it stays as it was. The state of the widgets that it shows is
stored beside it, in widgets/NAME.json, under ids that are the same in each run. The figures that it names with `expect(record=...)`
go to book/results/records.json when they come from the full data.

With `--check` nothing is stored: each notebook is run, and what it shows now is compared with what is stored in it. Cells that differ
are named; the exit status is 1 if one of them shows no timing. Stored outputs are of the full data: VAE_TUTORIAL_SOURCE=full.
"""
import argparse
import base64
import hashlib
import io
import json
import os
import platform
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from PIL import Image
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from widget_states import lay_in, state_file  # noqa: E402

NOTEBOOKS = ROOT / "nbs"
WORK = ROOT / "_build" / "reproduce"
RECORDS = ROOT / "book" / "results" / "records.json"
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
MODEL_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[\w+/=]+")
# a number with a unit of time or a rate, and code that reads a clock or speaks of seconds
TIMING = re.compile(r"\d\s*(?:s|ms|µs|min|h|seconds?|minutes?|hours?)(?!\w)|\b(?:per|a) second\b|/\s?s(?!\w)")
CLOCK = re.compile(r"\b(?:perf_counter|monotonic|process_time|seconds|minutes)\b|\btime\.time\b|%+timeit")
DIRECTIVE = re.compile(r"^\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*?)\s*$", re.MULTILINE)


class Refused(Exception):
    """A notebook whose outputs cannot be stored; the message names notebook and cell."""


class Client(NotebookClient):
    """Runs the cells that nbdev would run in its tests."""

    skipped_flags = frozenset(get_config(path=ROOT).tst_flags.split())

    async def async_execute_cell(self, cell, cell_index, **options):
        directives = dict(DIRECTIVE.findall(cell.source)) if cell.cell_type == "code" else {}
        if directives.get("eval", "").lower() == "false" or self.skipped_flags & directives.keys():
            return cell
        return await super().async_execute_cell(cell, cell_index, **options)


def machine_paths():
    """Return the folders of this machine that no reader should see in an output."""
    folders = {Path.home(), ROOT, Path.cwd(), Path(tempfile.gettempdir()), Path(sys.prefix)}
    return sorted(str(folder) for folder in folders if folder != Path(folder.anchor))


def texts(output):
    """Yield the texts of an output; pictures are left out."""
    yield output.get("text", "")
    for kind, content in output.get("data", {}).items():
        if not kind.startswith("image/") or kind == "image/svg+xml":
            yield content if isinstance(content, str) else json.dumps(content)


def path_in(text):
    """Return a folder of this machine that a text names, None where it names none; embedded pictures are left out."""
    text = DATA_URI.sub("", text)
    return next((path for path in machine_paths() if re.search(re.escape(path) + r"(?![\w.-])", text)), None)


def why_not(output):
    """Say why an output cannot be stored, None where it can."""
    if output.output_type == "error":
        return f"it raises {output.ename}: {output.evalue}"
    if output.get("name") == "stderr":
        return f"it writes on standard error: {output.text.strip()[:300]}"
    path = path_in("\n".join(texts(output)))
    return path and f"its output holds a path of this machine: {path}"


def check_outputs(notebook, name):
    """Raise Refused at the first output that cannot be stored."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            reason = why_not(output)
            if reason:
                raise Refused(f"{name}, cell {number} ({first_line(cell)!r}): {reason}")
    for widget in widget_models(notebook).values():
        path = path_in(json.dumps(widget["state"]))
        if path:
            raise Refused(f"{name}: the state of its {widget['model_name']} holds a path of this machine: {path}")


def first_line(cell):
    """Return the first line of a cell that is code, to tell people which cell is meant."""
    lines = [line for line in cell.source.splitlines() if line.strip() and not DIRECTIVE.match(line)]
    return lines[0] if lines else ""


def widget_models(notebook):
    """Return the stored models of a notebook's widgets by their ids."""
    return notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})


def shown_models(notebook):
    """Return the ids of the models that the outputs show and of all that these refer to, in order of appearance.

    A link made by `jslink` is not among them: nothing refers to it.
    """
    models = widget_models(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    waiting = [output.data[VIEW]["model_id"] for output in outputs if VIEW in output.get("data", {})]
    shown = []
    while waiting:
        name = waiting.pop(0)
        if name in models and name not in shown:
            shown.append(name)
            waiting += MODEL_ID.findall(json.dumps(models[name]["state"], sort_keys=True))
    return shown


def settle_widgets(notebook, salt):
    """Return the notebook with only the models that it shows, their random ids replaced by digests of `salt` and order."""
    shown = shown_models(notebook)
    if not shown:
        notebook.metadata.pop("widgets", None)
        return notebook
    notebook.metadata.widgets[STATE].state = {name: widget_models(notebook)[name] for name in shown}
    stable = {name: hashlib.md5(f"{salt}-{number}".encode()).hexdigest() for number, name in enumerate(shown)}
    text = MODEL_ID.sub(lambda match: stable.get(match[0], match[0]), nbformat.writes(notebook))
    return nbformat.reads(text, 4)


def compress(picture):
    """Return a PNG in base64 with 256 colours, chosen for it: a third of the bytes, and no difference that is seen. What is transparent stays so."""
    image, file = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA"), io.BytesIO()
    opaque = image.getextrema()[3] == (255, 255)
    method = Image.Quantize.MEDIANCUT if opaque else Image.Quantize.FASTOCTREE        # the better one knows of no transparency
    image.convert("RGB" if opaque else "RGBA").quantize(256, method, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    smaller = base64.b64encode(file.getvalue()).decode()
    return min(picture, smaller, key=len)


def compress_pictures(notebook):
    """Make the pictures in the outputs of a notebook small enough for a page that is quick to load."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = compress(output.data["image/png"])


def kernel_environment(folder):
    """Return the environment of the kernel: no progress bars, no settings of the user, and a file for named figures."""
    return os.environ | {"TQDM_DISABLE": "1", "IPYTHONDIR": str(folder), "PYTHONHASHSEED": "0",
                         "VAE_TUTORIAL_PUBLISHED": "1", "VAE_TUTORIAL_RECORDS": f"{folder}/records.jsonl"}


def execute_in_thread(client, environment):
    """Execute a client's notebook; Ctrl-C ends the kernel and raises KeyboardInterrupt.

    In the main thread nbclient would take Ctrl-C for itself, and report a kernel that died.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        execution = pool.submit(client.execute, env=environment)
        try:
            execution.result()
        except KeyboardInterrupt:
            if client.km and client.km.provisioner:
                client.km.provisioner.process.kill()
            raise


def run(path, timeout):
    """Return the notebook at `path` with fresh outputs, and the figures that it named."""
    notebook = nbformat.read(path, 4)
    notebook.metadata.pop("widgets", None)
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in the file system, because a kernel that listens on a port warns about it.
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        client = Client(notebook, timeout=timeout, kernel_name="python3", record_timing=False, config=config,
                        store_widget_state=True, coalesce_streams=True,
                        resources={"metadata": {"path": str(NOTEBOOKS)}})
        try:
            execute_in_thread(client, kernel_environment(folder))
        except (CellExecutionError, DeadKernelError) as error:
            raise Refused(f"{path.name}: {error}") from None
        records = Path(folder, "records.jsonl")
        figures = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()] if records.exists() else []
    compress_pictures(notebook)
    notebook = settle_widgets(notebook, path.stem)
    check_outputs(notebook, path.name)
    return notebook, figures


def cleaned(notebook, name):
    """Clean the notebook as nbdev does; return the file that holds it."""
    WORK.mkdir(parents=True, exist_ok=True)
    unfinished = WORK / name
    nbformat.write(notebook, unfinished)
    nbdev_clean(unfinished)
    return unfinished


def store(notebook, path):
    """Put the notebook, cleaned, at `path` in one step, and the state of its widgets beside it."""
    state, file = notebook.metadata.pop("widgets", None), state_file(path)
    if state:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(state, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        file.unlink(missing_ok=True)
    os.replace(cleaned(notebook, path.name), path)


def fresh(path, timeout):
    """Return the notebook at `path` with fresh outputs as they would be stored; the file stays as it is."""
    unfinished = cleaned(run(path, timeout)[0], f"check-{path.name}")
    try:
        return nbformat.read(unfinished, 4)
    finally:
        unfinished.unlink()


def is_timed(cell):
    """Say whether a cell shows a timing: its code reads a clock or speaks of seconds, or its text has a number of them."""
    shown = "\n".join(text if isinstance(text, str) else "".join(text) for output in cell.get("outputs", []) for text in texts(output))
    return bool(CLOCK.search(cell.source) or TIMING.search(DATA_URI.sub("", shown)))


def changes(stored, now):
    """Return the numbers of the cells whose outputs differ, and whether they show a timing; None stands for the widgets' state."""
    differ = [(number, is_timed(old) or is_timed(new)) for number, (old, new) in enumerate(zip(stored.cells, now.cells, strict=True))
              if old.get("outputs", []) != new.get("outputs", [])]
    return differ + [(None, False)] * (widget_models(stored) != widget_models(now))


def check(path, timeout):
    """Run one notebook, say which cells differ from what is stored, and return how many of these show no timing."""
    start = time.monotonic()
    stored = lay_in(nbformat.read(path, 4), path)
    differ = changes(stored, fresh(path, timeout))
    wrong = sum(not timed for _, timed in differ)
    shown = sum(bool(cell.get("outputs")) for cell in stored.cells)
    print(f"{path.name}: {shown} cells have outputs, {'all' if not differ else 'the others'} as stored, {time.monotonic() - start:.0f} s")
    for number, timed in differ:
        place = "the state of its widgets" if number is None else f"cell {number} ({first_line(stored.cells[number])!r})"
        print(f"  {place} differs{' and shows a timing' if timed else ''}", flush=True)
    return wrong


def store_records(chapter, figures, seconds):
    """Put a chapter's figures from the full data in the place of those of its last run."""
    full = {row.pop("record"): row for row in figures if row.pop("source") == "full"}
    if full:
        records = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}
        records[chapter] = {"machine": machine(), "seconds": round(seconds), "figures": full}
        RECORDS.write_text(json.dumps(records, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def machine():
    """Say what the figures were computed with."""
    import torch

    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if os.path.exists("/proc/cpuinfo") else None
    return {"processor": f"{cpu.group(1) if cpu else platform.processor()}, {os.cpu_count()} cores",
            "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "Python": platform.python_version(), "torch": torch.__version__}


def modules(text):
    """Return the modules of the package that a text names, those that these import, and so on."""
    found, waiting = set(), [text]
    while waiting:
        for name in re.findall(r"\b(?:from \.|vae_tutorial\.|default_exp )(\w+)", waiting.pop()):
            path = ROOT / "vae_tutorial" / f"{name}.py"
            if path not in found and path.exists():
                found.add(path)
                waiting.append(path.read_text(encoding="utf-8"))
    return sorted(found)


def sources(path):
    """Return the package's files that the outputs of a page can depend on."""
    text, package = path.read_text(encoding="utf-8"), ROOT / "vae_tutorial"
    if "load_pretrained" in text or "load_model" in text:           # a file holds a model of any class
        text += "vae_tutorial.autoencoder vae_tutorial.conv vae_tutorial.priors"
    weights = [package / "pretrained" / "index.json"] if "load_pretrained" in text else []
    front_end = sorted((package / "static" / "explorers").iterdir()) if "Explorer(" in text else []
    return modules(text) + weights + front_end


def fingerprint(path):
    """Return a digest of all that the outputs of a notebook depend on, and of the notebook itself."""
    digest = hashlib.sha256(os.environ.get("VAE_TUTORIAL_SOURCE", "").encode())
    for file in [path, ROOT / "constraints.txt", *sources(path)]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def chapters():
    """Return the paths of all notebooks: chapters, rooms of the engine room, front page."""
    return sorted(NOTEBOOKS.glob("[!._]*.ipynb"))


def is_done(path):
    """Say whether an earlier run stored the outputs that the notebook has, from the sources that are here now."""
    stamp = WORK / f"{path.stem}.done"
    return stamp.exists() and stamp.read_text() == fingerprint(path)


def execute(path, timeout):
    """Run one notebook, store its outputs and remember from which sources they came."""
    start = time.monotonic()
    print(f"{path.name} ...", end=" ", flush=True)
    notebook, figures = run(path, timeout)
    store(notebook, path)
    store_records(path.stem, figures, time.monotonic() - start)
    (WORK / f"{path.stem}.done").write_text(fingerprint(path))
    print(f"done in {time.monotonic() - start:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="notebooks to run (default: all, in order)")
    parser.add_argument("--resume", action="store_true", help="skip notebooks that an earlier run has already done")
    parser.add_argument("--timeout", type=int, default=4 * 3600, help="seconds that one cell may take")
    parser.add_argument("--check", action="store_true", help="store nothing; compare the outputs with those that are stored")
    options = parser.parse_args()
    # Made here, matplotlib's font cache cannot announce itself on a page.
    import matplotlib.font_manager  # noqa: F401
    try:
        if options.check:
            sys.exit(min(1, sum(check(path.absolute(), options.timeout) for path in options.notebooks or chapters())))
        for path in options.notebooks or chapters():
            if options.resume and is_done(path):
                print(f"{path.name} is up to date")
            else:
                execute(path.absolute(), options.timeout)
    except Refused as error:
        sys.exit(f"\nerror: {error}")
    except KeyboardInterrupt:
        sys.exit("\nstopped: the notebook that was running is as it was; the same command goes on from there")


if __name__ == "__main__":
    main()
