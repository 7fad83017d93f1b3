"""The head that says which symbol is heard in each frame, for networks that transcribe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...audio import Alphabet
from ...audio.ctc import beam_decode, greedy_decode
from ...errors import ConfigurationError, LabelMismatchError
from ...nn import TaskHead


@final
class CTCHead(TaskHead):
    """Logits of the symbols in each frame, (n, frames, symbols), by one linear layer.

    Graves et al., Connectionist Temporal Classification, ICML 2006. A network that is trained in this way needs no
    marks of when something is said: targets are (n, characters) symbol numbers, padded with -1, see encode.

    width: of the features. alphabet: the symbols that it tells apart.
    name: of the layer in published files, with dots for parts ("lm_head", "fc.0.module.1"). bias: it has one.
    dropout: before the layer. frames: inputs -> (n,) frames that are real of each sample, or None for all; without it
    all count. It may not hold a module, so that the head can be copied alone.
    beam_width: how many sequences `answers` follows; 1 takes the best symbol of each frame.
    """

    task: ClassVar[str] = "transcription"
    has_classes: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("beam_width",)
    writes: ClassVar[bool] = True

    def __init__(
        self,
        width: int,
        alphabet: Alphabet,
        *,
        name: str,
        bias: bool = True,
        dropout: float = 0.0,
        frames: Callable[[Any], Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        *parts, last = name.split(".")
        place: nn.Module = self
        for part in parts:
            place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.add_module(last, nn.Linear(width, len(alphabet.symbols), bias=bias))
        self.vocabulary: Tensor
        self.register_buffer("vocabulary", alphabet.to_tensor())
        self.layer_name, self.dropout, self.frames = name, nn.Dropout(dropout), frames
        self.beam_width = 1

    @property
    def alphabet(self) -> Alphabet:
        """The symbols with what they mean; they are saved with the weights."""
        return Alphabet.from_tensor(self.vocabulary)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols, by number."""
        return self.alphabet.symbols

    @property
    def blank(self) -> int:
        """Number of the symbol that is no character."""
        return self.alphabet.blank

    @property
    def num_outputs(self) -> int:
        """Number of symbols, the blank included."""
        return self._layer.out_features

    def encode(self, text: str) -> Tensor:
        """The target of a text, (characters,) int64. Raises LabelMismatchError for characters without a symbol."""
        return self.alphabet.encode(text)

    def forward(self, features: Tensor, inputs: Any) -> Tensor:
        """(n, frames, width) -> logits (n, frames, symbols). Autocast ends here, as it does at other heads."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self._layer(self.dropout(features.to(self._layer.weight.dtype))))

    def answers(self, features: Tensor, inputs: Any) -> list[str]:
        """The text of each sample, by beam_width."""
        alphabet = self.alphabet
        scores = self(features, inputs).float().log_softmax(2).cpu()
        found = []
        for sample, real in zip(scores, self._real_frames(features, inputs).tolist(), strict=True):
            if self.beam_width == 1:
                numbers: Sequence[int] = greedy_decode(sample[:real], alphabet.blank)
            else:
                numbers = beam_decode(sample[:real], self.beam_width, alphabet.blank)[0].symbols
            found.append(alphabet.decode(numbers))
        return found

    def assessed(self, features: Tensor, inputs: Any, targets: Tensor) -> list[tuple[str, str]]:
        """(what is heard, what was said) of each sample. targets: as of losses."""
        said = [self.alphabet.decode(row[row >= 0].tolist()) for row in targets.long().cpu()]
        return list(zip(self.answers(features, inputs), said, strict=True))

    def losses(self, features: Tensor, inputs: Any, targets: Any) -> dict[str, Tensor]:
        """{"ctc": -ln p(target) per character of it, in nats, averaged over the samples}. Graves et al., eq. 8 and 12.

        targets: (n, characters) symbol numbers, padded with -1 at the end; reals too where they are whole numbers, as
            datasets give several values per sample.
        Raises LabelMismatchError for what are no such targets, and for sounds too short for theirs.
        """
        real = self._real_frames(features, inputs)
        blank = self.blank
        targets, lengths = _checked(targets, real, self.num_outputs, blank)
        scores = self(features, inputs).float().log_softmax(2).transpose(0, 1)
        each = functional.ctc_loss(scores, targets.clamp(min=0), real, lengths, blank=blank, reduction="none")
        return {"ctc": (each / lengths.clamp(min=1)).mean()}

    def for_symbols(self, symbols: Sequence[str], *, blank: int = 0, space: str = " ") -> CTCHead:
        """A head for symbols of one's own, with new weights, for `model.replace_head`. See Alphabet.

        Raises ConfigurationError for symbols that cannot be.
        """
        return self._for_alphabet(Alphabet(symbols=tuple(symbols), blank=blank, space=space))

    def for_classes(self, num_outputs: int) -> Self:
        """Raises ConfigurationError: what is heard is written in the symbols that there are."""
        raise ConfigurationError(
            f"what is heard is written in {self.num_outputs} symbols, and has no {num_outputs} classes of your own; "
            "to classify sounds, give num_classes to a tuner, which puts a classifier on the pooled features; for "
            "symbols of your own, model.replace_head(model.head.for_symbols(symbols))."
        )

    def for_saved(self, state: Mapping[str, Tensor]) -> CTCHead:
        """A head for the symbols that saved tensors write in; itself where they are its own."""
        written = state.get("vocabulary")
        if written is None or torch.equal(written.cpu(), self.vocabulary.cpu()):
            return self
        return self._for_alphabet(Alphabet.from_tensor(written))

    def _for_alphabet(self, alphabet: Alphabet) -> CTCHead:
        return CTCHead(
            self._layer.in_features,
            alphabet,
            name=self.layer_name,
            bias=self._layer.bias is not None,
            dropout=self.dropout.p,
            frames=self.frames,
        ).to(self._layer.weight)

    @property
    def _layer(self) -> nn.Linear:
        return cast(nn.Linear, self.get_submodule(self.layer_name))

    def _real_frames(self, features: Tensor, inputs: Any) -> Tensor:
        """(n,) int64, at most as many as there are."""
        real = None if self.frames is None else self.frames(inputs)
        whole = torch.full((features.shape[0],), features.shape[1], device=features.device)
        return whole if real is None else torch.minimum(real.to(whole), whole)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Other symbols may take more bytes to write."""
        written = state_dict.get(f"{prefix}vocabulary")
        if isinstance(written, Tensor) and written.dtype == torch.uint8 and written.ndim == 1:
            self.vocabulary = torch.zeros_like(written, device=self.vocabulary.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _checked(targets: Any, real: Tensor, num_outputs: int, blank: int) -> tuple[Tensor, Tensor]:
    """Targets (n, characters) int64, and how many characters each has, (n,)."""
    fits = isinstance(targets, Tensor) and targets.ndim == 2 and len(targets) == len(real)
    if not fits or bool((targets != targets.round()).any()):
        got = f"{tuple(targets.shape)} {targets.dtype}" if isinstance(targets, Tensor) else type(targets).__name__
        raise LabelMismatchError(
            f"the targets of {len(real)} sounds are {got}; they have to be (n, characters) whole numbers, what "
            "model.head.encode(text) gives, padded with -1 to the longest text of the batch."
        )
    targets = targets.long()
    there = targets >= 0
    if bool((there[:, 1:] & ~there[:, :-1]).any()):
        raise LabelMismatchError("the targets have -1 in front of characters; they are padded at their end.")
    if bool(((targets >= num_outputs) | (targets == blank)).any()):
        raise LabelMismatchError(
            f"the targets go up to {int(targets.max())}; characters are numbers of the {num_outputs} symbols, of which "
            f"the blank ({blank}) is none. model.head.encode(text) gives them."
        )
    doubled = (targets[:, 1:] == targets[:, :-1]) & there[:, 1:]
    needed = there.sum(1) + doubled.sum(1)  # a blank has to stand between two that are the same
    short = (needed > real).nonzero().flatten().tolist()
    if short:
        raise LabelMismatchError(
            f"sound {short[0]} of the batch has {int(real[short[0]])} frames, and its text needs "
            f"{int(needed[short[0]])}; is it the text of another sound, or the sound cut off?"
        )
    return targets, there.sum(1)
