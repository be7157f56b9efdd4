"""`fit` and its loop: every datum once an epoch, schedules, early stopping, resume to the bit, signals, refusals."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.truths import example
from vae_pyro import (
    VAE,
    FitConfig,
    FitInterruptedError,
    NonFiniteLossError,
    RunError,
    RunFolder,
    Split,
    VAEConfig,
    evaluate,
    fit,
    load_data,
)
from vae_pyro.core.files import read_tensors
from vae_pyro.data.dataset import Dataset
from vae_pyro.data.memory.held import HeldSplit
from vae_pyro.runs.weights import weights
from vae_pyro.svi.compiled_svi import CompiledSVI
from vae_pyro.training.optimizers import OPTIMIZERS
from vae_pyro.training.schedules import SCHEDULES


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", binarize="dynamic")


@pytest.fixture(scope="module")
def clear_digits() -> Dataset:
    """Cut at half intensity, which a small network learns in a few epochs."""
    return load_data("digits", binarize="threshold")


def build(latent_dim: int = 3, **changes: Any) -> VAE:
    return VAE(VAEConfig(**{"x_shape": (1, 8, 8), "latent_dim": latent_dim, "encoder": "mlp:hidden=[16]", **changes}))


def short(**changes: Any) -> FitConfig:
    return FitConfig(**{"epochs": 3, "batch_size": 500, "checkpoint_seconds": 0, **changes})


def same(a: VAE, b: VAE) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


def test_every_datum_is_seen_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    raw = HeldSplit.raw

    def watch(self: Split, index: torch.Tensor, bits: Any) -> Any:
        seen.append(index.tolist())
        return raw(self, index, bits)

    x = example().sample(103, seed=0).float()
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian"))
    vae.initialize(x)
    monkeypatch.setattr(HeldSplit, "raw", watch)
    fit(vae, x, config=short(epochs=2, batch_size=10))
    rows = seen[-22:]
    assert [len(row) for row in rows] == ([10] * 10 + [3]) * 2
    for epoch in (rows[:11], rows[11:]):
        assert sorted(index for row in epoch for index in row) == list(range(103))
    assert rows[0] != rows[11]


def test_the_loss_of_a_remainder_batch_is_a_mean_too() -> None:
    """A batch of one datum takes a step as long as that of a batch of many equal data."""
    x = torch.ones(1, 5)
    results = []
    for copies in (1, 7):
        vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian:scale=1"))
        vae.initialized.fill_(True)
        with torch.no_grad():
            vae.guide.posterior.normal.linear.weight.zero_()
            vae.guide.posterior.normal.linear.bias.fill_(-20.0)  # no noise: scale e^-20
        fit(vae, x.repeat(copies, 1), config=FitConfig(epochs=1, batch_size=7, optimizer="sgd:lr=0.01"))
        results.append(vae.model.decoder.layers[-1].bias.detach())
    torch.testing.assert_close(results[0], results[1])


def test_history_has_epoch_means_of_all_data(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[tuple[float, int]] = []
    original = CompiledSVI.take_step

    def watch(self: Any, raw: Any, **options: Any) -> Any:
        loss = original(self, raw, **options)
        losses.append((float(loss) * len(raw[0]), len(raw[0])))
        return loss

    monkeypatch.setattr(CompiledSVI, "take_step", watch)
    result = fit(build(), digits.train, validation=digits.validation, config=short(epochs=1))
    row = result.history[0]
    assert sum(count for _, count in losses) == 1294
    assert row["elbo"] == pytest.approx(-sum(loss for loss, _ in losses) / 1294, rel=1e-5)
    assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"])
    assert row["validation_elbo"] == pytest.approx(row["validation_reconstruction"] - row["validation_kl"])


def test_fit_learns_and_validates_without_touching_the_optimizer(clear_digits: Dataset) -> None:
    digits = clear_digits
    vae = build()
    config = FitConfig(epochs=12, batch_size=20, optimizer="adam:lr=3e-3")
    result = fit(vae, digits.train, validation=digits.validation, config=config)
    assert result.vae is vae
    assert result.history[-1]["validation_elbo"] > result.history[0]["validation_elbo"] + 2
    assert result.epochs == 12
    assert not result.stopped_early
    with_validation = weights(vae)
    alone = build()
    fit(alone, digits.train, config=config)
    assert all(torch.equal(a, b) for a, b in zip(weights(alone).values(), with_validation.values(), strict=True))


def test_the_seed_decides_everything(digits: Dataset) -> None:
    vaes = [build() for _ in range(3)]
    for vae, seed in zip(vaes, (1, 1, 2), strict=True):
        fit(vae, digits.train, config=short(), seed=seed)
    assert same(vaes[0], vaes[1])
    assert not same(vaes[0], vaes[2])


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_every_optimizer_learns(optimizer: str, clear_digits: Dataset) -> None:
    rate = "0.03" if optimizer == "sgd" else "0.003"
    config = FitConfig(epochs=12, batch_size=20, optimizer=f"{optimizer}:lr={rate}", clip_norm=5.0)
    history = fit(build(), clear_digits.train, config=config).history
    assert history[-1]["elbo"] > history[0]["elbo"] + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant", {0: 1.0, 99: 1.0}),
        ("constant:warmup=2", {0: 0.05, 9: 0.5, 19: 1.0, 20: 1.0, 99: 1.0}),
        ("cosine", {0: 1.0, 50: 0.5, 99: 0.000247}),
        ("cosine:final=0.1", {50: 0.55}),
        ("cosine:warmup=2", {9: 0.5, 20: 1.0, 60: 0.5}),
        ("step:milestones=[2,5],gamma=0.1", {19: 1.0, 20: 0.1, 49: 0.1, 50: 0.01}),
        ("one_cycle:rise=0.5,start=0", {0: 0.0, 25: 0.5, 50: 1.0, 75: 0.5}),
    ],
)
def test_schedules_are_the_functions_that_they_say(text: str, expected: dict[int, float]) -> None:
    schedule = SCHEDULES.build(SCHEDULES.resolve(text), 100, 10)
    for step, factor in expected.items():
        assert schedule(step) == pytest.approx(factor, abs=1e-6)


def test_burda_schedule() -> None:
    from vae_pyro.models.presets import PRESETS

    schedule = SCHEDULES.build(SCHEDULES.resolve(PRESETS["iwae-200-200-50"].fit["schedule"]), 3280, 1)
    stages = [(schedule(sum(3**j for j in range(i))), 10 ** (-i / 7)) for i in range(8)]
    assert all(factor == pytest.approx(expected) for factor, expected in stages)
    assert sum(3**i for i in range(8)) == 3280


def test_milestones_must_rise() -> None:
    with pytest.raises(ValueError, match=r"milestones must rise, got \[5.0, 2.0\]"):
        SCHEDULES.build(SCHEDULES.resolve("step:milestones=[5,2]"), 10, 1)


def test_the_schedule_and_the_kl_weight_reach_the_step(digits: Dataset) -> None:
    config = short(epochs=4, schedule="cosine", kl_warmup=2, optimizer="adam:lr=0.01")
    history = fit(build(), digits.train, config=config).history
    steps = 3
    assert history[0]["kl_weight"] == pytest.approx((steps - 1) / (2 * steps))
    assert [row["kl_weight"] for row in history[2:]] == [1.0, 1.0]
    last = 4 * steps - 1
    assert history[-1]["lr"] == pytest.approx(0.01 * (1 + np.cos(np.pi * last / (4 * steps))) / 2)


def test_early_stopping_restores_the_best(digits: Dataset) -> None:
    x, _ = digits.train.take(slice(0, 60)).fixed(0).batch(slice(None))  # few data: it must overfit
    vae = build(latent_dim=8, encoder="mlp:hidden=[128]")
    config = FitConfig(epochs=400, batch_size=60, optimizer="adam:lr=0.01", patience=15, validation_particles=20)
    result = fit(vae, x, validation=digits.validation, config=config)
    assert result.stopped_early
    assert result.restored_best
    assert result.epochs == result.best_epoch + 15
    best = max(row["validation_elbo"] for row in result.history)
    assert result.history[result.best_epoch - 1]["validation_elbo"] == best
    assert result.summary()["validation_elbo"] == best
    assert result.to_dataframe()["validation_elbo"].tolist() == [row["validation_elbo"] for row in result.history]
    shown = str(result)
    assert f"fit of {result.epochs} epochs (stopped early)" in shown
    assert f"weights of epoch {result.best_epoch} (the best)" in shown
    assert f"validation  ELBO {best:.2f}" in shown
    assert len(shown.splitlines()) == 5
    assert len(repr(result)) < 200
    assert result._repr_html_().count("<tr") == result.epochs + 1
    again = evaluate(vae, digits.validation, num_draws=200).summary()
    assert again["elbo"] == pytest.approx(best, abs=6 * (again["elbo_se"] + again["elbo_se"] * 10**0.5))
    assert best > result.history[-1]["validation_elbo"]


def interrupt_after(steps: int, signum: int) -> Any:
    """A step that sends this process a signal while it is taken."""
    original, count = CompiledSVI.take_step, [0]

    def step(self: Any, raw: Any, **options: Any) -> Any:
        count[0] += 1
        if count[0] == steps:
            os.kill(os.getpid(), signum)
        return original(self, raw, **options)

    return step


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [1, 4, 6])
def test_a_signal_ends_after_a_checkpoint_and_resume_gives_the_same_bits(
    signum: int, steps: int, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"validation": digits.validation, "config": short(patience=50, schedule="cosine"), "seed": 7}
    whole, parts = build(), build()
    expected = fit(whole, digits.train, out=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        patch.setattr(CompiledSVI, "take_step", interrupt_after(steps, signum))
        with pytest.raises(FitInterruptedError, match=f"stopped by {signal.Signals(signum).name}; continue") as stopped:
            fit(parts, digits.train, out=tmp_path / "parts", **options)
    assert stopped.value.signum == signum
    _, info = read_tensors(tmp_path / "parts" / "state" / "checkpoint.safetensors", "checkpoint")
    assert 3 * info["state"]["epoch"] + info["state"]["batch"] == steps
    fresh = build()
    result = fit(fresh, digits.train, out=tmp_path / "parts", resume=True, **options)
    assert same(fresh, whole)
    dropped = ("seconds",)
    for a, b in zip(result.history, expected.history, strict=True):
        assert {k: v for k, v in a.items() if k not in dropped} == {k: v for k, v in b.items() if k not in dropped}
    assert same(RunFolder(tmp_path / "parts").load_model(), whole)


def long_fit(out: Path, *, resume: bool = False) -> None:
    """13 steps in each epoch, and a checkpoint at the end of it."""
    data = load_data("digits", binarize="dynamic")
    config = FitConfig(epochs=7, batch_size=100, checkpoint_seconds=0, optimizer="adamw", kl_warmup=5)
    fit(build(), data.train, validation=data.validation, config=config, seed=3, out=out, resume=resume)


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.vae_pyro.training.test_training import CompiledSVI, interrupt_after, long_fit
CompiledSVI.take_step = interrupt_after(60, signal.SIGKILL)
long_fit(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_but_time(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    root = str(Path(__file__).parents[3])
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(out)], cwd=root, check=False)
    assert killed.returncode == -signal.SIGKILL
    _, info = read_tensors(out / "state" / "checkpoint.safetensors", "checkpoint")
    assert (info["state"]["epoch"], info["state"]["batch"]) == (4, 0)  # step 60 is in the fifth epoch
    assert not (out / "model.safetensors").exists()
    with pytest.raises(RunError, match="has not finished; continue it with --resume"):
        RunFolder(out).load_model()
    long_fit(out, resume=True)
    long_fit(tmp_path / "whole")
    assert same(RunFolder(out).load_model(), RunFolder(tmp_path / "whole").load_model())


def test_a_finished_run_resumes_to_itself(digits: Dataset, tmp_path: Path) -> None:
    vae = build()
    fit(vae, digits.train, config=short(), out=tmp_path / "r")
    again = build()
    result = fit(again, digits.train, config=short(), out=tmp_path / "r", resume=True)
    assert same(vae, again)
    assert result.epochs == 3


def test_resume_refuses_other_settings(digits: Dataset, tmp_path: Path) -> None:
    fit(build(), digits.train, config=short(), out=tmp_path / "r", data=digits)
    with pytest.raises(RunError, match="has fit epochs = 3, this call has 4; resume with the run's own settings"):
        fit(build(), digits.train, config=short(epochs=4), out=tmp_path / "r", data=digits, resume=True)
    with pytest.raises(RunError, match="has seed seed = 0, this call has 1"):
        fit(build(), digits.train, config=short(), out=tmp_path / "r", data=digits, resume=True, seed=1)
    with pytest.raises(RunError, match="has model latent_dim = 3, this call has 4"):
        fit(build(latent_dim=4), digits.train, config=short(), out=tmp_path / "r", data=digits, resume=True)
    with pytest.raises(RunError, match="no config.json in"):
        fit(build(), digits.train, config=short(), out=tmp_path / "nothing", resume=True)
    x, _ = digits.test.batch(slice(None))
    fit(build(), x, config=short(), out=tmp_path / "array")
    with pytest.raises(RunError, match="the data have changed since the run"):
        fit(build(), 1 - x, config=short(), out=tmp_path / "array", resume=True)
    with pytest.raises(ValueError, match="resume and overwrite exclude each other"):
        fit(build(), digits.train, config=short(), out=tmp_path / "r", resume=True, overwrite=True)
    with pytest.raises(ValueError, match="resume=True requires the run folder: pass out="):
        fit(build(), digits.train, config=short(), resume=True)


def test_a_folder_that_holds_something_is_not_overwritten(digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds 'thesis.txt' and no run"):
        fit(build(), digits.train, config=short(), out=tmp_path / "notes", overwrite=True)
    fit(build(), digits.train, config=short(), out=tmp_path / "r")
    with pytest.raises(RunError, match="holds a run; pass --resume .* or --overwrite"):
        fit(build(), digits.train, config=short(), out=tmp_path / "r")
    fit(build(latent_dim=2), digits.train, config=short(), out=tmp_path / "r", overwrite=True)
    assert RunFolder(tmp_path / "r").load_model().config.latent_dim == 2
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "years of work"


def test_the_run_folder_has_what_it_says(digits: Dataset, tmp_path: Path) -> None:
    result = fit(
        build(), digits.train, validation=digits.validation, config=short(), out=tmp_path / "r", data=digits, seed=5
    )
    run = RunFolder(tmp_path / "r")
    names = {path.name.split(".")[0] for path in run.path.iterdir()}
    assert names == {"config", "model", "state", "history", "events"}
    config = run.config()
    assert config["seed"] == 5
    assert config["data"]["source"] == "digits"
    assert config["facts"]["fingerprint"] == digits.facts.fingerprint
    assert config["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert run.read_history() == [{k: pytest.approx(v) for k, v in row.items()} for row in result.history]
    assert run.data_config().load().facts == digits.facts
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path))
    events.Reload()
    assert [event.step for event in events.Scalars("validation_elbo")] == [1, 2, 3]
    assert events.Scalars("elbo")[-1].value == pytest.approx(result.history[-1]["elbo"], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "weights",
            r"the loss is not finite at step 1 \(epoch 1\); likely cause: the weights diverged \(guide.*first\)",
        ),
        ("data", "likely cause: the batch holds values that are not finite"),
        ("scale", "likely cause: the KL is (inf|nan): a posterior scale overflowed"),
    ],
)
def test_a_loss_that_is_not_finite_stops_with_its_cause(
    change: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = example().sample(50, seed=0).float()
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian"))
    with torch.no_grad():
        if change == "weights":
            vae.guide.encoder.layers[0].weight[0, 0] = float("nan")
        if change == "scale":
            vae.guide.posterior.normal.linear.bias[2:] = 200.0
    if change == "data":
        raw = HeldSplit.raw
        monkeypatch.setattr(HeldSplit, "raw", lambda *a: (raw(*a)[0] * float("nan"),))
        vae.initialized.fill_(True)
    with pytest.raises(NonFiniteLossError, match=message):
        fit(vae, x, config=short(), out=tmp_path / "r")


def test_divergence_names_the_last_good_checkpoint(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, count = CompiledSVI.take_step, [0]

    def explode(self: Any, raw: Any, **options: Any) -> Any:
        count[0] += 1
        return original(self, raw, **options) * (float("inf") if count[0] == 5 else 1.0)

    monkeypatch.setattr(CompiledSVI, "take_step", explode)
    with pytest.raises(
        NonFiniteLossError, match=r"at step 5 \(epoch 2\).*the last good checkpoint is '.*checkpoint.saf"
    ):
        fit(build(), digits.train, config=short(), out=tmp_path / "r")
    _, info = read_tensors(tmp_path / "r" / "state" / "checkpoint.safetensors", "checkpoint")
    assert info["state"]["epoch"] == 1


def test_weights_that_the_last_step_broke_are_never_saved(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="the weights are not finite after epoch 1 .*lower the learning rate"):
        fit(build(), digits.train, config=short(epochs=1, batch_size=2000, optimizer="sgd:lr=1e39"), out=tmp_path / "r")
    assert not (tmp_path / "r" / "model.safetensors").exists()
    assert not (tmp_path / "r" / "state" / "checkpoint.safetensors").exists()


def test_bad_input_is_refused_before_anything_is_written(digits: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "r"
    grey = load_data("digits")
    with pytest.raises(ValueError, match=r"likelihood 'bernoulli' requires values in \{0, 1\}"):
        fit(build(), grey.train, config=short(), out=out)
    with pytest.raises(ValueError, match=r"\(datum, 1, 8, 8\) expected, got"):
        fit(build(), torch.zeros(5, 64), config=short(), out=out)
    with pytest.raises(ValueError, match="likelihood 'bernoulli' requires"):
        fit(build(), digits.train, validation=grey.validation, config=short(), out=out)
    with pytest.raises(ValueError, match="patience=3 requires validation data"):
        fit(build(), digits.train, config=short(patience=3), out=out)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device='cuda', but torch finds no CUDA here"):
            fit(build(), digits.train, config=short(device="cuda"), out=out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "epoch: is not a known key .*known keys: epochs, batch_size"),
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, got 0"),
        ({"optimizer": "adamm"}, "did you mean 'adamw?'"),
        ({"optimizer": "adam:lr=-1"}, "lr: Input should be greater than 0"),
        ({"schedule": "step"}, "milestones: Field required"),
        ({"device": "tpu"}, "device is 'auto', 'cpu', 'cuda' or 'cuda:N', got 'tpu'"),
        ({"clip_norm": 0}, "clip_norm"),
    ],
)
def test_bad_fit_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitConfig(**changes)


def test_masked_data_can_be_fitted_and_hidden_values_do_not_matter() -> None:
    x = example().sample(60, seed=0).float()
    mask = torch.zeros(60, 5, dtype=torch.bool)
    mask[:, ::2] = True
    vaes = []
    for hidden in (0.0, 1e6, float("nan")):
        vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, likelihood="gaussian"))
        fit(vae, torch.where(mask, x, torch.tensor(hidden)), mask=mask, config=short(batch_size=20))
        vaes.append(vae)
    assert same(vaes[0], vaes[1])
    assert same(vaes[0], vaes[2])


def test_a_fit_in_a_thread_leaves_signals_alone(digits: Dataset) -> None:
    vae, errors = build(), []

    def work() -> None:
        try:
            fit(vae, digits.train, config=short(epochs=1))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors


def test_a_piped_fit_is_quiet(digits: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    fit(build(), digits.train, config=short(epochs=1))
    assert capfd.readouterr() == ("", "")
    fit(build(), digits.train, validation=digits.validation, config=short(epochs=2), progress=True)
    shown = capfd.readouterr().err
    assert "epoch 2/2" in shown
    assert all(word in shown for word in ("ELBO", "KL", "rec", "val", "/s"))


@pytest.mark.cuda
def test_cuda_fits_resumes_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    data = load_data("digits", binarize="dynamic")
    options = {"config": short(epochs=20, device="cuda", batch_size=100), "seed": 1}
    whole, parts = build(), build()
    fit(whole, data.train, validation=data.validation, **options)
    assert whole.device.type == "cuda"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledSVI, "take_step", interrupt_after(30, signal.SIGINT))
        with pytest.raises(FitInterruptedError):
            fit(parts, data.train, validation=data.validation, out=tmp_path / "r", **options)
    fresh = build()
    fit(fresh, data.train, validation=data.validation, out=tmp_path / "r", resume=True, **options)
    assert same(fresh, whole)
    on_gpu = evaluate(whole, data.test, num_draws=500).summary()
    on_cpu = evaluate(whole.cpu(), data.test, num_draws=500).summary()
    assert abs(on_gpu["log_px"] - on_cpu["log_px"]) < 4 * (on_gpu["log_px_se"] + on_cpu["log_px_se"])


def test_json_of_a_config_is_plain() -> None:
    text = json.dumps(FitConfig(schedule="step:milestones=[1,2]").model_dump(mode="json"))
    assert FitConfig(**json.loads(text)).schedule.options["milestones"] == (1, 2)


def test_columns_that_float32_cannot_resolve_are_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((60, 2)) + np.array([0, 1.7e9])
    vae = VAE(VAEConfig(x_shape=(2,), latent_dim=1, likelihood="gaussian"))
    with pytest.raises(ValueError, match="column 1 lies at 1.7e"):
        fit(vae, x, config=short(compile=False), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kl_cycle": 2}, r"kl_cycle=2 repeats the KL warm-up, and there is none; pass kl_warmup, at most 2"),
        ({"kl_warmup": 5, "kl_cycle": 2}, "kl_warmup=5 is longer than kl_cycle=2 epochs"),
        ({"kl_warmup": 100}, "kl_warmup=100 is longer than the fit of epochs=4"),
        ({"schedule": "cosine:warmup=4.5"}, "schedule.warmup=4.5 is longer than the fit of epochs=4"),
    ],
)
def test_warm_ups_that_never_reach_the_full_weight_are_refused(how: dict[str, Any], message: str) -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian"))
    with pytest.raises(ValueError, match=message):
        fit(vae, torch.ones(64, 4), config=short(epochs=4, compile=False, **how), progress=False)


@pytest.mark.parametrize(
    ("how", "weights"),
    [
        ({"kl_warmup": 1, "kl_cycle": 2}, [0.75, 1.0, 0.75, 1.0]),
        ({"kl_warmup": 4}, [3 / 16, 7 / 16, 11 / 16, 15 / 16]),
        ({"kl_warmup": 2, "kl_cycle": 2}, [3 / 8, 7 / 8, 3 / 8, 7 / 8]),
    ],
)
def test_warm_ups_that_fit_are_those_of_the_history(how: dict[str, Any], weights: list[float]) -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2, likelihood="gaussian", encoder="mlp:hidden=[4]"))
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 4)))
    config = FitConfig(epochs=4, batch_size=16, compile=False, **how)
    history = fit(vae, x, config=config, progress=False).history
    assert [row["kl_weight"] for row in history] == pytest.approx(weights)


def test_a_seed_of_numpy_is_that_of_python(tmp_path: Path) -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 4)))
    vaes = [VAE(VAEConfig(x_shape=(4,), latent_dim=1, likelihood="gaussian"), seed=0) for _ in range(2)]
    for vae, seed, name in zip(vaes, (3, np.int64(3)), "ab", strict=True):
        fit(vae, x, config=short(compile=False), seed=seed, out=tmp_path / name, progress=False)  # type: ignore[arg-type]
    assert same(*vaes)
    assert RunFolder(tmp_path / "b").config()["seed"] == 3
