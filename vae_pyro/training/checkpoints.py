"""Checkpoints: everything that a fit is continued from, to the bits of the uninterrupted one, as one file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

import torch
from torch import Tensor
from torch.optim import Optimizer

from vae_pyro.core.files import interpreted
from vae_pyro.models.vae import VAE
from vae_pyro.parallel.ranks import Ranks
from vae_pyro.runs.folder import RunFolder
from vae_pyro.runs.weights import set_weights, weights


@dataclass
class State:
    """Where a fit stands. With the weights, the optimizer's state and the generators', it is all that resume needs.

    Attributes:
        epoch: epochs that are complete.
        batch: steps of the epoch that are taken.
        sums: of the metrics over these steps, and ``count``, the data in them.
        seconds: spent on them.
        history: a row for each complete epoch.
        best_epoch: see `vae_pyro.training.fitting.FitResult`.
        best_elbo: its validation ELBO.
        stale: epochs since then that count.
        finished: whether no epoch is left to run.
        compiled: for each number of data in a step, as text, whether such steps are compiled, once that is decided.
        ending: how the fit ended, see `vae_pyro.training.length.ending`.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_elbo: float | None = None
    stale: int = 0
    finished: bool = False
    compiled: dict[str, bool] = field(default_factory=dict)
    ending: str = ""

    def require_possible(self) -> None:
        """Refuse what no fit writes.

        Raises:
            ValueError: counts that are no counts, or another number of rows than of epochs.
        """
        for name in ("epoch", "batch", "stale"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}, expected a count")
        for name, kind in (("sums", dict), ("history", list), ("finished", bool), ("compiled", dict), ("ending", str)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is {getattr(self, name)!r:.40}, expected a {kind.__name__}")
        if not all(isinstance(made, bool) for made in self.compiled.values()):
            raise ValueError(f"compiled is {self.compiled!r:.40}, expected true or false for each size of batch")
        if len(self.history) != self.epoch or not all(isinstance(row, dict) for row in self.history):
            raise ValueError(f"the history has {len(self.history)} rows and {self.epoch} epochs are complete")
        if not all(isinstance(value, float | int) for row in (self.sums, *self.history) for value in row.values()):
            raise ValueError("a sum or an entry of the history is no number")


class Generators:
    """The generators that a fit draws from: torch's own, in each of its processes.

    Args:
        device: of this process.
        ranks: the processes.
    """

    def __init__(self, device: torch.device, ranks: Ranks) -> None:
        self.device, self.ranks = device, ranks

    def states(self) -> dict[str, Tensor]:
        """States by name; those of the other processes carry their rank."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        if self.ranks.alone:
            return states
        gathered: dict[str, Tensor] = {}
        for name, state in states.items():
            for rank, one in enumerate(self.ranks.gather(state.to(self.device))):
                gathered[f"{name}/{rank}" if rank else name] = one.cpu()
        return gathered

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Put the generators to where they were; what `states` gave.

        Raises:
            KeyError: no state of the first process's generator.
        """
        if "cpu" not in states:
            raise KeyError("state of torch's generator")
        # A run that had fewer processes left no state for the others; they start from seeds of their own.
        mine = "" if self.ranks.first else f"/{self.ranks.rank}"
        if f"cpu{mine}" in states:
            torch.set_rng_state(states[f"cpu{mine}"])
        if self.device.type == "cuda" and f"cuda{mine}" in states:
            torch.cuda.set_rng_state(states[f"cuda{mine}"], self.device)


class Checkpoints:
    """The checkpoint of a run folder.

    Args:
        run: ``None`` writes none.
        vae: whose weights are kept.
        optimizer: whose state is.
        generators: whose states are.
        seconds: least time between two, unless a signal comes.
    """

    def __init__(
        self, run: RunFolder | None, vae: VAE, optimizer: Optimizer, generators: Generators, seconds: float
    ) -> None:
        self.run, self.vae, self.optimizer, self.generators = run, vae, optimizer, generators
        self.seconds = seconds
        self._saved = monotonic()

    @property
    def due(self) -> bool:
        """Whether the time for one has come."""
        return monotonic() - self._saved >= self.seconds

    @property
    def way_out(self) -> str:
        """Where a fit that has failed can be taken up again, as the end of a message."""
        if self.run is not None and self.run.has_checkpoint:
            return (
                f"; the last good checkpoint is {str(self.run.checkpoint_file)!r}: go on from it with another rate, "
                "--resume --set optimizer.lr=... (resume=True with that rate in config)"
            )
        return "; there is no checkpoint yet" if self.run else "; without a run folder there is no checkpoint"

    def write(self, state: State, best: Mapping[str, Tensor] | None, reference: Tensor | None = None) -> None:
        """Write a checkpoint; every process calls it, and the first one writes.

        Args:
            state: of the fit.
            best: see `vae_pyro.training.early_stopping.EarlyStopping`; likewise ``reference``.
        """
        if self.run is None:
            return
        kept = self.generators.states()
        self._saved = monotonic()
        if not self.generators.ranks.first:
            return
        tensors = {f"model/{name}": tensor for name, tensor in weights(self.vae).items()}
        if best is not None:
            tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
        if reference is not None:
            tensors["validated/reference"] = reference
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in values.items() if torch.is_tensor(value)}
        tensors |= {f"random/{name}": state for name, state in kept.items()}
        self.run.write_checkpoint(tensors, vars(state))

    def restore(self) -> tuple[State, dict[str, Tensor] | None, Tensor | None]:
        """Put weights, optimizer and generators to where they were; the state, the best weights, and the reference.

        Raises:
            RunError: the file is damaged or of another model.
        """
        assert self.run is not None
        tensors, info, file = self.run.read_checkpoint()
        with interpreted(file):
            state = State(**info["state"])
            state.require_possible()
            groups: dict[str, dict[str, Tensor]] = {
                kind: {} for kind in ("model", "best", "optimizer", "random", "validated")
            }
            for name, tensor in tensors.items():
                kind, _, rest = name.partition("/")
                groups[kind][rest] = tensor
            set_weights(self.vae, groups["model"], str(file), convert=False)
            best = {name: tensor.to(self.generators.device) for name, tensor in groups["best"].items()} or None
            slots: dict[int, dict[str, Tensor]] = {}
            for name, tensor in groups["optimizer"].items():
                index, _, key = name.partition("/")
                slots.setdefault(int(index), {})[key] = tensor
            self._require_slots(state, slots)
            if slots:
                self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
            self.generators.restore(groups["random"])
        if self.generators.ranks.first:
            self.run.discard_damaged(file)
        return state, best, groups["validated"].get("reference")

    def _require_slots(self, state: State, slots: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Refuse an optimizer's state of other parameters, or none where steps have left one."""
        stateless = isinstance(self.optimizer, torch.optim.SGD) and not self.optimizer.defaults["momentum"]
        if (state.epoch or state.batch) and not slots and not stateless:
            raise KeyError("state of the optimizer")
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, values in slots.items():
            for key, value in values.items():
                if value.dim() and value.shape != parameters[index].shape:
                    raise ValueError(
                        f"the optimizer's {key} of parameter {index} has shape {tuple(value.shape)}, expected "
                        f"{tuple(parameters[index].shape)}"
                    )
