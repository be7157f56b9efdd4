"""Which steps of a fit are compiled, and that the programs of one fit are those of the next."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch import fx

from tests.vae_pyro.training.fits import SMALL
from vae_pyro import VAE, Dataset, FitConfig, VAEConfig, fit
from vae_pyro.compilation import graph, inductor
from vae_pyro.compilation.library import Run
from vae_pyro.compilation.worth import Plan
from vae_pyro.runs.folder import RunFolder
from vae_pyro.training.plans import Plans


def test_each_size_of_batch_has_the_steps_of_its_own() -> None:
    plans = Plans(1000, FitConfig(epochs=3, batch_size=300))
    whole, rest = plans.mode(300, {}), plans.mode(100, {})
    assert whole == Plan(9)
    assert rest == Plan(3)
    assert plans.mode(300, {}) is whole
    assert plans.decisions() == {}
    assert isinstance(whole, Plan)
    whole.compiled = True
    assert plans.decisions() == {"300": True}
    again = Plans(1000, FitConfig(epochs=3, batch_size=300))
    assert again.mode(300, {"300": True}) == Plan(9, True)
    assert Plans(1000, FitConfig(compile=False)).mode(128, {}) == "never"


@pytest.mark.parametrize("share", [0.0, 1000.0])
def test_a_fit_keeps_its_decisions_in_the_checkpoint(
    share: float, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where compiling costs nothing it is done, where it costs much it is not; resume does as before."""
    compiled: list[fx.GraphModule] = []

    def interpreted(module: fx.GraphModule) -> Run:
        compiled.append(module)
        return lambda inputs: module(*inputs)

    monkeypatch.setattr(inductor, "inductor", interpreted)
    monkeypatch.setattr(graph, "_SHARE_CHARGED", share)
    size = len(data.train)
    config = FitConfig(epochs=2, batch_size=size, device="cpu", checkpoint_seconds=0)

    def begin() -> VAE:
        return VAE(VAEConfig(x_shape=data.x_shape, latent_dim=2, encoder=SMALL), seed=1)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(begin(), data.train, config=config, seed=1, out=tmp_path / "r", on_epoch=stop, progress=False)
    assert len(compiled) == (0 if share else 1)
    _, info, _ = RunFolder(tmp_path / "r").read_checkpoint()
    assert info["state"]["compiled"] == {str(size): not share}
    compiled.clear()
    monkeypatch.setattr(graph, "_SHARE_CHARGED", 1000.0 - share)
    fit(begin(), data.train, config=config, seed=1, out=tmp_path / "r", resume=True, progress=False)
    assert len(compiled) == (0 if share else 1)


_FIT = """
import hashlib, sys
from vae_pyro import VAE, FitConfig, VAEConfig, fit, load_data
from vae_pyro.compilation import graph
graph._SHARE_CHARGED = 0.0
data = load_data("digits", binarize="dynamic")
vae = VAE(VAEConfig(x_shape=data.x_shape, latent_dim=4, encoder={"name": "mlp", "hidden": [64]}), seed=0)
fit(vae, data.train, config=FitConfig(epochs=2, batch_size=128, device="cpu"), seed=0, progress=False)
digest = hashlib.sha256()
for value in vae.state_dict().values():
    digest.update(value.numpy().tobytes())
print(digest.hexdigest(), "torch._inductor.scheduler" in sys.modules)
"""


@pytest.mark.slow
def test_cold_and_warm_give_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process finds the programs of the first, and imports no compiler; two at once share one folder."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))

    def begin(cache: str) -> subprocess.Popen[str]:
        monkeypatch.setenv("VAE_PYRO_CACHE", str(tmp_path / cache))
        return subprocess.Popen([sys.executable, "-c", _FIT], stdout=subprocess.PIPE, text=True)

    def end(process: subprocess.Popen[str]) -> list[str]:
        answer = process.communicate(timeout=600)[0].split()
        assert process.returncode == 0
        return answer

    cold = end(begin("one"))
    warm = end(begin("one"))
    assert (cold[1], warm[1]) == ("True", "False")
    at_once = [begin("two"), begin("two")]
    assert {end(process)[0] for process in at_once} == {cold[0]} == {warm[0]}
    assert end(begin("two")) == warm
    assert len(list((tmp_path / "two" / "compiled").glob("*.so"))) == 2
