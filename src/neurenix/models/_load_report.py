"""What became of every tensor when weights were put into an architecture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Fate = Literal["matched", "adapted", "new", "dropped"]


@dataclass(frozen=True)
class TensorFate:
    """One tensor: `matched` as it was in the file, `adapted` to another shape, `new` (random), `dropped` (unused)."""

    name: str
    fate: Fate
    parameters: int
    note: str = ""


@dataclass(frozen=True)
class LoadReport:
    """The fate of every tensor, and the share of the trunk's parameters that really is pretrained."""

    tensors: tuple[TensorFate, ...]

    @property
    def pretrained_share(self) -> float:
        """Share of the trunk's parameters that came from the file, in [0, 1]; the head does not count."""
        trunk = [tensor for tensor in self.tensors if tensor.name.startswith("trunk.") and tensor.fate != "dropped"]
        total = sum(tensor.parameters for tensor in trunk)
        loaded = sum(tensor.parameters for tensor in trunk if tensor.fate != "new")
        return loaded / total if total else 0.0

    def names(self, fate: Fate) -> list[str]:
        """Names of the tensors with one fate."""
        return [tensor.name for tensor in self.tensors if tensor.fate == fate]

    def __str__(self) -> str:
        count = Counter(tensor.fate for tensor in self.tensors)
        lines = [
            f"{self.pretrained_share:.1%} of the trunk is pretrained: {count['matched']} tensors matched, "
            f"{count['adapted']} adapted, {count['new']} new, {count['dropped']} dropped"
        ]
        for tensor in self.tensors:
            if tensor.fate != "matched":
                lines.append(f"  {tensor.fate:8} {tensor.name}" + (f"  ({tensor.note})" if tensor.note else ""))
        return "\n".join(lines)
