"""What programs can reach from Python: found, compared, and put back."""

import functools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vae_pyro.svi.outside import reach
from vae_pyro.svi.outside.code_names import is_library, names_of
from vae_pyro.svi.outside.generator_states import GeneratorStates
from vae_pyro.svi.outside.reach import UnwatchableError
from vae_pyro.svi.outside.surroundings import Surroundings

SCALE = 1.0
OPTIONS = SimpleNamespace(beta=0.5, unread=0)


def helper(x: Any) -> Any:
    return x * OPTIONS.beta


class Owner:
    level = 2.0

    def __init__(self) -> None:
        self.beta, self.unread, self.table, self.history = 1.0, 0, {"a": 1}, [1, 2]
        self.net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))

    def read(self, x: Any) -> Any:
        return x * self.beta * self.level + self.table["a"] + self.history[0] + self.net(x).sum()

    def never_called(self) -> Any:
        return self.unread


def watched(**roots: Any) -> Surroundings:
    return Surroundings(roots)


def test_globals_closures_and_defaults_are_found_through_the_functions_that_are_called() -> None:
    factor = 3.0

    def program(x: Any, power: float = 2.0) -> Any:
        return helper(x) * SCALE * factor**power

    found = watched(model=program)
    labels = {place.label for place in found.places}
    assert {"closure variable 'factor'", "global variable 'SCALE'", "global variable 'OPTIONS'.beta"} <= labels
    assert not any("unread" in label for label in labels)
    assert found.hold()
    factor = 4.0
    assert not found.hold()
    assert found.changed() == ["closure variable 'factor'"]
    assert found.changed_numbers() == ["closure variable 'factor'"]
    factor = 3.0
    OPTIONS.unread = 1
    assert found.hold()
    OPTIONS.beta = 0.25
    assert found.changed() == ["global variable 'OPTIONS'.beta"]
    OPTIONS.beta = 0.5
    assert found.hold()


def test_attributes_are_compared_where_some_code_reads_them() -> None:
    owner = Owner()
    found = watched(model=owner.read)
    for change, label in (
        (lambda: setattr(owner, "beta", 2.0), "model.beta"),
        (lambda: owner.table.update(a=2), "model.table['a']"),
        (lambda: owner.history.append(3), "model.history"),
        (lambda: owner.net.eval(), "model.net.training"),  # noqa: PLW0108 (another net after each change)
        (lambda: setattr(owner.net[1], "p", 0.1), "model.net.1.p"),
        (lambda: owner.net[0].weight.requires_grad_(False), "model.net.0.weight.requires_grad"),
        (lambda: setattr(owner.net[0], "weight", nn.Parameter(torch.ones(2, 2))), "model.net.0.weight"),
        (lambda: setattr(Owner, "level", 3.0), "Owner.level"),
    ):
        assert found.hold()
        change()
        assert not found.hold()
        assert label in found.changed()
        Owner.level = 2.0
        owner.__init__()  # type: ignore[misc]
        found = watched(model=owner.read)
    owner.unread = 7
    assert found.hold()


def test_an_empty_cell_hides_no_other() -> None:
    def program() -> Any:
        return (never, scale)

    scale = 1.0
    found = watched(model=program)
    assert found.hold()
    scale = 2.0
    assert not found.hold()
    scale = 1.0
    never = 1
    assert not found.hold()
    found.put_back()
    assert found.hold()
    with pytest.raises(NameError):
        program()


def test_what_a_run_has_changed_is_put_back() -> None:
    owner = Owner()
    found = watched(model=owner.read)
    owner.beta = torch.ones(())  # type: ignore[assignment]
    owner.table["b"] = 5
    owner.history.append(9)
    owner.new = 1  # type: ignore[attr-defined]
    owner.net.add_module("late", nn.Identity())
    found.put_back()
    assert (owner.beta, owner.table, owner.history) == (1.0, {"a": 1}, [1, 2])
    assert not hasattr(owner, "new")
    assert len(owner.net) == 2
    assert found.hold()


def test_numbers_and_tensors_may_be_inputs() -> None:
    owner = SimpleNamespace(beta=1.0, batch=torch.zeros(3))

    def program() -> Any:
        return owner.batch * owner.beta

    found = Surroundings({"model": program}, ["closure variable 'owner'.beta"])
    assert [place.label for place in found.numbers] == ["closure variable 'owner'.beta"]
    constants = [owner.batch]
    found.bind_tensors(constants)
    owner.beta, owner.batch = 2.0, torch.ones(3)
    assert found.hold()
    found.rebind(constants)
    assert constants[0] is owner.batch
    owner.batch = torch.ones(4)
    assert not found.hold()
    owner.batch, owner.beta = torch.ones(3), "high"
    assert not found.hold()


def test_two_places_of_one_constant_have_to_agree() -> None:
    shared = torch.zeros(3)
    owner = SimpleNamespace(a=shared, b=shared)

    def program() -> Any:
        return owner.a + owner.b

    found = watched(model=program)
    found.bind_tensors([shared])
    owner.a = torch.ones(3)
    assert not found.hold()
    owner.b = owner.a
    assert found.hold()


def test_iterators_and_scripted_modules_are_refused_where_they_are_read() -> None:
    batches = iter([1, 2])
    idle = SimpleNamespace(batches=iter([1]), x=1)
    with pytest.raises(UnwatchableError, match="closure variable 'batches' is an iterator"):
        watched(model=lambda: next(batches))
    assert watched(model=lambda: idle.x).hold()
    assert watched(model=print, guide=functools.partial(helper, 2)).hold()


def test_what_is_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "MAX_PLACES", 10)
    many = {number: float(number) for number in range(50)}
    with pytest.raises(UnwatchableError, match="more than 10 Python values"):
        watched(model=lambda: many[0])


def test_arrays_are_compared_by_their_values() -> None:
    array = np.arange(5.0)
    found = watched(model=lambda: torch.tensor(array))
    assert found.hold()
    array[2] = 7.0
    assert found.changed() == ["closure variable 'array'"]


def test_generators_that_move_are_named_and_put_back() -> None:
    own, other = np.random.default_rng(0), torch.Generator()
    found = watched(model=lambda: (own.random(), torch.rand(1, generator=other)))
    assert {id(generator) for generator in found.generators} == {id(own), id(other)}
    states = GeneratorStates(found.generators)
    assert states.moved() == []
    kept = random.getstate()
    first = own.random(), random.random(), float(torch.rand(1)), float(torch.rand(1, generator=other))
    assert set(states.moved()) == {
        "Python's generator",
        "a numpy.random._generator.Generator of its own",
        "a torch._C.Generator of its own",
    }
    states.put_back()
    assert first == (own.random(), random.random(), float(torch.rand(1)), float(torch.rand(1, generator=other)))
    states.put_back()
    assert random.getstate() == kept
    torch.testing.assert_close(torch.rand(1).item(), first[2])
    states.put_back()


def test_names_that_code_reads() -> None:
    def function(owner: Any) -> Any:
        def inner() -> Any:
            return owner.inner + SCALE

        return [getattr(owner, "by_string"), inner()]  # noqa: B009

    read = names_of(function.__code__)
    assert {"by_string", "inner"} <= read.attributes
    assert "SCALE" in read.variables
    assert not read.made_up
    assert names_of((lambda owner, name: getattr(owner, f"layer_{name}")).__code__).made_up
    assert is_library(Tensor.__module__)
    assert not is_library("__main__")
    assert not is_library("vae_pyro.models")
