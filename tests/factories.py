"""Small models, small data and short trainings: what tests in many files build."""
import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from conftest import run_process
from PIL import Image
from torch import nn

from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import ImageData, Split, load_data
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE, elbo

SHAPE = (1, 2, 3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cloud(*shape, seed=0, dtype=torch.float32):
    """Return normal draws, the same for the same seed."""
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


double_cloud = partial(cloud, dtype=torch.float64)


def grey(n=6, shape=SHAPE, seed=0):
    """Return `n` images of random grey values, uint8."""
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator(seed))


def split(n=6, shape=SHAPE, seed=0, classes=3):
    """Return `n` images of random grey values with the labels 0, 1, 2, 0, 1, …"""
    return Split(grey(n, shape, seed), torch.arange(n) % classes)


def made_up(train=12, val=9, test=None, shape=SHAPE, classes=3):
    """Return a data set of random images."""
    parts = [split(n, shape, seed, classes) if n else None for seed, n in enumerate((train, val, test))]
    return ImageData(*parts, "mnist", "sample", tuple("abcdefghij"[:classes]))


def small_data(train=300, val=70, name="mnist", test=None):
    """Return the first images of the sample; no batch size of the tests divides their number."""
    whole = load_data(name, source="sample")
    part = lambda split, n: Split(split.images[:n], split.labels[:n])
    return replace(whole, train=part(whole.train, train), val=part(whole.val, val), test=test and part(whole.test, test))


def tiny(kind=VAE, seed=0, **config):
    """Return an untrained model, the same for the same seed: of images with 2 x 3 pixels, unless told otherwise."""
    torch.manual_seed(seed)
    widths = {"channels": (4, 6)} if issubclass(kind, ConvVAE) else {"hidden_dims": (5,)}
    return kind(**{"input_shape": SHAPE, "latent_dim": 2} | widths | config)


# the same for images with 28 x 28 pixels
digit_model = partial(tiny, input_shape=(1, 28, 28), latent_dim=3, hidden_dims=(8,))


def train(model=None, data=None, epochs=2, **settings):
    """Train for a short time on the CPU in float32; return the model and its history."""
    model = digit_model() if model is None else model
    settings = dict(batch_size=64, precision="fp32", device="cpu", progress=False) | settings
    return model, fit(model, small_data() if data is None else data, epochs, **settings)


def after(epochs, error=KeyboardInterrupt):
    """Return a callback that ends a training after so many epochs."""
    def callback(model, history):
        if len(history) == epochs:
            raise error
    return callback


class LearnedWidth(nn.Module):
    """An objective with a parameter of its own: the width of a Gaussian around each pixel."""

    def __init__(self):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def forward(self, model, x, beta, generator):
        gaussian = lambda logits, x: ((x - logits.sigmoid()) / self.log_sigma.exp()).square() / 2 + self.log_sigma
        return elbo(model, x, beta, generator, likelihood=gaussian)


def rows(history):
    """Return the epochs of a history without their timings."""
    return [replace(epoch, seconds=0) for epoch in history]


def weights(*modules):
    """Return all weights and buffers in one row; two models are the same to the bit where these are equal."""
    return torch.cat([t.detach().flatten().float() for module in modules for t in module.state_dict().values()])


def pixels(png):
    """Return the grey values of a picture that is given as the bytes of its file."""
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


# --- several processes ---

def launch(script, scenario, processes, folder, *options):
    """Run a test file as a script in several processes; return all that they print. What each of them found lies in the folder."""
    return run_process("-m", "torch.distributed.run", "--standalone", *options, "--nproc-per-node", processes, script, scenario, folder)


def found(folder, scenario, processes):
    """Return what each of the processes of `launch` wrote to SCENARIO_RANK.json."""
    return [json.loads((folder / f"{scenario}_{rank}.json").read_text()) for rank in range(processes)]
