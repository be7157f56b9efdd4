"""What a search may be over, and how it is written."""

import pytest

from vae_pyro.experiments.tuning.space import parse_space


def test_ranges_choices_and_options_of_a_variant_are_read() -> None:
    lr = parse_space("optimizer.lr=1e-4..1e-2:log")
    assert (lr.path, lr.low, lr.high, lr.log, lr.integer) == (("fit", "optimizer", "lr"), 1e-4, 1e-2, True, False)
    latent = parse_space("model.latent_dim=4..32")
    assert (latent.path, latent.integer, latent.log) == (("model", "latent_dim"), True, False)
    assert latent.distribution().high == 32
    assert not parse_space("kl_warmup=0..2.5").integer
    assert not parse_space("kl_warmup=1..1e1").integer
    assert parse_space("kl_warmup=.5..1").low == 0.5
    hidden = parse_space("encoder.hidden=[100],[200,200]")
    assert [hidden.value(choice) for choice in hidden.choices] == [[100], [200, 200]]
    objectives = parse_space("objective=elbo,iwae:num_particles=5,tvo:num_particles=4,partitions=3,beta:beta=2")
    assert objectives.choices == ("elbo", "iwae:num_particles=5", "tvo:num_particles=4,partitions=3", "beta:beta=2")
    beta = parse_space("objective=beta:beta=1..4")
    assert (beta.name, beta.path, beta.choice) == ("objective.beta", ("fit", "objective", "beta"), "beta")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent_dim", "names no values; write key=low..high"),
        ("latent_dim=8..4", "the range from 8 to 4 is empty"),
        ("latent_dim=0..4:log", "begins above 0, got 0"),
        ("latent_dim=few..many", "'few..many' is no range of numbers"),
        ("latent_dim=1..2:lin", "'1..2:lin' is no range"),
        ("latent_dim=8", "holds one value, which is no choice; .* or --set latent_dim=8"),
        ("encoder.hidden=[8],[8]", "names a value twice"),
        ("latend_dim=2..4", "unknown key 'latend_dim'; known are .*latent_dim"),
        ("data.binarize=none,static", "every trial has the same data"),
        ("validation_fraction=0.1..0.2", "every trial has the same data"),
        ("seed=1..5", "every trial has the same data and the same seed"),
        ("device=cpu,cuda", "device says nothing about the model"),
        ("objective=beta:beta=4..1", "the range from 4 to 1 is empty"),
    ],
)
def test_a_bad_space_is_refused_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_space(text)
    assert text in str(caught.value)
