"""What models, training and files are given wrongly: an error that names the argument, the value and the way out, before anything has changed."""
import re
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn
from wrong_use import NAN, doors, refused, takes_numbers, takes_whole_numbers

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.data import ImageData, Split
from vae_tutorial.saving import about_pretrained, load_model, load_pretrained, save_model
from vae_tutorial.training import ConstantBeta, CosineBeta, CyclicalBeta, LinearBeta, Recipe, SigmoidBeta, fit, validate
from vae_tutorial.vae import VAE, BaseVAE, LatentModel, elbo, evaluating

SHAPE = (1, 3, 4)


def tiny(shape=SHAPE):
    torch.manual_seed(0)
    return VAE(shape, (5,), 2)


def grey(n, seed=0):
    return torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


DATA = ImageData(Split(grey(12), None), Split(grey(4, seed=1), None), None, "noise", "sample", ())


def trained(epochs=2, model=None, data=DATA, **given):
    """Settings, figures and weights of a short run, as text."""
    model = tiny() if model is None else model
    given = dict(batch_size=5, precision="fp32", device="cpu", progress=False) | given
    history = fit(model, data, epochs, **given)
    return history.settings, [replace(epoch, seconds=0) for epoch in history], model.state_dict()


# --- numbers -------------------------------------------------------------------------------------

# each door with the name that it gives its number, another number that it refuses, and a call; all take 2
WHOLE = {
    "VAE": ("latent_dim", 0, lambda v: VAE(SHAPE, (3,), v).config), "VAE widths": ("hidden_dims", 0, lambda v: VAE(SHAPE, (3, v)).config),
    "VAE pixels": ("input_shape", 0, lambda v: VAE((1, v)).config),
    "fit epochs": ("epochs", 0, trained), "fit batch": ("batch_size", 0, lambda v: trained(batch_size=v)),
    "fit patience": ("patience", 0, lambda v: trained(4, lr=0.0, patience=v)), "fit seed": ("seed", 2**32, lambda v: trained(seed=v)),
    "Recipe batch": ("batch_size", 0, lambda v: Recipe(batch_size=v)), "Recipe seed": ("seed", 2**32, lambda v: Recipe(seed=v)),
    "CyclicalBeta": ("cycles", 0, lambda v: CyclicalBeta(cycles=v)), "validate batch": ("batch_size", 0, lambda v: validate(tiny(), grey(5), batch_size=v)),
    "validate seed": ("seed", 2**32, lambda v: validate(tiny(), grey(5), seed=v)),
    "sample": ("n", -1, lambda v: tiny().sample(v, torch.Generator().manual_seed(0)))}
# all take 2.0; where a beta is made into a schedule, its text is the schedule's
REAL = {
    "fit lr": ("lr", -1, lambda v: trained(lr=v, objective=partial(elbo, likelihood="gaussian"))), "Recipe lr": ("lr", -1, lambda v: Recipe(lr=v)),
    "fit beta": ("beta", -1, lambda v: trained(beta=v)), "Recipe beta": ("beta", -1, lambda v: Recipe(beta=v)),
    "fit beta in time": ("beta", -1, lambda v: [row.beta for row in trained(beta=lambda time: v)[1]]),
    "ConstantBeta": ("beta", -1, ConstantBeta), "LinearBeta": ("epochs", -2, LinearBeta), "CosineBeta": ("start", -1, lambda v: CosineBeta(start=v)),
    "SigmoidBeta": ("end", -1, lambda v: SigmoidBeta(end=v)), "by epoch": ("epochs", 1, lambda v: LinearBeta(v, every="epoch")),
    "CyclicalBeta": ("period", 0.5, lambda v: CyclicalBeta(period=v))}


@doors(WHOLE)
def test_a_whole_number_may_come_from_anywhere_and_nothing_else_is_one(door):
    takes_whole_numbers(*door)


@doors(REAL)
def test_a_number_may_come_from_anywhere_and_nothing_else_is_one(door):
    name, beyond, call = door
    takes_numbers(name, (-1e-9, beyond), call)


def test_sizes_are_tuples_or_what_can_be_one():
    for right in ([3, 4], np.array([3, 4]), torch.tensor([3, 4]), range(3, 5)):
        assert VAE(SHAPE, right).config["hidden_dims"] == (3, 4)
    for wrong in (400, "12", b"12", None, (3, (4,))):
        for name in ("input_shape", "hidden_dims"):
            refused(ValueError, f"{name} is {re.escape(repr(wrong))}, must be a tuple of positive whole numbers", partial(VAE, **{name: wrong}))
    refused(ValueError, r"input_shape is \(\), must be a tuple of positive whole numbers, at least one", VAE, ())


# --- one table for each other door ----------------------------------------------------------------

class WithNorm(BaseVAE):
    def __init__(self):
        super().__init__(SHAPE, 2)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
        self.decoder = nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, SHAPE))


def part(name, images):
    return replace(DATA, **{name: Split(images, None)})


