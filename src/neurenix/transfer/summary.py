"""What a tuner trains, layer by layer, before it starts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch

from ..models import PretrainedModel, covered, display_name, match_layers


@dataclass(frozen=True)
class LayerRow:
    """One stage or the head. learning_rate: None where nothing is trained."""

    name: str
    parameters: int
    trainable: int
    learning_rate: float | None
    in_optimizer: bool


@dataclass(frozen=True)
class Summary:
    """Rows from input to output, and a table when printed."""

    title: str
    rows: tuple[LayerRow, ...]

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(row.parameters for row in self.rows)

    @property
    def trainable(self) -> int:
        """Parameters that take gradients now."""
        return sum(row.trainable for row in self.rows)

    def __str__(self) -> str:
        width = max([len(row.name) for row in self.rows] + [5])
        columns = f"{'layer':{width}}  {'parameters':>12}  {'trainable':>12}  {'learning rate':>13}  in optimizer"
        lines = [self.title, columns]
        for row in self.rows:
            rate = "frozen" if row.learning_rate is None else f"{row.learning_rate:.1e}"
            lines.append(
                f"{row.name:{width}}  {row.parameters:12,}  {row.trainable:12,}  {rate:>13}  "
                f"{'yes' if row.in_optimizer else 'no'}"
            )
        share = self.trainable / max(1, self.parameters)
        lines.append(f"{'total':{width}}  {self.parameters:12,}  {self.trainable:12,}  {share:>13.1%}")
        return "\n".join(lines)


def summarise(model: PretrainedModel, optimizer: torch.optim.Optimizer, title: str) -> Summary:
    """Count every parameter once, at the stage it belongs to."""
    stages = [*(match_layers(model, stage)[0] for stage in model.stages), "head"]
    rates = {id(p): group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    members: dict[str, list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        members[next((stage for stage in stages if covered(name, [stage])), name)].append(parameter)
    rows = []
    for stage, parameters in members.items():
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        rows.append(
            LayerRow(
                display_name(model, stage),
                sum(parameter.numel() for parameter in parameters),
                sum(parameter.numel() for parameter in trained),
                max((rates[id(parameter)] for parameter in trained if id(parameter) in rates), default=None),
                all(id(parameter) in rates for parameter in trained) and bool(trained),
            )
        )
    return Summary(title, tuple(rows))
