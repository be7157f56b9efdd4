"""The benchmark of scaling: its fits, what it computes on paper, and a trial of it from end to end."""

import json
import mmap
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import common, memory
from benchmarks.scale import axes
from benchmarks.scale.__main__ import merged
from benchmarks.scale.axes import SWEEPS, write_rows
from benchmarks.scale.extrapolation import SYSTEMS, extrapolate, extrapolated, ring_all_reduce
from benchmarks.scale.laws import laws, line, power_law
from benchmarks.scale.point import Point, flops_of_step
from benchmarks.scale.report import law_lines
from vae_pyro import VAE, VAEConfig
from vae_pyro.objectives.elbo import TraceELBO

ROOT = Path(__file__).parents[2]


# --- fits -------------------------------------------------------------------------------------------------------------


def test_an_exact_power_law_is_found_without_error() -> None:
    x = [1e3, 1e4, 1e5, 1e6]
    found = power_law(x, [3 * value**1.7 for value in x])
    assert found.slope == pytest.approx(1.7, abs=1e-12)
    assert np.exp(found.intercept) == pytest.approx(3)
    assert found.se < 1e-12
    assert (found.low, found.high, found.count) == (1e3, 1e6, 4)
    assert found.text() == "1.70 ± 0.00 (1,000 to 1,000,000)"
    assert power_law([1, 2], [5, 5]).text() == "0.00 (1 to 2)"  # two points leave no error
    assert np.isnan(power_law([1, 2], [5, 5]).interval()).all()


def test_the_interval_of_an_exponent_covers_the_true_one_and_not_another() -> None:
    # 2,000 intervals of 95 %: 5 standard errors of their number, so that a right one fails once in a million.
    generator, repeats, x = np.random.default_rng(0), 2000, np.array([16.0, 64, 256, 1024, 4096])
    covered = wrong = 0
    for _ in range(repeats):
        y = 0.2 * x**0.8 * np.exp(generator.normal(0, 0.1, len(x)))
        low, high = power_law(x.tolist(), y.tolist()).interval()
        covered += low <= 0.8 <= high
        wrong += low <= 1.0 <= high
    assert abs(covered / repeats - 0.95) < 5 * np.sqrt(0.95 * 0.05 / repeats)
    # The exponent's standard error is 0.1 / sqrt(sum of squares of centred logarithms) = 0.023: 1.0 is 9 of them away.
    assert wrong / repeats < 0.05


def test_a_line_tells_what_grows_from_what_is_always_there() -> None:
    x = [1e5, 3e5, 1e6]
    resident, flat = line(x, [5e8 + 784 * value for value in x]), line(x, [5e8 + 1, 5e8 - 1, 5e8 + 1])
    assert resident.slope == pytest.approx(784)
    assert resident.intercept == pytest.approx(5e8)
    assert abs(flat.slope) < 1e-5
    # Against numpy's own fit, with its error from the residuals.
    y = [3.0, 4.5, 9.0]
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    assert line(x, y).slope == pytest.approx(slope)
    assert line(x, y).se == pytest.approx(np.sqrt(covariance[0, 0]))


@pytest.mark.parametrize(("x", "y"), [([1, 1], [1, 2]), ([1, 2], [1]), ([], []), ([1, 2], [0, 1]), ([-1, 2], [1, 1])])
def test_points_that_have_no_slope_are_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="x and y must"):
        power_law(x, y)


# --- on paper ---------------------------------------------------------------------------------------------------------


