from typing import Annotated

import pytest
from pydantic import Field

from vae_pyro.core.registry import Choice, ClassRegistry, Registry, parse_choice


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


@pytest.fixture
def animals() -> ClassRegistry[object]:
    registry: ClassRegistry[object] = ClassRegistry("animal")

    @registry.register("cat", order=2)
    class Cat:
        legs = 4

    @registry.register("bird", order=1)
    class Bird:
        legs = 2

    registry.register("bee")(type("Bee", (), {"legs": 6}))
    return registry


def test_listings_have_the_stated_order(animals: ClassRegistry[object]) -> None:
    registered = type("Ant", (), {})
    animals.register("ant")(registered)
    animals.register("fish", order=1.5)(type("Fish", (), {}))
    assert list(animals) == ["bird", "fish", "cat", "bee", "ant"]
    with pytest.raises(ValueError, match="choose from bird, fish, cat, bee, ant"):
        animals["dog"]
    animals.unregister("fish")
    assert list(animals) == ["bird", "cat", "bee", "ant"]


def test_classes_are_found_by_name_and_by_class(animals: ClassRegistry[object]) -> None:
    assert animals["bird"].legs == 2  # type: ignore[attr-defined]
    assert animals.name_of(animals["cat"]) == "cat"
    assert animals.name_of(type("Kitten", (animals["cat"],), {})) == "cat"
    assert animals.name_of(int) == "int"
    assert animals.exported("zoo", "Bee") is animals["bee"]
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'Dog'"):
        animals.exported("zoo", "Dog")


def test_a_registry_of_classes_takes_classes(animals: ClassRegistry[object]) -> None:
    with pytest.raises(TypeError, match="animal 'dog' must be a class"):
        animals.register("dog")(lambda: None)
    assert "dog" not in list(animals)


def test_folders_of_variants_export_their_classes() -> None:
    from vae_pyro import likelihoods, objectives
    from vae_pyro.likelihoods.gaussian import Gaussian
    from vae_pyro.models import posteriors, priors, structures

    assert likelihoods.Gaussian is Gaussian
    assert objectives.IWAE.__module__ == "vae_pyro.objectives.iwae"
    assert priors.Mixture.__module__ == "vae_pyro.models.priors.mixture"
    assert posteriors.MeanField.__module__ == "vae_pyro.models.posteriors.mean_field"
    assert structures.Ladder.__module__ == "vae_pyro.models.structures.ladder"
    for package in (likelihoods, objectives, priors, posteriors, structures):
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            _ = package.Nothing
    with pytest.raises(ImportError, match="LedgerELBO is now vae_pyro.MonteCarloObjective"):
        _ = objectives.LedgerELBO


def test_a_registry_prints_its_variants_with_their_first_sentence(shapes: Registry[float]) -> None:
    assert str(shapes) == "square  Area of a square.\nboxes   Sum of sides."
    assert repr(shapes) == "<Registry of shapes: square, boxes>"
    shapes.register("long")(lambda unit: unit)
    shapes["long"].__doc__ = "word " * 100
    assert max(map(len, str(shapes).splitlines())) <= 120
