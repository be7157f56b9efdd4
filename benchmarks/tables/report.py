"""Tables of `benchmarks.tables`."""

from math import sqrt
from typing import Any

import numpy as np

from benchmarks import common


def averaged(pairs: list[list[float]], digits: int = 3) -> str:
    """The mean over seeds, with the standard error of seeds where there are several, of rows where there is one."""
    means = np.asarray([mean for mean, _ in pairs])
    error = means.std(ddof=1) / sqrt(len(means)) if len(means) > 1 else pairs[0][1]
    return f"{means.mean():.{digits}f} ± {error:.{digits}f}"


def report(result: dict[str, Any]) -> str:
    """Tables in Markdown."""
    settings, made, missing, lines, shares = result["settings"], result["densities"], result["imputations"], [], []
    for rows in sorted({run["rows"] for run in made}):
        runs = [run for run in made if run["rows"] == rows]
        below = {name: averaged([run["below truth"][name] for run in runs]) for name in runs[0]["below truth"]}
        seconds = common.Spread.of([run["seconds"] for run in runs]).text(0)
        truth = averaged([run["truth"] for run in runs])
        lines.append([f"{rows:,}", truth, below["marginals"], below["vae"], below["elbo"], seconds])
    for rows in sorted({run["rows"] for run in missing}):
        runs = [run for run in missing if run["rows"] == rows]
        for name in runs[0]["told"]:
            found = [run["told"][name] for run in runs]
            hit, log = (averaged([one[key] for one in found]) for key in ("share right", "log score"))
            shares.append([f"{rows:,}", name, hit, log])
    measured = result["measured"]
    gains = [
        [name, averaged([run["gain"] for run in measured if run["table"] == name], 2), runs[0]["space"]]
        for name in dict.fromkeys(run["table"] for run in measured)
        if (runs := [run for run in measured if run["table"] == name])
    ]
    seeds = len({run["seed"] for run in made})
    return "\n\n".join(
        [
            "Held-out log p(x) of a simulated table, nats per row; truth by integration, deficit of the others:",
            common.markdown_table(
                ["training rows", "truth", "independent columns lose", "VAE loses", "its ELBO loses", "fit, s"], lines
            ),
            f"Hidden cells of category, binary and ordinal columns ({settings['missing']:.0%} of all cells, in "
            "training as well):",
            common.markdown_table(["training rows", "by", "share right", "log score, nats per cell"], shares, left=2),
            "Tables of measurements, held-out log p(x):",
            common.markdown_table(["table", "VAE over independent columns, nats per row", "observed"], gains),
            f"{settings['test']:,} test rows, {settings['draws']:,} draws, ± over {seeds} seeds of data and fit.",
            f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}.",
        ]
    )
