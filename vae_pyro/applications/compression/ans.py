"""A stack of coded symbols: asymmetric numeral systems, on the `constriction` library.

Symbols are popped in the reverse order, and popping symbols of a distribution is the exact inverse of pushing them:
popping from a stack of random bits gives draws of that distribution, the principle of bits-back coding.

References:
    Duda 2009, Asymmetric numeral systems. arXiv:0902.0271
"""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

WORD_BITS = 32
# Largest cost of a symbol: constriction represents probabilities as positive multiples of 2^-24.
MAX_SYMBOL_BITS = 24
_STATE_WORDS = 2
_LENGTHS, _DIGIT = 64, 16


def constriction() -> Any:
    """The `constriction` library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import constriction as library
    except ImportError:
        raise ValueError("compression requires the library constriction; pip install 'vae_pyro[compression]'") from None
    return library


def random_words(count: int, *seed: int) -> Array:
    """Pseudo-random bits, ``(count,)`` words of 32, none of them zero.

    The raw stream of NumPy's PCG64 is the same on every machine and in every release.
    """
    raw = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    return np.asarray(np.maximum(raw >> 32, 1), dtype=np.uint32)


class Stack:
    """Symbols on a stack of 32-bit words.

    A distribution is given by integer weights, which are exact in float64, so that encoder and decoder derive the same
    probabilities: ``(2^24 - n) weight / sum + 1`` over 2^24 for n symbols, all of them positive.

    Args:
        words: initial content, uint32, the last of them not zero.

    Attributes:
        lowest: number of words at the bottom that have never been read.
    """

    def __init__(self, words: Array) -> None:
        library = constriction()
        self._coder = library.stream.stack.AnsCoder(np.ascontiguousarray(words, dtype=np.uint32))
        self._family = library.stream.model.Categorical(perfect=False)
        self._uniform = library.stream.model.Uniform
        self.lowest = len(words)

    def push(self, symbols: Array, weights: Array) -> None:
        """Push symbols, the last one first.

        Args:
            symbols: integers from 0 to n - 1, ``(symbol,)``.
            weights: of each symbol's distribution, integers in float64, ``(symbol, n)``, none of whose rows is all 0.
        """
        if len(symbols):
            self._coder.encode_reverse(symbols.astype(np.int32), self._family, weights)

    def pop(self, weights: Array) -> Array:
        """Pop symbols, int64, ``(symbol,)``: those that `push` with the same weights pushed."""
        if not len(weights):
            return np.zeros(0, np.int64)
        return self._popped(self._coder.decode(self._family, weights))

    def push_uniform(self, symbols: Array, size: int) -> None:
        """Push symbols that are uniform on ``size`` values, a power of two."""
        if len(symbols):
            self._coder.encode_reverse(symbols.astype(np.int32), self._uniform(size))

    def pop_uniform(self, count: int, size: int) -> Array:
        """Pop ``count`` symbols that `push_uniform` pushed."""
        return self._popped(self._coder.decode(self._uniform(size), count)) if count else np.zeros(0, np.int64)

    def scramble(self, count: int, *key: int) -> None:
        """Combine the top ``count`` times 16 bits with pseudo-random bits (exclusive or); its own inverse."""
        digits = self.pop_uniform(count, 1 << _DIGIT)
        self.push_uniform(digits ^ (random_words(count, *key) & (1 << _DIGIT) - 1), 1 << _DIGIT)

    def push_integer(self, value: int) -> None:
        """Push an integer from 0 to 2^63 - 1: its bits, and their number in 6 bits.

        References:
            Elias 1975, Universal codeword sets and representations of the integers, IEEE Trans. Inf. Theory 21, sec. 3
            (the code gamma, here with a length of fixed size). doi:10.1109/TIT.1975.1055349
        """
        value += 1
        length = value.bit_length() - 1  # the leading bit is always 1 and is not coded
        for begin in range(0, length, _DIGIT):
            size = 1 << min(_DIGIT, length - begin)
            self.push_uniform(np.array([value >> begin & size - 1]), size)
        self.push_uniform(np.array([length]), _LENGTHS)

    def pop_integer(self) -> int:
        """Pop an integer that `push_integer` pushed."""
        length = int(self.pop_uniform(1, _LENGTHS)[0])
        value = 1 << length
        for begin in reversed(range(0, length, _DIGIT)):
            value |= int(self.pop_uniform(1, 1 << min(_DIGIT, length - begin))[0]) << begin
        return value - 1

    def words(self) -> Array:
        """Content of the stack, uint32."""
        return np.asarray(self._coder.get_compressed())

    @property
    def bits(self) -> int:
        """Number of bits on the stack."""
        return int(self._coder.num_valid_bits())

    def _popped(self, symbols: Any) -> Array:
        self.lowest = min(self.lowest, int(self._coder.pos()[0]))
        return np.asarray(symbols, dtype=np.int64)
