"""pythae on the course's network, run by `measuring.Pythae` in an environment that has pythae and nothing of the course.

It does one piece of work for every line that comes in and answers with a line: an epoch of its trainer, or its `get_nll`.

    python benchmarks/pythae_contestant.py {train,nll} GIVEN.npz DEVICE THREADS
"""
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import nn


class Encoder(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))

    def forward(self, x):
        mu, logvar = self.layers(x).chunk(2, dim=1)
        return ModelOutput(embedding=mu, log_covariance=logvar)


class Decoder(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid(),
                                    nn.Unflatten(1, (1, 28, 28)))

    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z))


class OneEpochALine(TrainingCallback):
    """An epoch begins when a line has come in, and is answered when it is over; without lines training ends."""

    def on_epoch_begin(self, training_config, **kwargs):
        if not sys.stdin.readline():
            sys.exit()

    def on_epoch_end(self, training_config, **kwargs):
        print(0, flush=True)


def train(model, given, folder, device):
    images = torch.from_numpy(given["images"]).float() / 255
    config = BaseTrainerConfig(output_dir=str(folder), per_device_train_batch_size=128, num_epochs=1_000_000,
                               learning_rate=1e-3, no_cuda=device == "cpu")
    BaseTrainer(model, BaseDataset(images, torch.zeros(len(images))), training_config=config,
                callbacks=[OneEpochALine()]).train()


def nll(model, given, device):
    for part in ("encoder", "decoder"):
        weights = {name.removeprefix(part + "."): torch.from_numpy(given[name]) for name in given.files if name.startswith(part)}
        getattr(model, part).layers.load_state_dict(weights)
    model.to(device).eval()
    images = torch.from_numpy(given["images"]).to(device).float() / 255
    for _ in sys.stdin:
        with torch.no_grad():          # it does not see to this itself
            print(-model.get_nll(images, n_samples=int(given["n_samples"])), flush=True)


def main():
    task, path, device, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    given = np.load(path)
    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce"), Encoder(), Decoder())
    print(version("pythae"), flush=True)
    if task == "train":
        train(model, given, Path(path).parent, device)
    else:
        nll(model, given, device)


if __name__ == "__main__":
    main()
