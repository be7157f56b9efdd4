"""``python -m benchmarks.speed``: seconds of a training epoch of the same VAE, by several implementations.

Every contender has its own process, and rounds alternate between them: an epoch of the first, an epoch of the second,
and so on, then the next round, in an order that moves on by one. Whatever else the machine does falls on all of them.
"""

import argparse
import statistics
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks import common
from benchmarks.contenders import CONTENDERS
from benchmarks.work import NETS, Task
from benchmarks.worker import Worker, WorkerError

OURS, STOCK = "compiled", "stock"
# Mean losses of an epoch differ by noise and order: by tenths of a nat late, by three where a net is still about to
# leave the plateau on which all images look the same (207 nats). Another model, data or optimizer differ by more.
SAME_WORK_NATS = 5.0
# A waiting process that uses more than this share of a core disturbs the one that is timed.
IDLE_SHARE = 0.02


def measure(task: Task, names: list[str], rounds: int, epochs: int, deadline: float) -> dict[str, Any]:
    """Measure one case.

    Args:
        task: net, batch and device.
        names: contenders.
        rounds: of all contenders in turn.
        epochs: of each contender in a round.
        deadline: on `time.monotonic`'s clock; no round begins that would probably end after it.

    Returns:
        What goes into the result file.
    """
    print(f"\n{task.net}, batch {task.batch}, {task.device}: {task.steps} steps an epoch", flush=True)
    case: dict[str, Any] = {
        "net": task.net,
        "batch": task.batch,
        "device": task.device,
        "seed": task.seed,
        "steps": task.steps,
        "images": task.steps * task.batch,
        "epochs_per_round": epochs,
        "floor": _floor(task),
    }
    rows: dict[str, dict[str, Any]] = {}
    workers: dict[str, Worker] = {}
    try:
        for name in names:
            contender = CONTENDERS[name]()
            rows[name] = {key: getattr(contender, key) for key in ("about", "members", "compiles")}
            rows[name] |= {"epochs": [], "losses": []}
            worker = Worker(name, task)
            try:
                rows[name] |= worker.ask("setup")
                workers[name] = worker
                print(f"  {name}: first step after {rows[name]['first_step']:.1f} s", flush=True)
            except WorkerError as error:
                _note_failure(rows[name], worker, str(error))
                worker.close()
        case["rounds"] = _alternate(workers, rows, rounds, epochs, deadline)
        for name, worker in workers.items():
            rows[name]["warnings"] = worker.warnings()
    finally:
        for worker in workers.values():
            worker.close()
    case["contenders"] = rows
    _compare(case)
    return case


def _floor(task: Task) -> dict[str, Any]:
    worker = Worker("floor", task)
    try:
        found = worker.ask("epoch")
        print(f"  floor: {found['seconds']:.2f} s at {found['rate']:.0f} GFLOP/s", flush=True)
    except WorkerError as error:
        print(f"  floor: {error}", file=sys.stderr)
        found = {"error": str(error)}
    finally:
        worker.close()
    return found


def _note_failure(row: dict[str, Any], worker: Worker, message: str) -> None:
    row["error"] = message
    print(f"  {worker.name}: {message}", flush=True)


def _alternate(
    workers: dict[str, Worker], rows: dict[str, dict[str, Any]], rounds: int, epochs: int, deadline: float
) -> int:
    idle: dict[str, list[float]] = {name: [0.0, 0.0] for name in workers}
    for number in range(rounds):
        began = monotonic()
        names = list(workers)
        for name in names[number % max(len(names), 1) :] + names[: number % max(len(names), 1)]:
            others = {other: worker.processor_seconds() for other, worker in workers.items() if other != name}
            started = monotonic()
            try:
                answers = [workers[name].ask("epoch") for _ in range(epochs)]
            except WorkerError as error:
                _note_failure(rows[name], workers[name], str(error))
                workers.pop(name).close()
                continue
            for other, before in others.items():
                after = workers[other].processor_seconds()
                if before is not None and after is not None:
                    idle[other][0] += after - before
                    idle[other][1] += monotonic() - started
            rows[name]["epochs"].append([answer["seconds"] for answer in answers])
            rows[name]["losses"] += [answer["loss"] for answer in answers]
            rows[name] |= {key: answers[-1][key] for key in ("peak_memory", "device_memory")}
        took = monotonic() - began
        times = ", ".join(f"{name} {statistics.mean(rows[name]['epochs'][-1]):.2f}" for name in workers)
        print(f"  round {number + 1} of {rounds}: {times} s", flush=True)
        if number + 1 < rounds and monotonic() + took > deadline:
            print(f"  the time is up: {number + 1} rounds instead of {rounds}", flush=True)
            break
    for name, (used, waited) in idle.items():
        rows[name]["idle_share"] = used / waited if waited else None
        if waited and used / waited > IDLE_SHARE:
            print(f"  WARNING: {name} used {used / waited:.0%} of a core while it waited", file=sys.stderr)
    return max((len(row["epochs"]) for row in rows.values()), default=0)


