"""What each diagnostic contributes to the report: its result as prose, tables and pictures. It computes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis import plotting as plots
from analysis.density.elpd import ELPD
from analysis.latent.geometry import Structure
from analysis.latent.layers import LayersSummary
from analysis.latent.summary import LatentSummary
from analysis.latent.traversals import Interpolation, Traversal
from analysis.plotting.layers import plot_layers
from analysis.posterior.calibration import Calibration
from analysis.posterior.gaps import InferenceGaps
from analysis.predictive.checks import PredictiveChecks
from analysis.results.estimate import DASH, Estimate
from analysis.results.page import Block, Heading, Listing, Picture, Section, Table
from analysis.samples.generated import SampleComparison
from analysis.samples.leakage import Leakage
from analysis.stats.conformal import Detection

type Array = np.ndarray[Any, Any]

_MOST_ROWS = 20
_ABSENT = "Not made: "


def training_section(history: list[dict[str, float]], model: Mapping[str, Any], fit: Mapping[str, Any]) -> Section:
    """Model, fit and training curves."""
    rows = [[key, _words(value)] for key, value in model.items()]
    fitted = [[key, _words(value)] for key, value in fit.items()]
    blocks: list[Block] = [Table("The model", ["choice", "value"], rows, name="model")]
    if fitted:
        blocks.append(Table("The fit", ["choice", "value"], fitted, name="fit"))
    if history:
        last = history[-1]
        held_out = "validation_elbo" in last
        blocks.append(
            Picture.of(
                plots.plot_history(history),
                alt=f"Training curves over {len(history)} epochs: ELBO, reconstruction and KL; the training ELBO ends "
                "at "
                f"{last['elbo']:.2f} nats per datum"
                + (f", the validation ELBO at {last['validation_elbo']:.2f}." if held_out else "."),
                caption="Training curves, in nats per datum. Training figures are means over an epoch, while the "
                "weights "
                "move; validation figures belong to the weights at its end.",
                figures={key: [row.get(key) for row in history] for key in last},
                name="curves",
            )
        )
    else:
        blocks.append("No history was kept of the fit.")
    return Section("What was fitted", blocks, name="fit")


def density_section(result: ELPD) -> Section:
    """Held-out log p(x), the sandwich around it, and k-hat."""
    n = len(result.pointwise)
    rows: list[list[Any]] = [
        ["log p(x), importance sampling", Estimate(result.elpd / n, result.mcse / n), _sampling(result.pointwise)],
        ["ELBO, bound from below", float(result.elbo.mean()), _sampling(result.elbo)],
        ["CUBO, bound from above in the limit of many draws", float(result.upper.mean()), _sampling(result.upper)],
        [
            "bits per datum, -log p(x) / log 2",
            Estimate(-result.elpd / n / np.log(2), result.mcse / n / np.log(2)),
            None,
        ],
    ]
    k = result.pareto_k[np.isfinite(result.pareto_k)]
    return Section(
        "How probable are held-out data?",
        [
            Listing(str(result)),
            Table(
                f"Averages over {n:,} held-out data, nats per datum",
                ["figure", "estimate ± Monte Carlo", "± another test set"],
                rows,
                name="density",
                note=f"{result.num_draws:,} draws of the guide for each datum. Figures with other numbers of draws "
                "are not "
                "comparable.",
            ),
            Picture.of(
                plots.plot_khat(result.pareto_k, result.good_k),
                alt=f"Tail index k-hat of the importance weights of {n:,} data: {result.num_bad:,} are above "
                f"{result.good_k:.2f}"
                + (f"; median {np.median(k):.2f}, largest {k.max():.2f}." if len(k) else "; all weights are equal."),
                caption="Tail index of each datum's importance weights. Above the dashed line the estimate of log "
                "p(x) is "
                "too low by an unknown amount; above 1 the weights have no mean.",
                figures={"above": result.num_bad, "of": n, "median": float(np.median(k)) if len(k) else None},
                name="k-hat",
            ),
        ],
        verdicts=result.verdicts,
        methods="log p(x) is estimated for each datum by importance sampling with the guide as proposal. With point "
        "estimates of the decoder's weights there is no posterior over parameters, so PSIS-LOO of log p(x | z) would "
        "be a "
        "harmonic-mean estimate of log p(x); the criterion here is log p(x) itself, on held-out data.",
        references=[
            "Burda, Grosse & Salakhutdinov 2016, Importance weighted autoencoders. arXiv:1509.00519",
            "Vehtari et al. 2024, Pareto smoothed importance sampling, JMLR 25. arXiv:1507.02646",
            "Dieng et al. 2017, Variational inference via chi upper bound minimization. arXiv:1611.00328",
        ],
        name="density",
    )


def predictive_section(
    checks: Sequence[PredictiveChecks],
    reconstruction: tuple[Array, Array, Array] | None = None,
    *,
    num_data: int | None = None,
) -> Section:
    """Predictive checks, one block of figures for each kind of replication, and reconstructions with their uncertainty.

    Args:
        checks: one for each kind.
        reconstruction: data, and mean and standard deviation of their posterior predictive, shapes alike.
        num_data: how many data were checked.
    """
    blocks: list[Block] = [] if num_data is None else [f"Checked on {num_data:,} held-out data."]
    for group in checks:
        first = group.checks[0]
        blocks += [
            Heading({"posterior": "Redraws of the same data"}.get(first.kind, "Draws of new data")),
            first.meaning,
        ]
        rows = [
            [check.name, check.observed, Estimate(float(check.replicated.mean()), float(check.replicated.std())),
             Estimate(check.p_value, check.p_value_mcse), float(adjusted), check.effect]
            for check, adjusted in zip(group.checks, group.adjusted, strict=True)
        ]  # fmt: skip
        columns = ["statistic", "data", "replications ± sd", "p", "p, all statistics", "difference, sd over data"]
        note = f"{len(first.replicated):,} replicated data sets; p is the share of them at least as large as the data. "
        blocks.append(
            Table(f"Statistics of data and replications ({first.kind})", columns, rows, note + first.note,
                  name=f"statistics-{first.kind}")
        )  # fmt: skip
        off = [check.name for check, p in zip(group.checks, group.adjusted, strict=True) if p < 0.05]
        blocks.append(
            Picture.of(
                plots.plot_predictive(
                    [check.observed for check in group.checks],
                    [check.replicated for check in group.checks],
                    [check.name for check in group.checks],
                    [check.p_value for check in group.checks],
                ),
                alt=f"Histograms of {len(group.checks)} statistics over replicated data sets with the data's own "
                "value; " + (f"the data lie outside for {', '.join(off)}." if off else "no value is beyond chance."),
                caption="Each statistic in replicated data sets (histogram) and in the data (line).",
                name=f"replications-{first.kind}",
            )
        )
        pits = [check.pit for check in group.checks if check.pit is not None and len(check.pit) > 1]
        if first.kind != "posterior" and pits:
            band = group.checks[0].pit_band()
            curves = np.stack([band.ecdf(pit) for pit in pits], axis=1)
            named = [check.name for check in group.checks if check.pit is not None and len(check.pit) > 1]
            blocks.append(
                Picture.of(
                    plots.plot_ecdf_difference(band.grid, curves, band.lower, band.upper, named),
                    alt="ECDF of the PIT of each statistic minus uniform, with a simultaneous 95 % band.",
                    caption="Rank of each datum's statistic among its replications: ECDF minus uniform, with the band "
                    "that "
                    "a true model leaves in one case of twenty for each statistic.",
                    name=f"pit-{first.kind}",
                )
            )
    if reconstruction is not None:
        x, mean, sd = reconstruction
        blocks += [
            Heading("Reconstructions"),
            Picture.of(
                plots.plot_reconstruction(x, mean, sd),
                alt=f"{min(len(x), 8)} held-out data, the mean of their posterior predictive, and its standard "
                "deviation.",
                caption="Held-out data, mean and standard deviation of the posterior predictive of each element.",
                name="reconstructions",
            ),
        ]
    return Section(
        "Do data drawn from the model look like the data?",
        blocks,
        verdicts=tuple(verdict for group in checks for verdict in group.verdicts),
        methods="A data set is replicated as often as there are draws, and statistics of data and replications are "
        "compared. Redraws take the latents from the guide at the same data, and use the data twice: their p-values "
        "are "
        "conservative. Draws of new data take the latents from the prior.",
        references=[
            "Gelman, Meng & Stern 1996, Posterior predictive assessment of model fitness via realized discrepancies, "
            "Statistica Sinica 6.",
            "Säilynoja, Bürkner & Vehtari 2022, Graphical test for discrete uniformity. arXiv:2103.10522",
        ],
        name="predictive",
    )


def calibration_section(result: Calibration) -> Section:
    """Ranks, coverage and TARP."""
    band, coverage_band = result.band, result.coverage_band
    level, cover, error = result.coverage_at(0.9)
    latents = result.names[: result.num_latents]
    rows: list[list[Any]] = [
        [name, Estimate(float(cover[i]), float(error[i])), Estimate(float(result.bias[i]), float(result.bias_se[i])),
         Estimate(float(result.spread[i]), float(result.spread_se[i])), float(result.contraction[:, i].mean()),
         result.labels[i]]
        for i, name in enumerate(latents)
    ]  # fmt: skip
    order = np.argsort([-abs(row[1].value - level) for row in rows])[:_MOST_ROWS]
    nominal, curve = result.tarp_coverage
    return Section(
        "Can the posterior be trusted?",
        [
            Listing(str(result)),
            Table(
                "Calibration by latent, the worst first",
                [
                    "latent",
                    f"coverage of {level:.0%} intervals",
                    "bias, sd",
                    "spread of z-scores",
                    "contraction",
                    "reading",
                ],
                [rows[i] for i in order],
                name="calibration",
                note="Bias is the mean of (truth - mean) / sd, wanted 0. Spread is the size of these z-scores beside "
                "that of "
                "the guide's own draws: above 1 the guide is too narrow, below 1 too wide. Contraction is 1 minus the "
                "posterior's share of the prior variance."
                + (f" {len(rows) - len(order)} more latents are in the figures." if len(rows) > len(order) else ""),
            ),
            Picture.of(
                plots.plot_ecdf_difference(
                    band.grid, band.grid[:, None] + result.ecdf_difference, band.lower, band.upper, result.names
                ),
                alt=f"ECDF of the ranks of {len(result.names)} quantities minus uniform, with a simultaneous band: "
                f"{result.statement}.",
                caption="Ranks of the truth among draws of the guide, minus uniform. A curve inside its band is what "
                "an "
                "exact posterior gives; all stay inside in 95 % of such cases.",
                figures={"statement": result.statement},
                name="ranks",
            ),
            Picture.of(
                plots.plot_coverage(
                    result.coverage[0], result.coverage[1], coverage_band.lower, coverage_band.upper, latents
                ),
                alt=f"Coverage of central intervals against their nominal level; {level:.0%} intervals cover "
                f"{cover.mean():.1%} on average over latents.",
                caption="How often central intervals of the guide hold the latent that made the datum. Below the "
                "diagonal "
                "the guide is too narrow.",
                name="coverage",
            ),
            Picture.of(
                plots.plot_tarp(nominal, curve, band.lower, band.upper),
                alt="Expected coverage of balls around random points against the nominal level, with its band.",
                caption="TARP: coverage of balls around random points, all latents at once.",
                name="tarp",
            ),
        ],
        verdicts=result.verdicts,
        methods=f"Simulation-based calibration: {result.num_simulations:,} times a latent is drawn from the prior and "
        "a "
        f"datum from the decoder, and the latent is ranked among {result.num_draws:,} draws of the guide at that "
        "datum. It "
        "asks whether the guide is the posterior of the fitted model, on data of that model; not whether the model is "
        "right. p-values are multiplied by the number of tests.",
        references=[
            "Talts et al. 2018, Validating Bayesian inference algorithms with simulation-based calibration. "
            "arXiv:1804.06788",
            "Modrák et al. 2023, Simulation-based calibration checking for Bayesian computation. arXiv:2211.02383",
            "Hermans et al. 2022, A trust crisis in simulation-based inference? arXiv:2110.06581",
            "Lemos et al. 2023, Sampling-based accuracy testing of posterior estimators. arXiv:2302.03026",
        ],
        name="calibration",
    )


def gaps_section(result: InferenceGaps) -> Section:
    """Approximation and amortization gap."""
    names = {
        "inference": "inference gap, log p(x) - ELBO",
        "approximation": "approximation gap, the family's",
        "amortization": "amortization gap, the encoder's",
    }
    averages = {gap: result.average(gap) for gap in names}  # type: ignore[arg-type]
    rows: list[list[Any]] = [
        [label, Estimate(averages[gap][0], averages[gap][1]), averages[gap][2]] for gap, label in names.items()
    ]
    values = [averages[gap][0] for gap in names]
    # The sampling error is that of the spread of the estimates, and holds the Monte Carlo error already.
    errors = [averages[gap][2] if np.isfinite(averages[gap][2]) else averages[gap][1] for gap in names]
    return Section(
        "What does the guide lose?",
        [
            Listing(str(result)),
            Table(
                f"Gaps, nats per datum, over {len(result.ids):,} held-out data",
                ["gap", "estimate ± Monte Carlo", "± other data and draws"],
                rows,
                name="gaps",
            ),
            Picture.of(
                plots.plot_gaps(list(names.values()), values, errors),
                alt="Bars of the gaps: "
                + ", ".join(f"{label} {value:.2f}" for label, value in zip(names.values(), values, strict=True))
                + " nats per datum.",
                caption="The inference gap and its two parts. A large approximation gap asks for a richer family, a "
                "large "
                "amortization gap for a larger encoder or more training.",
                name="bars",
            ),
        ],
        verdicts=result.verdicts,
        methods="For each datum a guide of the same family is optimised on its own. Its ELBO minus the encoder's is "
        "the "
        "amortization gap; log p(x), by annealed importance sampling with Hamiltonian moves from that guide, minus "
        "its ELBO "
        "is the approximation gap. On data simulated from the model, annealing forward from the guide and backward "
        "from the "
        "latents that made them brackets log p(x), which certifies the reference.",
        references=[
            "Cremer, Li & Duvenaud 2018, Inference suboptimality in variational autoencoders. arXiv:1801.03558",
            "Wu et al. 2017, On the quantitative analysis of decoder-based generative models. arXiv:1611.04273",
            "Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo. "
            "arXiv:1511.02543",
        ],
        name="gaps",
    )


def latent_section(result: LatentSummary) -> Section:
    """What the latents carry, and the aggregate posterior against the prior."""
    rows: list[list[Any]] = [
        ["rate, KL(q(z | x) || p(z))", Estimate(result.rate, result.rate_se)],
        ["distortion, -E log p(x | z)", Estimate(result.distortion, result.distortion_se)],
    ]
    rows += [
        [label, Estimate(bracket.estimate, bracket.error)]
        for label, bracket in (
            ("mutual information I(x; z)", result.mutual_information),
            ("marginal KL(q(z) || p(z))", result.marginal_kl),
            ("total correlation of q(z)", result.total_correlation),
            ("sum over latents of KL(q(z_d) || p(z_d))", result.dimension_kl),
        )
        if bracket is not None
    ]
    blocks: list[Block] = [
        Listing(str(result)),
        Table(
            "Where the nats go, per datum",
            ["figure", "estimate"],
            rows,
            name="information",
            note=f"Mutual information and marginal KL compare {result.num_compared:,} data with each other; the lower "
            f"estimate of the former cannot exceed log {result.num_compared:,} = {result.ceiling:.2f} nats.",
        ),
    ]
    if result.mean_kl is not None:
        kl = result.mean_kl
        error = None if result.kl is None or len(result.kl) < 2 else result.kl.std(0, ddof=1) / np.sqrt(len(result.kl))
        activity = result.evaluation.activity
        blocks.append(
            Picture.of(
                plots.plot_kl(kl, error, activity=activity if len(activity) == len(kl) else None),
                alt=f"KL of each of {len(kl)} latents in falling order, from {kl.max():.2f} to {kl.min():.2g} nats; "
                f"{int(result.active.sum())} are active.",
                caption="KL of each latent, averaged over data, and the variance of its posterior mean, whose "
                "threshold for "
                "being active is dashed.",
                figures={"kl": kl, "activity": activity},
                name="kl",
            )
        )
    chosen = np.argsort(
        -(result.mean_kl if result.mean_kl is not None else np.zeros(len(result.names))), kind="stable"
    )[:12]
    blocks.append(
        Picture.of(
            plots.plot_aggregate(
                result.aggregate[:, chosen], result.prior[:, chosen], [result.names[i] for i in chosen]
            ),
            alt="Densities of each latent under the aggregate posterior and under the prior.",
            caption="Aggregate posterior, the guide's draws pooled over data, against the prior, latent by latent.",
            name="aggregate",
        )
    )
    return Section(
        "What do the latents carry?",
        blocks,
        verdicts=result.verdicts,
        methods="Rate and distortion are averages over all held-out data; rate = mutual information + marginal KL. "
        "Densities "
        "of the aggregate posterior are mixtures over the compared data, with and without the datum itself, which "
        "bracket "
        "the truth.",
        references=[
            "Hoffman & Johnson 2016, ELBO surgery, NIPS workshop on advances in approximate Bayesian inference.",
            "Alemi et al. 2018, Fixing a broken ELBO. arXiv:1711.00464",
            "Chen et al. 2018, Isolating sources of disentanglement in variational autoencoders. arXiv:1802.04942",
            "Lucas et al. 2019, Don't blame the ELBO! arXiv:1911.02469",
        ],
        name="latent",
    )


def with_layers(section: Section, result: LayersSummary) -> Section:
    """The latents' section, and what each layer of them carries."""
    rows: list[list[Any]] = [
        [
            layer.name,
            layer.size,
            Estimate(layer.rate, layer.rate_se),
            "a KL" if layer.conditional else "a part",
            int(layer.active.sum()),
            int(layer.collapsed.sum()) if layer.closed else None,
        ]
        for layer in result.layers
    ]
    names, rates = [layer.name for layer in result.layers], [layer.rate for layer in result.layers]
    parts = [None if layer.dimension_kl is None else layer.dimension_kl.mean(0) for layer in result.layers]
    errors = np.array([layer.rate_se for layer in result.layers])
    blocks: list[Block] = [
        Listing(str(result)),
        Table(
            "What each layer carries, nats per datum",
            ["layer", "dimensions", "E[log q - log p]", "which is", "active", "collapsed"],
            rows,
            name="layers",
            note="They add up to the rate. Where the guide draws a layer before the one above it, its part is no KL "
            "and may be negative.",
        ),
        Picture.of(
            plot_layers(names, np.array(rates), errors, dimension_kl=parts),
            alt=f"Nats of each layer: {', '.join(f'{layer.name} {layer.rate:.2f}' for layer in result.layers)}.",
            caption="Nats of each layer, with the error for another test set, and of each of its dimensions.",
            figures={"layers": names, "kl": rates},
            name="layers_kl",
        ),
    ]
    return replace(section, blocks=[*section.blocks, *blocks], verdicts=(*section.verdicts, *result.verdicts))


