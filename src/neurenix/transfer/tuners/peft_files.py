"""The two files that peft writes and reads: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...errors import ConfigurationError, DamagedFileError, WeightsMismatchError
from ...models import PretrainedModel, adopt, display_name
from ...storage import read_json, read_tensors, write_json, write_tensors
from .low_rank import ADAPTER, inner

if TYPE_CHECKING:
    from .lora import LoraSettings

CONFIGURATION, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX, _LENGTHS = "base_model.model.", "lora_magnitude_vector"


def write(
    folder: Path, model: PretrainedModel, settings: LoraSettings, originals: Mapping[str, Tensor] | None = None
) -> None:
    """Both files, for peft.PeftModel.from_pretrained(base, folder), without the head, which that base lacks.

    originals: weights of the base that the method began by changing; the updates that are written are of these.
    """
    if originals and settings.weight_decomposed:
        return  # lengths of other weights than the base has: there is no update of it that says the same
    found = {
        _peft_name(name): tensor.contiguous() for name, tensor in inner(model).state_dict().items() if ".lora_" in name
    }
    made: Any = inner(model).peft_config
    config = {name: _plain(value) for name, value in made[ADAPTER].to_dict().items()}
    if originals:
        found |= _of_the_base(model, originals, settings)
        growth = 2.0**0.5 if settings.rank_stabilised else 2.0  # for the same scale at twice the rank
        config |= {"init_lora_weights": True, "r": 2 * settings.rank, "lora_alpha": growth * settings.scale}
    write_tensors(folder / TENSORS, found)
    write_json(folder / CONFIGURATION, {**config, "base_model_name_or_path": None, "inference_mode": True})


def _of_the_base(model: PretrainedModel, originals: Mapping[str, Tensor], settings: LoraSettings) -> dict[str, Tensor]:
    """The updates of twice the rank that lead from the base's own weights W to R + s B A, R what was left of them.

    W - R has the rank r, so that R + s B A = W + s [B, -B₀] [A; A₀] with s B₀ A₀ = W - R.
    """
    state, found = model.state_dict(), dict[str, Tensor]()
    scale = settings.scale / (settings.rank**0.5 if settings.rank_stabilised else settings.rank)
    for name, original in originals.items():
        layer = name.removesuffix(".weight")
        taken = (original - state[f"{layer}.base_layer.weight"]).double() / scale
        left, lengths, right = torch.linalg.svd(taken, full_matrices=False)
        kept = lengths[: settings.rank].sqrt()
        first = {"A": kept[:, None] * right[: settings.rank], "B": -left[:, : settings.rank] * kept}
        for letter, dimension in (("A", 0), ("B", 1)):
            own = state[f"{layer}.lora_{letter}.{ADAPTER}.weight"]
            key = _PREFIX + display_name(model, f"{layer}.lora_{letter}.weight")
            found[key] = torch.cat([own, first[letter].to(own.dtype)], dimension).contiguous()
    return found


def read(folder: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """Configuration and tensors. Raises ConfigurationError where there are none, or of a method that is not LoRA."""
    for file in (CONFIGURATION, TENSORS):
        if not (folder / file).is_file():
            raise ConfigurationError(f"{folder} holds no {file}, so peft did not save LoRA's updates there.")
    config = read_json(folder / CONFIGURATION)
    if not isinstance(config, Mapping):
        raise DamagedFileError(f"{folder / CONFIGURATION} holds {type(config).__name__} instead of an object.")
    if config.get("peft_type") != "LORA":
        raise ConfigurationError(f"{folder} holds updates of kind {config.get('peft_type')!r}; LoraTuner reads 'LORA'.")
    return config, read_tensors(folder / TENSORS)


def arguments(config: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """LoraTuner's arguments for peft's configuration."""
    for name in ("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters"):
        if config.get(name):
            raise ConfigurationError(f"peft's {name} has no counterpart in LoraTuner; merge it with peft instead.")
    return {
        "rank": int(config["r"]),
        "alpha": float(config["lora_alpha"]),
        "lora_dropout": float(config.get("lora_dropout", 0.0)),
        "target_layers": _targets(config, model),
        "rank_stabilised": bool(config.get("use_rslora", False)),
        "weight_decomposed": bool(config.get("use_dora", False)),
        "start": "zero",  # the values come from the file
    }


def put_into(model: PretrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Give the updates their values. Raises WeightsMismatchError where the names or shapes are of another model."""
    state = {name: tensor for name, tensor in inner(model).state_dict().items() if ".lora_" in name}
    found = {_own_name(name, state): tensor for name, tensor in tensors.items() if "lora_" in name}
    wrong = [name for name, tensor in found.items() if name not in state or state[name].shape != tensor.shape]
    lacking = [name for name in state if name not in found]
    if wrong or lacking:
        raise WeightsMismatchError(
            f"these updates are not of {model.name}: it has no place for {wrong[:3]}, and for {lacking[:3]} nothing "
            "was saved."
        )
    with torch.no_grad():
        for name, tensor in found.items():
            state[name].copy_(tensor)


def _peft_name(name: str) -> str:
    """The name without that of peft's adapter, and of DoRA's lengths without the word weight."""
    return _PREFIX + name.replace(f".{ADAPTER}", "").replace(f"{_LENGTHS}.weight", _LENGTHS)


def _own_name(name: str, state: Mapping[str, Tensor]) -> str:
    """Our name of peft's tensor, also where peft's model holds the base one level down (`bert.encoder…`)."""
    name = name.removeprefix(_PREFIX)
    stem = name.removesuffix(".weight")
    own = f"{stem}.{ADAPTER}.weight"
    return own if own in state else own.partition(".")[2]


def _targets(config: Mapping[str, Any], model: nn.Module) -> list[str]:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    known = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
    chosen = LoraConfig(**{name: config[name] for name in known if config.get(name) is not None})
    adopted = model if isinstance(model, PretrainedModel) else adopt(copy.deepcopy(model))  # it takes the head out
    names = [display_name(adopted, name) for name, _ in adopted.named_modules() if name.startswith("trunk.")]
    return [name for name in names if name and check_target_module_exists(chosen, name)]


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, enum.Enum):
        return value.value
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
