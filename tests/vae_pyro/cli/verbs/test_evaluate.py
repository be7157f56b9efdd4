"""``vae-pyro evaluate``: its table, its JSON, and its hints."""

import json
import shutil
from pathlib import Path

import pytest

from tests.vae_pyro.cli.calls import FAST, call, done, refused
from vae_pyro import RunFolder
from vae_pyro.evaluation import rows


def test_evaluate_prints_a_table_and_json(digits_run: Path) -> None:
    shown = done("evaluate", digits_run, "--draws", "20")
    for word in ("ELBO", "log p(x)", "bits per dimension", "active units", "of 2 latents", "Bernoulli(intensity)"):
        assert word in shown
    metrics = json.loads(call("evaluate", digits_run, "--draws", "20", "--json").output)
    for key in ("elbo", "log_px", "kl", "reconstruction", "bits_per_dim", "active_units"):
        assert isinstance(metrics[key], float | int)
        assert metrics[f"{key}_se"] >= 0
    assert metrics["num_draws"] == 20
    assert metrics["n"] == 359
    assert metrics["elbo"] <= metrics["log_px"] <= 0
    simulated = metrics["simulated"]
    assert simulated["n"] == 300
    assert simulated["symmetric_kl"] == pytest.approx(simulated["upper"] - simulated["lower"])
    assert simulated["symmetric_kl"] > 4 * simulated["symmetric_kl_se"] > 0  # after an epoch the guide is not exact
    assert "symmetric KL, of guide and posterior on 300 data of the model" in shown
    assert "the guide is not the posterior" in shown
    stored = json.loads((digits_run / "metrics.json").read_text())
    assert stored["log_px"] == metrics["log_px"]
    again = json.loads(call("evaluate", digits_run, "--draws", "20", "--json").output)
    assert again == metrics
    other = json.loads(
        call("evaluate", digits_run, "--split", "validation", "--draws", "20", "--limit", "7", "--json").output
    )
    assert other["n"] == 7


def test_of_many_data_a_stated_sample_is_evaluated(digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_LEAST", 40)
    monkeypatch.setattr(rows, "_OPERATIONS", {"cpu": 1.0})
    shown = done("evaluate", digits_run, "--draws", "10", "--seed", "3")
    assert "a random sample of 40 of 359 test data are evaluated; --limit all takes all" in shown
    assert "n = 40, 10 draws each" in shown
    metrics = json.loads(call("evaluate", digits_run, "--draws", "10", "--seed", "3", "--json").output)
    assert (metrics["n"], metrics["rows"]) == (40, "a random sample of 40 of 359")
    added = metrics["sampling_se"]["log_px"] * (1 - 40 / 359) ** 0.5
    assert "the sample adds a standard error of" in shown
    assert f"and of {added:.3f} nats to log p(x)" in shown
    whole = json.loads(call("evaluate", digits_run, "--draws", "10", "--limit", "all", "--json").output)
    assert (whole["n"], whole["rows"]) == (359, "all 359")
    first = json.loads(call("evaluate", digits_run, "--draws", "10", "--limit", "30", "--json").output)
    assert first["rows"] == "the first 30 of 359"
    assert "'some' is neither a number of" in refused("evaluate", digits_run, "--limit", "some")


def test_a_collapsed_posterior_is_reported(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done("fit", "digits", "--binarize", "dynamic", *FAST, "--lr", "1e-6", "--out", out)
    folder = RunFolder(out)
    vae = folder.load_model()
    for parameter in vae.guide.posterior.parameters():
        parameter.data.zero_()
    folder.save_model(vae, folder.read_history())
    shown = done("evaluate", out, "--draws", "10")
    assert "no latent is active" in shown
    assert "kl_warmup" in shown


def test_one_datum_gives_no_verdict_and_plain_json(digits_run: Path) -> None:
    metrics = json.loads(call("evaluate", digits_run, "--draws", "5", "--limit", "1", "--json").output)
    assert metrics["sampling_se"]["elbo"] is None
    assert "collapse" not in done("evaluate", digits_run, "--draws", "5", "--limit", "1")


def test_titles_of_tables_bear_brackets(digits_run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a[" / "[" / "b]" / "run"  # the path holds "[/b]", which closes a tag that was never opened
    shutil.copytree(digits_run, moved)
    assert "[/b]" in done("evaluate", moved, "--draws", "5", "--limit", "20").replace(" ", "")


def test_refusals(digits_run: Path, tmp_path: Path) -> None:
    assert "not a run folder" in refused("evaluate", tmp_path)
    assert "unknown split 'dev'" in refused("evaluate", digits_run, "--split", "dev")
    assert "'--draws'" in refused("evaluate", digits_run, "--draws", "1")
    assert "--samples is now --draws" in refused("evaluate", digits_run, "--samples", "20")
    assert "'--limit'" in refused("evaluate", digits_run, "--limit", "-3")


def test_estimates_are_printed_where_they_cannot_be_stored(digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(RunFolder, "update_metrics", fails)
    result = call("evaluate", digits_run, "--draws", "20", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["num_draws"] == 20
    assert "warning: the estimates are not stored" in result.stderr
    assert "metrics.json cannot be written (Permission denied)" in " ".join(result.stderr.split())