def ring(vectors: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int, int]:
    """Sum by a ring, message by message: the vectors afterwards; numbers and messages that one process sends."""
    size = len(vectors)
    chunks = np.stack(np.split(vectors.copy(), size, axis=1), axis=1)  # (process, chunk, number)
    sent = messages = 0
    for phase in ("scatter", "gather"):
        for step in range(size - 1):
            shift = 0 if phase == "scatter" else 1
            moving = [(rank, (rank + shift - step) % size) for rank in range(size)]
            payload = [chunks[rank, chunk].copy() for rank, chunk in moving]
            for (rank, chunk), numbers in zip(moving, payload, strict=True):
                to = (rank + 1) % size
                chunks[to, chunk] = numbers + chunks[to, chunk] if phase == "scatter" else numbers
            sent, messages = sent + payload[0].size, messages + 1
    return chunks.reshape(size, -1), sent, messages


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_the_ring_costs_what_its_messages_cost(processes: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(processes, 24))
    summed, numbers, messages = ring(vectors)
    np.testing.assert_allclose(summed, np.broadcast_to(vectors.sum(0), vectors.shape))
    bandwidth, latency = 1e9, 3e-6
    by_hand = numbers * 8 / bandwidth + messages * latency
    assert ring_all_reduce(processes, 24 * 8, bandwidth, latency) == pytest.approx(by_hand)


def test_the_ring_against_numbers_by_hand() -> None:
    assert ring_all_reduce(1, 1e9, 1e9, 1.0) == 0
    assert ring_all_reduce(2, 1e6, 1e9, 1e-6) == pytest.approx(1e-3 + 2e-6)
    assert ring_all_reduce(8, 4e6, 1e9, 0.0) == pytest.approx(7e-3)
    with pytest.raises(ValueError, match="got 0"):
        ring_all_reduce(0, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="bandwidth"):
        ring_all_reduce(2, 1.0, 0.0, 0.0)


PARTS: dict[str, Any] = {
    "nbytes": 2.6e6,
    "step": 4e-3,
    "batch": 128,
    "flops": 4e8,
    "measured_latency": 50e-6,
    "batch_line": line([64, 128], [2e-3, 4e-3]),
    "device": "cpu",
}


def test_systems_on_paper_against_numbers_by_hand() -> None:
    by_name = {system.name: extrapolate(system, **PARTS) for system in SYSTEMS}
    nodes = by_name["64 nodes of one process"]
    assert nodes is not None
    summed = 2 * 63 / 64 * 2.6e6 / 3.125e9 + 126 * 50e-6
    assert nodes["all_reduce_seconds"] == pytest.approx(summed)
    assert nodes["weak_efficiency"] == pytest.approx(4e-3 / (4e-3 + summed))
    assert nodes["data_per_second"] == pytest.approx(64 * 128 / (4e-3 + summed))
    # A step of that length keeps 90 %, and at 31.25 us a datum that is the batch.
    shortest = nodes["shortest_step_for_90_percent"]
    assert shortest / (shortest + summed) == pytest.approx(0.9)
    assert nodes["batch_for_90_percent"] == pytest.approx(shortest / 31.25e-6)
    gpus = by_name["8 GPUs, NVLink"]
    assert gpus is not None
    assert not gpus["step_measured"]  # nothing is known of a GPU's step but the least that it can be
    assert gpus["step_seconds"] == pytest.approx(4e8 / 67e12)
    assert gpus["all_reduce_seconds"] == pytest.approx(2 * 7 / 8 * 2.6e6 / 450e9 + 14 * 3.4e-6)
    many = by_name["64 nodes of 8 GPUs"]
    assert many is not None
    assert many["processes"] == 512
    # 448 messages stay within nodes and 63 go between them, twice.
    assert many["all_reduce_seconds"] == pytest.approx(2 * 511 / 512 * 2.6e6 / 50e9 + 2 * (448 * 3.4e-6 + 63 * 9.6e-6))


def test_what_was_not_measured_is_not_made_up() -> None:
    unknown = {**PARTS, "measured_latency": None, "batch_line": None}
    found = {system.name: extrapolate(system, **unknown) for system in SYSTEMS}
    assert found["64 nodes of one process"] is None
    assert found["8 GPUs, PCIe"] is not None
    on_gpu = extrapolate(SYSTEMS[0], **{**PARTS, "device": "cuda"})
    assert on_gpu is not None
    assert on_gpu["step_measured"]
    assert on_gpu["step_seconds"] == 4e-3
    assert extrapolated({}, "cpu") == []


