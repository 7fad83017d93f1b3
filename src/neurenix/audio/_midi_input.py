"""What pieces of music a set of weights was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from .midi_preprocess import MidiPreprocess


@dataclass(frozen=True, kw_only=True)
class MidiInput:
    """Pieces as events. max_length: the longest sequence of events that weights were trained on."""

    files: ClassVar[tuple[str, ...]] = ()  # nothing beside the weights is needed
    max_length: int = 2048

    def open(self, trunk: Any, folder: Path | None, max_length: int | None) -> MidiPreprocess:
        """The preprocessing with the vocabulary of that many events as the trunk's embedding has.

        Raises ConfigurationError for a max_length that the trunk has no positions for.
        """
        from .events import vocabulary_of_size
        from .midi_preprocess import MidiPreprocess

        limit = int(trunk.max_length)
        if max_length is not None and not 2 <= max_length <= limit:
            raise ConfigurationError(f"max_length={max_length}; the model reads 2 to {limit} events.")
        return MidiPreprocess(vocabulary_of_size(int(trunk.vocabulary_size)), max_length or min(self.max_length, limit))
