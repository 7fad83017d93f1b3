"""A network's sizes, read from the config.json beside its weights.

config.json is data: the keys that a record of sizes names are taken, and every other one (auto_map, custom code, paths)
is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from ..errors import DamagedFileError, WeightsMismatchError
from ..storage import read_json

_MOST_PARAMETERS, _MOST_LAYERS = 20_000_000_000, 512
_MOST = 10**7  # of any one number: tokens, features, places
_LIST = "tuple[int, ...]"


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What a network of some sizes would be, before it is built.

    heads: of each of its kinds of attention; width: features that they share; tokens: numbers of tokens that have a
    meaning of their own (padding, end of the text), which have to lie in the vocabulary.
    """

    parameters: int
    layers: int
    heads: tuple[int, ...]
    width: int
    vocabulary: int
    activation: str
    tokens: tuple[int, ...] = ()


class Sizes(Protocol):
    """A frozen dataclass, one field for each key of config.json that is taken.

    A field may have a second spelling of its key: field(metadata={"also": "hidden_size"}).
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def extent(self) -> Extent:
        """How large the network would be."""
        ...


SizesType = TypeVar("SizesType", bound=Sizes)


def read_sizes(folder: str | None, *, published: SizesType, model_type: str) -> SizesType:
    """The sizes in `folder`/config.json, or the published ones where there is no such file.

    Raises DamagedFileError for values that no network of this kind can have, WeightsMismatchError for another kind.
    """
    path = Path(folder or "", "config.json")
    if folder is None or not path.is_file():
        return published
    content = read_json(path)
    if not isinstance(content, Mapping):
        raise DamagedFileError(f"{path} holds {type(content).__name__} instead of an object with the model's sizes.")
    if content.get("model_type", model_type) != model_type:
        raise WeightsMismatchError(
            f"{path} is of a {content['model_type']!r} model, not of a {model_type!r} one; load it under the "
            "name of its own architecture."
        )
    sizes = type(published)(**{key: _checked(path, key, *value) for key, value in _known(content, published).items()})
    _check_whole(path, sizes.extent())
    return sizes


def _known(content: Mapping[str, Any], published: Sizes) -> dict[str, tuple[Any, str]]:
    """Key -> (value, kind of value), the published value where the file has none."""
    found = {}
    for field in fields(published):
        spellings = (field.name, field.metadata.get("also", field.name))
        stated = [content[spelling] for spelling in spellings if spelling in content]
        found[field.name] = (stated[0] if stated else getattr(published, field.name), str(field.type))
    return found


def _checked(path: Path, key: str, value: Any, kind: str) -> Any:
    if kind == _LIST and isinstance(value, (list, tuple)) and 0 < len(value) <= _MOST_LAYERS:
        return tuple(_checked(path, key, number, "int") for number in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    most = 1 if "drop" in key else 10
    usable = {
        "int": number and isinstance(value, int) and 0 <= value < _MOST,
        "float": number and 0 <= value < most,
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "None": value is None,
        _LIST: False,
    }
    if any(usable[part] for part in kind.split(" | ")):
        return value
    raise DamagedFileError(f"{path} says {key} = {value!r}, which is no usable {kind}.")


def _check_whole(path: Path, extent: Extent) -> None:
    """Refuse what could only fill the memory, or what the library cannot build, before it is built."""
    from transformers.activations import ACT2FN

    if extent.parameters > _MOST_PARAMETERS or extent.layers > _MOST_LAYERS:
        raise DamagedFileError(
            f"{path} asks for {extent.parameters:,} parameters in {extent.layers:,} layers; no network of this kind "
            f"has more than {_MOST_PARAMETERS:,} in {_MOST_LAYERS}."
        )
    unfit = any(not heads or extent.width % heads for heads in extent.heads) or not extent.width
    if unfit or extent.activation not in ACT2FN:
        raise DamagedFileError(
            f"{path} asks for {' and '.join(map(str, extent.heads))} heads over {extent.width} features and the "
            f"activation {extent.activation!r}; the features have to be a multiple of the heads, and the activation "
            "one that transformers has."
        )
    outside = [token for token in extent.tokens if token >= extent.vocabulary]
    if outside:
        raise DamagedFileError(f"{path} names the token {outside[0]}, and the vocabulary has {extent.vocabulary}.")
