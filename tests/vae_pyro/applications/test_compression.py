"""Data come back bit for bit, cost minus the ELBO, and what cannot be decoded is refused and not decoded wrongly."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_matrix
from scipy.stats import norm

from vae_pyro import VAE, Dataset, FitConfig, Split, VAEConfig, fit, load_data
from vae_pyro.applications.compression import codec as codec_module
from vae_pyro.applications.compression import general_compressors
from vae_pyro.applications.compression import grid as grid_module
from vae_pyro.applications.compression.ans import Stack, random_words
from vae_pyro.applications.compression.archive import Archive, ArchiveError, read_archive
from vae_pyro.applications.compression.bits_back import Channel, blocks_of, decode, encode
from vae_pyro.applications.compression.codec import compress, decompress
from vae_pyro.applications.compression.elements import Alphabet, alphabet_of
from vae_pyro.applications.compression.general_compressors import compressed_sizes
from vae_pyro.applications.compression.grid import Grid
from vae_pyro.applications.compression.networks import Networks, exact
from vae_pyro.applications.compression.rates import compression_rates
from vae_pyro.core.isolation import derive_seed, seeded
from vae_pyro.runs.folder import RunFolder

type Array = np.ndarray[Any, Any]

LEVELS = "discretized_logistic:levels=17"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_data("digits", scale="none")


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few epochs."""
    out = tmp_path_factory.mktemp("runs") / "run"
    vae = VAE(VAEConfig(x_shape=digits.x_shape, latent_dim=6, likelihood=LEVELS, encoder="mlp:hidden=[32]"))
    fit(vae, digits.train, config=FitConfig(epochs=5, compile=False), seed=3, out=out, data=digits)
    return out


@pytest.fixture(scope="module")
def fitted(run: Path) -> VAE:
    return RunFolder(run).load_model()


@pytest.fixture(scope="module")
def archive(fitted: VAE, digits: Dataset) -> Archive:
    return compress(fitted, digits.test, seed=1)


