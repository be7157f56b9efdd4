"""Former names of arguments, attributes, classes and modules: refused with the present ones, for one release."""

import sys
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import Any

# Former module of ``vae_pyro``, and the present one.
MODULES = {
    "bounds": "objectives",
    "capture": "compilation.capture",
    "checkpoint": "runs.folder",
    "classification": "applications.classification",
    "commands": "cli.verbs",
    "compression": "applications.compression",
    "config": "core.config",
    "console": "cli.console",
    "continuation": "training.warm_start",
    "denoising": "applications.denoising",
    "distributions": "likelihoods",
    "elbo": "objectives.elbo",
    "ensembles": "training.ensemble",
    "enumerated": "objectives.m2",
    "experiment_commands": "cli.verbs",
    "features": "nn.features",
    "fit_config": "training.config",
    "guide": "models.guide",
    "imputation": "applications.imputation",
    "interruption": "parallel.signals",
    "isolation": "core.isolation",
    "locks": "parallel.locks",
    "loop": "training.loop",
    "model": "models.model",
    "networks": "nn",
    "noise": "likelihoods.noise",
    "optimizers": "training.optimizers",
    "posteriors": "models.posteriors",
    "presets": "models.presets",
    "priors": "models.priors",
    "products": "compilation.products",
    "program": "svi.program",
    "progress": "training.progress",
    "ranks": "parallel.ranks",
    "registry": "core.registry",
    "regularizers": "objectives",
    "replay": "svi.cuda_graphs",
    "rubin": "applications.rubin",
    "schedules": "training.schedules",
    "settings": "training.settings",
    "sources": "data.datasets",
    "sparse": "data.memory.sparse",
    "splits": "data.split",
    "sprites": "data.sprites",
    "streams": "data.streams",
    "structures": "models.structures",
    "tables": "data.tables",
    "transformer": "applications.estimators",
    "tuning": "experiments.tuning",
    "updates": "svi.optimizer_rules",
    "vae": "models.vae",
    "workers": "parallel",
}
# Former name of what ``vae_pyro`` exported, and where the present one is.
NAMES = {
    "Ledger": "LogDensities",
    "LedgerELBO": "MonteCarloObjective",
    "LedgerMoments": "densities.moments.LogDensityMoments",
    "Rates": "CompressionRates",
    "run": "run_experiment",
}


def renamed[**P, R](**former: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that refuses former argument names.

    Args:
        former: the new name of each former one: ``num_samples="num_draws"``.

    Raises:
        TypeError: at a call with a former name; the message gives the new one.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in former.keys() & kwargs.keys():
                raise TypeError(f"{function.__name__}() takes {former[old]!r}, which was called {old!r} before 0.2")
            return function(*args, **kwargs)

        return checked

    return decorate


def no_name(name: str) -> Exception:
    """The error for an attribute ``name`` that ``vae_pyro`` does not have."""
    # A statement `from package import name` passes the text of an ImportError on, and replaces that of an
    # AttributeError by its own.
    if name in MODULES:
        return ImportError(f"the module vae_pyro.{name} is now vae_pyro.{MODULES[name]}", name=f"vae_pyro.{name}")
    if name in NAMES:
        return ImportError(f"vae_pyro.{name} is now vae_pyro.{NAMES[name]}", name="vae_pyro")
    return AttributeError(f"module 'vae_pyro' has no attribute {name!r}")


def exported_above(folder: str) -> Callable[[str], Any]:
    """``__getattr__`` of a folder that has the name of a former module, whose names ``vae_pyro`` exports.

    Args:
        folder: ``__name__`` of the folder.
    """

    def absent(name: str) -> Any:
        present = find_spec(f"{folder}.{name}") is not None  # a module of the folder, not yet imported
        if not present and (name in NAMES or name in sys.modules["vae_pyro"].__all__):
            raise ImportError(f"{folder}.{name} is now vae_pyro.{NAMES.get(name, name)}", name=folder)
        raise AttributeError(f"module {folder!r} has no attribute {name!r}")

    return absent


class Former:
    """A former attribute of a class: reading or setting it names what replaced it.

    Args:
        now: what replaced it.
    """

    def __init__(self, now: str) -> None:
        self.now, self.name = now, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        raise AttributeError(f"{owner.__name__}.{self.name} of before 0.2 is now {self.now}")

    def __set__(self, instance: object, value: Any) -> None:
        self.__get__(instance, type(instance))
