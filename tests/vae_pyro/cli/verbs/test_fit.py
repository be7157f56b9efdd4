"""``vae-pyro fit``: settings, refusals, resuming, interruption; every preset, and data for each likelihood."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.processes import wait_for
from tests.vae_pyro.cli.calls import FAST, call, done, refused
from vae_pyro.models.presets import PRESETS


@pytest.mark.parametrize("data", [pytest.param("breast_cancer", marks=pytest.mark.slow), "moons"])
def test_tables_go_through_every_verb(data: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done("fit", data, *FAST, "--set", "posterior=full_rank", "--out", out)
    assert "is a log density" in done("evaluate", out, "--draws", "10")
    done("plot", out)
    done("sample", out, "--out", tmp_path / "s.png")


@pytest.mark.parametrize("likelihood", ["categorical:num_classes=17", "poisson", "discretized_logistic:levels=17"])
def test_integer_likelihoods_see_integers(likelihood: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done("fit", "digits", "--likelihood", likelihood, *FAST, "--out", out)
    metrics = json.loads(call("evaluate", out, "--draws", "10", "--json").output)
    assert metrics["units"] == "nats per datum"
    assert 0 < metrics["bits_per_dim"] < 5


def test_a_run_keeps_its_columns_whatever_their_kinds_are_inferred_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of earlier versions took every whole number for a count: they are opened, evaluated and continued."""
    table, out = tmp_path / "t.csv", tmp_path / "run"
    lines = [f"{2007 + k % 3},{k * 37 % 11 / 7},{'abc'[k % 3]}" for k in range(90)]
    table.write_text("\n".join(["year,size,name", *lines]))
    with monkeypatch.context() as earlier:
        earlier.setattr(
            "vae_pyro.data.tables.inference.kind_of_numbers",
            lambda name, *rest: ("count" if name == "year" else "real", ""),
        )
        done("fit", table, "--epochs", "1", "--set", "encoder.hidden=[8]", "--out", out)
    assert "is a log density" in done("evaluate", out, "--draws", "10")
    done("fit", table, "--resume", "--out", out)
    assert [c["kind"] for c in json.loads((out / "config.json").read_text())["facts"]["schema"]["columns"]] == [
        "count", "real", "category",
    ]  # fmt: skip


_QUICK_PRESETS = ("mlp-400-20", "conv-16", "iwae-2-layer")


@pytest.mark.parametrize(
    "name", [name if name in _QUICK_PRESETS else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
)
def test_every_preset_runs_on_digits(name: str, tmp_path: Path) -> None:
    done("fit", "digits", "--preset", name, "--epochs", "1", "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["fit"]["batch_size"] == PRESETS[name].fit["batch_size"]
    assert config["model"]["latent_dim"] == PRESETS[name].model["latent_dim"]


@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_runs_on_mnist(name: str, tmp_path: Path) -> None:
    done("fit", "mnist", "--preset", name, "--epochs", "1", "--set", "batch_size=500", "--out", tmp_path / "run")


def test_settings_come_from_preset_then_file_then_flags_then_set(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        'preset = "mlp-512-2"\nseed = 4\n[model]\nlatent_dim = 5\n[fit]\nepochs = 1\nbatch_size = 300\n'
    )
    arguments = ["fit", "digits", "--config", settings, "--batch-size", "400", "--set", "optimizer.lr=0.002"]
    done(*arguments, "--set", "data.seed=3", "--out", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["encoder"]["hidden"] == [512]
    assert config["model"]["latent_dim"] == 5
    assert config["fit"]["epochs"] == 1
    assert config["fit"]["batch_size"] == 400
    assert config["fit"]["optimizer"]["name"] == "rmsprop"
    assert config["fit"]["optimizer"]["lr"] == 0.002
    assert config["data"]["binarize"] == "dynamic"
    assert config["data"]["seed"] == 3
    assert config["seed"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "digit", "--out", "{out}"], "unknown data set 'digit'; did you mean 'digits'"),
        (["fit", "digits", "--preset", "mlp", "--out", "{out}"], "unknown preset 'mlp'; choose from mlp-400-20"),
        (["fit", "digits", "--likelihood", "bernoulli", "--out", "{out}"], "pass binarize='dynamic'"),
        (["fit", "digits", "--likelihood", "gauss", "--out", "{out}"], "unknown likelihood 'gauss'"),
        (["fit", "digits", "--set", "latent=3", "--out", "{out}"], "--set: unknown key 'latent'; known are x_shape"),
        (["fit", "digits", "--set", "latent_dim", "--out", "{out}"], "--set expects key=value, got 'latent_dim'"),
        (["fit", "digits", "--set", "encoder.hiden=[3]", "--out", "{out}"], "encoder 'mlp' has no option 'hiden'"),
        (
            ["fit", "digits", "--set", "model=5", "--out", "{out}"],
            "--set model: name a key of it, such as model.x_shape",
        ),
        (["fit", "digits", "--set", "seed=null", "--out", "{out}"], "seed is an integer, got None"),
        (["fit", "digits", "--set", "epochs.x=3", "--out", "{out}"], "epochs"),
        (["fit", "digits", "--objective", "elbow", "--out", "{out}"], "did you mean 'elbo'"),
        (["fit", "digits", "--lr", "-1", "--out", "{out}"], "lr: Input should be greater than 0"),
        (["fit", "digits", "--config", "none.toml", "--out", "{out}"], "cannot read the settings in 'none.toml'"),
        (["fit", "nothing.npy", "--out", "{out}"], "no file 'nothing.npy'"),
        (["fit", "digits", "--resume", "--out", "{out}"], "no config.json in"),
    ],
)
def test_bad_calls_exit_with_2_and_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert message in refused(*[argument.format(out=out) for argument in arguments])
    assert not out.exists()