def _compare(case: dict[str, Any]) -> None:
    """Add what follows from the times: medians, ratios to ours, steps to break even, agreement of the losses."""
    rows = {name: row for name, row in case["contenders"].items() if row["epochs"] and "error" not in row}
    for row in rows.values():
        row["per_member"] = [statistics.mean(times) / row["members"] for times in row["epochs"]]
    for row in rows.values():
        spread = common.Spread.of(row["per_member"])
        row["summary"] = {"median": spread.median, "min": spread.low, "max": spread.high}
        row["summary"]["ms_per_step"] = spread.median / case["steps"] * 1e3
        if OURS in rows:
            ours = rows[OURS]["per_member"]
            row["summary"]["ours_over_this"] = statistics.median(ours) / spread.median
            pairs = [mine / its for mine, its in zip(ours, row["per_member"], strict=False)]
            row["summary"]["ours_over_this_paired"] = statistics.median(pairs)
        if STOCK in rows and row["compiles"]:
            saved = (statistics.median(rows[STOCK]["per_member"]) - spread.median) * row["members"] / case["steps"]
            row["summary"]["break_even_steps"] = row["first_step"] / saved if saved > 0 else None
    last = {name: row["losses"][-1] for name, row in rows.items()}
    if last:
        middle = statistics.median(last.values())
        case["loss_spread"] = max(abs(loss - middle) for loss in last.values())
        if not case["loss_spread"] <= SAME_WORK_NATS:
            print(
                f"  WARNING: losses {case['loss_spread']:.1f} nats off the median: not the same work", file=sys.stderr
            )


def table(case: dict[str, Any]) -> str:
    """A case as a Markdown table with its foot."""
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
    """All cases of a result, with the machines that they were measured on."""
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
    """The new cases, and the old ones that were not measured again."""
    cases = {(case["net"], case["batch"]): case for case in [*(old or {"cases": []})["cases"], *new]}
    order = {net: number for number, net in enumerate(NETS)}
    return {"benchmark": "speed", "cases": sorted(cases.values(), key=lambda c: (order[c["net"]], c["batch"]))}


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[20, 128, 1024], metavar="N")
    parser.add_argument("--net", nargs="+", default=list(NETS), choices=NETS, metavar="NET", help=", ".join(NETS))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME",
                        help=", ".join(CONTENDERS))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="of all contenders in turn")
    parser.add_argument("--epochs-per-round", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu or cuda")
    parser.add_argument("--data-root", help="folder in which torchvision keeps MNIST; default: VAE_PYRO_DATA")
    parser.add_argument("--seconds-limit", type=float, default=float("inf"), help="begin nothing new after so long")
    parser.add_argument("--max-steps", type=int, help="a trial: epochs of so many steps; written only to another --out")
    parser.add_argument("--out", type=Path, default=common.HERE, help="folder with README.md and results/")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write."""
    given = arguments()
    device, root = _device(given.device), _data_root(given.data_root)
    names = sorted(given.contenders, key=list(CONTENDERS).index)
    deadline = monotonic() + given.seconds_limit
    file = given.out / "results" / f"speed-{device}.json"
    described, revision = common.machine(device), common.revision()
    new: list[dict[str, Any]] = []
    for net in sorted(given.net, key=list(NETS).index):
        for batch in given.batch:
            if monotonic() > deadline:
                print(f"the time is up: {net} at batch {batch} was not measured", flush=True)
                continue
            task = Task(net, batch, device, given.seed, str(root), given.max_steps)
            case = measure(task, names, given.rounds, given.epochs_per_round, deadline)
            new.append({**case, "machine": described, "revision": revision})
            print(f"\n{table(new[-1])}", flush=True)
            if (
                given.max_steps is None or given.out != common.HERE
            ):  # after each case, so that an interrupted run keeps what it has
                result = merged(common.read_json(file), [new[-1]])
                common.write_json(file, result)
                common.replace_block(given.out / "README.md", f"speed-{device}", report(result))
    if given.max_steps is not None and given.out == common.HERE:
        print("\nA trial: nothing was written.")


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _data_root(given: str | None) -> Path:
    from vae_pyro.data.sources import data_root

    root = data_root(given).resolve()
    if not (root / "MNIST" / "raw").is_dir():
        raise SystemExit(f"no MNIST/raw in {str(root)!r}; pass --data-root, or fetch it with: vae-pyro fit mnist")
    return root


if __name__ == "__main__":
    main()