@pytest.fixture(scope="module")
def file(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archives") / "digits.vpz"
    archive.write(path)
    return path


def tiny(likelihood: str = "bernoulli", x_shape: tuple[int, ...] = (4,), latent_dim: int = 1, seed: int = 0) -> VAE:
    """Random weights, large enough that latents and data tell of each other."""
    config = VAEConfig(
        x_shape=x_shape, latent_dim=latent_dim, likelihood=likelihood, encoder="mlp:hidden=[8],activation=tanh"
    )
    vae = VAE(config, seed=seed)
    with torch.no_grad():
        for parameter in (*vae.model.decoder.parameters(), *vae.guide.encoder.parameters()):
            parameter.mul_(3)
    return vae


def bits_of(stack: Stack, act: Callable[[], Any]) -> int:
    before = stack.bits
    act()
    return stack.bits - before


# --- the stack ------------------------------------------------------------------------------------------------------


def test_popping_is_the_inverse_of_pushing_and_symbols_cost_their_information() -> None:
    random = np.random.default_rng(0)
    weights = np.rint(random.dirichlet(np.ones(5), 3000) * 1000) + 1
    symbols = random.integers(0, 5, 3000)
    stack = Stack(random_words(10, 0))
    before = stack.words()
    spent = bits_of(stack, lambda: stack.push(symbols, weights))
    wanted = -np.log2(weights[np.arange(3000), symbols] / weights.sum(1)).sum()
    assert spent == pytest.approx(wanted, abs=2)  # exact but for the last bit and multiples of 2^-24
    np.testing.assert_array_equal(stack.pop(weights), symbols)
    np.testing.assert_array_equal(stack.words(), before)


def test_pushing_is_the_inverse_of_popping() -> None:
    weights = np.random.default_rng(1).integers(0, 50, (500, 7)) + 1.0
    stack = Stack(random_words(100, 1))
    before = stack.words()
    symbols = stack.pop(weights)
    assert stack.lowest < 100
    stack.push(symbols, weights)
    np.testing.assert_array_equal(stack.words(), before)


def test_an_empty_stack_still_gives_back_what_was_popped() -> None:
    weights = np.ones((400, 8))
    stack = Stack(random_words(2, 2))
    before = stack.words()
    symbols = stack.pop(weights)
    stack.push(symbols, weights)
    np.testing.assert_array_equal(stack.words(), before)


def test_integers_of_any_size_cost_their_bits_and_six() -> None:
    stack = Stack(random_words(4, 0))
    values = [0, 1, 2, 65_534, 65_535, 65_536, 10**6, 2**40 + 12345, 2**63 - 2]
    for value in values:
        assert bits_of(stack, lambda value=value: stack.push_integer(value)) == (value + 1).bit_length() - 1 + 6
    assert [stack.pop_integer() for _ in values] == values[::-1]


# --- the grid -------------------------------------------------------------------------------------------------------


def test_two_steps_are_the_gaussian_mass_of_each_bucket() -> None:
    grid = Grid(8)
    for loc, scale in ((0.0, 1.0), (0.7, 0.2), (-2.5, 0.4), (1.0, 3.0)):
        mean, sd = np.full(grid.cells, loc), np.full(grid.cells, scale)
        cell = grid.cell_weights(mean[:1], sd[:1])
        bucket = grid.bucket_weights(mean, sd, np.arange(grid.cells))
        joint = (cell / cell.sum()).T * bucket / bucket.sum(1, keepdims=True)
        wanted = np.diff(norm.cdf(grid.edges, loc, scale))
        np.testing.assert_allclose(joint.reshape(-1), wanted, atol=2e-6)  # two roundings to 2^-20
        assert (np.stack([cell, *bucket[:, None]]) == np.rint(np.stack([cell, *bucket[:, None]]))).all()


def test_buckets_have_equal_mass_and_numbers_come_apart_and_together() -> None:
    grid = Grid(10)
    np.testing.assert_allclose(np.diff(norm.cdf(grid.edges)), 1 / grid.size)
    index = np.arange(grid.size)
    np.testing.assert_array_equal(grid.join(*grid.split(index)), index)
    assert (np.diff(grid.centres) > 0).all()
    assert ((grid.edges[:-1] < grid.centres) & (grid.centres < grid.edges[1:])).all()


@pytest.mark.parametrize("loc", [-40.0, -6.0, 0.0, 6.0, 40.0])
@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 1e4])
def test_no_gaussian_is_without_weights(loc: float, scale: float) -> None:
    grid = Grid(16)
    cell = grid.cell_weights(np.array([loc]), np.array([scale]))
    bucket = grid.bucket_weights(np.full(3, loc), np.full(3, scale), np.array([0, 128, 255]))
    for weights in (cell, bucket):
        assert np.isfinite(weights).all()
        assert (weights >= 0).all()
        assert (weights.sum(1) > 0).all()
    if abs(loc) > 5 and scale < 1:
        assert cell.argmax() == (0 if loc < 0 else 255)


def test_both_tails_of_a_gaussian_are_alike() -> None:
    # A cell ten standard deviations above the mean has its digits as one below has them.
    grid = Grid(16)
    for loc, scale in ((-9.0, 1.0), (-0.5, 0.3)):
        above = grid.bucket_weights(np.array([loc]), np.array([scale]), np.array([250]))
        below = grid.bucket_weights(np.array([-loc]), np.array([scale]), np.array([5]))
        np.testing.assert_allclose(above[0], below[0, ::-1], atol=1)
        assert len(np.unique(above)) > 100


def test_broken_latents_and_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        Grid().cell_weights(np.array([np.nan]), np.ones(1))
    with pytest.raises(ValueError, match="bits must be an even number from 4 to 20, got 7"):
        Grid(7)


# --- the elements ---------------------------------------------------------------------------------------------------


def test_weights_are_probabilities_and_an_escape_takes_the_rest() -> None:
    rate = torch.tensor([0.5, 3.0, 20.0], dtype=torch.float64)
    poisson = dist.Poisson(rate)
    mass = poisson.log_prob(torch.arange(6.0, dtype=torch.float64)[:, None]).exp().T.numpy()
    with_escape = Alphabet(0, 7, escape=True).weights(poisson)
    np.testing.assert_allclose(with_escape[:, :6] / with_escape.sum(1, keepdims=True), mass, atol=1e-6)
    np.testing.assert_allclose(with_escape[:, 6] / with_escape.sum(1), 1 - mass.sum(1), atol=1e-5)
    bounded = Alphabet(0, 6).weights(poisson)
    np.testing.assert_allclose(bounded / bounded.sum(1, keepdims=True), mass / mass.sum(1, keepdims=True), atol=1e-5)


