"""Count the false alarms of `diagnose`: models that are healthy, and what it says of them.

The models that the package ships are looked at with and without their history, on the full data where the cache holds them, else
on the sample. With folders of finished runs, such as nbs/runs/full, the models in them are looked at too, with their histories.
What is not healthy by design is left out: controls without a code, and decoders that see more than a code. The exit status is 1 if anything is found.
"""
import argparse
import json
import re
import time
from ast import literal_eval
from pathlib import Path

import vae_tutorial as vt
from vae_tutorial import files
from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conv import ConvVAE
from vae_tutorial.saving import about_pretrained
from vae_tutorial.vae import VAE

KINDS = {kind.__name__: kind for kind in (VAE, ConvVAE, Autoencoder)}


def shipped():
    """Yield name, data set, model and history of the models in the package."""
    index = Path(vt.__file__).parent / "pretrained" / "index.json"
    for name in json.loads(index.read_text(encoding="utf-8")):
        model = vt.load_pretrained(name)
        yield name, name.partition("-")[0], model, None
        yield f"{name}, with history", name.partition("-")[0], model, about_pretrained(name)["history"]


def finished(folder):
    """Yield the same of the runs of MNIST and Fashion-MNIST in a folder, each with its best weights."""
    for path in sorted(Path(folder).glob("*/run.safetensors")):
        tensors, notes = files.read_tensors(path)
        kind, config = re.fullmatch(r"(\w+) (.*)", notes["history"]["settings"]["model"]).groups()
        if kind in KINDS and literal_eval(config)["input_shape"] == (1, 28, 28):
            model = KINDS[kind](**literal_eval(config))
            model.load_state_dict({name.removeprefix("best/"): t for name, t in tensors.items() if name.startswith("best/")})
            yield path.parent.name, "fashion" if "fashion" in path.parent.name else "mnist", model, vt.History.from_dict(notes["history"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", help="folders of finished runs")
    models = [*shipped(), *(each for folder in parser.parse_args().folders for each in finished(folder))]
    data, alarms = {name: vt.load_data(name) for name in ("mnist", "fashion")}, 0
    for name, source, model, history in models:
        start = time.perf_counter()
        found = vt.diagnose(model, data[source], history)
        said = ", ".join(finding.rule for finding in found.findings) or "nothing"
        alarms += bool(found.findings)
        print(f"{name:36} {data[source].source:7} {len(found.looked):2} rules {time.perf_counter() - start:5.1f} s  {said}", flush=True)
    print(f"{len(models)} diagnoses of healthy models, {alarms} with an alarm")
    return bool(alarms)


if __name__ == "__main__":
    raise SystemExit(main())
