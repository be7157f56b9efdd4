"""Processes that fit one model together: two of them, over gloo, started as a user's script starts them."""

import os
import signal
import subprocess
import sys
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.processes import WAIT_SECONDS, alive, wait_for
from vae_pyro import VAE, FitConfig, RunFolder, VAEConfig
from vae_pyro.core.files import read_tensors
from vae_pyro.core.minibatches import BitStream, Part
from vae_pyro.data.split import Split
from vae_pyro.parallel.ranks import ALONE, RankLostError, Ranks, launched
from vae_pyro.training.loop import Loop

FORMS = {"compiled": True, "traced": False, "stock": "never"}
# A regression with a latent, in float64: the noise of the latent is part of the batch, so that one process on the
# joined batch and two processes on its parts see the same noise.
SCRIPT = """
import sys
import numpy as np, pyro, torch
import pyro.distributions as dist
from pyro.infer import Trace_ELBO
from torch import nn
from vae_pyro.core.minibatches import Part
from vae_pyro.parallel.ranks import ALONE, launch
from vae_pyro.svi.compiled_svi import CompiledSVI

torch.set_default_dtype(torch.float64)
FORMS = FORMS_HERE
ranks = ALONE if sys.argv[1] == "1" else launch(2, 1, "cpu")[0]
torch.manual_seed(0)
loc, scale = nn.Linear(3, 2), nn.Linear(3, 2)
decoder = nn.Sequential(nn.Linear(2, 7), nn.Tanh(), nn.Linear(7, 3))
x, noise = torch.randn(11, 3), torch.randn(150, 11, 2)

def model(x, noise):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), 0.5).to_event(1), obs=x)

def guide(x, noise):
    pyro.module("loc", loc), pyro.module("scale", scale)
    with pyro.plate("data", len(x)):
        mean, sd = loc(x), scale(x).exp()
        z = mean + sd * noise
        log_q = dist.Normal(mean, sd).log_prob(z).sum(-1)
        pyro.sample("z", dist.Delta(z, log_density=log_q, event_dim=1))

class Mean(Trace_ELBO):
    def differentiable_loss(self, model, guide, x, *args):
        loss = super().differentiable_loss(model, guide, x, *args) / len(x)
        self.metrics = {"total": loss.detach() * len(x)}
        return loss
    def loss_and_grads(self, model, guide, x, *args):
        loss = self.differentiable_loss(model, guide, x, *args)
        loss.backward()
        return loss.detach()

parameters = [*loc.parameters(), *scale.parameters(), *decoder.parameters()]
part = Part(ranks.rank, ranks.of)
begin, end = part.bounds(len(x))

def run(optimizer, steps, **options):
    svi = CompiledSVI(model, guide, optimizer, Mean(), compile=form, ranks=ranks, **options)
    losses = []
    for number in range(steps):
        caught = 15 if ranks.rank == 1 and number == 1 else None
        ranks.announce(caught)
        batch = (x[begin:end], noise[number, begin:end])
        losses.append(float(svi.take_step(batch, share=(end - begin) / len(x))))
        totals.append(float(svi.metrics["total"]))
        signals.append(ranks.agreed_signal(caught) or 0)
    return losses

arrays = {}
start = [p.detach().clone() for p in parameters]
if ranks is ALONE:
    FORMS = {"traced": False}  # what one process does in every form is the business of other tests
for name, form in FORMS.items():
    signals, totals = [], []
    pyro.clear_param_store()
    first = run(torch.optim.SGD(parameters, lr=1.0), 1)
    gradients = torch.cat([(a - b.detach()).flatten() for a, b in zip(start, parameters)])
    losses = run(torch.optim.Adam(parameters, lr=0.01), 100, clip_norm=0.5)
    flat = torch.cat([p.detach().flatten() for p in parameters])
    found = dict(gradient=gradients, first=first, losses=losses, parameters=flat, signals=signals, totals=totals)
    found["everyone"] = torch.stack(ranks.gather(flat))
    arrays.update({name + "_" + key: np.asarray(value) for key, value in found.items()})
    with torch.no_grad():
        for p, a in zip(parameters, start): p.copy_(a)
if ranks.first:
    np.savez(sys.argv[2], **arrays)
"""


