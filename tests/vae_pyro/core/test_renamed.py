"""Former argument names are refused with the name that replaced them."""

import pytest

from vae_pyro.core.renamed import renamed


@renamed(num_samples="num_draws")
def estimate(x: int, *, num_draws: int = 3) -> int:
    """An estimate."""
    return x * num_draws


def test_new_names_work_and_former_ones_say_what_to_write() -> None:
    assert estimate(2, num_draws=5) == 10
    assert estimate(2) == 6
    assert estimate.__doc__ == "An estimate."
    with pytest.raises(TypeError, match=r"estimate\(\) takes 'num_draws', which was called 'num_samples' before 0.2"):
        estimate(2, num_samples=5)  # type: ignore[call-arg]
