"""One writer in a folder at a time, in processes and in threads; results of other weights are not stored."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from vae_pyro import VAE, FitConfig, RunError, RunFolder, VAEConfig, fit
from vae_pyro.core.files import write_json
from vae_pyro.core.isolation import isolated
from vae_pyro.runs.weights import weights
from vae_pyro.training.warm_start import parent_of

X = torch.linspace(-1, 1, 24).view(8, 3)
MODEL = VAEConfig(x_shape=(3,), latent_dim=1, likelihood="gaussian", encoder="mlp:hidden=[4]", decoder="mlp:hidden=[4]")
FIT = FitConfig(epochs=2, batch_size=4, compile=False)


def run(out: Path | None, seed: int = 0, **options: Any) -> VAE:
    return fit(VAE(MODEL, seed=seed), X, config=FIT, seed=seed, out=out, **options).vae


def test_a_live_fit_keeps_every_other_writer_out(tmp_path: Path) -> None:
    out = tmp_path / "run"
    seen = []

    def meanwhile(row: dict[str, float]) -> None:
        for options in ({"overwrite": True}, {"resume": True}):
            with pytest.raises(
                RunError, match=rf"another process \({os.getpid()} .*\) writes to the run in"
            ) as refused:
                run(out, **options)
            seen.append(str(refused.value))
        with pytest.raises(RunError, match="holds a run"):
            run(out)
        with pytest.raises(RunError, match="another process"):
            RunFolder(out).update_metrics({"elbo": 1.0})

    vae = fit(VAE(MODEL, seed=0), X, config=FIT, out=out, on_epoch=meanwhile).vae
    assert len(seen) == 2 * FIT.epochs
    kept = RunFolder(out).load_model()
    assert all(torch.equal(a, b) for a, b in zip(weights(vae).values(), weights(kept).values(), strict=True))
    run(out, seed=1, overwrite=True)  # the lock ended with the fit


def test_another_process_is_kept_out(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out)
    code = (
        "import sys\nfrom pathlib import Path\nfrom vae_pyro.parallel.locks import lock\n"
        "held = lock(Path(sys.argv[1]), wait=False)\nprint('held', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out / "state" / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"another process \({other.pid} "):
            run(out, overwrite=True)
        other.kill()
    run(out, overwrite=True)  # the lock ended with the process


def test_one_of_many_simultaneous_starts_wins(tmp_path: Path) -> None:
    for race in range(5):
        out, together, after = tmp_path / str(race), threading.Barrier(4), threading.Barrier(4)

        def start(
            number: int, out: Path = out, together: threading.Barrier = together, after: threading.Barrier = after
        ) -> bool:
            folder = RunFolder(out)
            together.wait()
            try:
                with folder.claimed(overwrite=True):
                    folder.begin({"model": {}, "fit": {}, "data": {}, "seed": number}, overwrite=True)
                    after.wait(10)
            except RunError:
                after.wait(10)
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(start, range(4)))
        assert won.count(True) == 1
        assert RunFolder(out).config()["seed"] == won.index(True)


def test_fits_in_threads_give_what_they_give_alone() -> None:
    alone = [weights(run(None, seed)) for seed in range(3)]
    store, state = set(pyro.get_param_store().keys()), torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        together = [weights(vae) for vae in pool.map(lambda seed: run(None, seed), range(3))]
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), state)
    assert set(pyro.get_param_store().keys()) == store


def test_results_of_weights_that_were_replaced_are_not_stored(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out)
    folder = RunFolder(out)
    folder.load_model()
    folder.update_metrics({"elbo": 1.0})
    run(out, seed=1, overwrite=True)
    with pytest.raises(RunError, match="was replaced while its results were computed"):
        folder.update_metrics({"elbo": 2.0})
    assert not folder.metrics_file.exists()
    folder.load_model()
    folder.update_metrics({"elbo": 3.0})


def test_leftovers_of_killed_processes_never_block_and_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    (out / "state").mkdir(parents=True)
    (out / ".config.json.abc.tmp").write_text("half")
    (out / "state" / ".checkpoint.safetensors.abc.tmp").write_text("half")
    run(out)
    assert not list(out.rglob(".*.tmp"))
    (out / ".mine.tmp").write_text("of somebody else")
    (out / ".model.safetensors.abc.tmp").write_text("half")
    run(out, resume=True)
    assert [file.name for file in out.rglob(".*.tmp")] == [".mine.tmp"]


def test_refused_folders_stay_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds 'notes.txt' and no run"):
        run(tmp_path)
    with pytest.raises(RunError, match=r"no config.json"):
        run(tmp_path, resume=True)
    with pytest.raises(RunError, match=r"no config.json"):
        run(tmp_path / "absent", resume=True)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_reading_a_run_takes_no_lock_and_makes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out)
    (out / "state" / "lock").unlink()
    before = sorted(out.rglob("*"))
    folder = RunFolder(out)
    folder.load_model()
    folder.read_history()
    assert sorted(out.rglob("*")) == before


def test_runs_of_earlier_versions_are_read(tmp_path: Path) -> None:
    out = tmp_path / "run"
    vae, folder = run(out), RunFolder(out)
    info = {"model": vae.config.model_dump(mode="json")}
    from vae_pyro.core.files import write_tensors

    write_tensors(folder.model_file, weights(vae), "model", info)  # without what it is bound to
    write_json(folder.config_file, folder.config() | {"age": "earlier"})
    folder.load_model()
    assert len(folder.read_history()) == FIT.epochs


def test_a_run_that_began_between_a_look_and_the_lock_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = RunFolder._locked

    def faster(self: RunFolder) -> Any:
        monkeypatch.undo()
        run(tmp_path / "r", seed=1)
        return lock(self)

    monkeypatch.setattr(RunFolder, "_locked", faster)
    with pytest.raises(RunError, match="holds a run"), RunFolder(tmp_path / "r").claimed():
        pass
    assert RunFolder(tmp_path / "r").config()["seed"] == 1


def test_programs_in_threads_take_turns_without_a_seed_as_well() -> None:
    inside, entered = threading.Event(), threading.Event()

    def second() -> None:
        inside.wait(10)
        with isolated():
            entered.set()

    other = threading.Thread(target=second)
    other.start()
    with isolated():
        inside.set()
        assert not entered.wait(0.2)
    other.join(10)
    assert entered.is_set()


def test_the_identity_of_a_parent_is_that_of_the_checkpoint_that_is_read(tmp_path: Path) -> None:
    fit(VAE(MODEL), X, config=FIT.replace(checkpoint_seconds=0), out=tmp_path / "r")
    folder = RunFolder(tmp_path / "r")
    folder.model_file.unlink()
    last = folder.checkpoint_digest()
    folder.checkpoint_file.write_bytes(folder.checkpoint_file.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="going on from the checkpoint before it"):
        before = folder.checkpoint_digest()
    assert before not in (None, last)
    with pytest.warns(UserWarning, match="going on from the checkpoint before it"):
        assert parent_of(folder)["weights"] == before