def clean() -> dict[str, str]:
    names = ("LOCAL_RANK", "WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    kept = {key: value for key, value in os.environ.items() if key not in names}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}


def run(arguments: list[Any]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(arguments, env=clean(), capture_output=True, text=True, timeout=300, check=False)


def finished(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 0, done.stderr


@cache
def steps(folder: Path, slow: bool) -> dict[int, dict[str, np.ndarray]]:
    """What one process and two processes found, each in every form of the step; compiling is slow."""
    found = {}
    script = folder / f"script_{slow}.py"
    forms = {name: form for name, form in FORMS.items() if slow == (form is True)}
    script.write_text(SCRIPT.replace("FORMS_HERE", repr(forms)))
    for processes in (1, 2):
        out = folder / f"{processes}_{slow}.npz"
        finished(run([sys.executable, script, str(processes), out]))
        with np.load(out) as arrays:
            found[processes] = dict(arrays)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@pytest.mark.parametrize("form", [pytest.param("compiled", marks=pytest.mark.slow), "traced", "stock"])
def test_two_processes_take_the_step_of_one_on_the_joined_batch(folder: Path, form: str) -> None:
    found = steps(folder, form == "compiled")
    one, two = (
        {key.removeprefix(f"{name}_"): value for key, value in found[n].items() if key.startswith(name)}
        for n, name in ((1, "traced"), (2, form))
    )
    # 11 data in parts of 5 and 6: an average of the parts' averages would be off in the second digit.
    np.testing.assert_allclose(two["gradient"], one["gradient"], rtol=1e-11, atol=1e-13)
    assert np.abs(one["gradient"]).max() > 0.1
    np.testing.assert_allclose(two["first"], one["first"], rtol=1e-13)
    np.testing.assert_array_equal(two["everyone"][0], two["everyone"][1])
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-8)
    np.testing.assert_allclose(two["totals"], one["totals"], rtol=1e-8)
    np.testing.assert_allclose(two["parameters"], one["parameters"], rtol=1e-6, atol=1e-9)
    assert two["losses"][-1] < two["losses"][0]
    # One step of the first optimizer, and the second of the other: rank 0 hears of what rank 1 has caught.
    assert list(two["signals"][:4]) == [0, 0, signal.SIGTERM, 0]


FIT = [
    "fit",
    "digits",
    "--set",
    "dequantize=true",
    "--latent-dim",
    "2",
    "--set",
    "encoder.hidden=[16]",
    "--devices",
    "2",
]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "vae_pyro", *FIT, *map(str, arguments)]


# The command line, where one process stops after the first checkpoint until a file is there. The other process waits
# for it in its next step, so that nothing depends on how fast the fit and its test are.
HELD = """
import os, time
from pathlib import Path
from vae_pyro.cli.main import main
from vae_pyro.training.loop import Loop

write, folder = Loop.checkpoint, Path(__file__).parent

def checkpoint(self):
    write(self)
    if self.ranks.rank == int(os.environ["HELD_RANK"]):
        (folder / "held").write_text(str(os.getpid()))
        while not (folder / "go").exists():
            time.sleep(0.01)

Loop.checkpoint = checkpoint
if __name__ == "__main__":
    main()
"""


def begin_held(folder: Path, rank: int, *arguments: object) -> "tuple[subprocess.Popen[str], int]":
    """A fit of two processes, and the number of the one that stands still after its checkpoint."""
    script = folder / "held.py"
    script.write_text(HELD)
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, str(script), *FIT, *map(str, arguments)],
            env=clean() | {"HELD_RANK": str(rank)},
            stdout=said,
            stderr=said,
            text=True,
        )
    wait_for(lambda: (folder / "held").exists() and (folder / "held").read_text())
    return process, int((folder / "held").read_text())


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks") / "undisturbed"
    done = run(command("--epochs", 8, "--out", out))
    finished(done)
    assert done.stdout.count("1,294 train") == 1  # one process speaks
    assert done.stderr == "", done.stderr
    return out


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["started", "first"])
def test_a_killed_process_ends_the_fit_with_a_reason_and_it_resumes(
    tmp_path: Path, undisturbed: Path, victim: str
) -> None:
    out = tmp_path / "run"
    arguments = ("--epochs", 8, "--set", "checkpoint_seconds=0", "--out", out)
    process, held = begin_held(tmp_path, 1 if victim == "started" else 0, *arguments)
    (child,) = children_of(process.pid)
    assert held == (child if victim == "started" else process.pid)
    os.kill(held, signal.SIGKILL)
    code = process.wait(WAIT_SECONDS)
    wait_for(lambda: not alive(child))  # that of a first process is nobody's child now, and has to end by itself
    text = (tmp_path / "said").read_text()
    assert "continue it with --resume" in text, text
    assert "Traceback" not in text
    assert code == (70 if victim == "started" else -signal.SIGKILL)
    assert not (out / "model.safetensors").exists()
    finished(run([*command(*arguments), "--resume"]))
    resumed, _ = read_tensors(out / "model.safetensors", "model")
    whole, _ = read_tensors(undisturbed / "model.safetensors", "model")
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.slow
def test_an_interrupted_fit_of_two_stops_after_one_step_and_goes_on_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("--epochs", 8, "--set", "checkpoint_seconds=0", "--out", out)
    process, child = begin_held(tmp_path, 1, *arguments)
    os.kill(child, signal.SIGTERM)  # one of them has the signal; both stop
    (tmp_path / "go").touch()
    code = process.wait(WAIT_SECONDS)
    errors = (tmp_path / "said").read_text()
    assert code == 128 + signal.SIGTERM, errors
    assert errors.count("stopped by SIGTERM") == 1
    tensors, info = read_tensors(out / "state" / "checkpoint.safetensors", "checkpoint")
    assert not torch.equal(tensors["random/cpu"], tensors["random/cpu/1"])  # noise of their own
    assert (info["state"]["epoch"], info["state"]["batch"]) == (1, 1)
    finished(run([*command(*arguments), "--resume", "--devices", "1"]))  # the same file: one process can go on with it
    assert len(RunFolder(out).read_history()) == 8


