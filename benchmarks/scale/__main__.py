"""``python -m benchmarks.scale``: time and memory of a training step against its size, one axis at a time.

Each point has its own process, and so its own peak of memory; rounds alternate between the points of an axis, as in
`benchmarks.speed`. Exponents are least squares on logarithms. Results for other machines are computed, not measured,
and shown separately.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from benchmarks import common
from benchmarks.process import ProcessError
from benchmarks.scale.axes import SWEEPS, Plan
from benchmarks.scale.extrapolation import extrapolated
from benchmarks.scale.laws import laws
from benchmarks.scale.point import PointProcess
from benchmarks.scale.report import extrapolation_table, report, table


def measure(name: str, plan: Plan, cache: Path) -> dict[str, Any]:
    """Measure one axis."""
    sweep = SWEEPS[name]
    print(f"\n{sweep.title}: {sweep.about}", flush=True)
    began = monotonic()
    points = sweep.points(plan)
    rows: list[dict[str, Any]] = [{**asdict(point), "from_file": point.source is not None} for point in points]
    processes: list[tuple[PointProcess, dict[str, Any]]] = []
    try:
        if name == "rows" and not plan.quick:
            # All points of this axis run one program: compiled beforehand, it is read from the cache by all.
            _ask(PointProcess(points[0], cache), {}, "setup", last=True)
        for point, row in zip(points, rows, strict=True):
            del row["source"]  # a local path
            processes.append((PointProcess(point, cache), row))  # all import at once
        for process, row in processes:
            row.update(_ask(process, row, "setup"))
        _alternate(processes, plan.rounds)
        alive = [pair for pair in processes if "error" not in pair[1]]
        ends = {"processes": len(alive), "rows": 3}.get(name, 1)
        for process, row in [*alive[:ends], *alive[max(ends, len(alive) - ends) :]]:
            row.update(_ask(process, row, "parts"))
    finally:
        for process, _ in processes:
            process.close()
    for row in rows:
        if "error" not in row:
            _summarise(row)
    case = {"title": sweep.title, "unit": sweep.unit, "about": sweep.about, "rounds": plan.rounds, "points": rows}
    return {**case, "laws": laws(name, rows), "seconds": monotonic() - began}


def _alternate(processes: Sequence[tuple[PointProcess, dict[str, Any]]], rounds: int) -> None:
    for number in range(rounds):
        turn = number % max(len(processes), 1)
        for process, row in [*processes[turn:], *processes[:turn]]:
            if "error" not in row:
                answer = _ask(process, row, "measure")
                if "error" not in answer:
                    row.setdefault("measured", []).append(answer)
        steps = ", ".join(f"{row['measured'][-1]['ms_per_step']:.2f}" for _, row in processes if "measured" in row)
        print(f"  round {number + 1} of {rounds}: {steps} ms a step", flush=True)


def _ask(process: PointProcess, row: dict[str, Any], command: str, *, last: bool = False) -> dict[str, Any]:
    """The answer of a point, or its error, which ends its process."""
    try:
        answer = process.ask(command)
    except ProcessError as error:
        answer = {"error": str(error)}
        row["error"] = str(error)
        print(f"  {process.name}: {error}", file=sys.stderr, flush=True)
        last = True
    if last:
        process.close()
    return answer


def _summarise(row: dict[str, Any]) -> None:
    """Medians over rounds."""
    measured = row["measured"]
    for key in ("ms_per_step", "first_ms", "epoch_seconds", "loss"):
        row[key] = median(each[key] for each in measured)
    for key in ("peak_bytes", "private_bytes", "device_bytes"):
        row[key] = None if measured[-1][key] is None else max(each[key] for each in measured)


def merged(old: dict[str, Any] | None, name: str, case: dict[str, Any], device: str) -> dict[str, Any]:
    """An earlier result with this axis replaced."""
    sweeps = {**(old or {"sweeps": {}})["sweeps"], name: case}
    ordered = {one: sweeps[one] for one in SWEEPS if one in sweeps}
    return {"benchmark": "scale", "device": device, "sweeps": ordered, "on_paper": extrapolated(ordered, device)}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(SWEEPS), choices=SWEEPS, metavar="AXIS",
                        help=", ".join(SWEEPS))  # fmt: skip
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3, help="through all points of an axis; medians are reported")
    parser.add_argument("--seconds", type=float, default=0.6, help="least duration of a measurement")
    parser.add_argument("--quick", action="store_true", help="a trial: few small points, not compiled, one round; "
                        "written only to another --out")  # fmt: skip
    parser.add_argument("--large", action="store_true", help="stream 1e7 rows as well: writes 7.8 GB")
    parser.add_argument("--scratch", type=Path, help="folder on a disk for the streamed files")
    parser.add_argument("--seconds-limit", type=float, default=float("inf"), help="start no axis after this time")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))  # removes files of gigabytes
    began = monotonic()
    name = f"scale-{given.device}"
    keeps = not given.quick or given.out != common.HERE
    readme = given.out / "README.md"
    if keeps and readme.exists() and f"<!-- {name}: begin -->" not in readme.read_text():
        raise SystemExit(
            f"error: {str(readme)!r} has no block {name!r} to write to; add its two markers, or name an --out"
        )
    described, file = common.machine(given.device), given.out / "results" / f"{name}.json"
    result: dict[str, Any] = {"sweeps": {}, "on_paper": []}
    with tempfile.TemporaryDirectory(prefix="vae_pyro-scale-", dir=given.scratch) as scratch:
        rounds, seconds = (1, 0.02) if given.quick else (given.rounds, given.seconds)
        deadline = began + given.seconds_limit
        plan = Plan(given.device, rounds, seconds, given.quick, given.large, Path(scratch), deadline)
        for axis in sorted(given.only, key=list(SWEEPS).index):
            if monotonic() > plan.deadline:
                print(f"time limit reached: {axis} was not measured", flush=True)
                continue
            try:
                case = measure(axis, plan, Path(scratch) / f"inductor-{axis}")
            except ValueError as error:
                raise SystemExit(f"error: {error}") from None
            case |= {"machine": described, "revision": common.revision()}
            print(f"\n{table(axis, case)}", flush=True)
            # After each axis, so that an interrupted run keeps its results.
            result = merged(common.read_json(file) if keeps else result, axis, case, given.device)
            if keeps:
                common.write_json(file, result)
                common.replace_block(readme, name, report(result))
    if result["on_paper"]:
        print(f"\n{extrapolation_table(result['on_paper'])}")
    print(f"\n{common.duration(monotonic() - began)}{'' if keeps else '; trial run: nothing was written'}")


if __name__ == "__main__":
    main()
