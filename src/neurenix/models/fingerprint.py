"""What a model's answers depend on, put into one hash.

A miss costs time and a false hit costs a wrong model, so everything that could matter is in: what cannot be
described is an error that asks for `cache_key`, and never a guess. Nothing is pickled.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import json
import logging
import platform
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from ..packages import version_of
from ..storage import tensor_digest
from ._pretrained_model import PretrainedModel

_PACKAGES = (
    *("neurenix", "torch", "torchvision", "timm", "transformers", "tokenizers", "pillow", "numpy"),
    *("openvino", "onnxruntime"),
)
_VERSIONED = {"torch", "torchvision", "timm", "transformers", "tokenizers", "PIL", "numpy"}
_CLASS_CONCERNS = {
    "__module__",
    "__doc__",
    "__annotations__",
    "__firstlineno__",
    "__static_attributes__",
    "__dict__",
}
# Where a model came from and how it is being trained; nothing that its forward pass computes with.
_NO_MATTER = {
    *vars(nn.Module()),
    "pretrained_cfg",
    "default_cfg",
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "gradient_checkpointing",
    "grad_checkpointing",
}

# id -> (order of first meeting, the value itself, which keeps its id from being given to another one)
Seen = dict[int, tuple[int, Any]]


def key(description: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a description, as hex."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def versions() -> dict[str, str | None]:
    """Versions of the packages that compute with a model or decode what they are computed from; None if absent."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in _PACKAGES}}


def trunk_digest(trunk: nn.Module) -> str:
    """Hash of a trunk's tensors alone, to be compared with PretrainedModel.loaded."""
    return key({name: tensor_digest(tensor) for name, tensor in trunk.state_dict().items()})


def module_digest(module: nn.Module, leave_out: Sequence[str] = ()) -> str:
    """Hash of weights, buffers, structure, settings and (for classes outside of the known libraries) source code.

    leave_out: parts of the module that do not matter.
    """
    modules = [(name, part) for name, part in module.named_modules() if name.split(".")[0] not in leave_out]
    seen: Seen = {}
    return key({name: _module(part, seen) for name, part in modules})


def describe(value: Any, seen: Seen | None = None) -> Any:
    """A JSON value that is equal exactly when the values are: by content, never by address.

    Functions are their byte code, defaults, closure and the globals that they name; objects their class and
    attributes. What has none of these (a lock, an open file) is its type alone: it holds no numbers to
    compute with.
    """
    seen = {} if seen is None else seen
    plain = _plain(value)
    if plain is not None:
        return plain
    if id(value) in seen:
        return ["seen", seen[id(value)][0]]
    seen[id(value)] = (len(seen), value)
    if isinstance(value, Mapping):
        return ["map", [[describe(name, seen), describe(item, seen)] for name, item in value.items()]]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [describe(item, seen) for item in value]]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted(json.dumps(describe(item, dict(seen))) for item in value)]  # in no order
    if isinstance(value, nn.Module):
        return ["module", {name: _module(module, seen) for name, module in value.named_modules()}]
    return _code(value, seen) or _state(value, seen)


def _plain(value: Any) -> Any:
    """Values without parts; None for others."""
    if isinstance(value, enum.Enum):
        return ["enum", _name(type(value)), value.name]
    if value is None or isinstance(value, (bool, int, str)):
        return ["value", type(value).__name__, value]
    if isinstance(value, float):
        return ["float", value.hex()]
    if isinstance(value, Tensor):
        return ["tensor", tensor_digest(value)]
    if isinstance(value, numpy.ndarray) and value.dtype != object:
        return ["array", str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, (bytes, numpy.generic)):
        content = value if isinstance(value, bytes) else value.tobytes()
        return [type(value).__name__, hashlib.sha256(content).hexdigest()]
    if isinstance(value, (torch.dtype, torch.device, torch.Size, Path, complex)):
        return [type(value).__name__, str(value)]
    return ["logger"] if isinstance(value, logging.Logger) else None


