"""An objective averaged over the batch: the loss that a fit minimises."""

from typing import Any

from pyro.infer import ELBO
from torch import Tensor


class PerDatum(ELBO):
    """An objective averaged over the batch, so that rates and eps mean the same at every batch size."""

    def __init__(self, objective: ELBO) -> None:
        super().__init__()
        self.objective = objective

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The objective's, still summed over data."""
        metrics: dict[str, Tensor] = self.objective.metrics
        return metrics

    @metrics.setter
    def metrics(self, metrics: dict[str, Tensor]) -> None:
        self.objective.metrics = metrics

    def loss(self, model: Any, guide: Any, x: Tensor, **kwargs: Any) -> float:
        """The objective's, divided by the number of data."""
        return float(self.objective.loss(model, guide, x, **kwargs)) / len(x)

    def differentiable_loss(self, model: Any, guide: Any, x: Tensor, **kwargs: Any) -> Tensor:
        """The objective's, divided by the number of data."""
        loss: Tensor = self.objective.differentiable_loss(model, guide, x, **kwargs)
        return loss / len(x)

    def loss_and_grads(self, model: Any, guide: Any, x: Tensor, **kwargs: Any) -> Tensor:
        """Its gradient added to the parameters'."""
        loss = self.differentiable_loss(model, guide, x, **kwargs)
        loss.backward()
        return loss.detach()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError("the objective inside makes its own traces")
