"""Tables of `benchmarks.speed`, and cases merged with earlier ones."""

from typing import Any

from benchmarks import common
from benchmarks.speed.task import NETS

OURS, STOCK = "compiled", "stock"
# Mean losses of an epoch differ by noise and order: by tenths of a nat late, by three while a net leaves the plateau on
# which all images look the same (207 nats). Another model, data set or optimizer differs by more.
SAME_WORK_NATS = 5.0


def table(case: dict[str, Any]) -> str:
    """A case as a Markdown table with notes."""
    columns = [
        "contender",
        "s / epoch, median (range)",
        "ms / step",
        "ours / this",
        "paired",
        "first step, s",
        "break-even, steps",
        "peak MiB",
        "loss, nats",
    ]
    lines = [_line(name, row) for name, row in case["contenders"].items()]
    lines.append(_floor_line(case))
    foot = [
        f"{case['steps']:,} steps of {case['batch']} an epoch ({case['images']:,} images), rounds: {case['rounds']}, "
        f"epochs in a round: {case['epochs_per_round']}"
    ]
    if "loss_spread" in case:
        same = case["loss_spread"] <= SAME_WORK_NATS
        verdict = "within" if same else "NOT THE SAME WORK:"
        foot.append(f"losses {verdict} {case['loss_spread']:.2f} nats of their median")
    threads = {row["threads"] for row in case["contenders"].values() if row.get("threads")}
    if threads:
        foot.append(f"torch with {', '.join(map(str, sorted(threads)))} threads")
    if "rate" in case["floor"]:
        foot.append(
            f"floor: {case['floor']['gigaflops']:,.0f} GFLOP an epoch at {case['floor']['rate']:,.0f} GFLOP/s "
            f"({case['floor']['rate_mm']:,.0f} by `torch.mm` alone)"
        )
    title = f"**{case['net']}, batch {case['batch']}**"
    return f"{title}\n\n{common.markdown_table(columns, lines)}\n\n{'; '.join(foot)}."


def _line(name: str, row: dict[str, Any]) -> list[str]:
    if "summary" not in row:
        return [f"`{name}`", row.get("error", "not run"), *[""] * 7]
    summary = row["summary"]
    spread = common.Spread(summary["median"], summary["min"], summary["max"], len(row["per_member"]))
    steps = summary.get("break_even_steps")
    memory = f"{row['peak_memory'] / 2**20:,.0f}"
    if row["device_memory"]:
        memory += f" + {row['device_memory'] / 2**20:,.0f}"
    return [
        f"`{name}`",
        spread.text(3 if spread.median < 1 else 2),
        f"{summary['ms_per_step']:.3f}",
        f"{summary['ours_over_this']:.2f}" if "ours_over_this" in summary else "",
        f"{summary['ours_over_this_paired']:.2f}" if "ours_over_this_paired" in summary else "",
        f"{row['first_step']:.1f}" if row["first_step"] >= 0.05 else f"{row['first_step']:.3f}",
        "" if steps is None else f"{steps:,.0f}",
        memory,
        f"{row['losses'][-1]:.2f}",
    ]


def _floor_line(case: dict[str, Any]) -> list[str]:
    found = case["floor"]
    if "error" in found:
        return ["floor", found["error"], *[""] * 7]
    ours = case["contenders"].get(OURS, {}).get("summary")
    ratio = f"{ours['median'] / found['seconds']:.2f}" if ours else ""
    seconds = f"{found['seconds']:.3f}" if found["seconds"] < 1 else f"{found['seconds']:.2f}"
    return ["floor", seconds, f"{found['seconds'] / case['steps'] * 1e3:.3f}", ratio, *[""] * 5]


def report(result: dict[str, Any]) -> str:
    """All cases of a result, with their machines."""
    parts = [table(case) for case in result["cases"]]
    machines = {
        f"{common.machine_line(case['machine'])}; vae_pyro at {case['revision'] or 'no revision'}"
        for case in result["cases"]
    }
    if len(machines) == 1:
        return "\n\n".join([*parts, f"Machine: {machines.pop()}."])
    of_each = [
        f"{part}\nMachine: {common.machine_line(case['machine'])}; vae_pyro at {case['revision'] or 'no revision'}."
        for part, case in zip(parts, result["cases"], strict=True)
    ]
    return "\n\n".join(of_each)


def merged(old: dict[str, Any] | None, new: list[dict[str, Any]]) -> dict[str, Any]:
    """The new cases, and the earlier ones that were not measured again."""
    cases = {(case["net"], case["batch"]): case for case in [*(old or {"cases": []})["cases"], *new]}
    order = {net: number for number, net in enumerate(NETS)}
    return {"benchmark": "speed", "cases": sorted(cases.values(), key=lambda c: (order[c["net"]], c["batch"]))}
