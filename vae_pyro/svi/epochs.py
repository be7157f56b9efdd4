"""Epochs over resident or streamed data, in blocks of steps where a whole program allows it."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from vae_pyro.core.isolation import derive_seed
from vae_pyro.core.minibatches import BitStream, batches
from vae_pyro.svi.cuda_graphs import Replay, Words
from vae_pyro.svi.forms import WholeForm
from vae_pyro.svi.program import Metrics
from vae_pyro.svi.stepper import Traced

_ORDER, _BITS = 1, 2
_CPU = torch.device("cpu")


@runtime_checkable
class Rows(Protocol):
    """Resident data that hand out raw batches: `vae_pyro.data.split.Split`, for instance."""

    def __len__(self) -> int: ...

    def raw(self, index: Tensor, bits: Words) -> tuple[Any, ...]:
        """Rows as they are stored, with random bits where the observation draws; what ``prepare`` takes."""


class TensorRows:
    """Tensors with the same first dimension, as `Rows`.

    Raises:
        ValueError: their lengths differ.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1:
            raise ValueError(f"tensors of one length expected, got lengths {sorted(lengths)}")
        self.tensors, self.device = tensors, tensors[0].device

    def __len__(self) -> int:
        return len(self.tensors[0])

    def raw(self, index: Tensor, bits: Words) -> tuple[Any, ...]:
        return tuple(tensor.index_select(0, index) for tensor in self.tensors)


def _rows(data: Sequence[Any]) -> Any:
    """What an epoch steps through, from the arguments of `run_epoch`."""
    tensors = [torch.from_numpy(item) if isinstance(item, np.ndarray) else item for item in data]
    if len(tensors) == 1 and hasattr(tensors[0], "raw"):
        return tensors[0]
    other = next((item for item in tensors if not isinstance(item, Tensor)), None)
    if other is not None:
        raise ValueError(
            f"run_epoch takes tensors or arrays of one length, or one object with a method raw, got "
            f"{type(other).__name__}; step through batches that come from elsewhere with svi.step(*batch)"
        )
    return TensorRows(tensors)


class _Mean:
    """The mean loss of a datum, from the losses of steps."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.seen = 0

    def add(self, loss: Any, count: int) -> None:
        self.total = self.total + (loss.detach().double() if isinstance(loss, Tensor) else loss)
        self.seen += count

    def value(self) -> Any:
        mean = self.total / max(self.seen, 1)
        return mean.tolist() if isinstance(mean, Tensor) else mean


class EpochDriver:
    """Steps through data once, in a random order.

    Args:
        take: a step; gives its loss.
        find_block: for a function that makes a batch, the program with which so many steps on such batches can be
            taken at once; ``None`` where they are taken one by one.
        keep: hears the metrics of a block.
        steps_at_once: steps in a block.
    """

    def __init__(
        self,
        take: Callable[[tuple[Any, ...], dict[str, Any]], Any],
        find_block: Callable[[Callable[[], tuple[Any, ...]], int], Traced | None],
        keep: Callable[[Metrics], None],
        steps_at_once: int,
    ) -> None:
        self._take, self._find_block, self._keep = take, find_block, keep
        self.steps_at_once = steps_at_once
        self.replays: dict[Any, Replay] = {}

    def run(self, data: Sequence[Any], batch_size: int, seed: int, drop_last: bool, kwargs: dict[str, Any]) -> Any:
        """An epoch; see `vae_pyro.svi.compiled_svi.CompiledSVI.run_epoch`."""
        rows = _rows(data)
        size = len(rows)
        if size == 0 or batch_size < 1:
            raise ValueError(
                f"an epoch requires data and a positive batch_size, got {size} data in batches of {batch_size}"
            )
        device = getattr(rows, "device", _CPU)
        bits = BitStream(derive_seed(seed, _BITS), device)
        order_seed = derive_seed(seed, _ORDER)
        if not getattr(rows, "resident", True):
            return self._run_stream(rows.epoch(batch_size, order_seed, bits), batch_size, drop_last, kwargs)
        mean = _Mean()
        order = list(batches(size, batch_size, order_seed, device, drop_last=drop_last))
        while order:
            block = order[: self.steps_at_once]
            traced = None if kwargs else self._traced_for(rows, block, batch_size)
            whole = None if traced is None else traced.block_form
            if traced is not None and whole is not None:
                mean.add(self.take_block(whole, rows, block, bits), sum(len(index) for index in block))
                traced.steps += len(block)
            else:
                block = order[:1]
                mean.add(self._take(rows.raw(block[0], bits), kwargs), len(block[0]))
            del order[: len(block)]
        return mean.value()

    def take_block(self, form: WholeForm, rows: Any, block: list[Tensor], bits: BitStream) -> Tensor:
        """Take the steps of a block at once; the sum of their losses.

        Args:
            form: of the step.
            rows: resident data.
            block: rows of each step, as many as `steps_at_once`.
            bits: random words on a CPU. A recorded graph can follow its device's generator alone, and takes them there.
        """
        device, batch_size = block[0].device, len(block[0])
        identity = tuple(map(id, rows.tensors)) if isinstance(rows, TensorRows) else id(rows)
        at = (identity, batch_size, id(form))
        if at not in self.replays:
            # The replay keeps the data that it indexes alive, and so their identity.
            self.replays[at] = Replay(form, rows.raw, batch_size, self.steps_at_once, device)
        replay = self.replays[at]
        losses = replay.run(torch.stack(block), bits if device.type == "cpu" else _device_words)
        self._keep(replay.metrics)
        return losses.double().sum()

    def forget(self) -> None:
        """Drop what has been recorded."""
        self.replays.clear()

    def _traced_for(self, rows: Any, block: list[Tensor], batch_size: int) -> Traced | None:
        """The program of a block of steps, where the block is full."""
        if self.steps_at_once < 2 or len(block) < self.steps_at_once or len(block[-1]) < batch_size:
            return None
        return self._find_block(lambda: rows.raw(block[0], BitStream(0, block[0].device)), len(block))

    def _run_stream(self, stream: Any, batch_size: int, drop_last: bool, kwargs: dict[str, Any]) -> Any:
        """An epoch of batches as they come."""
        mean = _Mean()
        with closing(stream):
            for raw in stream:
                if drop_last and len(raw[0]) < batch_size:
                    break
                mean.add(self._take(raw, kwargs), len(raw[0]))
        return mean.value()


def _device_words(count: int) -> Tensor:
    """Random words from the generator of the current CUDA device, which a graph can record."""
    return torch.randint(-(2**31), 2**31, (count,), dtype=torch.int32, device="cuda")