# --- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("particles", [1, 3])
def test_operations_are_those_that_torch_counts(particles: int) -> None:
    point = Point(1, "", batch=16, latent=5, particles=particles)
    vae = VAE(VAEConfig(x_shape=(784,), latent_dim=5, likelihood="bernoulli", encoder="mlp:hidden=[400]"), seed=0)
    x = torch.zeros(16, 784)
    with FlopCounterMode(display=False) as counter:
        TraceELBO(num_particles=particles).differentiable_loss(vae.model, vae.guide, x).backward()
    assert flops_of_step(point) == counter.get_total_flops()
    assert flops_of_step(Point(1, "", batch=16, latent=5, members=4)) == 4 * flops_of_step(
        Point(1, "", batch=16, latent=5)
    )


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not say")
def test_the_peak_of_memory_is_forgotten_and_found_again() -> None:
    memory.reset_peak()
    before, size = memory.peak(), 256 * 2**20
    with mmap.mmap(-1, size) as block:  # pages of its own, which no memory freed before can give
        block[:] = b"1" * size
        assert memory.peak() - before > 0.9 * size
        assert memory.private() > 0.9 * size
    assert memory.peak() - before > 0.9 * size
    memory.reset_peak()
    assert memory.peak() - before < 0.5 * size


def test_rows_are_written_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "_WRITE_ROWS", 7)
    write_rows(tmp_path / "rows.npy", 20)
    rows = np.load(tmp_path / "rows.npy")
    assert (rows.shape, rows.dtype) == ((20, 28, 28), np.uint8)
    assert (tmp_path / "rows.npy").stat().st_size == 128 + 20 * 784
    assert 120 < rows.mean() < 135
    assert len({row.tobytes() for row in rows}) == 20
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10))
    with pytest.raises(ValueError, match="--scratch"):
        write_rows(tmp_path / "more.npy", 20)
    assert not (tmp_path / "more.npy").exists()


def row(x: int, **values: Any) -> dict[str, Any]:
    return {"x": x, "stream": False, "device_bytes": None, "opening_bytes": 1.0, **values}


