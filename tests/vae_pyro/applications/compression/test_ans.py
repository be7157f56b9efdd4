"""The stack of the entropy coder."""

import numpy as np
import pytest

from tests.vae_pyro.applications.compression.models import bits_of
from vae_pyro.applications.compression.ans import Stack, random_words


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