def structure_section(
    codes: Array,
    labels: Array | None,
    result: Structure | None,
    traversal: Traversal | None,
    interpolation: Interpolation | None,
    bounds: tuple[float, float],
) -> Section:
    """The latent plane by label and by cluster, projections, clusters, traversals.

    Args:
        codes: posterior means, ``(datum, latent)``.
        labels: of the data, or ``None``.
        result: of `analysis.latent.geometry.structure`; ``None`` where there were too few data.
        traversal: of the decoder, or ``None`` for programs that are not a `VAE`.
        interpolation: likewise.
        bounds: range of the data, for the grey levels of pictures.
    """
    clustering = None if result is None or not result.clusterings else result.clusterings[0]
    index = np.arange(len(codes)) if clustering is None else clustering.index
    shown = codes[index]
    by = (
        plots.plot_latent(shown, None if labels is None else labels[index])
        if clustering is None
        else plots.plot_latent(shown, None if labels is None else labels[index], clusters=clustering.labels)
    )
    blocks: list[Block] = [
        Picture.of(
            by,
            alt=f"Posterior means of {len(shown):,} data in the latent plane, coloured by "
            + ("label" if labels is not None else "nothing" if clustering is None else "cluster")
            + (
                f" and by {clustering.num_clusters} clusters." if clustering is not None and labels is not None else "."
            ),
            caption="Means of q(z | x): as they are for two latents, else on their first two principal components.",
            name="plane",
        )
    ]
    if result is not None:
        blocks += _structure_blocks(result, labels)
    if traversal is not None:
        order = np.argsort(-traversal.effect, kind="stable")[:10]
        names = [f"z[{traversal.latents[i]}]" for i in order]
        blocks += [
            Heading("What each latent does"),
            Picture.of(
                plots.plot_traversal(traversal.images[order], traversal.probabilities, names, bounds=bounds),
                alt=f"E[x | z] as each of {len(order)} latents moves through the quantiles of its prior; {names[0]} "
                "changes "
                "it most.",
                caption="E[x | z] along one latent at a time, at quantiles of its prior, the others at a datum's "
                "posterior "
                "mean; the latents that change it most stand first.",
                figures=traversal.summary(),
                name="traversal",
            ),
        ]
    if interpolation is not None:
        blocks.append(
            Picture.of(
                plots.plot_interpolation(interpolation.images, bounds=bounds),
                alt=f"E[x | z] on the way between the codes of {len(interpolation.images)} pairs of data.",
                caption="E[x | z] between the posterior means of two data.",
                name="interpolation",
            )
        )
    return Section(
        "How do data lie in the latent space?",
        blocks,
        # What pictures and clusters are worth stands beside them; a model is none the worse for having no clusters.
        verdicts=() if result is None or result.probe is None else result.probe.verdicts,
        methods="Projections, clusters and probes see posterior means. Clusters are found without the labels.",
        references=[
            "Venna & Kaski 2006, Local multidimensional scaling, Neural Networks 19. doi:10.1016/j.neunet.2006.05.014",
            "van der Maaten & Hinton 2008, Visualizing data using t-SNE, JMLR 9.",
        ],
        name="structure",
    )