def test_laws_of_rows_show_which_memory_grows() -> None:
    rows = []
    for x in (1_000, 10_000, 100_000, 300_000, 1_000_000):
        resident = {"ms_per_step": 2.0, "epoch_seconds": 1e-5 * x, "peak_bytes": 6e8 + 784 * x}
        rows.append(row(x, **resident, opening_bytes=6e8 + 3000 * x))
        rows.append(row(x, ms_per_step=2.1, epoch_seconds=1.1e-5 * x, stream=True, peak_bytes=6e8 + 640 * min(x, 1e5)))
    found = laws("rows", rows)
    assert found["peak memory, in memory, bytes for each"]["slope"] == pytest.approx(784)
    assert found["peak memory while opening, in memory, bytes for each"]["slope"] == pytest.approx(3000)
    assert found["peak memory, streamed, bytes for each"]["slope"] == pytest.approx(0, abs=1e-9)
    assert found["seconds of an epoch, streamed, exponent"]["slope"] == pytest.approx(1)
    assert found["streamed / in memory"]["1000000"] == pytest.approx(1.1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    said = law_lines("rows", found)
    assert "peak memory, in memory, bytes for each: 784 ± 0 (100,000 to 1,000,000)" in said
    assert (
        "time of a streamed epoch / that in memory: "
        + ", ".join(f"1.10 at {x}" for x in ("1,000", "10,000", "100,000", "300,000", "1,000,000"))
        in said
    )


def test_efficiency_of_processes_by_hand() -> None:
    shared = {"processes": 2, "batch": 128, "label": "shared", "ms_per_step": 2.5, "summed_bytes": 8}
    each = {**shared, "batch": 256, "label": "each", "ms_per_step": 5.0}
    found = laws("processes", [row(1, **{**shared, "processes": 1, "ms_per_step": 4.0}), row(2, **shared),
                               row(2, **each)])  # fmt: skip
    assert found["shared"]["efficiency"] == pytest.approx(0.8)
    assert found["shared"]["scaling"] == "strong"
    assert found["each"]["efficiency"] == pytest.approx(0.8)
    assert found["each"]["speed_up"] == pytest.approx(1.6)


# --- from end to end --------------------------------------------------------------------------------------------------


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.scale", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)


def test_an_unknown_axis_is_refused_with_the_known_ones() -> None:
    done = run("--only", "batch", "width")
    assert done.returncode == 2
    assert "'width'" in done.stderr
    assert "particles" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_without_markers_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine\n")
    done = run("--quick", "--only", "batch", "--out", tmp_path)
    assert done.returncode == 1
    assert "scale-cpu" in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def check(axis: str, case: dict[str, Any]) -> None:
    assert {"title", "unit", "about", "rounds", "points", "laws", "machine", "revision"} <= case.keys()
    for point in case["points"]:
        assert "error" not in point, (axis, point)
        assert 1e-2 < point["ms_per_step"] < 1e4
        assert 2**27 < point["peak_bytes"] < 2**34
        # Bits of fair coins: log 2 for each of 784 is the best that there is, and where a fresh model is near.
        assert 784 * np.log(2) - 5 < point["loss"] < 784 * np.log(2) + 30
        assert len(point["measured"]) == case["rounds"]
        assert "source" not in point
    for point in (case["points"][0], case["points"][-1]):
        parts = point["parts"]
        assert parts["products"] > 0
        assert parts["reading"] > 0
        assert sum(parts.values()) == pytest.approx(point["profiled_ms"])


@pytest.mark.slow
def test_a_trial_of_one_axis_from_end_to_end(tmp_path: Path) -> None:
    done = run("--quick", "--only", "batch", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = common.read_json(tmp_path / "results" / "scale-cpu.json")
    assert found is not None
    assert (found["benchmark"], found["device"], found["on_paper"]) == ("scale", "cpu", [])
    case = found["sweeps"]["batch"]
    check("batch", case)
    assert [point["batch"] for point in case["points"]] == [16, 64]
    assert case["points"][-1]["ms_per_step"] > case["points"][0]["ms_per_step"]
    assert case["laws"]["time of a step, exponent"]["count"] == 2
    page = (tmp_path / "README.md").read_text()
    assert "**Batch**" in page
    assert "time of a step, exponent" in page
    assert "Computed, not measured" not in page  # no process was measured
    # Another axis keeps what was measured.
    later = merged(found, "latent", {**case, "title": "Latent"}, "cpu")
    assert list(later["sweeps"]) == ["batch", "latent"]
    assert later["sweeps"]["batch"] == case


@pytest.mark.slow
def test_a_trial_of_all_axes_from_end_to_end(tmp_path: Path) -> None:
    done = run("--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = common.read_json(tmp_path / "results" / "scale-cpu.json")
    assert found is not None
    assert list(found["sweeps"]) == list(SWEEPS)
    for axis, case in found["sweeps"].items():
        check(axis, case)
    processes = found["sweeps"]["processes"]
    assert [point["processes"] for point in processes["points"]][:1] == [1]
    if common.available_cores() > 1:
        shared = processes["laws"]["2, batch shared"]
        parameters = processes["points"][0]["parameters"]
        assert shared["summed_bytes"] == 4 * (parameters + 4)  # loss, signal and two metrics beside the gradient
        assert [one["system"] for one in found["on_paper"]] == [system.name for system in SYSTEMS]
    page = (tmp_path / "README.md").read_text()
    assert "**Computed, not measured**" in page
    assert str(tmp_path) not in page
