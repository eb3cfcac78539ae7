"""Images per second in training: from the loop that people copy, step by step, to `fit`, and the arithmetic alone.

Contestants train the S0 network (784-400-20, Adam, batches of 128) on MNIST, an epoch a turn, and then the convolutional network of
chapter 8 on some images of Fashion-MNIST. All run in one process, in turns whose order is reversed from round to round, so that a busy
machine slows all alike; a first round warms up and does not count. The data lie in memory, prepared as each loop wants them, before
the clock starts. `fit` is timed whole, with set-up, validation after every epoch, history and best weights; "no validation" leaves it one
validation image. pythae's turn is an epoch of its `BaseTrainer`, in a process of its own: the steps, its progress bar, and the copy of the
best model, without start-up, validation and saving.

    python benchmarks/training.py --pythae _build/pythae/bin/python --compile --out benchmarks/results/training.json
"""
import argparse
import functools
import itertools
import json
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from measuring import Pythae, interval, machine, speed_ups, store, take_turns
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import Split, intensities, load_data
from vae_tutorial.devices import best_device, has_native_bf16
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE

BATCH = 128


# Where a batch comes from: each prepares its data and returns a function that goes through them once, in random order.

class Pictures(Dataset):
    """Stored bytes that become a picture and then a tensor one by one, as torchvision's data sets do it."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        picture = Image.fromarray(self.images[index, 0].numpy())
        return torch.from_numpy(np.array(picture)).view(1, 28, 28).float() / 255


def load_pictures(images, device):
    workers = dict(num_workers=1, pin_memory=True) if device.type == "cuda" else {}
    loader = DataLoader(Pictures(images), batch_size=BATCH, shuffle=True, **workers)
    return lambda: (x.to(device) for x in loader)


def load_floats(images, device):
    loader = DataLoader(TensorDataset(intensities(images)), batch_size=BATCH, shuffle=True)
    return lambda: (x.to(device) for [x] in loader)


def shuffled(images):
    return torch.randperm(len(images), device=images.device).split(BATCH)


def index_floats(images, device):
    floats = intensities(images).to(device)
    return lambda: (floats[index] for index in shuffled(floats))


def index_bytes(images, device):
    resident = images.to(device)
    return lambda: (intensities(resident[index]) for index in shuffled(resident))


# What the decoder's output means, and what is kept of a step.

def sigmoid_then_bce(logits, x):
    return F.binary_cross_entropy(logits.sigmoid(), x, reduction="sum")


bce_of_logits = functools.partial(F.binary_cross_entropy_with_logits, reduction="sum")


def three_items(*terms):
    return [term.item() for term in terms]


def one_item(loss, *terms):
    return loss.item()


def on_the_device(*terms):
    return torch.stack(terms).detach()


STEPS = {          # each changes one thing of the one before
    "usual loop": dict(batches=load_floats, reconstruction=sigmoid_then_bce, record=three_items, fused=None),
    "+ randperm, no DataLoader": dict(batches=index_floats),
    "+ bytes, floats by batch": dict(batches=index_bytes),
    "+ logits": dict(reconstruction=bce_of_logits),
    "+ no .item()": dict(record=on_the_device),
    "+ fused Adam": dict(fused=True),
}
EXAMPLES = STEPS["usual loop"] | dict(batches=load_pictures, record=one_item)          # the shape of pytorch/examples' loop


def loop(make_model, images, epochs, device, *, batches, reconstruction, record, fused):
    """A contestant: the loop with these parts."""
    batches, fused = batches(images, device), fused if device.type != "mps" else None

    def train():
        model = make_model().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
        history = []
        for _ in range(epochs):
            for x in batches():
                mu, logvar = model.encoder(x).chunk(2, dim=1)
                bce = reconstruction(model.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp()), x)
                kl = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp()).sum()
                loss = (bce + kl) / len(x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                history.append(record(loss, bce, kl))
    return train


def matrix_products(images, epochs, device, precision):
    """The products of the four linear layers, forward and backward, into memory that is there already."""
    factors = []
    for layer in VAE().modules():
        if isinstance(layer, nn.Linear):
            n_in, n_out = layer.in_features, layer.out_features
            shapes = (BATCH, n_in), (n_out, n_in), (BATCH, n_out)          # x, w, y; gradients have the same ones
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            factors.append([torch.randn(shape, device=device, dtype=dtype) for shape in shapes * 2])
    steps = epochs * math.ceil(len(images) / BATCH)

    def work():
        for _ in range(steps):
            for x, w, y, *_ in factors:
                torch.mm(x, w.T, out=y)
            for number, (x, w, _, dx, dw, dy) in enumerate(factors):
                torch.mm(dy.T, x, out=dw)
                if number:          # no one asks for the gradient of the images
                    torch.mm(dy, w, out=dx)
    return work


def layers_alone(make_model, images, epochs, device, precision):
    """Every layer with weights by itself, forward and backward, on inputs and gradients that are there already."""
    model, given, hooks = make_model().to(device, memory_format=torch.channels_last), [], []
    for layer in model.modules():
        if hasattr(layer, "weight"):
            hook = layer.register_forward_hook(lambda layer, inputs, y: given.append((layer, inputs[0].detach(), torch.rand_like(y))))
            hooks.append(hook)
    model(intensities(images[:BATCH]).to(device))
    for hook in hooks:
        hook.remove()
    # no one asks for the gradient of the images
    wanted = [[*layer.parameters(), *([x.requires_grad_()] if number else [])] for number, (layer, x, _) in enumerate(given)]

    def work():
        for _ in range(epochs * math.ceil(len(images) / BATCH)):
            for (layer, x, dy), inputs in zip(given, wanted):
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    y = layer(x)
                torch.autograd.grad(y, inputs, dy.to(y.dtype))
    return work


def fitting(make_model, data, epochs, device, **options):
    """A contestant: `fit` with these options."""
    return lambda: fit(make_model(), data, epochs, device=device, progress=False, **options)


def mlp_contestants(data, args):
    """Contestants on S0's network, by name."""
    images, turn = data.train.images, (args.epochs, args.device)
    unvalidated = replace(data, val=first(data.val, 1))
    found, settings = {"pytorch/examples": loop(VAE, images, *turn, **EXAMPLES)}, {}
    for name, change in STEPS.items():
        settings |= change
        found[name] = loop(VAE, images, *turn, **settings)
    for precision in args.precision:
        found |= {named("fit", precision): fitting(VAE, data, *turn, precision=precision),
                  named("fit, no validation", precision): fitting(VAE, unvalidated, *turn, precision=precision)}
        if args.compile:
            found[named("fit, compiled", precision)] = fitting(VAE, data, *turn, precision=precision, compile=True)
        found[named("matrix products alone", precision)] = matrix_products(images, *turn, precision)
    return found