def _structure_blocks(result: Structure, labels: Array | None) -> list[Block]:
    blocks: list[Block] = []
    for projection in result.projections:
        if projection.method == "pca" or projection.points.shape[1] < 2:
            continue
        blocks.append(
            Picture.of(
                plots.plot_latent(projection.points[:, :2], None if labels is None else labels[projection.index]),
                alt=f"{projection.method} picture of {len(projection.points):,} posterior means; trustworthiness "
                f"{projection.trustworthiness:.2f}, continuity {projection.continuity:.2f}.",
                caption=f"{projection.method}: axes and distances between groups mean nothing; neighbourhoods are "
                "kept as "
                f"far as trustworthiness ({projection.trustworthiness:.2f}) and continuity "
                f"({projection.continuity:.2f}) "
                "say.",
                name=projection.method,
            )
        )
    rows = [
        [part.method, part.num_clusters, part.noise, Estimate(part.silhouette, part.silhouette_se),
         part.stability_mean, _maybe(part.ari, part.ari_se), _maybe(part.nmi, part.nmi_se)]
        for part in result.clusterings
    ]  # fmt: skip
    if rows:
        columns = [
            "clustering",
            "clusters",
            "noise",
            "silhouette",
            "stability (ARI)",
            "ARI with labels",
            "NMI with labels",
        ]
        note = " ".join(f"{verdict}." for part in result.clusterings for verdict in part.verdicts)
        blocks.append(Table("Clusters among the codes", columns, rows, note, name="clusters"))
    if result.probe is not None:
        blocks.append(Listing(str(result.probe), "A linear probe of the labels"))
    return blocks