@pytest.mark.slow
def test_a_fit_of_two_learns_what_a_fit_of_one_learns(tmp_path: Path, undisturbed: Path) -> None:
    alone = command("--epochs", 8, "--out", tmp_path / "alone")
    at = alone.index("--devices")
    finished(run(alone[:at] + alone[at + 2 :]))
    one, two = RunFolder(tmp_path / "alone").read_history(), RunFolder(undisturbed).read_history()
    # Other noise, the same data and start: after the first epoch the ELBOs differ by less than they have risen.
    for key in ("elbo", "validation_elbo"):
        rise = one[-1][key] - one[0][key]
        assert rise > 1
        assert abs(two[-1][key] - one[-1][key]) < rise / 2
    assert two[0]["elbo"] != one[0]["elbo"]
    vae = RunFolder(undisturbed).load_model()  # the same file as that of a fit alone
    assert vae.config == RunFolder(tmp_path / "alone").load_model().config


def test_parts_are_disjoint_and_cover() -> None:
    for size in (1, 2, 7, 128):
        for of in (1, 2, 3, 8):
            parts = [Part(rank, of).take(torch.arange(size)).tolist() for rank in range(of)]
            assert list(chain(*parts)) == list(range(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    split = Split(torch.arange(23, dtype=torch.uint8)[:, None])
    whole = [raw[0].flatten().tolist() for raw in split.epoch(5, 3, BitStream(0))]
    assert sorted(chain(*whole)) == list(range(23))
    halves = [[raw[0].flatten().tolist() for raw in split.epoch(5, 3, BitStream(0), part=Part(r, 2))] for r in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == whole
    assert [raw[0].flatten().tolist() for raw in split.epoch(5, 3, BitStream(0), start=3)] == whole[3:]


def test_processes_of_a_fit_draw_random_observations_of_their_own() -> None:
    split = Split(torch.zeros(8, 3, dtype=torch.uint8), draw="dequantize")
    words = []
    for rank in (0, 1):
        vae = VAE(VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian", encoder={"name": "mlp", "hidden": [2]}))
        loop = Loop(vae, split, None, FitConfig(batch_size=8), 0, None, torch.device("cpu"), Ranks(rank, 2))
        loop.shuffle()
        values, drawn = next(loop.batches)
        assert len(values) == 4
        words.append(drawn)
    assert not torch.equal(words[0], words[1])


def test_a_process_alone_is_the_whole_group() -> None:
    assert launched().alone
    assert ALONE.first
    tensor = torch.ones(3)
    ALONE.add(tensor)
    ALONE.copy_from_first(tensor)
    assert ALONE.gather(tensor) == [tensor]
    assert torch.equal(tensor, torch.ones(3))
    weighted, plain = ALONE.sum([torch.tensor(4.0), torch.ones(2, 3)], [torch.tensor(7.0)], weight=0.5)
    assert [one.tolist() for one in weighted] == [2.0, [[0.5] * 3] * 2]
    assert [one.tolist() for one in plain] == [7.0]
    ALONE.announce(signal.SIGTERM)
    assert ALONE.agreed_signal(None) is None
    assert ALONE.agreed_signal(signal.SIGINT) == signal.SIGINT
    with pytest.raises(ValueError, match="rank 2 of 2"):
        Ranks(2, 2)
    with pytest.raises(KeyError), ALONE.first_succeeds(torch.device("cpu")):
        raise KeyError
    assert issubclass(RankLostError, RuntimeError)


@pytest.mark.slow
def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    few = run(command("--batch-size", 1, "--out", tmp_path / "few"))
    assert few.returncode == 2
    assert "2 processes cannot share a batch of 1" in few.stderr
    assert few.stderr.count("error") == 1
    assert not (tmp_path / "few").exists()


def test_processes_of_torchrun_do_not_fit_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(ValueError, match="torchrun has started 4 processes; say so with devices and num_nodes"):
        FitConfig(device="cpu").together()
    with pytest.raises(
        ValueError, match="device='cuda:1' is one device, and devices=2 are asked for|finds no CUDA here"
    ):
        FitConfig(device="cuda:1", devices=2).together()


@pytest.mark.slow
@pytest.mark.parametrize("starter", ["torchrun", "slurm"])
def test_other_launchers_give_the_same_bits(tmp_path: Path, undisturbed: Path, starter: str) -> None:
    """SLURM is played by its environment variables, one process for each task."""
    rest = [*FIT, "--epochs", "8", "--out", str(tmp_path / "run")]
    if starter == "torchrun":
        finished(run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "vae_pyro", *rest]))
    else:
        job = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "fit", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
        job |= {"SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
        tasks = [
            subprocess.Popen(
                [sys.executable, "-m", "vae_pyro", *rest],
                env=clean() | job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            )
            for rank in (0, 1)
        ]
        assert [task.wait(WAIT_SECONDS) for task in tasks] == [0, 0]
    ours, _ = read_tensors(tmp_path / "run" / "model.safetensors", "model")
    whole, _ = read_tensors(undisturbed / "model.safetensors", "model")
    assert all(torch.equal(ours[name], tensor) for name, tensor in whole.items())


@pytest.mark.cuda
def test_gpus_fit_together(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    finished(run(command("--epochs", 4, "--device", "cuda", "--out", tmp_path / "two")))
    at = (alone := command("--epochs", 4, "--device", "cuda", "--out", tmp_path / "one")).index("--devices")
    finished(run(alone[:at] + alone[at + 2 :]))
    one, two = RunFolder(tmp_path / "one").read_history(), RunFolder(tmp_path / "two").read_history()
    assert two[-1]["elbo"] > two[0]["elbo"]
    assert abs(two[-1]["elbo"] - one[-1]["elbo"]) < (one[-1]["elbo"] - one[0]["elbo"]) / 2


def test_more_processes_than_devices_and_machines_without_a_launcher_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match=rf"devices={cores + 1}, but this machine gives {cores} cores; lower devices"):
        FitConfig(device="cpu", devices=cores + 1).together()
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with pytest.raises(ValueError, match="num_nodes=3, but nothing has started this program on other machines; start"):
        FitConfig(device="cpu", num_nodes=3).together()
