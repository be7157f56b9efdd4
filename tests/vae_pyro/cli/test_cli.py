"""The commands as a user types them: output, exit codes, files, and refusals in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from vae_pyro.cli.main import app
from vae_pyro.data.sources import DATASETS
from vae_pyro.models.presets import PRESETS

FAST = ["--epochs", "2", "--set", "encoder.hidden=[16]", "--set", "batch_size=200"]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    result = call("fit", "digits", "--binarize", "dynamic", "--latent-dim", "2", *FAST, "--out", out)
    assert result.exit_code == 0, result.output
    assert "1,294 train, 144 validation, 359 test" in result.output
    assert "validation ELBO" in result.output
    return out


def test_evaluate_prints_a_table_and_json(run: Path) -> None:
    shown = call("evaluate", run, "--samples", "20")
    assert shown.exit_code == 0
    for word in ("ELBO", "log p(x)", "bits per dimension", "active units", "of 2 latents", "Bernoulli(intensity)"):
        assert word in shown.output
    figures = json.loads(call("evaluate", run, "--samples", "20", "--json").output)
    for key in ("elbo", "log_px", "kl", "reconstruction", "bits_per_dim", "active_units"):
        assert isinstance(figures[key], float | int)
        assert figures[f"{key}_se"] >= 0
    assert figures["num_draws"] == 20
    assert figures["n"] == 359
    assert figures["elbo"] <= figures["log_px"] <= 0
    stored = json.loads((run / "metrics.json").read_text())
    assert stored["log_px"] == figures["log_px"]
    again = json.loads(call("evaluate", run, "--samples", "20", "--json").output)
    assert again == figures
    other = json.loads(
        call("evaluate", run, "--split", "validation", "--samples", "20", "--limit", "7", "--json").output
    )
    assert other["n"] == 7


def test_a_collapsed_posterior_is_said(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("fit", "digits", "--binarize", "dynamic", *FAST, "--lr", "1e-6", "--out", out).exit_code == 0
    from vae_pyro import RunFolder

    folder = RunFolder(out)
    vae = folder.load_model()
    for parameter in vae.guide.posterior.parameters():
        parameter.data.zero_()
    folder.save_model(vae)
    shown = call("evaluate", out, "--samples", "10").output
    assert "no latent is active" in shown
    assert "kl_warmup" in shown


def test_sample_reconstruct_encode_and_plot(run: Path, tmp_path: Path) -> None:
    assert call("sample", run, "--num", "9", "--out", tmp_path / "s.npz").exit_code == 0
    drawn = np.load(tmp_path / "s.npz")
    assert drawn["x"].shape == drawn["expectation"].shape == (9, 1, 8, 8)
    assert set(np.unique(drawn["x"])) <= {0, 1}
    assert call("reconstruct", run, "--num", "5", "--out", tmp_path / "r.npz").exit_code == 0
    assert np.load(tmp_path / "r.npz")["reconstruction"].shape == (5, 1, 8, 8)
    assert call("encode", run, "--out", tmp_path / "e.npz").exit_code == 0
    codes = np.load(tmp_path / "e.npz")
    assert codes["loc"].shape == codes["scale"].shape == (359, 2)
    assert codes["label"].shape == codes["id"].shape == (359,)
    assert (codes["scale"] > 0).all()
    assert call("encode", run, "digits", "--out", tmp_path / "all.npz").exit_code == 0
    assert len(np.load(tmp_path / "all.npz")["loc"]) == 1797
    for command in (("sample", run), ("reconstruct", run), ("encode", run)):
        out = tmp_path / f"{command[0]}.png"
        assert call(*command, "--out", out).exit_code == 0
        assert np.asarray(Image.open(out).convert("L")).std() > 5  # something is drawn
    assert call("plot", run, "--out", tmp_path / "pictures").exit_code == 0
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"curves.png", "samples.png", "reconstructions.png", "latent.png"}


def test_report_writes_its_files_beside_what_evaluate_wrote(run: Path) -> None:
    assert call("evaluate", run, "--samples", "20", "--limit", "30").exit_code == 0
    asked = ("--only", "fit", "--only", "density", "--draws", "100", "--limit", "30")
    shown = call("report", run, *asked)
    assert shown.exit_code == 0, shown.output
    assert "report.html" in shown.output
    assert "of 4 checks passed" in shown.output
    stored = json.loads((run / "metrics.json").read_text())
    assert stored["n"] == 30
    assert stored["report"]["facts"]["held-out data"] == "the test split, 30 data"
    assert (run / "inference.nc").exists()
    assert "<title>" in (run / "report.html").read_text()
    refused = call("report", run, "--only", "everything")
    assert refused.exit_code == 2
    assert "everything" in refused.output


@pytest.mark.parametrize("data", ["breast_cancer", "moons"])
def test_tables_go_through_every_command(data: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("fit", data, *FAST, "--set", "posterior=full_rank", "--out", out).exit_code == 0
    assert call("evaluate", out, "--samples", "10").exit_code == 0
    assert "is a log density" in call("evaluate", out, "--samples", "10").output
    assert call("plot", out).exit_code == 0
    assert call("sample", out, "--out", tmp_path / "s.png").exit_code == 0


@pytest.mark.parametrize("likelihood", ["categorical:num_classes=17", "poisson", "discretized_logistic:levels=17"])
def test_integer_likelihoods_see_integers(likelihood: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = call("fit", "digits", "--likelihood", likelihood, *FAST, "--out", out)
    assert result.exit_code == 0, result.output
    figures = json.loads(call("evaluate", out, "--samples", "10", "--json").output)
    assert figures["units"] == "nats per datum"
    assert 0 < figures["bits_per_dim"] < 5


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_runs_on_digits(name: str, tmp_path: Path) -> None:
    result = call("fit", "digits", "--preset", name, "--epochs", "1", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["fit"]["batch_size"] == PRESETS[name].fit["batch_size"]
    assert config["model"]["latent_dim"] == PRESETS[name].model["latent_dim"]


@pytest.mark.mnist
@pytest.mark.slow
@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_runs_on_mnist(name: str, tmp_path: Path) -> None:
    result = call(
        "fit", "mnist", "--preset", name, "--epochs", "1", "--set", "batch_size=500", "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output


def test_settings_come_from_preset_then_file_then_flags_then_set(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        'preset = "mlp-512-2"\nseed = 4\n[model]\nlatent_dim = 5\n[fit]\nepochs = 1\nbatch_size = 300\n'
    )
    arguments = ["fit", "digits", "--config", settings, "--batch-size", "400", "--set", "optimizer.lr=0.002"]
    assert call(*arguments, "--set", "data.seed=3", "--out", tmp_path / "run").exit_code == 0
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
        (["fit", "digits", "--set", "latent_dim", "--out", "{out}"], "--set wants key=value, got 'latent_dim'"),
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
        (["evaluate", "{out}"], "not a run folder"),
        (["sample", "{out}", "--out", "x.png"], "not a run folder"),
    ],
)
def test_bad_calls_exit_with_2_and_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert message in refused(call(*[argument.format(out=out) for argument in arguments]))
    assert not out.exists()


def test_bad_calls_on_a_run(run: Path, tmp_path: Path) -> None:
    assert "pass --resume (resume=True) or --overwrite" in refused(call("fit", "digits", *FAST, "--out", run))
    assert "the ending chooses the format, .png or .npz" in refused(call("sample", run, "--out", tmp_path / "s.jpg"))
    assert "unknown split 'dev'" in refused(call("evaluate", run, "--split", "dev"))
    assert "num_draws must be at least 2" in refused(call("evaluate", run, "--samples", "1"))
    assert "has fit epochs = 2, this call has 5" in refused(
        call("fit", "digits", "--resume", "--epochs", "5", "--out", run)
    )
    np.save(tmp_path / "wide.npy", np.zeros((4, 9), np.float32))
    assert "(datum, 1, 8, 8) wanted" in refused(call("encode", run, tmp_path / "wide.npy", "--out", tmp_path / "e.npz"))
    assert call("fit").exit_code == 2
    assert call("frobnicate").exit_code == 2


def test_resume_needs_no_flag_said_twice(run: Path) -> None:
    result = call("fit", "digits", "--resume", "--out", run)
    assert result.exit_code == 0, result.output
    assert "2 epochs" in result.output


def test_changed_data_are_noticed(tmp_path: Path) -> None:
    path, out = tmp_path / "x.npy", tmp_path / "run"
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.save(path, x)
    assert call("fit", path, *FAST, "--out", out).exit_code == 0
    assert call("evaluate", out, "--samples", "5").exit_code == 0
    np.save(path, x + 1)
    assert "the data of" in refused(call("evaluate", out))
    assert "the data have changed since the run" in refused(call("fit", path, "--resume", "--out", out))


def test_one_datum_gives_no_verdict_and_plain_json(run: Path) -> None:
    figures = json.loads(call("evaluate", run, "--samples", "5", "--limit", "1", "--json").output)
    assert figures["sampling_se"]["elbo"] is None
    assert "collapse" not in call("evaluate", run, "--samples", "5", "--limit", "1").output
    assert call("evaluate", run, "--limit", "-3").exit_code == 2


def test_options_of_the_default_likelihood_can_be_set(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("fit", "digits", "--set", "likelihood.scale=0.2", *FAST, "--out", out).exit_code == 0
    assert json.loads((out / "config.json").read_text())["model"]["likelihood"]["scale"] == 0.2


def test_lists_and_help() -> None:
    presets, datasets = call("presets").output, call("datasets").output
    assert all(name in presets for name in PRESETS)
    assert "Burda" in presets
    assert all(name in datasets for name in DATASETS)
    for command in ("fit", "evaluate", "sample", "reconstruct", "encode", "plot", "presets", "datasets"):
        text = call(command, "--help").output
        assert "Example:" in text, command
        assert f"vae-pyro {command}" in " ".join(text.split())
    assert "downloaded" in call("evaluate", "--help").output


def console_script(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    code = "from vae_pyro.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_termination_write_a_checkpoint_and_exit_cleanly(signum: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    slow = ["--epochs", "100000", "--set", "checkpoint_seconds=0"]
    process = console_script("fit", "digits", "--binarize", "dynamic", *slow, "--out", out)
    deadline = time.monotonic() + 60
    while not (out / "state" / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signum)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert f"stopped by {signal.Signals(signum).name}; continue" in error
    assert "Traceback" not in error
