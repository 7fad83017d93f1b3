"""Time series for a transformer: a token for each piece of a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from ...data import SeriesPreprocess, as_dataset
from ...data.preparation import pair
from ...errors import ConfigurationError, InputMismatchError
from ...models import PretrainedModel
from ...nn import SeriesPatches
from ..one_or_many import many
from ..surgery._changes import Changes
from ..surgery._edit import EDITS, InputEdit, Trial, perform
from ..surgery._layer_records import describe_layer
from ..surgery._trial import example_inputs
from ._images import check_is_model
from ._stem_statistics import Moments
from ._tokens import KEY, check_reads_tokens, first_token, put_tokens, width_of


def adapt_to_series(
    model: PretrainedModel,
    *,
    channels: int,
    length: int,
    patch: int = 16,
    data: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Any]:
    """Make a transformer read time series, with a token for each piece of one; gives the edit's record.

    The blocks keep their weights; words or patches make room for the patches of PatchTST (Nie et al., ICLR 2023), which
    begin as torch draws a convolution and have to be trained. Position embeddings are those of the first words or, of
    images, those along their width. The model is changed in place; undo_edit takes it back.

    Args:
        model: a BERT-like encoder or a vision transformer, from load_pretrained_model.
        channels: numbers of each step.
        length: steps of a series that are read, a multiple of `patch`.
        patch: steps in a token.
        data: series as fit takes them, by whose mean and deviation each channel is standardised from then on; they are
            saved with the model. None takes each series' own.
        optimizer: trains the model, and shall train the tokens.

    Raises:
        EditError: the model is no such transformer, or has too few positions; it is as it was.
        ConfigurationError: an argument cannot work. InputMismatchError: `data` have other channels.
    """
    model = check_is_model(model)
    check_reads_tokens(model)
    preprocess = SeriesPreprocess(channels, length)
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1 or length % patch:
        raise ConfigurationError(f"patch={patch!r}; it is a number of steps that divides length={length}.")
    if data is not None:
        preprocess = _measured(data, preprocess)
    tokens = SeriesPatches(channels, patch, width_of(model))
    scaling = {"mean": preprocess.mean, "std": preprocess.std}
    edit = AdaptToSeries(
        channels=channels,
        length=length,
        patch=patch,
        **{name: None if value is None else list(value) for name, value in scaling.items()},
        tokens=describe_layer(tokens),
        first=first_token(model),
    )
    tensors = {f"{KEY}.{name}": tensor for name, tensor in tokens.state_dict().items()}
    return perform(Trial.of(model), edit, optimizer=optimizer, tensors=tensors)


@final
@EDITS.register("adapt_to_series")
@dataclass(frozen=True, kw_only=True)
class AdaptToSeries(InputEdit):
    """mean, std: of each channel, or None. tokens: description of the layer. first: token that begins texts."""

    channels: int
    length: int
    patch: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    tokens: Mapping[str, Any]
    first: int

    def apply(self, model: nn.Module, changes: Changes) -> None:
        """See Edit."""
        put_tokens(model, self.tokens, changes, count=self.length // self.patch, first=self.first, ordered=True)
        scaling = {"mean": self.mean, "std": self.std}
        preprocess = SeriesPreprocess.from_json({"channels": self.channels, "length": self.length, **scaling})
        changes.set(model, "preprocess", preprocess)

    def describe(self) -> str:
        """See Edit."""
        return f"adapting to series of {self.length} steps"

    def inputs_after(self, model: nn.Module, inputs: Any) -> Any:
        """See InputEdit."""
        return example_inputs(model)


def _measured(data: Any, preprocess: SeriesPreprocess) -> SeriesPreprocess:
    dataset = as_dataset(many(data, preprocess))
    moments = Moments()
    for index in range(len(dataset)):
        raw = pair(dataset[index])[0]
        if not preprocess.accepts(raw):
            raise InputMismatchError(f"data= takes series (steps, {preprocess.channels}) as arrays or lists.")
        steps = preprocess.steps(raw)
        moments.add(steps[~steps.isnan().any(1)])
    mean, std = moments.mean.tolist(), moments.variance.sqrt().clamp(min=1e-6).tolist()
    return SeriesPreprocess(preprocess.channels, preprocess.length, tuple(mean), tuple(std))
