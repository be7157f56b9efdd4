"""Tables of `benchmarks.scale` in Markdown: axes, fitted laws, extrapolation to other machines."""

from collections.abc import Sequence
from typing import Any

from benchmarks import common
from benchmarks.scale.laws import Slope
from benchmarks.scale.profiling import KINDS


def table(name: str, case: dict[str, Any]) -> str:
    """An axis: its points, their time by kind of work, its laws."""
    rows = case["points"]
    columns = [case["unit"], "ms / step, median (range)", "data / s", "peak MiB", "private MiB", "loss, nats"]
    if name == "ensemble":
        columns.insert(2, "ms / step and member")
    if name == "rows":
        columns[2:2] = ["s / epoch", "first batch after, ms", "opening, s", "its peak MiB"]
    parts = [
        f"**{case['title']}**: {case['about']}",
        common.markdown_table(columns, [_line(name, row) for row in rows]),
    ]
    cut = [row for row in rows if "steps_per_epoch" in row and _cut(row)]
    if cut:
        parts.append(f"\\* {cut[0]['limit']} steps, continued at their pace after the first batch.")
    split = [row for row in rows if "error" not in row and "parts" in row]
    if split:
        kinds = sorted({kind for row in split for kind in row["parts"]}, key=KINDS.index)
        lines = [
            [row["label"]]
            + [f"{row['parts'][kind] / row['profiled_ms']:.0%}" if kind in row["parts"] else "" for kind in kinds]
            + [f"{row['flops'] / row['parts']['products'] / 1e6:,.0f}" if row["parts"].get("products") else ""]
            for row in split
        ]
        parts.append(common.markdown_table([case["unit"], *kinds, "GFLOP/s in products"], lines))
    parts.append("\n".join(f"- {text}" for text in law_lines(name, case["laws"])))
    return "\n\n".join(part for part in parts if part)


def _cut(row: dict[str, Any]) -> bool:
    return row["limit"] is not None and row["limit"] < row["steps_per_epoch"]


def _line(name: str, row: dict[str, Any]) -> list[str]:
    extra = {"ensemble": 1, "rows": 4}.get(name, 0)
    if "error" in row or "ms_per_step" not in row:
        return [row["label"], row.get("error", "not measured"), *[""] * (4 + extra)]
    times = common.Spread.of([each["ms_per_step"] for each in row["measured"]])
    members = max(row["members"], 1)
    memory = f"{row['peak_bytes'] / 2**20:,.0f}"
    if row["device_bytes"]:
        memory += f" + {row['device_bytes'] / 2**20:,.0f}"
    cells = [
        row["label"],
        times.text(3 if times.median < 1 else 2),
        f"{row['batch'] * members / row['ms_per_step'] * 1e3:,.0f}",
        memory,
        f"{row['private_bytes'] / 2**20:,.0f}",
        f"{row['loss']:.1f}",
    ]
    if name == "ensemble":
        cells.insert(2, f"{row['ms_per_step'] / members:.3f}")
    if name == "rows":
        cut = "\\*" if _cut(row) else ""
        cells[2:2] = [
            f"{row['epoch_seconds']:.3g}{cut}",
            f"{row['first_ms']:.1f}",
            f"{row['opening_seconds']:.2f}",
            f"{row['opening_bytes'] / 2**20:,.0f}",
        ]
    return cells


def law_lines(name: str, found: dict[str, Any]) -> list[str]:
    """The laws of an axis, one line each."""
    lines = []
    for label, law in found.items():
        if label == "streamed / in memory":
            ratios = ", ".join(f"{ratio:.2f} at {int(size):,}" for size, ratio in law.items())
            lines.append(f"time of a streamed epoch / that in memory: {ratios}")
        elif name == "processes":
            lines.append(
                f"{label}: {law['scaling']} scaling, speed-up {law['speed_up']:.2f}, efficiency "
                f"{law['efficiency']:.0%}; {law['summed_bytes']:,} bytes summed at each step"
                + (f", by itself in {law['sum_alone_ms']:.2f} ms" if law["sum_alone_ms"] else "")
            )
        else:
            digits = 0 if "bytes" in label and abs(law["slope"]) >= 100 else 2
            lines.append(f"{label}: {Slope(**law).text(digits)}")
    return lines


def extrapolation_table(rows: Sequence[dict[str, Any]]) -> str:
    """Assumed systems as Markdown."""
    if not rows:
        return ""
    columns = [
        "system", "processes", "all-reduce, ms", "of it latency", "step alone, ms", "efficiency, batch for each",
        "data / s", "90 % from a step of, ms", "that is from a batch of",
    ]  # fmt: skip
    lines = []
    for row in rows:
        least, most = ("", "") if row["step_measured"] else ("at least ", "at most ")
        enough = row["batch_for_90_percent"]
        lines.append([
            row["system"],
            f"{row['processes']}",
            f"{row['all_reduce_seconds'] * 1e3:.3f}",
            f"{row['of_it_latency']:.0%}",
            f"{least}{row['step_seconds'] * 1e3:.3f}",
            f"{least}{row['weak_efficiency']:.1%}",
            f"{most}{row['data_per_second']:,.0f}",
            f"{row['shortest_step_for_90_percent'] * 1e3:.2f}",
            "" if enough is None else f"{most}{enough:,.0f}",
        ])  # fmt: skip
    sources = "\n".join(
        f"- {row['system']}: {row['assumed']['bandwidth'] / 1e9:g} GB/s in one direction, "
        f"{row['assumed']['mean_latency'] * 1e6:.1f} us for a message ({row['assumed']['sources']})"
        for row in rows
    )
    counted = "as counted" if rows[0]["sum_was_counted"] else "by the number of parameters"
    return (
        f"**Computed, not measured**: {rows[0]['summed_bytes']:,} bytes summed at a step ({counted}), batch "
        f"{rows[0]['batch_per_process']} for each process, ring all-reduce 2 (p - 1) / p bytes / bandwidth + 2 (p - 1) "
        "latency, which does not overlap the step. Where no GPU was measured, the time of its products at the rate of "
        "the data sheet is used, a lower bound of its step.\n\n"
        f"{common.markdown_table(columns, lines)}\n\nAssumed:\n\n{sources}"
    )


def report(result: dict[str, Any]) -> str:
    """All axes of a result, the extrapolation, and the machines."""
    cases = result["sweeps"]
    parts = [table(name, case) for name, case in cases.items()]
    parts.append(extrapolation_table(result["on_paper"]))
    lines = {
        f"Machine: {common.machine_line(case['machine'])}; vae_pyro at {case['revision'] or 'no revision'}; "
        f"{', '.join(other for other, its in cases.items() if its['machine'] == case['machine'])}."
        for case in cases.values()
    }
    return "\n\n".join(part for part in [*parts, *sorted(lines)] if part)
