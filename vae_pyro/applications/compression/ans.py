"""A stack of coded symbols: asymmetric numeral systems, on the `constriction` library.

What is pushed last is popped first, and popping symbols of a distribution is the exact inverse of pushing them: a
stack of random bits that is popped gives draws of that distribution, which is what bits-back coding lives on.

References:
    Duda 2009, Asymmetric numeral systems. arXiv:0902.0271
"""

from typing import Any

import numpy as np

type Array = np.ndarray[Any, Any]

WORD_BITS = 32
# A symbol costs this many bits at most: constriction keeps probabilities as multiples of 2^-24 and none at zero.
MOST_BITS = 24
_STATE_WORDS = 2
_LENGTHS, _DIGIT = 64, 16


def constriction() -> Any:
    """The library, where it is installed.

    Raises:
        ValueError: it is not.
    """
    try:
        import constriction as library
    except ImportError:
        raise ValueError("coding wants the library constriction; pip install 'vae_pyro[compression]'") from None
    return library


def random_words(count: int, *seed: int) -> Array:
    """Pseudo-random bits, ``(count,)`` words of 32, none of them zero.

    The raw stream of NumPy's PCG64 is the same on every machine and in every release.
    """
    raw = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(count)
    return np.asarray(np.maximum(raw >> 32, 1), dtype=np.uint32)


class Stack:
    """Symbols on a stack of 32-bit words.

    A distribution is given by integer weights, which are exact in float64, so that both ends of a channel turn them
    into the same probabilities: ``(2^24 - n) weight / sum + 1`` over 2^24 for n symbols, none of which is impossible.

    Args:
        words: to begin with, uint32, the last of them not zero.

    Attributes:
        lowest: how many words at the bottom have never been touched.
    """

    def __init__(self, words: Array) -> None:
        library = constriction()
        self._coder = library.stream.stack.AnsCoder(np.ascontiguousarray(words, dtype=np.uint32))
        self._family = library.stream.model.Categorical(perfect=False)
        self._uniform = library.stream.model.Uniform
        self.lowest = len(words)

    def push(self, symbols: Array, weights: Array) -> None:
        """Put symbols on the stack, the last one first.

        Args:
            symbols: integers from 0 to n - 1, ``(symbol,)``.
            weights: of each symbol's distribution, integers in float64, ``(symbol, n)``, none of whose rows is all 0.
        """
        if len(symbols):
            self._coder.encode_reverse(symbols.astype(np.int32), self._family, weights)

    def pop(self, weights: Array) -> Array:
        """Take symbols off the stack, int64, ``(symbol,)``: what `push` with the same weights put there."""
        if not len(weights):
            return np.zeros(0, np.int64)
        return self._popped(self._coder.decode(self._family, weights))

    def push_uniform(self, symbols: Array, size: int) -> None:
        """Put symbols on the stack that are all equally probable; ``size`` is a power of two."""
        if len(symbols):
            self._coder.encode_reverse(symbols.astype(np.int32), self._uniform(size))

    def pop_uniform(self, count: int, size: int) -> Array:
        """Take ``count`` symbols off the stack that `push_uniform` put there."""
        return self._popped(self._coder.decode(self._uniform(size), count)) if count else np.zeros(0, np.int64)

    def scramble(self, count: int, *key: int) -> None:
        """Exchange the upper ``count`` times 16 bits for others that look random; the same again brings them back."""
        digits = self.pop_uniform(count, 1 << _DIGIT)
        self.push_uniform(digits ^ (random_words(count, *key) & (1 << _DIGIT) - 1), 1 << _DIGIT)

    def push_integer(self, value: int) -> None:
        """Put an integer from 0 to 2^63 - 1 on the stack: its bits, and their number in 6 bits.

        References:
            Elias 1975, Universal codeword sets and representations of the integers, IEEE Trans. Inf. Theory 21, sec. 3
            (the code gamma, here with a length of fixed size). doi:10.1109/TIT.1975.1055349
        """
        value += 1
        length = value.bit_length() - 1  # the leading bit is a 1 and need not be said
        for begin in range(0, length, _DIGIT):
            size = 1 << min(_DIGIT, length - begin)
            self.push_uniform(np.array([value >> begin & size - 1]), size)
        self.push_uniform(np.array([length]), _LENGTHS)

    def pop_integer(self) -> int:
        """Take off what `push_integer` put there."""
        length = int(self.pop_uniform(1, _LENGTHS)[0])
        value = 1 << length
        for begin in reversed(range(0, length, _DIGIT)):
            value |= int(self.pop_uniform(1, 1 << min(_DIGIT, length - begin))[0]) << begin
        return value - 1

    def words(self) -> Array:
        """All of the stack, uint32."""
        return np.asarray(self._coder.get_compressed())

    @property
    def bits(self) -> int:
        """Bits on the stack, to the last one."""
        return int(self._coder.num_valid_bits())

    def _popped(self, symbols: Any) -> Array:
        self.lowest = min(self.lowest, int(self._coder.pos()[0]))
        return np.asarray(symbols, dtype=np.int64)