def test_alphabets_are_those_of_the_support() -> None:
    assert alphabet_of(dist.Bernoulli(torch.tensor(0.5)), 1) == Alphabet(0, 2)
    assert alphabet_of(dist.Categorical(torch.ones(7)), 3) == Alphabet(0, 7)
    assert alphabet_of(dist.Poisson(torch.tensor(1.0)), 30) == Alphabet(0, 31)
    assert alphabet_of(dist.Poisson(torch.tensor(1.0)), 0) == Alphabet(0, 2)
    assert alphabet_of(dist.Poisson(torch.tensor(1.0)), 4096) == Alphabet(0, 4097, escape=True)
    levels = dist.Categorical(torch.ones(3))
    assert alphabet_of(dist.MixtureSameFamily(levels, dist.Poisson(torch.ones(3))), 30) == Alphabet(0, 31)
    with pytest.raises(ValueError, match="requires integers, and a MixtureSameFamily"):
        alphabet_of(dist.MixtureSameFamily(levels, dist.Normal(torch.zeros(3), 1.0)), 3)
    with pytest.raises(ValueError, match="requires integers, and a Normal"):
        alphabet_of(dist.Normal(0.0, 1.0), 3)


def test_a_probability_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"p\(x \| z\) has probabilities that are not finite"):
        Alphabet(0, 2).weights(dist.Bernoulli(logits=torch.tensor([torch.nan]), validate_args=False))


def test_values_beyond_the_alphabet_come_back() -> None:
    alphabet = Alphabet(0, 4, escape=True)
    x = np.array([0, 3, 2, 2**50, 4, 1, 3])
    weights = np.ones((7, 4))
    stack = Stack(random_words(3, 0))
    before = stack.words()
    alphabet.push(stack, x, weights)
    np.testing.assert_array_equal(alphabet.pop(stack, weights), x)
    np.testing.assert_array_equal(stack.words(), before)