def conv_contestants(data, args):
    """Contestants on the convolutional network, by name."""
    turn = args.epochs, args.device
    found = {"usual loop": loop(ConvVAE, data.train.images, *turn, **STEPS["usual loop"])}
    for precision in args.precision:
        found[named("fit", precision)] = fitting(ConvVAE, data, *turn, precision=precision)
        if args.compile:
            found[named("fit, compiled", precision)] = fitting(ConvVAE, data, *turn, precision=precision, compile=True)
        found[named("layers alone", precision)] = layers_alone(ConvVAE, data.train.images, *turn, precision)
    return found


def named(name, precision):
    return name if precision == "fp32" else f"{name}, {precision}"


def first(split, n):
    return Split(split.images[:n], split.labels[:n])


def part_of(data, n):
    """The first `n` training images, all if it is None, with their share of the validation images."""
    n = n or len(data.train)
    return replace(data, train=first(data.train, n), val=first(data.val, math.ceil(n * len(data.val) / len(data.train))))


def compete(contestants, n_images, args):
    """Rates, ratios and the first, cold turns of compiled contestants."""
    cold, times = {}, {}
    left_out = [name for name in contestants if name.endswith("bf16") and not has_native_bf16(args.device)]
    contestants = {name: work for name, work in contestants.items() if name not in left_out}
    for name, (warm_up, *turns) in take_turns(contestants, args.rounds, args.device).items():
        times[name] = turns
        if "compiled" in name:
            cold[name] = round(warm_up, 1)
    return dict(images=n_images, epochs=args.epochs, rounds=args.rounds,
                images_per_second={name: [round(n_images * args.epochs / s) for s in each] for name, each in times.items()},
                times_as_fast_as_usual_loop=speed_ups(times, "usual loop"), seconds_of_cold_turn=cold,
                no_native_bf16_here=left_out)


def gains(rates):
    """How many times as fast each step is as the one before, as `interval` says it."""
    return {name: interval(np.array(rates[name]) / np.array(rates[before])) for before, name in itertools.pairwise(STEPS)}


def show(result):
    print(f"\n{result['network']}: {result['images']:,} images, {result['rounds']} rounds; {result['machine']}")
    print(f"{'':28s}images/s  × usual loop          gain of the step")
    for name, each in result["images_per_second"].items():
        ratio, low, high = result["times_as_fast_as_usual_loop"][name]
        gain = result["gain_of_each_step"].get(name)
        gain = "{:.2f} ({:.2f} to {:.2f})".format(*gain) if gain else ""
        print(f"{name:28s}{median(each):8,.0f}  {ratio:.2f} ({low:.2f} to {high:.2f})  {gain}")
    for name in result["no_native_bf16_here"]:
        print(f"{name:28s}no native bf16 here")
    for name, cold in result["seconds_of_cold_turn"].items():
        print(f"{name}: the first turn takes {cold:.0f} s, a later one "
              f"{result['images'] * result['epochs'] / median(result['images_per_second'][name]):.1f} s")


def mlp(args):
    """The race on S0's network."""
    data, hardware, pythae = part_of(load_data("mnist"), args.images), machine(args.device), None
    contestants = mlp_contestants(data, args)
    if args.pythae:
        pythae = Pythae(args.pythae, "train", args.device, images=data.train.images.numpy())
        contestants["pythae"] = lambda: [pythae() for _ in range(args.epochs)]
        hardware["pythae"] = pythae.version
    result = compete(contestants, len(data.train), args)
    if pythae:
        pythae.close()
    return dict(network="784-400-20 on MNIST", machine=hardware, **result, gain_of_each_step=gains(result["images_per_second"]))


def conv(args):
    """The race on the convolutional network."""
    data = part_of(load_data("fashion"), args.conv_images)
    return dict(network="convolutions on Fashion-MNIST", machine=machine(args.device),
                **compete(conv_contestants(data, args), len(data.train), args), gain_of_each_step={})


NETWORKS = dict(mlp=mlp, conv=conv)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1, help="in a turn")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", type=torch.device, default=best_device())
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="add `fit` with compile=True, and the wait for it")
    parser.add_argument("--images", type=int, help="for the first network, all by default")
    parser.add_argument("--conv-images", type=int, default=4_500, help="for the second network")
    parser.add_argument("--pythae", type=Path, help="interpreter of an environment with pythae; without it pythae is left out")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--out", type=Path, help="the other network's figures stay in it")
    args = parser.parse_args()
    found = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache          # what was compiled before today does not count
        for network in args.networks:
            found[network] = NETWORKS[network](args)
            show(found[network])
            store(found, args.out)



if __name__ == "__main__":
    main()
