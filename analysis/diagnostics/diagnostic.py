"""A diagnostic: one question about a fitted pair, with its estimate and its section of the report; and all of them.

A diagnostic is one file or folder in a folder of `analysis`, and enters itself:

    @DIAGNOSTICS.add
    class Sparsity(Diagnostic[SparsityResult]):
        name, title, order = "sparsity", "Sparsity of the codes", 65
        question = "How many latents does a datum use?"

        def reducers(self, context: Context) -> Reducers: ...

        def run(self, context: Context) -> SparsityResult: ...

        def section(self, result: SparsityResult) -> Section: ...

Nothing else names it: a report is made of the registry, in order.
"""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

from analysis.diagnostics.context import Context, Requirement
from analysis.results.blocks import Section
from vae_pyro.core.config import Config
from vae_pyro.core.discovery import import_siblings
from vae_pyro.core.registry import Registry
from vae_pyro.densities.programs.programs import Need
from vae_pyro.densities.walk import Reducer

# Folders of `analysis` whose modules, and the modules of whose folders, may hold diagnostics.
_FOLDERS = ("report", "density", "predictive", "posterior", "latent", "samples", "monitoring", "tasks")


type Reducers = Mapping[str, Callable[[], Reducer[Any]]]


class Diagnostic[R](ABC):
    """One question about a fitted pair.

    Attributes:
        name: key in `DIAGNOSTICS`, in ``ReportConfig.only`` and in ``metrics.json``.
        title: of the section, a noun phrase.
        question: what it answers.
        order: place in the report; those that exist are multiples of 10.
        requires: inputs without which the section is left out.
        min_data: held-out data below which the section only reports that there are too few.
        needs: of the pair, see `vae_pyro.densities.programs.programs.Programs.lacks`; without them the section gives
            the reason.
        Options: of this diagnostic alone; each is a keyword of `analysis.diagnostics.config.ReportConfig`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]
    order: ClassVar[int]
    requires: ClassVar[tuple[Requirement, ...]] = ()
    min_data: ClassVar[int] = 1
    needs: ClassVar[tuple[Need, ...]] = ()
    Options: ClassVar[type[Config]] = Config

    def available(self, context: Context) -> str | None:
        """Why the diagnostic does not apply to this pair and these data; ``None`` where it does."""
        if len(context.test) < self.min_data:
            return f"at least {self.min_data} held-out data are required, got {len(context.test)}"
        return next(filter(None, (context.data.programs.lacks(need) for need in self.needs)), None)

    def reducers(self, context: Context) -> Reducers:
        """How to make what this diagnostic collects from the draws of the held-out data, by name.

        The guide is run on these once, for all diagnostics together; `run` finds the results by
        ``context.collected(name)``. Diagnostics that name the same one share it.
        """
        return {}

    @abstractmethod
    def run(self, context: Context) -> R:
        """Compute the result.

        Raises:
            ValueError: the pair or the data do not allow it; the section then gives the reason.
        """

    @abstractmethod
    def section(self, result: R) -> Section:
        """The result as prose, tables and pictures; nothing is computed here that is not shown."""


def why_not(diagnostic: Diagnostic[Any], context: Context) -> str | None:
    """Why a diagnostic does not apply, whether it says so or raises; ``None`` where it does."""
    try:
        return diagnostic.available(context)
    except (ValueError, ArithmeticError) as error:
        return sentence(error)


def sentence(error: Exception) -> str:
    """What an error says, without the shapes of a trace that Pyro adds to what is raised inside of one."""
    return str(error).partition("\nTrace Shapes:")[0].strip()


class Diagnostics(Registry[Diagnostic[Any]]):
    """All diagnostics by name, iterated in the order of the report; found at the first look."""

    def __init__(self) -> None:
        super().__init__("diagnostic")
        self._found = False

    def add[D: type[Diagnostic[Any]]](self, diagnostic: D) -> D:
        """Decorator that enters a diagnostic under its name.

        Raises:
            ValueError: the name is taken.
        """
        return self.register(diagnostic.name)(diagnostic)

    def __getitem__(self, name: str) -> type[Diagnostic[Any]]:
        self._discover()
        return super().__getitem__(name)  # type: ignore[return-value]  # nothing else is entered by `add`

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(super().__iter__(), key=lambda name: (self[name].order, name)))

    def _discover(self) -> None:
        if self._found:
            return
        self._found = True
        for folder in _FOLDERS:
            package = f"analysis.{folder}"
            import_siblings(package)
            for module in pkgutil.iter_modules(import_module(package).__path__):
                if module.ispkg:
                    import_siblings(f"{package}.{module.name}")


DIAGNOSTICS = Diagnostics()