def samples_section(result: SampleComparison, data: Array, expectations: Array) -> Section:
    """Generated data beside real ones."""
    around, test = result.neighbourhoods, result.classifier
    names = ("precision", "recall", "density", "coverage")
    rows: list[list[Any]] = [
        ["accuracy of a classifier (1/2 is the best)", Estimate(test.accuracy, test.standard_error)]
    ]
    rows += [[name, Estimate(float(getattr(around, name)), float(around.errors[i]))] for i, name in enumerate(names)]
    rows += [
        ["kernel MMD squared", float(result.discrepancy.value)],
        ["p of the MMD", Estimate(float(result.discrepancy.p_value), float(result.discrepancy.p_value_mcse))],
    ]
    return Section(
        "Does the model draw what the world draws?",
        [
            Listing(str(result)),
            Table(f"Generated against held-out data ({result.features})", ["figure", "estimate"], rows, name="samples"),
            Picture.of(
                plots.plot_samples(data, expectations),
                alt=f"{len(data)} held-out data beside {len(expectations)} expectations E[x | z] of latents drawn "
                "from the "
                "prior.",
                caption="Held-out data, and E[x | z] for z drawn from the prior. Expectations are smoother than draws "
                "of x.",
                name="beside",
            ),
        ],
        verdicts=result.verdicts,
        methods="z is drawn from the prior and x from p(x | z). A classifier is trained to tell such draws from "
        "held-out "
        "data, by cross-validation; neighbourhoods are those of nearest neighbours.",
        references=[
            "Lopez-Paz & Oquab 2017, Revisiting classifier two-sample tests. arXiv:1610.06545",
            "Gretton et al. 2012, A kernel two-sample test, JMLR 13.",
            "Kynkäänniemi et al. 2019, Improved precision and recall metric. arXiv:1904.06991",
            "Naeem et al. 2020, Reliable fidelity and diversity metrics. arXiv:2002.09797",
            "Meehan, Chaudhuri & Dasgupta 2020, A non-parametric test to detect data-copying. arXiv:2004.05675",
        ],
        name="samples",
    )


