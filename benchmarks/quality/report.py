"""Rows and tables of `benchmarks.quality`."""

import statistics
from collections import defaultdict
from math import sqrt
from typing import Any

from benchmarks import common
from benchmarks.quality.published import PUBLISHED, Published


def rows_of(outcomes: list[dict[str, Any]], methods: list[str]) -> list[dict[str, Any]]:
    """Outcomes averaged over seeds, one row for each method and number of particles."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome["method"], outcome["particles"]].append(outcome)
    if "iwae" in methods and ("elbo", 1) in groups and ("iwae", 1) not in groups:
        groups["iwae", 1] = groups["elbo", 1]
    rows = []
    for (method, particles), group in groups.items():
        nll = [-outcome["figures"]["log_px"] for outcome in group]
        published = PUBLISHED.get((method, particles), Published())
        rows.append(
            {
                "method": method,
                "particles": particles,
                "seeds": len(group),
                "nll": statistics.mean(nll),
                "nll_se_seeds": statistics.stdev(nll) / sqrt(len(nll)) if len(nll) > 1 else None,
                "nll_se_monte_carlo": sqrt(sum(o["figures"]["log_px_se"] ** 2 for o in group)) / len(group),
                "nll_se_sampling": statistics.mean(o["figures"]["sampling_se"]["log_px"] for o in group),
                "active_units": [outcome["figures"]["active_units"] for outcome in group],
                "train_seconds": statistics.mean(outcome["train_seconds"] for outcome in group),
                "published": {"paper": published.paper, "rerun": published.rerun, "active": published.active},
            }
        )
    return sorted(rows, key=lambda row: (methods.index(row["method"]), row["particles"]))


def report(result: dict[str, Any]) -> str:
    """A result as a Markdown table with notes."""
    rows = result["rows"]
    columns = [
        "objective",
        "k",
        "seeds",
        "test NLL, nats",
        "± Monte Carlo",
        "active units",
        "training",
        "paper",
        "best re-run",
        "active units, paper",
    ]
    lines = []
    for row in rows:
        seeds = "" if row["nll_se_seeds"] is None else f" ± {row['nll_se_seeds']:.3f}"
        published = row["published"]
        same = "" if row["method"] != "iwae" or row["particles"] > 1 else " (the runs of `elbo`)"
        same = same if any(other["method"] == "elbo" and other["particles"] == 1 for other in rows) else ""
        lines.append(
            [
                f"`{row['method']}`{same}",
                str(row["particles"]),
                str(row["seeds"]),
                f"{row['nll']:.3f}{seeds}",
                f"{row['nll_se_monte_carlo']:.3f}",
                ", ".join(map(str, row["active_units"])),
                common.duration(row["train_seconds"]),
                *("" if published[key] is None else f"{published[key]:g}" for key in ("paper", "rerun", "active")),
            ]
        )
    settings = result["settings"]
    limited = "" if settings["train_images"] == 60_000 else f" ON {settings['train_images']:,} IMAGES ONLY"
    foot = (
        f"Epochs{limited}: {settings['epochs']:,}; batch {settings['batch_size']}, {settings['optimizer']}, "
        f"{settings['schedule']}; log p(x) with {settings['num_samples']:,} draws on the first "
        f"{settings['test_images']:,} test images (one fixed binarization), ± over seeds; another test set would move "
        f"all rows together by about {max((row['nll_se_sampling'] for row in rows), default=0.0):.2f} nats"
    )
    return "\n\n".join(
        [
            common.markdown_table(columns, lines),
            f"{foot}. {order(rows)}",
            f"Machine: {common.machine_line(result['machine'])}; vae_pyro at {result['revision'] or 'no revision'}.",
        ]
    )


def order(rows: list[dict[str, Any]]) -> str:
    """The order of the rows and the published one, best first."""
    known = [
        (f"`{row['method']}` {row['particles']}", row["nll"], found.nll)
        for row in rows
        if (found := PUBLISHED.get((row["method"], row["particles"]))) is not None
        and found.nll is not None
        # One entry for the objective that has two names.
        and (row["method"], row["particles"]) != ("iwae", 1)
    ]
    if len(known) < 2:
        return ""
    ours = [name for name, _, _ in sorted(known, key=lambda entry: entry[1])]
    published = [name for name, _, _ in sorted(known, key=lambda entry: entry[2] or 0.0)]
    same = "the published order (of the paper, else of the re-run)"
    if ours == published:
        return f"Best first: {', '.join(ours)}: {same}."
    return f"Best first: {', '.join(ours)}; {same} is {', '.join(published)}."