FIT = {
    "no model": (dict(model=nn.Linear(2, 2)), TypeError, "model is Linear, must be a LatentModel: such as VAE()"),
    "a class": (dict(model=VAE), TypeError, "model is type, must be a LatentModel: such as VAE()"),
    "compiled": (dict(model=torch.compile(tiny())), TypeError,
                 "model is OptimizedModule, must be a LatentModel: pass the model itself; fit(..., compile=True)"),
    "no data": (dict(data=grey(3)), TypeError, "data is Tensor, must be an ImageData: "),
    "intensities": (dict(data=part("train", grey(9) / 255)), TypeError,
                    "data.train.images is torch.float32, must be torch.uint8, grey values from 0 to 255: (255 * x).round().byte() makes them"),
    "zeros and ones": (dict(data=part("train", (grey(9) > 99).byte())), ValueError,
                       "data.train.images holds no other values than 0 and 1, must hold grey values from 0 to 255: 255 * images makes them"),
    "zeros and ones to validate": (dict(data=part("val", (grey(9) > 99).byte())), ValueError, "data.val.images holds no other values than 0 and 1"),
    "none to train on": (dict(data=part("train", grey(0))), ValueError, "data.train.images holds no images, must hold at least one"),
    "none to validate": (dict(data=part("val", grey(0))), ValueError, "data.val.images holds no images, must hold at least one"),
    "other images": (dict(model=tiny((1, 4, 5))), ValueError, "data.train.images has shape (12, 1, 3, 4), must be (B, 1, 4, 5)"),
    "other images to validate": (dict(data=part("val", grey(4).flatten(2))), ValueError, "data.val.images has shape (4, 1, 12), must be (B, 1, 3, 4)"),
    "autoencoder": (dict(model=Autoencoder(SHAPE, (3,), 2)), TypeError,
                    "model gives AutoencoderOutput without mu, logvar, which elbo needs: objective=reconstruction_only"),
    "autoencoder and more": (dict(model=Autoencoder(SHAPE, (3,), 2), objective=partial(elbo, free_bits=0.1)), TypeError,
                             "model gives AutoencoderOutput without mu, logvar, which elbo needs"),
    "batch norm": (dict(model=WithNorm(), batch_size=11), ValueError,
                   "batch_size is 11, which leaves a last batch of one of 12 images, and batch norm needs two"),
    "objective": (dict(objective="elbo"), TypeError, "objective is str, must be a Callable"),
    "optimizer": (dict(optimizer="adam"), TypeError, "optimizer is str, must be a Callable"),
    "lr_schedule": (dict(lr_schedule="one_cycle"), ValueError,
                    "lr_schedule is 'one_cycle', must be one of 'constant', 'one-cycle'; the nearest is 'one-cycle'"),
    "lr_schedule with a rate": (dict(lr_schedule=3, lr=0.1), ValueError, "lr_schedule is 3, must be one of 'constant', 'one-cycle'"),
    "precision": (dict(precision="fp16"), ValueError, "precision is 'fp16', must be one of 'auto', 'fp32', 'bf16'"),
    "beta": (dict(beta=None), ValueError, "beta is None, must be a finite number of at least 0"),
    "beta later": (dict(beta=lambda time: 1 - time), ValueError, "beta is "),
    "beta without return": (dict(beta=lambda time: None), ValueError, "beta is None at time "),
    "a callback": (dict(callbacks=print), TypeError, "callbacks is <built-in function print>, must be a list of functions, [f]"),
    "callbacks": (dict(callbacks=[print, 3]), TypeError, "callbacks is int, must be a Callable: "),
    "device": (dict(device="gpu"), ValueError, "device is 'gpu', must be one of PyTorch's, such as 'cpu' or 'cuda'"),
    "device that is not there": (dict(device="mps"), ValueError, "device is 'mps', which this machine or this PyTorch lacks; the best here is 'c"),
    "resume": (dict(resume=True), ValueError, "resume is True, but there is no checkpoint to resume: give its folder as checkpoint"),
    "checkpoint": (dict(checkpoint=""), ValueError, "checkpoint is '', must be the path of a file or folder"),
    "a number for a path": (dict(checkpoint=3), ValueError, "checkpoint is 3, must be the path of a file or folder"),
    "checkpoint in a file": (dict(checkpoint=__file__), NotADirectoryError, f"checkpoint is {__file__}, must be a folder: that is a file")}


@doors(FIT)
def test_fit_refuses_it_by_name_and_leaves_the_model_as_it_was(door):
    given, error, message = door
    model, called = given.get("model", tiny()), []
    before = model.state_dict() if isinstance(model, LatentModel) else {}
    before = {name: t.clone() for name, t in before.items()}
    first = lambda *_: called.append(1)
    refused(error, re.escape(message), lambda: trained(**dict(callbacks=[first]) | given))
    assert not called and all(model.state_dict()[name].equal(t) for name, t in before.items())


SCHEDULES = {
    "every": (lambda: LinearBeta(every="batch"), ValueError, "every is 'batch', must be one of 'step', 'epoch'"),
    "one epoch by epochs": (lambda: LinearBeta(1, every="epoch"), ValueError, "epochs is 1, must be a finite number of at least 2"),
    "ramp": (lambda: CyclicalBeta(0.5), TypeError, "ramp is float, must be a LinearBeta: "),
    "ramp of a class": (lambda: CyclicalBeta(LinearBeta), TypeError, "ramp is type, must be a LinearBeta")}
