"""The result of `disentanglement`: all scores of one model's codes, beside those of rotated codes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.latent.disentanglement.forests import DCI
from analysis.latent.disentanglement.scores import Score
from analysis.results.result import Result, finite_or_none
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]

_SCORES = ("mig", "sap", "factor_vae", "modularity")
_ROTATION_SOURCE = (
    "convention: 5 % level against random rotations, which keep all information and forget the axes "
    "(Locatello et al. 2019, theorem 1)"
)
_LEVEL = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Disentanglement(Result):
    """All scores of one model's codes.

    Attributes:
        factor_names: of each factor.
        active: latents that were scored, ``(latent,)``, by their number in the codes; the others are constant.
        mig: see `mig`; its ``parts`` are for each factor.
        dci: see `dci`.
        sap: see `sap`.
        factor_vae: see `factor_vae_score`.
        modularity: see `modularity`; NaN for a single factor, or where no latent is informative of any.
        rotations: MIG of randomly rotated codes, ``(rotation,)``; empty where fewer than 2 latents are active.
        unrotated: MIG of the codes themselves on the same data as `rotations`.
        num_data: data that were scored.
    """

    factor_names: tuple[str, ...]
    active: Array
    mig: Score
    dci: DCI
    sap: Score
    factor_vae: Score
    modularity: Score
    rotations: Array
    unrotated: float
    num_data: int

    @property
    def p_value(self) -> float:
        """Share of rotations whose MIG is at least that of the codes, the codes themselves counted in.

        Valid for the hypothesis that the axes are no better than axes at random; NaN without rotations.
        """
        if len(self.rotations) == 0:
            return float("nan")
        return float((1 + (self.rotations >= self.unrotated).sum()) / (1 + len(self.rotations)))

    @property
    def threshold(self) -> float:
        """The MIG that axes at random reach with a probability of 5 %."""
        return float(np.quantile(self.rotations, 1 - _LEVEL)) if len(self.rotations) else float("nan")

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Whether the codes are informative of the factors, and whether their axes align with them."""
        excess = self.dci.informativeness - self.dci.chance
        known: Outcome = "pass" if excess > 3 * self.dci.informativeness_se else "fail"
        aligned: Outcome = "pass" if self.p_value <= _LEVEL else "warn"
        return (
            Verdict(
                question="Are the codes informative of the factors?",
                value=self.dci.informativeness,
                error=self.dci.informativeness_se,
                unit="",
                threshold=f"above {self.dci.chance:.3f} by 3 standard errors",
                source="convention: the share of the most frequent level, which needs no codes",
                outcome=known,
                remedy="look at the active latents first: the posterior may have collapsed",
                name="informativeness",
            ),
            Verdict(
                question="Are the axes of the latent space aligned with the factors?",
                value=self.mig.value,
                error=self.mig.se,
                unit="",
                threshold=f"above {self.threshold:.3f}, p at most {_LEVEL} (got {self.p_value:.2g})"
                if len(self.rotations)
                else "at least 2 active latents",
                source=_ROTATION_SOURCE,
                outcome=aligned,
                remedy="do not interpret single latents; fit with objective 'beta_tcvae', and compare seeds",
                name="mig",
            ),
        )

    def __str__(self) -> str:
        def shown(value: float, error: float | None) -> str:
            return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"

        each = ", ".join(f"{name} {part:.2f}" for name, part in zip(self.factor_names, self.mig.parts, strict=True))
        verdict = (
            "the axes are more aligned with the factors than random axes"
            if self.p_value <= _LEVEL
            else "the axes are no more aligned with the factors than random axes"
        )
        text = (
            f"disentanglement of {len(self.active)} active latents over {self.num_data:,} data\n"
            f"  {self.mig} ({each}); random axes reach {self.threshold:.3f} in 5 %: {verdict}\n"
            f"  DCI: disentanglement {shown(self.dci.disentanglement, self.dci.disentanglement_se)}, completeness "
            f"{shown(self.dci.completeness, self.dci.completeness_se)}, informativeness "
            f"{shown(self.dci.informativeness, self.dci.informativeness_se)} (chance {self.dci.chance:.3f})\n"
            f"  {self.sap}, {self.factor_vae} (chance {1 / len(self.factor_names):.3f}), {self.modularity}"
        )
        return screen(text.splitlines())

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a score, by name: value and standard error."""
        import pandas as pd

        rows = {name: (getattr(self, name).value, getattr(self, name).se) for name in _SCORES}
        for key in ("disentanglement", "completeness", "informativeness"):
            rows[f"dci_{key}"] = (getattr(self.dci, key), getattr(self.dci, f"{key}_se"))
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "se"]).rename_axis("score")

    def plot(self) -> "Figure":
        """Mutual information of each latent and factor."""
        from analysis.plotting import plot_matrix

        latents = [f"z[{j}]" for j in self.active]
        return plot_matrix(self.mig.matrix, latents, self.factor_names, label="mutual information, nats")

    def summary(self) -> dict[str, Any]:
        """Scores with their standard errors (``<key>_se``), in JSON's types; ``None`` where there is none."""
        values: dict[str, Any] = {}
        for key in _SCORES:
            score: Score = getattr(self, key)
            values[key], values[f"{key}_se"] = finite_or_none(score.value), score.se
        for key in ("disentanglement", "completeness", "informativeness"):
            values[f"dci_{key}"], values[f"dci_{key}_se"] = getattr(self.dci, key), getattr(self.dci, f"{key}_se")
        values["mig_of_factors"] = dict(zip(self.factor_names, map(float, self.mig.parts), strict=True))
        values |= {"mig_rotated_95": finite_or_none(self.threshold), "mig_p_value": finite_or_none(self.p_value)}
        return values | {"active": [int(j) for j in self.active], "n": self.num_data}
