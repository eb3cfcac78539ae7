"""The code as it is read: its type hints hold and are complete, and the linter finds nothing, in notebooks neither."""
import inspect
import pkgutil
from importlib import import_module

import pytest
from conftest import run_process

import vae_tutorial

MODULES = [module.name for module in pkgutil.iter_modules(vae_tutorial.__path__) if not module.name.startswith("_")]


def public_functions(module):
    """Yield the functions that a module exports, and the methods of its classes, by their names."""
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            for attribute, method in vars(thing).items():
                method = getattr(method, "__func__", getattr(method, "fget", method))
                if inspect.isfunction(method) and method.__module__ == module.__name__ and not attribute.startswith("_"):
                    yield f"{name}.{attribute}", method


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_have_complete_hints(name):
    for function, code in public_functions(import_module(f"vae_tutorial.{name}")):
        hints, parameters = code.__annotations__, list(inspect.signature(code).parameters)
        bare = [parameter for parameter in parameters if parameter not in hints and parameter not in ("self", "cls")]
        assert not bare and "return" in hints, f"{name}.{function} has no hint for {bare or 'what it returns'}"


@pytest.mark.parametrize("command", ["mypy", "ruff check vae_tutorial tests tools benchmarks book", "nbqa ruff nbs --force-exclude"])
def test_hints_hold_and_the_linter_finds_nothing(command):
    run_process("-m", *command.split())