# --- bits back ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_data", [1, 2, 7, 100, 1000, 5001])
def test_blocks_hold_each_datum_once_and_grow_slowly(num_data: int) -> None:
    blocks = list(blocks_of(num_data, 64))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(num_data))
    for block in blocks:
        size = block.stop - block.start
        assert size <= max(block.start // 8, 1)
        assert size <= 64


@pytest.mark.parametrize("num_data", [1, 9, 200])
def test_initial_bits_are_restored_to_the_last_one(num_data: int) -> None:
    vae = tiny(latent_dim=3)
    x = np.random.default_rng(0).integers(0, 2, (num_data, 4))
    with exact():
        channel = Channel(Networks(vae, 8), Grid(), Alphabet(0, 2))
        words, initial = encode(channel, lambda rows: x[rows], num_data, 7)
        again, left = decode(channel, words, num_data)
    np.testing.assert_array_equal(again, x)
    count = 8 * 3 * 2 * 24 // 32 + 2
    np.testing.assert_array_equal(left, random_words(count, 7)[count - initial :])
    # One datum takes 16 bits of each latent and at most 24 more for each of its two steps; two words are the state.
    assert 2 <= initial <= 2 + 3 * (16 + 24) // 32 + 1


def test_a_posterior_that_is_the_prior_costs_log_px_and_nothing_else() -> None:
    # The decoder does not look at z, so that p(z | x) = p(z): the code length has no randomness and a closed form.
    vae = VAE(VAEConfig(x_shape=(5,), latent_dim=2, encoder="mlp:hidden=[]"))
    logits = torch.tensor([-2.0, -1.0, 0.0, 0.5, 3.0])
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
    vae.model.decoder.set_output_bias(logits[None])
    with seeded(0):
        x = torch.bernoulli(torch.sigmoid(logits).expand(3000, 5))
    length = compress(vae, x).length
    exact_bits = -float(dist.Bernoulli(logits=logits.double()).log_prob(x.double()).sum()) / log(2)
    assert length.payload - length.initial == pytest.approx(exact_bits, abs=2 * 32 + 1e-4 * exact_bits)


def _moments(vae: VAE) -> tuple[Array, dict[str, Array]]:
    """All x of four binary elements, and means over q(z | x) by quadrature, in nats, each of shape (x,)."""
    x = torch.tensor([[i >> k & 1 for k in range(4)] for i in range(16)], dtype=torch.float64)
    vae = vae.double()
    with torch.no_grad():
        q = vae.encode(x).base_dist
        z = q.loc + q.scale * torch.linspace(-9, 9, 4001, dtype=torch.float64)  # (x, node)
        log_q, log_prior = dist.Normal(q.loc, q.scale).log_prob(z), dist.Normal(0.0, 1.0).log_prob(z)
        log_likelihood = vae.decode(z[..., None]).log_prob(x[:, None])
        mass = torch.softmax(log_q, 1)
        log_w = log_likelihood + log_prior - log_q
        elbo = (mass * log_w).sum(1)
        found = {
            "elbo": elbo,
            "variance": (mass * (log_w - elbo[:, None]) ** 2).sum(1),
            "likelihood": (mass * log_likelihood).sum(1),
            "joint": (mass * (log_likelihood + log_prior)).sum(1),
        }
    return x.numpy(), {name: value.numpy() for name, value in found.items()}


def _measured(vae: VAE, x: Array) -> float:
    length = compress(vae, x, seed=2).length
    return float(length.payload - length.initial)


def test_expected_length_is_minus_the_elbo_of_a_model_that_can_be_integrated(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns, moments = _moments(tiny())
    which = np.random.default_rng(5).integers(0, 16, 4000)
    bits = {name: -value[which].sum() / log(2) for name, value in moments.items()}
    # Two words of rounding, and 1e-4 for the grid; a right coder fails once in 10^5 seeds, and this seed is fixed.
    tolerance = 4.4 * np.sqrt(moments["variance"][which].sum()) / log(2) + 2 * 32 + 1e-4 * bits["elbo"]
    assert abs(_measured(tiny(), patterns[which]) - bits["elbo"]) < tolerance
    # It would tell bits that are not given back, and latents that cost nothing.
    assert abs(bits["joint"] - bits["elbo"]) > 5 * tolerance
    assert abs(bits["likelihood"] - bits["elbo"]) > 3 * tolerance
    # These data are not the model's: without scrambling, latents come from bits that are not random, and cost more.
    monkeypatch.setattr(Channel, "scramble", lambda self, stack, block: None)
    assert _measured(tiny(), patterns[which]) - bits["elbo"] > 1.5 * tolerance


@pytest.mark.parametrize(
    ("likelihood", "high"),
    [
        ("bernoulli", 1),
        ("categorical:num_classes=5", 4),
        ("discretized_logistic:levels=40", 39),
        ("discretized_logistic:levels=9,scale=predicted", 8),
        ("poisson", 30),
        ("negative_binomial", 30),
        ("negative_binomial:dispersion=predicted", 20_000),
    ],
)
def test_every_discrete_likelihood_gives_the_data_back(likelihood: str, high: int) -> None:
    x = np.random.default_rng(0).integers(0, high + 1, (30, 3, 2)).astype(np.int16)
    vae = tiny(likelihood, (3, 2), 2)
    made = compress(vae, x)
    again = decompress(vae, made)
    assert again.dtype == x.dtype
    np.testing.assert_array_equal(again, x)
    assert made.header.escape == (high > 4096)


@pytest.mark.parametrize(
    ("likelihood", "noise", "high"),
    [
        ("bernoulli", "poisson:peak=3", 9),
        ("discretized_logistic:levels=6", "poisson:peak=2", 5000),
        ("gamma", "poisson:peak=3", 9),
        ("discretized_logistic:levels=6", "salt_and_pepper:probability=0.2", 5),
    ],
)
def test_noisy_data_that_are_discrete_come_back(likelihood: str, noise: str, high: int) -> None:
    x = np.random.default_rng(0).integers(0, high + 1, (30, 4))
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=1, likelihood=likelihood, noise=noise, encoder="mlp:hidden=[8]"))
    made = compress(vae, x)
    np.testing.assert_array_equal(decompress(vae, made), x)
    assert made.header.escape == (high > 4096)


