"""Try the wheel with the lowest or with the highest versions of what it requires, in an environment of its own.

`lowest` takes every requirement of settings.ini at the lowest release in its range that the registry has for this Python,
`highest` takes torch at the highest and leaves the others to pip. There the wheel is installed, every module is
imported, a model is trained, its run is resumed, it is evaluated, a pretrained one is loaded, an explorer is made, and chapters 00 and
01 are run. The environment is gigabytes large and is removed in the end.

    python tools/try_versions.py lowest --out benchmarks/results/versions.json
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from site_settings import read_settings  # noqa: E402

CHAPTERS = ["00_data", "01_vae"]
TRIAL = """
import importlib, math, pkgutil, tempfile
import torch
import vae_tutorial as vt
for module in pkgutil.iter_modules(vt.__path__):
    importlib.import_module(f"vae_tutorial.{module.name}")

def trained(*epochs):
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as run:
        for count in epochs:
            model = vt.VAE()
            history = vt.fit(model, data, epochs=count, lr=1e-3, device="cpu", checkpoint=run, resume=True, progress=False)
    assert len(history) == 2 and history[1].loss < history[0].loss
    return model

data = vt.load_data("mnist")
model, resumed = trained(2), trained(1, 2)
assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters())), "a resumed run ends elsewhere"
assert math.isfinite(vt.evaluate(model, data.test.images[:100], n_samples=4, progress=False).nll)
shown, _ = vt.LatentExplorer(vt.load_pretrained("mnist-mlp-2d"), data, n=100)._repr_mimebundle_()
assert "application/vnd.jupyter.widget-view+json" in shown and "text/html" in shown
"""


def requirements():
    """Return the package's requirements by name."""
    return {requirement.name: requirement for requirement in map(Requirement, read_settings()["requirements"].split())}


def python_of(environment):
    return environment / "bin" / "python"


def make_environment(folder, interpreter=sys.executable):
    """Make an empty environment: there is not even pip in it, for the one that is running installs into it."""
    subprocess.run([interpreter, "-m", "venv", "--without-pip", folder], check=True)
    return folder


def pip(environment, *arguments):
    """Run pip for an environment and return what it prints."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python_of(environment), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"pip {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
    return done.stdout


def install(environment, *arguments):
    """Install into an environment; nothing is compiled before it is imported."""
    pip(environment, "install", "--quiet", "--no-compile", *arguments)


def installed(environment):
    """Return the versions of all that is installed in an environment, by name."""
    return {row["name"].lower(): row["version"] for row in json.loads(pip(environment, "list", "--format=json"))}


def make_wheel(folder):
    """Make source distribution and wheel, the wheel from the source distribution, and return the wheel's path."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def on_offer(environment, requirement):
    """Return the versions in a range that the registry has ready-made for an environment's Python, from the lowest up."""
    answer = pip(environment, "index", "versions", "--only-binary", ":all:", requirement.name)
    versions = re.search(r"^Available versions: (.*)$", answer, re.MULTILINE)[1].split(", ")
    # where a build for the CPU is offered beside the usual one, both are one version
    return sorted({Version(Version(version).public) for version in versions if requirement.specifier.contains(version)})


def pins(environment, end):
    """Return the versions to try: name==version."""
    names = requirements() if end == "lowest" else ["torch"]
    place = 0 if end == "lowest" else -1
    return [f"{name}=={on_offer(environment, requirements()[name])[place]}" for name in names]


def of_a_reader(environment, home):
    """Return the variables for someone with an environment and the sample, without network, and with nothing of this checkout."""
    nowhere = "http://127.0.0.1:9"
    return {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "VIRTUAL_ENV": str(environment), "PYTHONPATH": "",
            "VAE_TUTORIAL_SOURCE": "sample", "VAE_TUTORIAL_PUBLISHED": "1", "TQDM_DISABLE": "1",
            "http_proxy": nowhere, "https_proxy": nowhere}


def attempt(environment, folder):
    """Import, train, resume, evaluate, load, explore, and run two chapters with an environment's Python, in an empty folder."""
    options = {"cwd": folder, "env": os.environ | of_a_reader(environment, folder), "check": True, "stdin": subprocess.DEVNULL}
    subprocess.run([python_of(environment), "-c", TRIAL], **options)
    for chapter in CHAPTERS:
        print(f"  {chapter}", flush=True)
        subprocess.run([python_of(environment), ROOT / "tools" / "run_notebook.py", ROOT / "nbs" / f"{chapter}.ipynb"],
                       stdout=subprocess.DEVNULL, **options)


def version_of(environment):
    """Return the version of an environment's Python."""
    command = [python_of(environment), "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def show(end, tried):
    print(f"{end}, Python {tried['python']}")
    for name, requirement in requirements().items():
        print(f"  {name:14s}{tried['versions'][name]:14s}{requirement.specifier}")


def store(end, tried, path):
    """Put what was tried in the place of what was tried before at the same end with the same Python."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results.setdefault(end, {})[".".join(tried["python"].split(".")[:2])] = tried
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=["lowest", "highest"])
    parser.add_argument("--python", default=sys.executable, help="interpreter to try it with (default: the one that runs this)")
    parser.add_argument("--out", type=Path, help="JSON file to write the versions to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        wheel = make_wheel(folder / "dist")
        environment = make_environment(folder / "environment", options.python)
        wanted = pins(environment, options.end)
        print(f"Installing {' '.join(wanted)}", flush=True)
        install(environment, wheel, *wanted)
        versions = installed(environment)
        tried = {"python": version_of(environment), "vae-tutorial": versions["vae-tutorial"],
                 "versions": {name: versions[name] for name in requirements()}}
        show(options.end, tried)
        (folder / "reader").mkdir()
        attempt(environment, folder / "reader")
    print("works")
    if options.out:
        store(options.end, tried, options.out)


if __name__ == "__main__":
    main()