def test_bad_calls_on_a_run(digits_run: Path) -> None:
    again = ("fit", "digits", *FAST, "--out", digits_run)
    assert "pass --resume (resume=True) or --overwrite" in refused(*again)
    assert "has fit epochs = 2, this call has 5" in refused(
        "fit", "digits", "--resume", "--epochs", "5", "--out", digits_run
    )
    assert "name it with --init-from" in refused(*again[:-1], digits_run.parent / "new", "--replay", "0.5")
    assert not (digits_run.parent / "new").exists()


def test_resume_finds_the_data_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    table = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "data" / "t.csv", table, delimiter=",", header="a,b,c", comments="")
    monkeypatch.chdir(tmp_path / "data")
    done("fit", "t.csv", "--epochs", "1", "--out", "../run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "1 epochs" in done("fit", "../data/t.csv", "--resume", "--out", "../run")
    done("evaluate", "../run", "--draws", "20")


def test_resume_needs_no_flag_twice(digits_run: Path) -> None:
    assert "2 epochs" in done("fit", "digits", "--resume", "--out", digits_run)


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    path, out = tmp_path / "x.npy", tmp_path / "run"
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.save(path, x)
    done("fit", path, *FAST, "--out", out)
    done("evaluate", out, "--draws", "5")
    np.save(path, x + 1)
    assert "the data of" in refused("evaluate", out)
    assert "the data have changed since the run" in refused("fit", path, "--resume", "--out", out)


def test_options_of_the_default_likelihood_can_be_set(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done("fit", "digits", "--set", "likelihood.scale=0.2", *FAST, "--out", out)
    assert json.loads((out / "config.json").read_text())["model"]["likelihood"]["scale"] == 0.2


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_ctrl_c_and_termination_write_a_checkpoint_and_exit_cleanly(signum: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["fit", "digits", "--binarize", "dynamic", "--epochs", "100000", "--no-compile", "--set"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_pyro", *words, "checkpoint_seconds=0", "--out", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for((out / "state" / "checkpoint.safetensors").exists)
    os.kill(process.pid, signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert f"stopped by {signal.Signals(signum).name}; continue" in error
    assert "Traceback" not in error


def test_columns_far_from_zero_and_without_a_value_are_refused_by_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = "".join(f"{a:.3f},,{1.7e9 + b:.3f}\n" for a, b in random.standard_normal((60, 2)))
    (tmp_path / "t.csv").write_text("age,gone,time\n" + rows)
    call = ("fit", tmp_path / "t.csv", "--likelihood", "gaussian", "--out", tmp_path / "run")
    assert "no training datum has a value in column 'gone'" in refused(*call)
    (tmp_path / "t.csv").write_text("age,time\n" + rows.replace(",,", ","))
    assert "column 'time' lies at 1.7e+09" in refused(*call)
    assert not (tmp_path / "run").exists()
