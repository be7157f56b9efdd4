"""``python -m benchmarks.speed``: seconds of a training epoch of the same VAE, by several implementations.

Every contender has its own process, and rounds alternate between them: an epoch of the first, an epoch of the second,
and so on, then the next round, in an order that is shifted by one, so that other load of the machine affects all.
"""

import argparse
import statistics
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks import common
from benchmarks.process import ProcessError
from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.report import OURS, SAME_WORK_NATS, STOCK, merged, report, table
from benchmarks.speed.task import NETS, Task
from benchmarks.speed.worker import Worker

# Share of a core above which a waiting process disturbs the one that is timed.
IDLE_SHARE = 0.02


def measure(task: Task, names: list[str], rounds: int, epochs: int, deadline: float) -> dict[str, Any]:
    """Measure one case.

    Args:
        task: net, batch and device.
        names: contenders.
        rounds: rounds through all contenders.
        epochs: epochs of each contender in a round.
        deadline: on `time.monotonic`'s clock; no round starts that would probably end after it.

    Returns:
        An entry of the result file.
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
            except ProcessError as error:
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
    except ProcessError as error:
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
            except ProcessError as error:
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
            print(f"  time limit reached: {number + 1} rounds instead of {rounds}", flush=True)
            break
    for name, (used, waited) in idle.items():
        rows[name]["idle_share"] = used / waited if waited else None
        if waited and used / waited > IDLE_SHARE:
            print(f"  WARNING: {name} used {used / waited:.0%} of a core while it waited", file=sys.stderr)
    return max((len(row["epochs"]) for row in rows.values()), default=0)


def _compare(case: dict[str, Any]) -> None:
    """Add medians, ratios to ours, steps to break even, and the agreement of the losses."""
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


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[20, 128, 1024], metavar="N")
    parser.add_argument("--net", nargs="+", default=list(NETS), choices=NETS, metavar="NET", help=", ".join(NETS))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME",
                        help=", ".join(CONTENDERS))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="rounds through all contenders")
    parser.add_argument("--epochs-per-round", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), cpu or cuda")
    parser.add_argument("--data-root", help="folder in which torchvision keeps MNIST; default: VAE_PYRO_DATA")
    parser.add_argument("--seconds-limit", type=float, default=float("inf"), help="start nothing new after this time")
    parser.add_argument("--max-steps", type=int, help="a trial run: steps of an epoch; written only to another --out")
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
                print(f"time limit reached: {net} at batch {batch} was not measured", flush=True)
                continue
            task = Task(net, batch, device, given.seed, str(root), given.max_steps)
            case = measure(task, names, given.rounds, given.epochs_per_round, deadline)
            new.append({**case, "machine": described, "revision": revision})
            print(f"\n{table(new[-1])}", flush=True)
            # After each case, so that an interrupted run keeps its results.
            if given.max_steps is None or given.out != common.HERE:
                result = merged(common.read_json(file), [new[-1]])
                common.write_json(file, result)
                common.replace_block(given.out / "README.md", f"speed-{device}", report(result))
    if given.max_steps is not None and given.out == common.HERE:
        print("\nTrial run: nothing was written.")


def _device(name: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _data_root(given: str | None) -> Path:
    from vae_pyro.data.datasets import data_root

    root = data_root(given).resolve()
    if not (root / "MNIST" / "raw").is_dir():
        raise SystemExit(f"no MNIST/raw in {str(root)!r}; pass --data-root, or fetch it with: vae-pyro fit mnist")
    return root


if __name__ == "__main__":
    main()
