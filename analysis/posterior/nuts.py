"""Posterior moments of a few data by the No-U-Turn sampler, beside the guide's: is the guide biased, or too narrow?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from analysis.posterior.annealing import joints
from analysis.posterior.joint import guide_gaussian
from analysis.results.remedies import REFINE, REFIT
from analysis.results.result import Result
from analysis.results.text import screen
from analysis.results.verdict import Outcome, Verdict, graded
from vae_pyro.core.isolation import derive_seed, isolated
from vae_pyro.core.renamed import renamed
from vae_pyro.data.dataset import as_split
from vae_pyro.data.split import Split
from vae_pyro.densities.pair import PairLike

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

type Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorMoments(Result):
    """Mean and standard deviation of p(z | x) by NUTS, and of the guide; each ``(datum, dim)``.

    Attributes:
        mean: of the posterior, with ``mean_se``, its Monte Carlo standard error.
        scale: standard deviations of the posterior.
        guide_mean: of the guide.
        guide_scale: standard deviations of the guide.
        effective_sample_size: of the chain.
        r_hat: split R-hat of the chain.
    """

    mean: Array
    mean_se: Array
    scale: Array
    guide_mean: Array
    guide_scale: Array
    effective_sample_size: Array
    r_hat: Array

    @property
    def shift(self) -> float:
        """Root mean square of the guide's error of the mean, in posterior standard deviations, less NUTS's own."""
        square = ((self.guide_mean - self.mean) ** 2 - self.mean_se**2) / self.scale**2
        return float(np.sqrt(max(square.mean(), 0.0)))

    @property
    def ratio(self) -> float:
        """Geometric mean of the guide's standard deviations over the posterior's."""
        return float(np.exp(np.log(self.guide_scale / self.scale).mean()))

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Bias and width of the guide, with NUTS as the reference."""
        poor = float(self.r_hat.max()) > 1.05
        note = f"NUTS itself has not mixed (R-hat {self.r_hat.max():.2f}): raise num_draws" if poor else ""
        wide = max(self.ratio, 1 / self.ratio)
        count = self.scale.size
        # The standard deviation of n draws has relative error 1 / sqrt(2 n).
        ratio_se = self.ratio * float(np.sqrt((0.5 / self.effective_sample_size).sum()) / count)
        shift_se = float(np.sqrt(((self.mean_se / self.scale) ** 2).sum()) / count)
        biased: Outcome = "warn" if poor else graded(self.shift, 0.5, 1)
        narrow: Outcome = "warn" if poor else graded(wide, 1.5, 2)
        # Too uncertain to exclude what fails.
        if biased == "pass" and not self.shift + 2 * shift_se <= 1:
            biased, note = "warn", note or "inconclusive: raise num_draws"
        if narrow == "pass" and not wide * (1 + 2 * ratio_se / self.ratio) <= 2:
            narrow, note = "warn", note or "inconclusive: raise num_draws"
        return (
            Verdict(
                "Are the guide's means those of the posterior?",
                self.shift,
                shift_se,
                "posterior standard deviations, root mean square",
                "at most 0.5 (fail above 1)",
                "NUTS (Hoffman & Gelman 2014, arXiv:1111.4246) as the reference; the threshold is a convention",
                biased,
                note or ("" if biased == "pass" else f"{REFIT}, or widen the encoder"),
                "guide_bias",
            ),
            Verdict(
                "Are the guide's standard deviations those of the posterior?",
                self.ratio,
                ratio_se,
                "times the posterior's, geometric mean",
                "between 0.67 and 1.5 (fail outside 0.5 to 2)",
                "as above; a nominal 90 % interval of a guide at 0.67 covers 73 %",
                narrow,
                note or ("" if narrow == "pass" else f"{REFIT}, choose a richer posterior, or {REFINE}"),
                "guide_width",
            ),
        )

    def summary(self) -> dict[str, Any]:
        """Of all data and latents together."""
        return {
            "shift": self.shift,
            "ratio": self.ratio,
            "effective_sample_size": float(self.effective_sample_size.min()),
            "r_hat": float(self.r_hat.max()),
            "n": len(self.mean),
        }

    def to_dataframe(self) -> "pd.DataFrame":
        """One row a datum and latent: moments by NUTS and of the guide, effective sample size and R-hat."""
        import pandas as pd

        datum, latent = np.indices(self.mean.shape)
        names = ("mean", "mean_se", "scale", "guide_mean", "guide_scale", "effective_sample_size", "r_hat")
        columns = {name: getattr(self, name).ravel() for name in names}
        index = pd.MultiIndex.from_arrays([datum.ravel(), latent.ravel()], names=["datum", "latent"])
        return pd.DataFrame(columns, index=index)

    def plot(self) -> "Figure":
        """Errors of the guide's means, in posterior standard deviations, over data and latents."""
        from analysis.plotting import plot_scores

        shift = (self.guide_mean - self.mean) / self.scale
        return plot_scores(shift.ravel(), names=("data and latents", ""), xlabel="guide's mean - posterior mean, sd")

    def __str__(self) -> str:
        return screen(
            [
                f"posterior moments of {len(self.mean):,} data by NUTS (at least "
                f"{self.effective_sample_size.min():.0f} effective draws, R-hat at most {self.r_hat.max():.3f})",
                f"  the guide's means are off by {self.shift:.2f} posterior sd, its sd are {self.ratio:.2f} times the "
                "posterior's",
            ]
        )


