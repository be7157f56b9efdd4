"""Latent-space structure in the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.diagnostics.context import Context
from analysis.diagnostics.diagnostic import DIAGNOSTICS, Diagnostic, Reducers
from analysis.draws.codes import MeansReducer
from analysis.latent.structure.clustering import Clustering
from analysis.latent.structure.geometry import Structure, structure
from analysis.latent.structure.projection import Projection
from analysis.latent.structure.traversals import Interpolation, Traversal, interpolate, traverse
from analysis.plotting import plot_latent
from analysis.results.blocks import Block, Heading, Listing, Picture, Section, Table
from analysis.results.estimate import Estimate
from analysis.results.result import Findings, Result
from analysis.results.text import flow
from analysis.results.verdict import Verdict

type Array = np.ndarray[Any, Any]

# Below so many data there is only the plane; above so many, a random part is projected and clustered.
_FEWEST, _MOST = 30, 2000
_CODES = "codes"
_SHOWN = 16
_PAIRS = 4
_REFERENCES = (
    "Venna & Kaski 2006, Local multidimensional scaling, Neural Networks 19. doi:10.1016/j.neunet.2006.05.014",
    "van der Maaten & Hinton 2008, Visualizing data using t-SNE, JMLR 9.",
)


@dataclass(frozen=True, eq=False, repr=False)
class StructureFindings(Findings):
    """The structure of the codes, and the decoder over the latent space.

    Attributes:
        codes: posterior means, ``(datum, latent)``.
        labels: of the data, ``(datum,)``, or ``None``.
        structure: ``None`` where there are too few data, or all codes are equal.
        traversal: of the decoder; ``None`` for programs that are not a `VAE`.
        interpolation: likewise.
        bounds: range of the data, for the grey levels of pictures.
    """

    codes: Array
    labels: Array | None
    structure: Structure | None
    traversal: Traversal | None
    interpolation: Interpolation | None
    bounds: tuple[float, float]

    @property
    def parts(self) -> Mapping[str, Result]:
        found = {"structure": self.structure, "traversal": self.traversal, "interpolation": self.interpolation}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        # The reliability of pictures and clusters is reported beside them; a model need not have clusters.
        return () if self.structure is None or self.structure.probe is None else self.structure.probe.verdicts

    @property
    def clustering(self) -> Clustering | None:
        """The first clustering, where there is one."""
        return self.structure.clusterings[0] if self.structure is not None and self.structure.clusterings else None


@DIAGNOSTICS.add
class LatentStructure(Diagnostic[StructureFindings]):
    """The latent plane by label and by cluster, projections, clusters, a linear probe, traversals."""

    name, title, order = "structure", "Latent-space structure", 70
    needs = ("codes",)
    question = "How do data lie in the latent space?"

    def reducers(self, context: Context) -> Reducers:
        return {_CODES: lambda: MeansReducer(context.data, seed=context.stream(7))}

    def run(self, context: Context) -> StructureFindings:
        codes, labels = context.collected(_CODES), context.labels
        x = context.test.batch(slice(0, _SHOWN))[0]
        found = None
        if len(codes) >= _FEWEST and np.ptp(codes, axis=0).max() > 0:
            raw = None if context.test.mask is not None else context.test.stored(slice(None)).flatten(1).cpu().numpy()
            # Gaussian mixtures with their many starts take minutes; `analysis.latent.structure.clusters` has them.
            found = structure(
                codes, labels=labels, raw=raw, clusterings=("kmeans", "hdbscan"), max_data=_MOST, seed=context.stream(8)
            )
        moved, between = None, None
        vae = context.pair.decodable
        if vae is not None and not vae.num_classes:
            moved = traverse(vae, x[:1], seed=context.stream(9))
            half = len(x) // 2
            if half:
                first, second = x[: min(half, _PAIRS)], x[half : half + min(half, _PAIRS)]
                between = interpolate(vae, first, second, seed=context.stream(10))
        bounds = float(x[x.isfinite()].min()), float(x[x.isfinite()].max())
        return StructureFindings(codes, labels, found, moved, between, bounds)

    def section(self, result: StructureFindings) -> Section:
        blocks: list[Block] = [_plane(result)]
        if result.structure is not None:
            blocks += [
                _projection(projection, result.labels)
                for projection in result.structure.projections
                if projection.method != "pca" and projection.points.shape[1] >= 2
            ]
            if result.structure.clusterings:
                blocks.append(_clusters(result.structure))
            if result.structure.probe is not None:
                blocks.append(Listing(str(result.structure.probe), "A linear probe of the labels"))
        if result.traversal is not None:
            blocks += [Heading("Traversals"), _traversal(result.traversal, result.bounds)]
        if result.interpolation is not None:
            blocks.append(
                Picture.of(
                    result.interpolation.plot(bounds=result.bounds),
                    alt=f"E[x | z] on the way between the codes of {len(result.interpolation.images)} pairs of data.",
                    caption="E[x | z] between the posterior means of two data.",
                    name="interpolation",
                )
            )
        return Section(
            self.title,
            blocks,
            verdicts=result.verdicts,
            methods="Projections, clusters and probes use posterior means. Clusters are found without the labels.",
            references=_REFERENCES,
            name=self.name,
        )


def _plane(result: StructureFindings) -> Picture:
    clustering, labels = result.clustering, result.labels
    index = np.arange(len(result.codes)) if clustering is None else clustering.index
    colours = "label" if labels is not None else "nothing" if clustering is None else "cluster"
    also = ""
    if clustering is not None and labels is not None:
        also = f" and by {clustering.num_clusters} clusters"
    return Picture.of(
        plot_latent(
            result.codes[index],
            None if labels is None else labels[index],
            clusters=None if clustering is None else clustering.labels,
        ),
        alt=f"Posterior means of {len(index):,} data in the latent plane, coloured by {colours}{also}.",
        caption="Means of q(z | x): as they are for two latents, else on their first two principal components.",
        name="plane",
    )


def _projection(projection: Projection, labels: Array | None) -> Picture:
    return Picture.of(
        plot_latent(projection.points[:, :2], None if labels is None else labels[projection.index]),
        alt=flow(
            f"""
            {projection.method} projection of {len(projection.points):,} posterior means; trustworthiness
            {projection.trustworthiness:.2f}, continuity {projection.continuity:.2f}.
            """
        ),
        caption=flow(
            f"""
            {projection.method}: axes and distances between groups have no meaning; neighbourhoods are preserved as far
            as trustworthiness ({projection.trustworthiness:.2f}) and continuity ({projection.continuity:.2f}) indicate.
            """
        ),
        name=projection.method,
    )


def _clusters(found: Structure) -> Table:
    rows = [
        [part.method, part.num_clusters, part.noise, Estimate(part.silhouette, part.silhouette_se),
         part.stability_mean, _estimate(part.ari, part.ari_se), _estimate(part.nmi, part.nmi_se)]
        for part in found.clusterings
    ]  # fmt: skip
    columns = ["clustering", "clusters", "noise", "silhouette", "stability (ARI)", "ARI with labels", "NMI with labels"]
    note = " ".join(f"{verdict}." for part in found.clusterings for verdict in part.verdicts)
    return Table("Clusters among the codes", columns, rows, note, name="clusters")


def _traversal(traversal: Traversal, bounds: tuple[float, float]) -> Picture:
    order = np.argsort(-traversal.effect, kind="stable")[:10]
    return Picture.of(
        traversal.plot(max_latents=10, bounds=bounds),
        alt=flow(
            f"""
            E[x | z] as each of {len(order)} latents moves through the quantiles of its prior;
            z[{traversal.latents[order[0]]}] changes it most.
            """
        ),
        caption=flow(
            """
            E[x | z] along one latent at a time, at quantiles of its prior, the others at a datum's posterior mean; the
            latents that change it most come first.
            """
        ),
        metrics=traversal.summary(),
        name="traversal",
    )


def _estimate(value: float | None, error: float | None) -> Estimate | None:
    return None if value is None else Estimate(value, error if error is not None and np.isfinite(error) else None)
