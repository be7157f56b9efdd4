"""Class probabilities, as `vae_pyro.applications.classification.classify` gives them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_pyro.applications.html import SummaryTable

if TYPE_CHECKING:
    import pandas as pd

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Classification(SummaryTable):
    """Probabilities of the classes of some data.

    Attributes:
        guide: q(y | x) of the classifier in the guide, shape ``(datum, class)``, float64; ``None`` where the guide has
            none (structure ``conditional``).
        log_joint: importance-sampled log p(x, y) for each class, in nats, likewise; ``None`` where no draws were taken.
        log_joint_se: its Monte Carlo standard error, by the delta method, likewise.
        labels: the true classes ``(datum,)``, or ``None``.
        ids: row of each datum in its source.
        num_draws: draws of z for each datum and class.
        log_guide: log q(y | x), shape ``(datum, class)``, float64, where `guide` may be too small for a number;
            ``None`` takes the logarithm of that.
    """

    guide: Array | None
    log_joint: Array | None
    log_joint_se: Array | None
    labels: Array | None
    ids: Array
    num_draws: int
    log_guide: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def model(self) -> Array | None:
        """p(y | x) of the model, shape ``(datum, class)``: the sum over y is exact, z is integrated by draws.

        The logarithm of an average of weights is biased downwards, by half its relative variance to first order, and
        more so for classes to which the guide fits worse; `model_se` shows where that matters.
        """
        if self.log_joint is None:
            return None
        shifted = np.exp(self.log_joint - self.log_joint.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    @property
    def model_se(self) -> Array | None:
        """Monte Carlo standard error of `model`, by the delta method; classes have draws of their own."""
        p = self.model
        if p is None or self.log_joint_se is None:
            return None
        # dp_c / dlog w_j = p_c (1[c = j] - p_j)
        everywhere = (p**2 * self.log_joint_se**2).sum(1, keepdims=True)
        own = (1 - 2 * p) * self.log_joint_se**2
        return p * np.sqrt(np.maximum(everywhere + own, 0))

    @property
    def log_px(self) -> Array | None:
        """log p(x) in nats, shape ``(datum,)``: the sum over classes of p(x, y)."""
        if self.log_joint is None:
            return None
        return np.logaddexp.reduce(self.log_joint, axis=1)

    def of(self, which: str) -> Array:
        """Probabilities of ``guide`` or ``model``.

        Raises:
            ValueError: another word, or one that is not there.
        """
        found = {"guide": self.guide, "model": self.model}.get(which)
        if found is None:
            known = [name for name, value in (("guide", self.guide), ("model", self.log_joint)) if value is not None]
            raise ValueError(f"no probabilities of {which!r} here; choose from {', '.join(known)}")
        return found

    def log_of(self, which: str) -> Array:
        """Log probabilities of ``guide`` or ``model`` in nats, shape ``(datum, class)``, exact where `of` is 0.

        Raises:
            ValueError: see `of`.
        """
        p = self.of(which)
        if which == "model" and self.log_joint is not None and self.log_px is not None:
            joint: Array = self.log_joint - self.log_px[:, None]
            return joint
        if self.log_guide is not None:
            return self.log_guide
        with np.errstate(divide="ignore"):
            logs: Array = np.log(p)
        return logs

    def predicted(self, which: str) -> Array:
        """The most probable class of each datum, ``(datum,)``."""
        classes: Array = self.of(which).argmax(1)
        return classes

    def accuracy(self, which: str) -> float:
        """Share of the data whose most probable class is the true one.

        Raises:
            ValueError: see `of`; or the true classes are not known.
        """
        return float((self.predicted(which) == self._known()).mean())

    def log_score(self, which: str) -> float:
        """Mean log probability of the true class, in nats per datum; `analysis.class_scores` gives errors.

        Minus infinity where a true class is held for impossible.

        Raises:
            ValueError: see `accuracy`.
        """
        return float(self.log_of(which)[np.arange(len(self.ids)), self._known()].mean())

    def _known(self) -> Array:
        if self.labels is None:
            raise ValueError("the true classes of these data are not known; pass labels=, or data that hold them")
        return self.labels

    def summary(self) -> dict[str, Any]:
        """Scalars: sizes, the mean log p(x) in nats, and accuracy and log score where the true classes are known."""
        sources = {name: value for name in ("guide", "model") if (value := getattr(self, name)) is not None}
        found: dict[str, Any] = {
            "n": len(self),
            "num_classes": next(iter(sources.values())).shape[1],
            "num_draws": self.num_draws,
        }
        if self.log_px is not None:
            found["log_px"] = float(self.log_px.mean())
        if self.labels is not None:
            for name in sources:
                found[f"{name}_accuracy"], found[f"{name}_log_score"] = self.accuracy(name), self.log_score(name)
        return found

    def to_dataframe(self) -> "pd.DataFrame":
        """A row for each datum, by its id.

        Columns are ``label`` where the true classes are known, and for ``guide`` and ``model`` where they are there the
        most probable class, ``guide_class``, and the probabilities ``guide_p0``, ``guide_p1``, ...
        """
        import pandas as pd

        columns: dict[str, Array] = {} if self.labels is None else {"label": self.labels}
        for name in ("guide", "model"):
            if (value := getattr(self, name)) is not None:
                columns[f"{name}_class"] = self.predicted(name)
                columns |= {f"{name}_p{number}": value[:, number] for number in range(value.shape[1])}
        return pd.DataFrame(columns, index=pd.Index(self.ids, name="id"))

    def __str__(self) -> str:
        lines = [f"{len(self.ids)} data"]
        for name, title in (("guide", "guide, q(y | x)"), ("model", "model, p(y | x)")):
            if getattr(self, name) is not None and self.labels is not None:
                lines.append(
                    f"{title}: {1 - self.accuracy(name):.2%} wrong, log score {self.log_score(name):.4f} nats per datum"
                )
        return "; ".join(lines)