def _code(value: Any, seen: Seen) -> Any:
    """Functions, methods, partials and classes; None for others."""
    if isinstance(value, functools.partial):
        return ["partial", *(describe(part, seen) for part in (value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return ["method", describe(value.__func__, seen), describe(value.__self__, seen)]
    if isinstance(value, type):
        return ["class", _class(value, seen)]
    if isinstance(value, types.FunctionType):
        return ["function", _name(value), *([] if _has_version(value) else _function(value, seen))]
    return ["builtin", _name(value)] if isinstance(value, (types.BuiltinFunctionType, types.ModuleType)) else None


def _function(function: types.FunctionType, seen: Seen) -> list[Any]:
    known = {name: function.__globals__[name] for name in _globals(function.__code__) if name in function.__globals__}
    globals_used = {name: item for name, item in known.items() if not isinstance(item, types.ModuleType)}
    globals_used |= _of_modules(known, _names(function.__code__))
    parts = [
        function.__defaults__,
        function.__kwdefaults__,
        [_cell(cell) for cell in function.__closure__ or ()],
        dict(sorted(globals_used.items())),
    ]
    return [_byte_code(function.__code__), *(describe(part, seen) for part in parts)]


def _of_modules(known: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """What code names of modules, other modules left out; modules of known libraries have a version."""
    modules = {name: item for name, item in known.items() if isinstance(item, types.ModuleType)}
    found = {}
    for name, module in modules.items():
        if module.__name__.split(".")[0] in _VERSIONED | sys.stdlib_module_names:
            continue
        for attribute in sorted(names & vars(module).keys()):
            item = vars(module)[attribute]
            if not isinstance(item, types.ModuleType):
                found[f"{name}.{attribute}"] = item
    return found


def _class(kind: type, seen: Seen) -> list[Any]:
    """Code and constants of a class and its parents, up to known libraries, whose version stands for their code."""
    own = [parent for parent in kind.__mro__ if not _has_version(parent)]
    return [_name(kind), [[_name(parent), describe(_members(parent), seen)] for parent in own]]


def _members(kind: type) -> dict[str, Any]:
    members = {name: _unwrapped(item) for name, item in vars(kind).items()}
    kept = (types.FunctionType, list, tuple, dict, set, frozenset)
    members = {name: item for name, item in members.items() if isinstance(item, kept) or _plain(item)}
    return {name: members[name] for name in sorted(members) if name not in _CLASS_CONCERNS}


def _unwrapped(member: Any) -> Any:
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    return member.fget if isinstance(member, property) else member


def _state(value: Any, seen: Seen) -> Any:
    attributes = {name: item for name, item in getattr(value, "__dict__", {}).items() if name not in _NO_MATTER}
    return ["object", _class(type(value), seen), describe(attributes, seen)]


def _module(module: nn.Module, seen: Seen) -> Any:
    """One module without its children: class, own attributes, own tensors, and hooks, which can change its output."""
    if isinstance(module, PretrainedModel):
        return ["PretrainedModel"]  # what it holds besides modules says where it came from
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    hooks = [list(module._forward_pre_hooks.values()), list(module._forward_hooks.values())]
    return [
        {name: tensor_digest(tensor) for name, tensor in tensors},
        _state(module, seen),
        describe(hooks, seen),
    ]


def _byte_code(code: types.CodeType) -> str:
    # Byte code, not source: comments do not count, and functions typed in at a prompt have no source.
    return key(
        {
            "code": code.co_code.hex(),
            "names": code.co_names,
            "constants": [_constant(c) for c in code.co_consts],
        }
    )


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _byte_code(value)
    if isinstance(value, frozenset):  # its order differs from process to process
        return sorted(repr(_constant(item)) for item in value)
    return [_constant(item) for item in value] if isinstance(value, tuple) else repr(value)


def _globals(code: types.CodeType) -> set[str]:
    """Names that code looks up in its module; not those of attributes, which may be the same."""
    inner = [_globals(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    own = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*inner)


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inner)


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _has_version(value: Any) -> bool:
    package = str(getattr(value, "__module__", "")).split(".")[0]
    return package in _VERSIONED or (package in sys.stdlib_module_names and package != "__main__")
