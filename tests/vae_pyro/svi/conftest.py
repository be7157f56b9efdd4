"""Every test of the compiled step has a parameter store of its own."""

import pytest

from vae_pyro.compilation import inductor


@pytest.fixture(autouse=True)
def _own_store(own_store: None) -> None:
    pass


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole steps without the compiler's minutes: Inductor is the identity."""
    monkeypatch.setattr(inductor, "inductor", lambda module: lambda inputs: module(*inputs))