def test_rates_of_other_data_are_refused() -> None:
    vae = tiny()
    x = np.random.default_rng(0).integers(0, 2, (20, 4))
    made = compress(vae, x)
    compression_rates(vae, Split(torch.from_numpy(x)), made, num_draws=2)
    other = x.copy()
    other[3, 2] ^= 1
    for split, message in (
        (Split(torch.from_numpy(x[:10])), r"20 of shape \(4,\), the split has 10"),
        (Split(torch.from_numpy(x.reshape(20, 2, 2))), r"the split has 20 of shape \(2, 2\)"),
        (Split(torch.from_numpy(x), ids=torch.arange(20) + 1), "row numbers are not those"),
        (Split(torch.from_numpy(other)), "values are not those of the split"),
    ):
        with pytest.raises(ValueError, match=f"the archive is of other data.*{message}"):
            compression_rates(vae, split, made, num_draws=2)


def test_digits_cost_minus_the_elbo_to_one_percent(fitted: VAE, digits: Dataset, archive: Archive) -> None:
    found = compression_rates(fitted, digits.test, archive, num_draws=200, seed=3)
    assert abs(found.excess) < 0.01
    # 4.4 standard errors and two words.
    tolerance = 4.4 * np.hypot(found.draw_se, found.elbo_se) + found.length.per_dimension(64)
    assert abs(found.length.net - found.elbo) < tolerance + 2e-4 * found.elbo
    assert found.length.net < found.length.gross < found.length.whole
    # Only the first datum reads initial bits: their number does not grow with the data.
    assert found.length.initial <= 32 * (2 + 6 * 40 // 32 + 1)
    names = [name for name, _ in found.rows()]
    assert names[-4:] == ["gzip", "bz2", "lzma", "PNG"]
    assert found.summary()["net"] == found.length.net
    assert f"{found.elbo:.4f}" in str(found)


def test_digits_come_back_in_their_type_with_their_rows(fitted: VAE, digits: Dataset, file: Path) -> None:
    read = read_archive(file)
    again = decompress(fitted, read)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, digits.test.values.numpy())
    np.testing.assert_array_equal(read.ids, digits.test.ids.numpy())
    assert read.length.file == 8 * file.stat().st_size
    plain = compress(fitted, digits.test.values.numpy()[:3])
    assert plain.header.first_id == 0
    np.testing.assert_array_equal(plain.ids, np.arange(3))


def test_random_observations_are_fixed_by_the_seed() -> None:
    split = load_data("digits", binarize="dynamic").train.take(slice(0, 40))
    vae = tiny(x_shape=split.x_shape)
    again = decompress(vae, compress(vae, split, seed=4))
    np.testing.assert_array_equal(again, split.fixed(derive_seed(4, 0)).values.numpy())
    assert again.dtype == np.uint8


def test_scaled_and_floating_data_come_back() -> None:
    x = np.random.default_rng(0).integers(0, 2, (20, 4))
    vae = tiny()
    scaled = Split(torch.from_numpy(255 * x.astype(np.uint8)), top=255.0)
    again = decompress(vae, compress(vae, scaled))
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, x)
    for kind in (np.float16, np.float32, np.bool_):
        typed = decompress(vae, compress(vae, x.astype(kind)))
        assert typed.dtype == kind
        np.testing.assert_array_equal(typed, x)
    truths = decompress(vae, compress(vae, torch.from_numpy(x).bool()))
    assert truths.dtype == np.bool_


def test_a_type_that_cannot_come_back_is_refused_before_anything_is_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("coded")

    monkeypatch.setattr(codec_module, "encode", never)
    with pytest.raises(ValueError, match="data of dtype bfloat16 cannot be restored; convert them to booleans"):
        compress(tiny(), torch.zeros(3, 4, dtype=torch.bfloat16))


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_counts_that_float64_does_not_tell_apart_are_refused(kind: type) -> None:
    vae = tiny("poisson", (1,))
    largest: Array = np.array([[2**53 - 1]], dtype=kind)
    np.testing.assert_array_equal(decompress(vae, compress(vae, largest)), largest)
    for value in (2**53, 2**53 + 1):
        with pytest.raises(ValueError, match="x must have values below 9007199254740992"):
            compress(vae, np.array([[value]], dtype=kind))


