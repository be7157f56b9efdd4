from typing import Annotated

import pytest
from pydantic import Field

from vae_pyro.core.registry import Choice, Registry, parse_choice


@pytest.fixture
def shapes() -> Registry[float]:
    registry: Registry[float] = Registry("shape")

    @registry.register("square")
    def square(unit: float, *, side: Annotated[float, Field(gt=0)] = 1.0) -> float:
        """Area of a square."""
        return unit * side**2

    @registry.register("boxes")
    def boxes(unit: float, *, sides: tuple[int, ...]) -> float:
        """Sum of sides."""
        return unit * sum(sides)

    return registry


def test_names_options_and_defaults_resolve(shapes: Registry[float]) -> None:
    assert shapes.resolve("square") == Choice(name="square", side=1.0)
    assert shapes.build(shapes.resolve("square:side=3"), 2.0) == 18.0
    assert shapes.build(shapes.resolve({"name": "boxes", "sides": [1, 2]}), 1.0) == 3.0
    assert shapes.resolve(str(shapes.resolve("boxes:sides=[4,5]"))).options == {"sides": (4, 5)}
    assert shapes.summary("square") == "Area of a square."


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sqare", "unknown shape 'sqare'; did you mean 'square'\\? choose from square, boxes"),
        ("square:sied=2", "shape 'square' has no option 'sied'; its options: side"),
        ("square:side=-2", "side: Input should be greater than 0, got -2"),
        ("square:side", "option 'side' of 'square' has no value"),
        ("boxes", "sides: Field required"),
        ({"side": 1}, "a shape is a name or a mapping"),
        (3, "a shape is a name or a mapping"),
    ],
)
def test_bad_choices_are_named(shapes: Registry[float], value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapes.resolve(value)  # type: ignore[arg-type]


def test_a_name_is_taken_once(shapes: Registry[float]) -> None:
    with pytest.raises(ValueError, match="shape 'square' is registered already"):
        shapes.register("square")(lambda unit: unit)
    shapes.unregister("square")
    assert list(shapes) == ["boxes"]


def test_commas_in_lists_do_not_separate_options() -> None:
    assert parse_choice("mlp:hidden=[200,200],activation=tanh") == {
        "name": "mlp",
        "hidden": [200, 200],
        "activation": "tanh",
    }