MODELS = {
    "sample": (lambda: tiny().sample(2, 42), TypeError, "generator is int, must be a Generator: such as torch.Generator().manual_seed(0)"),
    "NumPy's": (lambda: tiny().sample(2, np.random.default_rng(0)), TypeError, "generator is Generator, must be a Generator: such as torch.Generator()"),
    "no images": (lambda: validate(tiny(), grey(0)), ValueError, "images holds none, must hold at least one"),
    "evaluating": (lambda: evaluating(VAE).__enter__(), TypeError, "model is type, must be a Module: such as VAE()"),
    "reconstruct an array": (lambda: tiny().reconstruct(np.zeros((2, *SHAPE))), TypeError, "x is ndarray, must be a Tensor: "),
    "reconstruct one image": (lambda: tiny().reconstruct(torch.zeros(SHAPE)), ValueError, "x has shape (1, 3, 4), must be (B, 1, 3, 4)"),
    "reconstruct grey values": (lambda: tiny().reconstruct(grey(2).float()), ValueError, "x holds values from "),
    "reconstruct NaN": (lambda: tiny().reconstruct(torch.full((1, *SHAPE), NAN)), ValueError, "x holds 12 values that are NaN or infinite"),
    "code": (lambda: LatentModel(SHAPE, 2).code(torch.zeros(2, *SHAPE)), NotImplementedError, "LatentModel must say with code(x) which point stands for"),
    "too large": (lambda: VAE(hidden_dims=(10**14,)), RuntimeError, "")}
NAMES = {
    name: (lambda name=name, read=read: read(name), ValueError, f"name is {name!r}, must be one of 'mnist-")
    for read in (load_pretrained, about_pretrained) for name in ("mnist-mlp-3d", "", None, 3)}


@doors(SCHEDULES | MODELS | NAMES)
def test_other_doors_refuse_it_by_name(door):
    call, error, message = door
    refused(error, re.escape(message), call)


# --- files ----------------------------------------------------------------------------------------

class Forgets(BaseVAE):
    """Keeps one of its own two arguments, and that only if told so."""

    def __init__(self, input_shape=SHAPE, latent_dim=2, *, width=4, act="relu", keep=True):
        super().__init__(input_shape, latent_dim, **dict(width=width, act=act, keep=keep) if keep else dict(width=width))
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Linear(width, 2 * latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 12), nn.Unflatten(1, SHAPE))


class Other(VAE):
    pass


def gone():
    """A model of a class that nobody has defined when it is loaded."""
    return type("Gone", (VAE,), {})(SHAPE, (3,), 2)


SAVING = {
    "no model": (lambda path: save_model(nn.Linear(2, 2), path), TypeError, "model is Linear, must be a LatentModel: such as VAE()"),
    "no path": (lambda path: save_model(tiny(), ""), ValueError, "path is '', must be the path of a file or folder"),
    "forgotten": (lambda path: save_model(Forgets(keep=False), path), ValueError, "the config of Forgets lacks act, keep: hand it on, "),
    "no JSON": (lambda path: save_model(Forgets(act=torch.relu), path), ValueError, "the config of Forgets is {'input_shape': "),
    "load nothing": (load_model, FileNotFoundError, ""),
    "load no path": (lambda path: load_model(3), ValueError, "path is 3, must be the path of a file or folder"),
    "load another class": (lambda path: (save_model(tiny(), path), load_model(path, Other)), ValueError, "model_class is Other, but {path} holds a VAE"),
    "load an unknown class": (lambda path: (save_model(gone(), path), __import__("gc").collect(), load_model(path)), ValueError,
                              "{path} holds a Gone, a class that is not defined here: define or import it first, or give it as model_class"),
    "load a checkpoint": (lambda path: (trained(1, checkpoint=path.parent), load_model(path.parent / "run.safetensors")), ValueError,
                          "{folder}/run.safetensors is a checkpoint of a training: continue it with fit(..., checkpoint=its folder, resume=True)"),
    "load no file of ours": (lambda path: (path.write_bytes(b"PK"), load_model(path)), ValueError, "{path} is damaged or no file of this package"),
    "train over a run": (lambda path: (trained(1, checkpoint=path.parent), trained(1, checkpoint=path.parent)), FileExistsError,
                         "{folder}/run.safetensors holds a run already: pass resume=True to continue it, or give another folder"),
    "train on a model": (lambda path: (save_model(tiny(), path.parent / "run.safetensors"), trained(checkpoint=path.parent, resume=True)), ValueError,
                         "{folder}/run.safetensors is damaged or no file of this package")}


@doors(SAVING)
def test_files_are_refused_by_name(door, tmp_path):
    call, error, message = door
    path = tmp_path / "model.safetensors"
    refused(error, re.escape(message.replace("{path}", str(path)).replace("{folder}", str(tmp_path))), call, path)