def leakage_section(result: Leakage) -> Section:
    """Whether test data stand among the training data."""
    return Section(
        "Is the test set held out?",
        [Listing(str(result))],
        verdicts=result.verdicts,
        methods=f"Rows of the test set are looked for among the training rows, as stored, and nearest-neighbour "
        "distances of "
        f"test data are compared with those of training data that were set aside ({result.compared}).",
        references=[
            "Meehan, Chaudhuri & Dasgupta 2020, A non-parametric test to detect data-copying. arXiv:2004.05675"
        ],
        figures=result.summary(),
        name="leakage",
    )


def outliers_section(result: Detection, strangest: Array, scores: Array, calibration: Array) -> Section:
    """Held-out data that are unlike the validation data.

    Args:
        result: of `analysis.monitoring.outliers.detect`, validation data being the normal ones.
        strangest: the data of the largest scores, ``(datum, *x_shape)``.
        scores: of the test data, nats.
        calibration: of the validation data, nats.
    """
    threshold = float(result.threshold)
    return Section(
        "Which held-out data are strange?",
        [
            Listing(str(result)),
            Picture.of(
                plots.plot_scores(
                    calibration, scores, threshold=threshold if np.isfinite(threshold) else None,
                    names=("validation data", "test data"), xlabel="-log p(x), nats",
                ),
                alt="Histograms of -log p(x) of validation and test data with the threshold above which a datum is "
                "flagged.",
                caption="-log p(x) of validation data, which set the threshold, and of test data.",
                name="scores",
            ),
            Picture.of(
                plots.plot_data(strangest, "the least probable held-out data"),
                alt=f"The {len(strangest)} held-out data of the lowest log p(x).",
                caption="The least probable held-out data, the strangest first.",
                name="strangest",
            ),
        ],
        verdicts=result.verdicts,
        methods="A datum is flagged where its -log p(x) stands above the conformal threshold of the validation data: "
        "at most "
        "the promised share of exchangeable data is.",
        references=["Bates et al. 2023, Testing for outliers with conformal p-values. arXiv:2104.08279"],
        name="outliers",
    )  # fmt: skip


def absent(title: str, reason: str, name: str) -> Section:
    """A section that says why it is not there."""
    return Section(title, [f"{_ABSENT}{reason}."], name=name)


def is_absent(section: Section) -> bool:
    """Whether a section is one of `absent`."""
    return isinstance(section.blocks[0], str) and section.blocks[0].startswith(_ABSENT)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key} {_words(entry)}" for key, entry in value.items() if key != "name")
        return f"{value['name']} ({rest})" if "name" in value and rest else str(value.get("name", rest))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return DASH if value is None else str(value)


def _sampling(values: Array) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _maybe(value: float | None, error: float | None) -> Estimate | None:
    return None if value is None else Estimate(value, error if error is not None and np.isfinite(error) else None)
