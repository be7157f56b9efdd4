"""Early stopping: the best validation objective so far, its weights, and when patience is exhausted."""

from typing import Any

import numpy as np
from torch import Tensor

from vae_pyro.models.vae import VAE
from vae_pyro.runs.weights import weights
from vae_pyro.training.checkpoints import State
from vae_pyro.training.config import FitConfig
from vae_pyro.training.length import Length, ending, paired

type Array = np.ndarray[Any, Any]


class EarlyStopping:
    """Compares epochs by their validation ELBO, or the bound of an importance weighted objective.

    Args:
        vae: whose weights are kept at the best epoch, where there is patience.
        config: of the fit; epochs of its KL warm-up do not count.
        length: of the fit.
        weighted: whether epochs are compared by an importance weighted bound.

    Attributes:
        best: weights after the best epoch; ``None`` without patience, or before the first epoch that counts.
        reference: where the data decide on the length, values ``(datum,)`` of the last epoch that was better than the
            reference before it by more than the paired standard error; patience counts from it.
    """

    def __init__(self, vae: VAE, config: FitConfig, length: Length, *, weighted: bool = False) -> None:
        self.vae, self.config, self.length, self.weighted = vae, config, length, weighted
        self.best: dict[str, Tensor] | None = None
        self.reference: Array | None = None
        self._last: Array | None = None

    def judge(self, state: State, elbo: float, values: Array) -> None:
        """Enter the epoch that ends in the state.

        Bounds of many draws hardly depend on the guide, and draws for estimates do: of epochs whose bound is not worse
        beyond the paired error, the one with the best ELBO is kept.

        Args:
            state: of the fit.
            elbo: validation ELBO, nats per datum.
            values: validation objective of each datum, ``(datum,)``: the ELBO, or the bound of an importance weighted
                objective.
        """
        if not self.config.epoch_counts(state.epoch + 1, self.length.steps_per_epoch):
            return
        better = state.best_elbo is None or elbo > state.best_elbo
        renewed = better
        if self.length.judged:
            self._last = values
            gain, error = (1.0, 0.0) if self.reference is None else paired(values, self.reference)
            renewed = gain > error
            self.reference = values if renewed else self.reference
            if self.weighted:
                better = renewed or (better and gain >= -error)
        state.stale = 0 if renewed else state.stale + 1
        if better:
            state.best_elbo, state.best_epoch = elbo, state.epoch + 1
            if self.length.patience is not None:
                self.best = {name: tensor.clone() for name, tensor in weights(self.vae).items()}

    def exhausted(self, state: State) -> bool:
        """Whether too many epochs have passed without a better ELBO."""
        return self.length.patience is not None and state.stale >= self.length.patience

    def ending(self, state: State, key: str) -> str:
        """How the fit ended, see `vae_pyro.training.length.ending`; ``key`` names the objective in the history."""
        fallen = None
        if self.reference is not None and self._last is not None:
            fallen = paired(self.reference, self._last)
        return ending(
            self.length,
            state.history,
            key=key,
            best_epoch=state.best_epoch,
            fallen=fallen,
            stopped=self.exhausted(state),
        )
