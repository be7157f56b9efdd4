"""Early stopping: the best validation ELBO so far, its weights, and when patience is exhausted."""

from torch import Tensor

from vae_pyro.models.vae import VAE
from vae_pyro.runs.weights import weights
from vae_pyro.training.checkpoints import State
from vae_pyro.training.config import FitConfig


class EarlyStopping:
    """Compares epochs by their validation ELBO.

    Args:
        vae: whose weights are kept at the best epoch, where there is patience.
        config: of the fit; epochs of its KL warm-up do not count.
        steps_per_epoch: steps in an epoch.

    Attributes:
        best: weights after the best epoch; ``None`` without patience, or before the first epoch that counts.
    """

    def __init__(self, vae: VAE, config: FitConfig, steps_per_epoch: int) -> None:
        self.vae, self.config, self.steps_per_epoch = vae, config, steps_per_epoch
        self.best: dict[str, Tensor] | None = None

    def judge(self, state: State, elbo: float) -> None:
        """Enter the validation ELBO of the epoch that ends in the state."""
        if not self.config.epoch_counts(state.epoch + 1, self.steps_per_epoch):
            return
        if state.best_elbo is None or elbo > state.best_elbo:
            state.best_elbo, state.best_epoch, state.stale = elbo, state.epoch + 1, 0
            if self.config.patience is not None:
                self.best = {name: tensor.clone() for name, tensor in weights(self.vae).items()}
        else:
            state.stale += 1

    def exhausted(self, state: State) -> bool:
        """Whether too many epochs have passed without a better ELBO."""
        return self.config.patience is not None and state.stale >= self.config.patience