def test_sparse_data_come_back_in_the_smallest_type_that_holds_them() -> None:
    x = np.random.default_rng(0).integers(0, 300, (20, 4))
    again = decompress(vae := tiny("poisson"), compress(vae, csr_matrix(x)))
    assert again.dtype == np.uint16
    np.testing.assert_array_equal(again, x)


# --- exactness ------------------------------------------------------------------------------------------------------


def test_threads_type_and_neighbours_do_not_change_a_bit(fitted: VAE, digits: Dataset) -> None:
    x = digits.test.values[:70]
    before = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.append(compress(fitted, x).to_bytes())
            assert torch.get_num_threads() == threads
            with exact():
                assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]
    with exact():
        networks = Networks(fitted, 16)
        rows = x[:5].numpy()
        alone, among = networks.posterior(rows), networks.posterior(np.concatenate([rows, x[20:31].numpy()]))
        for one, other in zip(alone, among, strict=True):
            np.testing.assert_array_equal(one, other[: len(one)])


def test_another_process_with_other_threads_reads_it(run: Path, file: Path, digits: Dataset, tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from vae_pyro.runs.folder import RunFolder; "
        "from vae_pyro.applications.compression.archive import read_archive; "
        "from vae_pyro.applications.compression.codec import decompress; "
        "np.save(sys.argv[3], decompress(RunFolder(sys.argv[1]).load_model(), read_archive(sys.argv[2])))"
    )
    out = tmp_path / "x.npy"
    subprocess.run(
        [sys.executable, "-c", program, str(run), str(file), str(out)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    np.testing.assert_array_equal(np.load(out), digits.test.values.numpy())


def test_other_weights_are_refused(fitted: VAE, archive: Archive) -> None:
    other = VAE(fitted.config)
    with pytest.raises(ArchiveError, match=r"written with other weights .* name the run that wrote it"):
        decompress(other, archive)
    other.load_state_dict(fitted.state_dict())
    with torch.no_grad():
        next(other.model.decoder.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(ArchiveError, match="written with other weights"):
        decompress(other, archive)


def _less_exact(values: Array) -> Array:
    """A distribution function as another library might compute it."""
    return np.asarray(norm.cdf(values.astype(np.float32)), dtype=np.float64)


def test_a_machine_that_computes_other_probabilities_is_refused_before_it_decodes(
    fitted: VAE, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    with pytest.raises(ArchiveError, match=r"other probabilities .* at fixed points.*versions are the same"):
        decompress(fitted, archive)


def test_a_difference_that_fixed_places_do_not_show_is_refused_by_the_data(
    fitted: VAE, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    monkeypatch.setattr(Networks, "digest", lambda self, grid, alphabet: archive.header.probabilities)
    with pytest.raises(ArchiveError, match=r"other probabilities .* somewhere in the data"):
        decompress(fitted, archive)


@pytest.mark.parametrize(
    ("likelihood", "high"), [("poisson", 6000), ("negative_binomial:dispersion=predicted", 20_000), ("bernoulli", 1)]
)
@pytest.mark.parametrize("seed", range(3))
def test_data_that_other_probabilities_cannot_decode_are_refused_alike(
    likelihood: str, high: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind an escape stands an integer of any size, which may be too large for 64 bits."""
    vae = tiny(likelihood, (6,), 2, seed)
    made = compress(vae, np.random.default_rng(seed).integers(0, high + 1, (60, 6)), seed=seed)
    assert made.header.escape == (high > 4096)
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    monkeypatch.setattr(Networks, "digest", lambda self, grid, alphabet: made.header.probabilities)
    with pytest.raises(ArchiveError, match=r"other probabilities .* somewhere in the data"):
        decompress(vae, made)


def test_versions_that_differ_are_named(fitted: VAE, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_module, "ndtr", _less_exact)
    versions = {**archive.header.versions, "torch": "1.0"}
    old = Archive(archive.header.replace(versions=versions), archive.words, archive.ids)
    with pytest.raises(ArchiveError, match=f"torch 1.0 there, {torch.__version__.split('+')[0]}"):
        decompress(fitted, old)


# --- the file -------------------------------------------------------------------------------------------------------


def test_truncated_changed_and_foreign_files_are_refused(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    path = tmp_path / "damaged.vpz"
    random = np.random.default_rng(0)
    for length in (0, 1, 10, 19, 22, 25, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ArchiveError, match="truncated|foreign|header"):
            read_archive(path)
    for place in [*random.integers(0, len(content), 60), len(content) - 1, 20, 23]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        with pytest.raises(ArchiveError):
            read_archive(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ArchiveError, match="was extended"):
        read_archive(path)
    path.write_bytes(b"PK" + content)
    with pytest.raises(ArchiveError, match="foreign"):
        read_archive(path)
    with pytest.raises(ArchiveError, match="cannot be read"):
        read_archive(tmp_path / "absent.vpz")


def test_an_archive_says_what_it_is(archive: Archive, fitted: VAE) -> None:
    content = archive.to_bytes()
    begin = content.index(b"{")
    header = json.loads(content[begin : content.index(b"}}") + 2])
    assert header["likelihood"] == "discretized_logistic"
    assert header["x_shape"] == [1, 8, 8]
    assert header["dtype"] == "u1"
    assert header["num_data"] == len(archive.ids)
    assert set(header["versions"]) >= {"torch", "constriction", "numpy", "vae_pyro"}
    assert header["bits"] == 16
    assert fitted.config.latent_dim == 6


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "way_out"),
    [
        ({"structure": "conditional:num_classes=3"}, "structure 'single'; this VAE is 'conditional'"),
        ({"posterior": "full_rank"}, "fit one with posterior='mean_field'"),
        ({"posterior": "flow"}, "fit one with posterior='mean_field'"),
        ({"prior": "mixture"}, "fit one with prior='normal'"),
        ({"likelihood": "gaussian"}, "'gaussian' is a density; fit one with 'bernoulli'"),
        ({"likelihood": "multinomial"}, "not independent given z"),
    ],
)
def test_models_that_cannot_code_are_refused_with_the_way_out(change: dict[str, str], way_out: str) -> None:
    vae = VAE(VAEConfig(x_shape=(4,), latent_dim=2).replace(**change))
    with pytest.raises(ValueError, match=way_out):
        compress(vae, np.zeros((3, 4)))


def test_data_that_cannot_be_coded_are_refused() -> None:
    vae = tiny()
    with pytest.raises(ValueError, match=r"requires values in \{0, 1\}"):
        compress(vae, np.full((3, 4), 2))
    with pytest.raises(ValueError, match="requires complete data"):
        compress(vae, Split(torch.zeros(3, 4), mask=torch.tensor([[True, True, False, True]] * 3)))
    with pytest.raises(ValueError, match="shape"):
        compress(vae, np.zeros((3, 5)))


def test_without_the_library_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch, archive: Archive) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ValueError, match=r"pip install 'vae_pyro\[compression\]'"):
        compress(tiny(), np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"pip install 'vae_pyro\[compression\]'"):
        decompress(tiny(), archive)


# --- other compressors ----------------------------------------------------------------------------------------------


def test_general_compressors_get_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 2, (50, 16, 16))
    sizes = compressed_sizes(noise)
    # Noise has no shorter code than its bits, which packed bytes and a picture of one bit a pixel come near to.
    for bits in sizes.values():
        assert noise.size <= bits < 1.4 * noise.size + 2000
    assert compressed_sizes(np.zeros((50, 16, 16), np.int64))["lzma"] < 2000
    assert "PNG" not in compressed_sizes(random.integers(0, 300, (5, 4, 4)))
    assert "PNG" not in compressed_sizes(noise.reshape(50, -1))

    pictures = []

    class Recording(BytesIO):
        def getvalue(self) -> bytes:
            pictures.append(super().getvalue())
            return pictures[-1]

    monkeypatch.setattr(general_compressors, "BytesIO", Recording)
    grey = random.integers(0, 256, (10, 1, 8, 8))
    for x in (noise, grey):
        bits = compressed_sizes(x)["PNG"]
        assert bits == 8 * len(pictures[-1])
        seen = np.asarray(Image.open(BytesIO(pictures[-1])))
        np.testing.assert_array_equal(seen.astype(np.int64), x.reshape(-1, x.shape[-1]))
