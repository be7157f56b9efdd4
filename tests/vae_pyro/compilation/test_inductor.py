"""The comparison of a compiled function with its graph."""

import torch

from vae_pyro.compilation.inductor import disagreement
from vae_pyro.core.isolation import seeded


def test_disagreement_tells_rounding_from_an_error() -> None:
    with seeded(0):
        a = torch.randn(50)
    assert disagreement([a], [a * (1 + 1e-6)]) is None
    assert "differs" in str(disagreement([a], [a * 1.001]))
    assert "finite in other places" in str(disagreement([a], [a / 0]))
    assert "is (50,)" in str(disagreement([a], [a[:3]]))
    assert disagreement([torch.ones(2, dtype=torch.int64)], [torch.zeros(2, dtype=torch.int64)]) is not None