@renamed(num_samples="num_draws")
def nuts_moments(
    pair: PairLike,
    x: Split | Tensor | Array,
    *,
    num_draws: int = 500,
    num_warmup: int = 300,
    seed: int = 0,
    mask: Tensor | None = None,
    y: Any = None,
) -> PosteriorMoments:
    """Run Pyro's NUTS on the posterior of a few data, all in one chain, from the guide's mean.

    Args:
        pair: a `VAE`, or any Pyro ``(model, guide)`` that keeps the contract of `vae_pyro.Pair`,
            with real-valued latents.
        x: ``(datum, *x_shape)``; the cost of a draw grows with the data, so a few.
        num_draws: draws kept, at least 100.
        num_warmup: draws that adapt step size and mass, and are dropped.
        seed: of all draws.
        mask: boolean, shape of ``x``, true where observed; NaN is not observed.
        y: classes ``(datum,)`` that the programs are given.

    Returns:
        Moments by NUTS and of the guide. Those of a guide that is not Gaussian are of draws.

    Raises:
        ValueError: fewer than 100 draws, or as in `analysis.posterior.annealing.annealed_importance_sampling`.

    References:
        Hoffman & Gelman 2014, The No-U-Turn sampler, JMLR 15. arXiv:1111.4246
    """
    if num_draws < 100:
        raise ValueError(f"num_draws must be at least 100, got {num_draws}")
    from pyro.infer import MCMC, NUTS
    from pyro.infer.autoguide.initialization import init_to_value
    from pyro.ops.stats import effective_sample_size, split_gelman_rubin
    from torch.distributions import identity_transform

    split = as_split(x, mask, y).fixed(derive_seed(seed, 0))
    parts: list[tuple[Array, ...]] = []
    for number, joint in enumerate(joints(pair, split, 1)):
        if joint.programs.summed:
            raise ValueError(
                f"NUTS runs the model as it is, and its discrete site {next(iter(joint.programs.summed))!r} is summed "
                "out of all other estimates; sum it out in the model"
            )
        with isolated(derive_seed(seed, 1, number)):
            guide, _ = guide_gaussian(joint)
            start = {name: value[0] for name, value in joint.sites(guide.loc[None]).items()}
            given = joint.programs.of_model.given(joint.given.get("mask"), joint.given.get("y"))
            chain = MCMC(
                # Every site is real, which Pyro does not see of a mixture.
                NUTS(
                    joint.programs.model,
                    transforms=dict.fromkeys(joint.shapes, identity_transform),
                    init_strategy=init_to_value(values=start),
                ),
                num_samples=num_draws,
                warmup_steps=num_warmup,
                initial_params=start,
                disable_progbar=True,
            )
            with joint.programs.state.evaluating():
                chain.run(joint.x, **given)
        draws = joint.flat({name: value.detach() for name, value in chain.get_samples().items()}).double()
        size = effective_sample_size(draws[None], sample_dim=1, chain_dim=0)
        scale = draws.std(0)
        moments = (draws.mean(0), scale / size.sqrt(), scale, guide.loc, guide.scale, size)
        r_hat = split_gelman_rubin(draws[None], sample_dim=1, chain_dim=0)
        parts.append(tuple(value.double().cpu().numpy() for value in (*moments, r_hat)))
    return PosteriorMoments(*(np.concatenate(values) for values in zip(*parts, strict=True)))
