"""Sections of the page of a comparison about single runs: agreement of latent spaces, training curves, every run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.experiments.comparison.plot import plot_agreement, plot_curves
from analysis.experiments.comparison.sections import COLUMNS, columns_note, optional
from analysis.results.page import Block, Cell, Picture, Section, Table

if TYPE_CHECKING:
    from analysis.experiments.comparison.estimates import VariantEstimates

type Array = np.ndarray[Any, Any]
type Histories = Mapping[tuple[str, int], Sequence[Mapping[str, float]]]


def agreement_section(estimates: "VariantEstimates") -> Section | None:
    """Agreement of the latent spaces of the seeds of each variant; ``None`` where it was not estimated."""
    known = [
        (label, agreed)
        for label, agreed in zip(estimates.labels, estimates.agreements, strict=True)
        if agreed is not None
    ]
    if not known:
        return None
    upper = np.triu_indices(estimates.num_seeds, 1)
    rows: list[list[Cell]] = [
        [
            label,
            optional(agreed.cka_mean, agreed.cka_se),
            optional(agreed.udr_mean, agreed.udr_se),
            ", ".join(str(count) for count in agreed.num_active),
        ]
        for label, agreed in known
    ]
    scores = "; ".join(f"{label} CKA {agreed.cka_mean:.2f}, UDR {agreed.udr_mean:.2f}" for label, agreed in known)
    return Section(
        "Agreement of latent spaces across seeds",
        [
            Picture.of(
                plot_agreement(
                    [label for label, _ in known],
                    [agreed.cka[upper] for _, agreed in known],
                    [agreed.udr[upper] for _, agreed in known],
                ),
                alt=f"Agreement of pairs of seeds: {scores}.",
                caption="One mark for each pair of seeds. CKA is 1 where two seeds have the same space up to rotation "
                "and scale; UDR is near 1 where they have the same axes as well. A high CKA with a low UDR means that "
                "seeds rotate the same space.",
                metrics={label: {"cka": agreed.cka, "udr": agreed.udr} for label, agreed in known},
                name="agreement-of-pairs",
            ),
            Table(
                "Agreement of latent spaces, mean over pairs of seeds ± standard error",
                ["variant", "linear CKA", "UDR", "informative latents, by seed"],
                rows,
                name="agreement",
                note="Disagreement is not a fault: log p(x) does not depend on the axes. The error is the jackknife's "
                "over seeds, and requires 3 of them.",
            ),
        ],
        methods="Posterior means of the test data are compared between seeds of one variant, on latents with a mean KL "
        "above 0.01 nats, or a variance of the posterior mean above 0.01 where the KL has no closed form.",
        references=[
            "Kornblith et al. 2019, Similarity of neural network representations revisited. arXiv:1905.00414",
            "Duan et al. 2020, Unsupervised model selection for variational disentangled representation learning. "
            "arXiv:1905.12614",
        ],
        name="agreement",
    )


def runs_section(estimates: "VariantEstimates", histories: Histories) -> Section:
    """Training curves, and the estimates of every run."""
    names = [name for name in COLUMNS if name in estimates.runs]
    rows: list[list[Cell]] = [
        [
            f"{label}, seed {seed}",
            estimates.held_out[i][j].epochs,
            *(optional(float(estimates.runs[name][i, j])) for name in names),
        ]
        for i, label in enumerate(estimates.labels)
        for j, seed in enumerate(estimates.seeds[i])
    ]
    blocks: list[Block] = []
    for key, ylabel in (("validation_elbo", "validation ELBO"), ("elbo", "training ELBO")):
        curves = _curves(estimates, histories, key)
        if curves:
            ends = "; ".join(f"{label} {np.mean([v[-1] for _, v in each]):.2f}" for label, each in curves.items())
            blocks.append(
                Picture.of(
                    plot_curves(curves, ylabel=f"{ylabel}, nats per datum"),
                    alt=f"The {ylabel} over epochs for {len(curves)} variants; means at the end, in nats: {ends}.",
                    caption=f"The {ylabel} over epochs: thin lines are seeds, thick lines their mean over the epochs "
                    "that all seeds have. The plain ELBO is shown for every variant, whichever objective it maximised.",
                    name="curves",
                )
            )
            break
    blocks.append(
        Table(
            "Every run, nats per datum",
            ["run", "epochs", *(COLUMNS[n] for n in names)],
            rows,
            name="runs",
            note=columns_note(estimates),
        )
    )
    return Section("Training curves and runs", blocks, name="runs")


def _curves(estimates: "VariantEstimates", histories: Histories, key: str) -> dict[str, list[tuple[Array, Array]]]:
    curves: dict[str, list[tuple[Array, Array]]] = {}
    for label, seeds in zip(estimates.labels, estimates.seeds, strict=True):
        for seed in seeds:
            rows = [row for row in histories.get((label, int(seed)), ()) if key in row]
            if rows:
                epochs = np.array([row["epoch"] for row in rows], dtype=np.float64)
                curves.setdefault(label, []).append((epochs, np.array([row[key] for row in rows])))
    return curves
