"""Rows of tables for a transformer: a token for each column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from ...data import TablePreprocess, as_dataset
from ...data.preparation import pair
from ...errors import InputMismatchError
from ...models import PretrainedModel
from ...nn import FeatureTokens
from ..one_or_many import many
from ..surgery._changes import Changes
from ..surgery._edit import EDITS, InputEdit, Trial, perform
from ..surgery._layer_records import describe_layer
from ..surgery._trial import example_inputs
from ._images import check_is_model
from ._tokens import KEY, check_reads_tokens, first_token, put_tokens, width_of


def adapt_to_tables(
    model: PretrainedModel,
    columns: Mapping[str, str | Sequence[Any]],
    *,
    data: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Make a transformer read rows of a table, with a token for each column; gives the edit's record.

    The blocks keep their weights; words or patches make room for the feature tokens of FT-Transformer (Gorishniy et
    al., NeurIPS 2021), which begin as it begins and have to be trained. The model is changed in place; undo_edit
    takes it back.

    Args:
        model: a BERT-like encoder or a vision transformer, from load_pretrained_model.
        columns: name -> "number", or the list of its categories: {"age": "number", "colour": ["red", "green"]}.
        data: rows as fit takes them, whose numbers' mean and deviation standardise from then on and are saved with the
            model; None leaves numbers as they come.
        optimizer: trains the model, and shall train the tokens.

    Raises:
        EditError: the model is no such transformer; it is as it was. ConfigurationError: columns are none.
        InputMismatchError: rows of `data` have other columns.
    """
    model = check_is_model(model)
    check_reads_tokens(model)
    preprocess = TablePreprocess.of(columns)
    if data is not None:
        preprocess = preprocess.measured(_rows(data, preprocess))
    tokens = FeatureTokens(preprocess.numbers, preprocess.sizes, width_of(model))
    edit = AdaptToTables(
        columns=preprocess.to_json()["columns"], tokens=describe_layer(tokens), first=first_token(model)
    )
    return perform(Trial.of(model), edit, optimizer=optimizer, tensors=_tensors(tokens))


@final
@EDITS.register("adapt_to_tables")
@dataclass(frozen=True, kw_only=True)
class AdaptToTables(InputEdit):
    """columns: as TablePreprocess.to_json gives them. tokens: description of the layer. first: token that begins
    texts.
    """

    columns: Sequence[Mapping[str, Any]]
    tokens: Mapping[str, Any]
    first: int

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        put_tokens(model, self.tokens, changes, count=len(self.columns), first=self.first, ordered=False)
        changes.set(model, "preprocess", TablePreprocess.from_json({"columns": self.columns}))

    def describe(self) -> str:
        """See Edit."""
        return f"adapting to tables of {len(self.columns)} columns"

    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """See InputEdit."""
        return example_inputs(model)


def _tensors(tokens: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{KEY}.{name}": tensor for name, tensor in tokens.state_dict().items()}


def _rows(data: Any, preprocess: TablePreprocess) -> list[Any]:
    dataset = as_dataset(many(data, preprocess))
    rows = [pair(dataset[index])[0] for index in range(len(dataset))]
    if not all(preprocess.accepts(row) for row in rows):
        raise InputMismatchError("data= takes rows of the table: mappings of column names, or a value for each column.")
    return rows
