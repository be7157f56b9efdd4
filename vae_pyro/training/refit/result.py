"""What a refit leaves: both guides, measured on the same data, and which of them was kept."""

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from vae_pyro.densities.pair import Pair
from vae_pyro.training.refit.quality import Gain, GuideQuality, gains

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {"elbo": "validation ELBO", "symmetric_kl": "symmetric KL, simulated"}


@dataclass(frozen=True, repr=False)
class RefitResult:
    """A refit of a guide. The model is the one that was there, to the bit.

    Attributes:
        pair: with the guide that was kept.
        shares: share of each batch that each method was given.
        before: quality of the guide that was there.
        after: quality of the guide that was trained, by the same draws and data.
        history: one row for each check: ``step``, ``lr``, ``loss`` (nats per datum, mean since the last check),
            ``validation_elbo``, ``symmetric_kl``, ``seconds``.
        best_step: step whose guide was chosen; 0 is the guide that was there.
        replaced: whether the trained guide was kept.
        num_parameters: numbers that could move.
        num_skipped: steps without a finite loss or gradient, which were not taken.
        seconds: wall-clock time.
    """

    pair: Pair = field(repr=False)
    shares: dict[str, float]
    before: GuideQuality
    after: GuideQuality
    history: list[dict[str, float]]
    best_step: int
    replaced: bool
    num_parameters: int
    num_skipped: int
    seconds: float

    @property
    def gains(self) -> dict[str, Gain]:
        """Of the trained guide over the one that was there: ``elbo`` and ``symmetric_kl``, positive where better."""
        return gains(self.before, self.after)

    @property
    def reason(self) -> str:
        """Why the guide was replaced or not."""
        worse = [f"{_NAMES[name]} ({gain})" for name, gain in self.gains.items() if gain.outcome == "worse"]
        better = [f"{_NAMES[name]} ({gain})" for name, gain in self.gains.items() if gain.outcome == "better"]
        if self.replaced:
            return f"the trained guide is kept: better by {' and '.join(better)}"
        if worse:
            return (
                f"the former guide is kept: the trained one is worse by {' and '.join(worse)}; try another method, "
                "such as 'half_asleep=0.5,wake=0.5'"
            )
        return "the former guide is kept: the trained one is not better beyond two standard errors"

    def summary(self) -> dict[str, Any]:
        """Both guides and the decision, as JSON can hold them."""
        return {
            "method": dict(self.shares),
            "before": self.before.summary(),
            "after": self.after.summary(),
            "gains": {name: {"mean": gain.mean, "se": gain.error} for name, gain in self.gains.items()},
            "replaced": self.replaced,
            "best_step": self.best_step,
            "seconds": self.seconds,
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """`history` as a table."""
        import pandas as pd

        return pd.DataFrame(self.history)

    def __str__(self) -> str:
        method = " and ".join(name if share == 1 else f"{share:.0%} {name}" for name, share in self.shares.items())
        before, after = self.before.summary(), self.after.summary()
        lines = [
            f"refit of the guide ({method}), {self.num_parameters:,} parameters, {self.seconds:.1f} s; nats per datum",
            f"  {'':<26}{'before':>22}{'after':>22}  gain",
        ]
        for name, gain in self.gains.items():
            cells = (f"{values[name]:.3f} ± {values[f'{name}_se']:.2g}" for values in (before, after))
            lines.append(f"  {_NAMES[name]:<26}" + "".join(f"{cell:>22}" for cell in cells) + f"  {gain}")
        shares = (f"{values['effective_share']:.1%}" for values in (before, after))
        lines.append(f"  {'effective share of draws':<26}" + "".join(f"{share:>22}" for share in shares))
        return "\n".join([*lines, self.reason])

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.reason}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
