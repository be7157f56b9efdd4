"""What was found out about the programs of a pair, and every way of running them that follows from it.

Estimates and diagnostics ask this object; none knows the names of sites and plates, or how a program is called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pyro import poutine
from torch import Tensor

from vae_pyro.densities.log_density import LogDensities
from vae_pyro.densities.programs.arguments import Arguments
from vae_pyro.densities.programs.module_state import ModuleState
from vae_pyro.densities.programs.running import Call, Sites, Way, run
from vae_pyro.densities.programs.summing import choices, marginal, sum_out
from vae_pyro.densities.sites import GuideDraws, Program, SiteKind, SiteScores

type Need = Literal["draws", "amortized", "latents", "codes"]


@dataclass(frozen=True)
class Programs:
    """A pair's programs, with what was found out about them.

    The defaults are those of the contract, which a `vae_pyro.VAE` keeps; `vae_pyro.densities.programs.discovery` finds
    those of other programs.

    Attributes:
        model: Pyro model.
        guide: Pyro guide.
        state: the modules that they run.
        of_model: what the model is called with.
        of_guide: likewise.
        plate: name of the plate over data.
        data_sites: observed sites whose values, side by side, are x; empty where x is observed in another form.
        observed: sites that log p(x | z) is summed over; ``None`` for all that the model observes.
        latents: what each site of the guide is, see `GuideDraws`; empty where only a draw tells.
        summed: values of each discrete site of the model that the guide does not draw, ``(value, *event)``: it is
            summed out.
        model_way: how the model is run at many particles.
        guide_way: likewise.
        amortized: whether the guide takes any data; if not, only the rows it has parameters for.
        outputs_ignore_data: p(x | z) is the same whether x is given or not, and replications are drawn from it: one run
            of the model both scores data and draws replications.
        reads_data: p(x | z) depends on the x that the model is called with.
        device: of their parameters; ``None`` where the pair says so.
        dtype: likewise.
        template: a few rows of data, to draw others without ``size``; with ``mask`` and ``y`` where there are such.
        data_dtype: what the guide takes, whatever type the likelihood draws; ``None`` where the template says it.
    """

    model: Program
    guide: Program
    state: ModuleState
    of_model: Arguments = field(default_factory=lambda: Arguments("model"))
    of_guide: Arguments = field(default_factory=lambda: Arguments("guide"))
    plate: str | None = None
    data_sites: tuple[str, ...] = ("x",)
    observed: tuple[str, ...] | None = None
    latents: Mapping[str, SiteKind] = field(default_factory=dict)
    summed: Mapping[str, Tensor] = field(default_factory=dict)
    model_way: Way = Way.VECTORIZED
    guide_way: Way = Way.VECTORIZED
    amortized: bool = True
    outputs_ignore_data: bool = False
    reads_data: bool = False
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    template: tuple[Tensor, dict[str, Tensor]] | None = None
    data_dtype: torch.dtype | None = None

    # --- densities ------------------------------------------------------------------------------------------------

    def draw(self, x: Tensor, num_particles: int, *, mask: Tensor | None = None, y: Tensor | None = None) -> GuideDraws:
        """Draws of the guide from torch's generator as it stands, without gradients.

        Args:
            x: data, ``(datum, *x_shape)``.
            num_particles: draws for each datum.
            mask: boolean, shape of ``x``, true where observed.
            y: classes, ``(datum,)``.
        """
        shape = (num_particles, len(x))
        with torch.no_grad(), self.state.evaluating():
            return GuideDraws.of(self.run_guide(x, shape, {}, mask, y), x.new_zeros(shape))

    def score(
        self,
        x: Tensor,
        latents: dict[str, Tensor],
        *,
        num_particles: int | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
    ) -> SiteScores:
        """Densities of the model at given draws, differentiable in them.

        Args:
            x: data, ``(datum, *x_shape)``.
            latents: draws of every latent site of the guide, ``(particle, datum, *event)``.
            num_particles: how many, which the draws tell where there are any.
            mask: boolean, shape of ``x``, true where observed.
            y: classes, ``(datum,)``.

        Raises:
            ValueError: a latent site of the model is not among the draws.
        """
        particles = len(next(iter(latents.values()))) if latents else num_particles or 1
        shape, nothing = (particles, len(x)), x.new_zeros(particles, len(x))
        with self.state.evaluating():
            if not self.summed:
                sites = self.run_model(x, shape, latents, mask, y)
                return SiteScores.of(sites, latents, nothing, self.observed)
            runs = [self.run_model(x, shape, {**latents, **at}, mask, y) for at in choices(self.summed, shape)]
        known = {**latents, **self.summed}
        return sum_out([SiteScores.of(sites, known, nothing, self.observed) for sites in runs], self.summed)

    def score_guide(
        self, x: Tensor, latents: dict[str, Tensor], *, mask: Tensor | None = None, y: Tensor | None = None
    ) -> Tensor:
        """log q(z | x) at given draws, nats, ``(particle, datum)``, differentiable in them.

        Raises:
            ValueError: the guide draws auxiliary sites, whose values the latents do not tell.
        """
        shape = (len(next(iter(latents.values()))), len(x))
        with self.state.evaluating():
            sites = self.run_guide(x, shape, latents, mask, y)
        _require_known(sites, latents)
        log_guide = x.new_zeros(shape)
        for site in sites.values():
            if not site.observed:
                log_guide = log_guide + site.log_prob
        return log_guide

    def marginal_prior(
        self, x: Tensor, at: dict[str, Tensor], classes: dict[str, Tensor], *, mask: Any = None, y: Any = None
    ) -> Tensor:
        """Log density of some latent sites of the model, summed over its class, ``(particle, datum)``.

        Args:
            x: data, ``(datum, *x_shape)``.
            at: values of the sites, ``(particle, datum, *event)``.
            classes: values of further sites, ``(value, *event)``. Other sites are drawn anew and not scored.
            mask: boolean, shape of ``x``, true where observed.
            y: classes, ``(datum,)``.
        """
        shown = replace(self, model=poutine.block(self.model, expose=[*at, *classes]))
        return marginal(lambda some: shown.score(x, some, mask=mask, y=y).total_prior, at, classes)

    def marginal_guide(
        self, x: Tensor, at: dict[str, Tensor], classes: dict[str, Tensor], *, mask: Any = None, y: Any = None
    ) -> Tensor:
        """As `marginal_prior`, of the guide."""
        shown = replace(self, guide=poutine.block(self.guide, expose=[*at, *classes]))
        return marginal(lambda some: shown.score_guide(x, some, mask=mask, y=y), at, classes)

    def log_densities(
        self,
        x: Tensor,
        num_particles: int,
        *,
        latents: dict[str, Tensor] | None = None,
        mask: Tensor | None = None,
        y: Tensor | None = None,
    ) -> LogDensities:
        """Draws of the guide, or given ones, with all densities and distributions, without gradients.

        Raises:
            ValueError: see `score_guide`, where draws are given.
        """
        nothing = x.new_zeros(num_particles, len(x))
        with torch.no_grad(), self.state.evaluating():
            sites = self.run_guide(x, (num_particles, len(x)), latents or {}, mask, y)
            if latents is not None:
                _require_known(sites, latents)
            drawn = GuideDraws.of(sites, nothing)
            scores = self.score(x, drawn.latents, num_particles=num_particles, mask=mask, y=y)
            priors = scores.priors
        each = {name: (scores.log_prior[name], sites[name].log_prob) for name in priors}
        log_prior, log_guide = nothing, nothing
        for site in sites.values():
            if site.auxiliary:
                log_guide = log_guide + site.log_prob
        for log_p, log_q in each.values():
            log_prior, log_guide = log_prior + log_p, log_guide + log_q
        both = {name: (prior, drawn.distributions[name]) for name, prior in priors.items()}
        return LogDensities(scores.log_likelihood, log_prior, log_guide, drawn.latents, each, both)

    @property
    def observed_names(self) -> tuple[str, ...]:
        """Sites that log p(x | z) is summed over, as far as they are known."""
        return self.observed or self.data_sites

    # --- what cannot be done --------------------------------------------------------------------------------------

    def lacks(self, need: Need) -> str | None:
        """Why an estimate with some need is not open to the pair; ``None`` where it is, or only a draw tells.

        Args:
            need: ``draws`` of data from the model, a guide that is ``amortized``, ``latents`` of any kind, or
                ``codes``.
        """
        if need == "draws":
            return self.why_no_draws()
        if need == "amortized" and not self.amortized:
            return (
                "the guide is not amortized: it has parameters for the rows that it was fitted to, and is needed on "
                "others; give a guide that computes its parameters from x"
            )
        if need == "latents" and self.template is not None and not self.latents:
            return "the guide draws no latent"
        if need == "codes" and self.template is not None and "code" not in self.latents.values():
            names = ", ".join(self.latents)
            return f"the guide draws {f'{names}, none of them' if names else 'no latent, none'} continuous"
        return None

    def require(self, *needs: Need) -> None:
        """Refuse an estimate that is not open to the pair.

        Raises:
            ValueError: the reason, see `lacks`.
        """
        for need in needs:
            reason = self.lacks(need)
            if reason:
                raise ValueError(reason)

    def why_no_draws(self) -> str | None:
        """Why data cannot be drawn from the model; ``None`` where they can."""
        if not self.data_sites:
            return (
                "the model observes x in another form than it was given, so that draws of its sites are not draws of "
                "x; give x as it is observed, or name its sites with Pair(..., observed=...)"
            )
        if not self.of_model.size and self.reads_data:
            return (
                f"p(x | z) at site {self.data_sites[0]!r} depends on x itself, so that data cannot be drawn by leaving "
                "x unobserved; write model(x=None, *, size=None), which draws size data"
            )
        return None

    # --- calls ----------------------------------------------------------------------------------------------------

    def run_model(self, x: Tensor, shape: tuple[int, int], values: Any, mask: Any, y: Any) -> Sites:
        """The model's sites at many particles, those of ``values`` fixed; without the care for modules' modes."""
        return run(self.model_way, self._call(self.model, self.of_model, x, mask, y), values, shape, self.plate)

    def run_guide(self, x: Tensor, shape: tuple[int, int], values: Any, mask: Any, y: Any) -> Sites:
        """As `run_model`, of the guide."""
        return run(self.guide_way, self._call(self.guide, self.of_guide, x, mask, y), values, shape, self.plate)

    def drawing(self, x: Tensor, y: Tensor | None) -> Callable[[], Any]:
        """A call of the model that draws as many data as there are rows of ``x``."""
        given = self.of_model.given(None, y)
        if self.of_model.size:
            return lambda: self.model(size=len(x), **given)
        return lambda: self.model(x, **given)

    @staticmethod
    def _call(program: Program, arguments: Arguments, x: Tensor, mask: Tensor | None, y: Tensor | None) -> Call:
        given = arguments.given(mask, y)

        def call(copies: int) -> Any:
            if copies == 1:
                return program(x, **given)
            return program(repeated(x, copies), **{name: repeated(value, copies) for name, value in given.items()})

        return call


def _require_known(sites: Sites, latents: Mapping[str, Tensor]) -> None:
    missing = [name for name, site in sites.items() if not site.observed and name not in latents]
    if missing:
        raise ValueError(
            f"log q(z | x) at other draws than the guide's own is not known: its site {missing[0]!r} is drawn on the "
            "way to the latents; write a guide that draws the model's latents alone"
        )


def repeated(value: Any, copies: int) -> Any:
    """Rows so many times over, one copy after the other."""
    return value.repeat(copies, *(1,) * (value.dim() - 1))
