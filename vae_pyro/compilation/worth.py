"""Whether compiling a step is repaid by the steps that follow."""

import platform
from dataclasses import dataclass
from statistics import median

from vae_pyro.compilation.graph import Graph, charged, compile_seconds
from vae_pyro.compilation.source import Source
from vae_pyro.compilation.store import ProgramStore

_LOAD_SECONDS = 0.3  # of a program that is found: reading it, and comparing one step with its graph
_SLOWEST, _FASTEST = 2.0, 0.5  # of a machine's seconds to the rule's: what is beyond was measured beside other work


@dataclass
class Plan:
    """The steps that are planned with arguments of one shape; at the first it is decided whether they are compiled.

    Attributes:
        steps: all of them, taken or not.
        compiled: the decision, once it has been made.
        by_rule: decide by the graph alone, as processes that have to agree do.
    """

    steps: int
    compiled: bool | None = None
    by_rule: bool = False

    def compiles(self, graph: Graph, source: Source) -> bool:
        """The decision.

        Args:
            graph: of loss and gradient.
            source: of the program that would be compiled.
        """
        if self.compiled is None:
            seconds = charged(source.operators) if self.by_rule else seconds_to_repay(source)
            self.compiled = self.steps >= graph.steps_to_repay(seconds)
        return self.compiled


def seconds_to_repay(source: Source) -> float:
    """Seconds that a run has to repay: of a program that is found, or compiled at the speed measured here before."""
    if source.stored:
        return _LOAD_SECONDS
    return charged(source.operators) * (_slowness() if source.on_cpu else 1.0)


def _slowness() -> float:
    """Seconds that compiling has taken on this machine, as a multiple of the rule's."""
    store = ProgramStore.default()
    headers = [] if store is None else [header for header in store.headers() if header.host == platform.node()]
    if not headers:
        return 1.0
    measured = median(header.seconds / compile_seconds(header.operators) for header in headers)
    return min(max(measured, _FASTEST), _SLOWEST)
