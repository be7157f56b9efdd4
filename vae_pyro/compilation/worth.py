"""Whether compiling a step is repaid by the steps that follow."""

from dataclasses import dataclass

from vae_pyro.compilation.graph import Graph, charged
from vae_pyro.compilation.source import Source


@dataclass
class Plan:
    """The steps that are planned with arguments of one shape; at the first it is decided whether they are compiled.

    The graph and the number of steps decide, and not what has been compiled before or how fast this machine is:
    compiled steps round otherwise than traced ones, and a fit has the same bits whatever is in the cache. A program
    that is found there starts at once.

    Attributes:
        steps: all of them, taken or not.
        compiled: the decision, once it has been made.
    """

    steps: int
    compiled: bool | None = None

    def compiles(self, graph: Graph, source: Source) -> bool:
        """The decision.

        Args:
            graph: of loss and gradient.
            source: of the program that would be compiled.
        """
        if self.compiled is None:
            self.compiled = self.steps >= graph.steps_to_repay(charged(source.operators))
        return self.compiled
