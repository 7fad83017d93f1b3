from __future__ import annotations

import pytest

from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.registry import Registry


@pytest.fixture
def colours() -> Registry[int]:
    registry: Registry[int] = Registry("colour", hint="See the chart.")
    registry.add("light_blue", 1, "sky")
    registry.add("red", 2)
    return registry


@pytest.mark.parametrize("name", ["light_blue", "Light-Blue", "lightblue", "LIGHT BLUE", "sky", "Sky"])
def test_finds_every_spelling(name: str, colours: Registry[int]) -> None:
    assert colours[name] == 1
    assert name in colours
    assert colours.canonical(name) == "light_blue"


def test_lists_names_without_aliases_in_order(colours: Registry[int]) -> None:
    assert list(colours) == ["light_blue", "red"]
    assert len(colours) == 2
    assert dict(colours) == {"light_blue": 1, "red": 2}
    assert repr(colours) == "Registry(colour: light_blue, red)"


def test_a_miss_names_the_near_ones(colours: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match=r"^There is no colour 'rad'; closest: red\. See the chart\.$") as caught:
        colours["rad"]
    assert (caught.value.kind, caught.value.name, caught.value.known) == ("colour", "rad", ("light_blue", "red"))


@pytest.mark.parametrize("name", [None, 3, ("red",), b"red"])
def test_what_is_no_name_is_unknown(name: object, colours: Registry[int]) -> None:
    assert name not in colours
    with pytest.raises(UnknownNameError):
        colours[name]  # type: ignore[index]


@pytest.mark.parametrize(("name", "aliases"), [("RED", ()), ("Sky", ()), ("rose", ("light blue",))])
def test_refuses_a_second_entry_of_a_name(name: str, aliases: tuple[str, ...], colours: Registry[int]) -> None:
    with pytest.raises(ConfigurationError, match="is registered already, as '(red|light_blue)'"):
        colours.add(name, 9, *aliases)
    assert list(colours) == ["light_blue", "red"]


def test_registers_by_decorator() -> None:
    registry: Registry[type] = Registry("shape")

    @registry.register("circle", "disc")
    class Circle:
        pass

    assert registry["disc"] is Circle
