"""Information in the latent variables in the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic, Reducers
from analysis.latent.information.layer_result import LayersSummary
from analysis.latent.information.layers import LayersReducer
from analysis.latent.information.plot import plot_aggregate
from analysis.latent.information.result import LatentSummary
from analysis.latent.information.summary import LatentReducer
from analysis.results.blocks import Block, Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.result import Findings, Result
from analysis.results.text import flow
from vae_pyro.densities.walk import Block as WalkBlock

_LATENT, _LAYERS = "latent", "latent_layers"
# Draws of which a layer's KL and its error are made.
_LAYER_DRAWS = 30
_METHODS = """
    Rate and distortion are averages over all held-out data; rate = mutual information + marginal KL. Densities of the
    aggregate posterior are mixtures over the compared data, with and without the datum itself, which bracket the truth.
"""
_REFERENCES = (
    "Hoffman & Johnson 2016, ELBO surgery, NIPS workshop on advances in approximate Bayesian inference.",
    "Alemi et al. 2018, Fixing a broken ELBO. arXiv:1711.00464",
    "Chen et al. 2018, Isolating sources of disentanglement in variational autoencoders. arXiv:1802.04942",
    "Lucas et al. 2019, Don't blame the ELBO! arXiv:1911.02469",
)


@dataclass(frozen=True, eq=False, repr=False)
class InformationFindings(Findings):
    """Information in the latents, and in each layer where there are several.

    Attributes:
        latent: of all latents together.
        layers: of each layer; ``None`` where there is only one.
    """

    latent: LatentSummary
    layers: LayersSummary | None = None

    @property
    def parts(self) -> Mapping[str, Result]:
        return {"latent": self.latent} | ({} if self.layers is None else {"layers": self.layers})


class _SeveralLayers:
    """Feeds the reducer of layers where there are several; one is described by `LatentSummary` already."""

    def __init__(self, reducer: LayersReducer) -> None:
        self._reducer, self._several = reducer, False

    def add(self, block: WalkBlock) -> None:
        self._several = list(block.kinds.values()).count("code") > 1
        if self._several:
            self._reducer.add(block)

    def result(self) -> LayersSummary | None:
        return self._reducer.result() if self._several else None


@DIAGNOSTICS.add
class Information(Diagnostic[InformationFindings]):
    """Rate, distortion, used latents, and the aggregate posterior against the prior."""

    name, title, order = "latent", "Information in the latent variables", 60
    needs = ("codes", "draws")
    question = "What do the latents carry?"
    min_data = 20

    def reducers(self, context: Context) -> Reducers:
        data, num_draws = context.data, context.config.num_draws
        return {
            _LATENT: lambda: LatentReducer(data, num_draws, seed=context.stream(6)),
            _LAYERS: lambda: _SeveralLayers(LayersReducer(data, _LAYER_DRAWS, seed=context.stream(6, 1))),
        }

    def run(self, context: Context) -> InformationFindings:
        return InformationFindings(context.collected(_LATENT), context.collected(_LAYERS))

    def section(self, result: InformationFindings) -> Section:
        found = result.latent
        blocks: list[Block] = [Listing(str(found)), _decomposition(found)]
        if found.mean_kl is not None:
            blocks.append(_kl(found))
        blocks.append(_aggregate(found))
        if result.layers is not None:
            blocks += _layers(result.layers)
        return Section(
            self.title, blocks, verdicts=result.verdicts, methods=flow(_METHODS), references=_REFERENCES, name=self.name
        )


def _decomposition(found: LatentSummary) -> Table:
    rows: list[list[Any]] = [
        ["rate, KL(q(z | x) || p(z))", Estimate(found.rate, found.rate_se)],
        ["distortion, -E log p(x | z)", Estimate(found.distortion, found.distortion_se)],
    ]
    rows += [
        [label, Estimate(bracket.estimate, bracket.error)]
        for label, bracket in (
            ("mutual information I(x; z)", found.mutual_information),
            ("marginal KL(q(z) || p(z))", found.marginal_kl),
            ("total correlation of q(z)", found.total_correlation),
            ("sum over latents of KL(q(z_d) || p(z_d))", found.dimension_kl),
        )
        if bracket is not None
    ]
    return Table(
        "Decomposition of the ELBO, nats per datum",
        ["quantity", "estimate"],
        rows,
        note=flow(
            f"""
            Mutual information and marginal KL compare {found.num_compared:,} data with each other; the lower estimate
            of the former cannot exceed log {found.num_compared:,} = {found.ceiling:.2f} nats.
            """
        ),
        name="information",
        keys=["figure", "estimate"],
    )


def _kl(found: LatentSummary) -> Picture:
    kl = found.mean_kl
    assert kl is not None
    return Picture.of(
        found.plot(),
        alt=flow(
            f"""
            KL of each of {len(kl)} latents in falling order, from {kl.max():.2f} to {kl.min():.2g} nats;
            {int(found.active.sum())} are active.
            """
        ),
        caption=flow(
            """
            KL of each latent, averaged over data, and the variance of its posterior mean, with the threshold for being
            active as a dashed line.
            """
        ),
        metrics={"kl": kl, "activity": found.evaluation.activity},
        name="kl",
    )


def _aggregate(found: LatentSummary) -> Picture:
    kl = np.zeros(len(found.names)) if found.mean_kl is None else found.mean_kl
    chosen = np.argsort(-kl, kind="stable")[:12]
    names = [found.names[i] for i in chosen]
    return Picture.of(
        plot_aggregate(found.aggregate[:, chosen], found.prior[:, chosen], names),
        alt="Densities of each latent under the aggregate posterior and under the prior.",
        caption="Aggregate posterior, the guide's draws pooled over data, against the prior, latent by latent.",
        name="aggregate",
    )


def _layers(found: LayersSummary) -> list[Block]:
    rows: list[list[Any]] = [
        [
            layer.name,
            layer.size,
            Estimate(layer.rate, layer.rate_se),
            "a KL" if layer.conditional else "a part",
            int(layer.active.sum()),
            int(layer.collapsed.sum()) if layer.closed else None,
        ]
        for layer in found.layers
    ]
    names, rates = [layer.name for layer in found.layers], [layer.rate for layer in found.layers]
    described = ", ".join(f"{name} {rate:.2f}" for name, rate in zip(names, rates, strict=True))
    return [
        Listing(str(found)),
        Table(
            "Information in each layer, nats per datum",
            ["layer", "dimensions", "E[log q - log p]", "kind", "active", "collapsed"],
            rows,
            note=flow(
                """
                The layers add up to the rate. Where the guide draws a layer before the one above it, its part is not a
                KL and may be negative.
                """
            ),
            name="layers",
            keys=["layer", "dimensions", "E[log q - log p]", "which is", "active", "collapsed"],
        ),
        Picture.of(
            found.plot(),
            alt=f"Nats of each layer: {described}.",
            caption="Nats of each layer, with the error for another test set, and of each of its dimensions.",
            metrics={"layers": names, "kl": rates},
            name="layers_kl",
        ),
    ]
