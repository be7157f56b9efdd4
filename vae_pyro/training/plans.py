"""Which steps of a fit are compiled."""

from vae_pyro.compilation.worth import Plan
from vae_pyro.svi.stepper import Compile
from vae_pyro.training.config import FitConfig

type Decisions = dict[str, bool]


class Plans:
    """The plan of each batch size.

    The decision is made at the first step, see `vae_pyro.compilation.worth.Plan`, and kept in the checkpoint, since
    compiled steps round otherwise than traced ones and a later version may decide otherwise.

    Args:
        data: rows of the training set.
        config: of the fit.
    """

    def __init__(self, data: int, config: FitConfig) -> None:
        self.data, self.config = data, config
        self._plans: dict[int, Plan] = {}

    def mode(self, size: int, made: Decisions) -> Compile:
        """Compilation mode of `vae_pyro.svi.compiled_svi.CompiledSVI` for this batch size.

        Args:
            size: of the batch.
            made: decisions that have been made, by batch size as text: whether its steps are compiled.
        """
        if not self.config.compile:
            return "never"
        if size not in self._plans:
            whole, rest = divmod(self.data, self.config.batch_size)
            epochs = self.config.length(self.data).epochs  # without those that validation data may add
            planned = epochs * (whole if size == self.config.batch_size else min(rest, 1))
            self._plans[size] = Plan(planned, made.get(str(size)))
        return self._plans[size]

    def decisions(self) -> Decisions:
        """Those that have been made."""
        return {str(size): plan.compiled for size, plan in self._plans.items() if plan.compiled is not None}
