"""Music event by event, each drawn from what the model says comes next."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...audio import EventVocabulary
from ...audio.midi_preprocess import MidiPreprocess
from ...errors import ConfigurationError
from ...nn import Prompted
from .._pretrained_model import PretrainedModel
from ._music_head import NextEventHead
from ._music_network import KeyValues, MusicTransformer


def generate(
    model: PretrainedModel,
    prompt: Sequence[int] | Tensor = (),
    length: int = 512,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    cached: bool = True,
) -> list[int]:
    """The events of the prompt and those that follow it; `model.preprocess.to_midi` makes a MIDI file of them.

    Args:
        model: a Music Transformer with its own head.
        prompt: events to go on from, (t,), for instance `model.preprocess(path)["input_ids"]`. It may be empty where
            the vocabulary has a start.
        length: events to draw; fewer come where the model ends the piece.
        temperature: divides the logits; below 1 the likely becomes likelier, and 0 takes the likeliest event.
        top_k: draw from so many likeliest events; None from all.
        top_p: draw from the likeliest events that have this share of the probability together; None from all.
        generator: of the draws, on the CPU; None for torch's own.
        cached: keep keys and values of earlier events, which changes the time it takes and last bits alone.

    Raises ConfigurationError for a model without that head, or arguments that cannot work.
    """
    trunk, head, vocabulary = _parts(model)
    _check(temperature, top_k, top_p, vocabulary.size)
    events = _with_start(prompt, vocabulary)
    if length < 0 or len(events) + length > trunk.max_length:
        raise ConfigurationError(
            f"length={length} behind {len(events)} events; the model has places for {trunk.max_length} together."
        )
    past = [KeyValues() for _ in trunk.layers] if cached and _can_cache(trunk) else None
    was_training = model.training
    model.eval()
    try:
        for _ in range(length):
            scores = _next_scores(trunk, head, events, past)
            drawn = _draw(_without(scores, vocabulary), temperature, top_k, top_p, generator)
            if drawn == vocabulary.end:
                break
            events.append(drawn)
    finally:
        model.train(was_training)
    return events if vocabulary.start is None else events[1:]


def _parts(model: PretrainedModel) -> tuple[MusicTransformer, NextEventHead, EventVocabulary]:
    trunk, head, preprocess = model.trunk, model.head, model.preprocess
    if not isinstance(trunk, MusicTransformer) or not isinstance(head, NextEventHead):
        raise ConfigurationError(
            f"{model.name} with a head of {type(head).__name__} does not say which event comes next; load a Music "
            "Transformer with include_top=True."
        )
    if not isinstance(preprocess, MidiPreprocess):
        raise ConfigurationError(f"{model.name} has no preprocessing of MIDI files, so its events have no meaning.")
    return trunk, head, preprocess.vocabulary


def _check(temperature: float, top_k: int | None, top_p: float | None, events: int) -> None:
    if not temperature >= 0:
        raise ConfigurationError(f"temperature={temperature}; it is 0 for the likeliest event, or a positive factor.")
    if top_k is not None and not 1 <= top_k <= events:
        raise ConfigurationError(f"top_k={top_k}; it is a number of events, 1 to {events}.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigurationError(f"top_p={top_p}; it is a share of the probability, above 0 and at most 1.")


def _with_start(prompt: Sequence[int] | Tensor, vocabulary: EventVocabulary) -> list[int]:
    events = [int(event) for event in (prompt.tolist() if isinstance(prompt, Tensor) else prompt)]
    if vocabulary.start is not None and events[:1] != [vocabulary.start]:
        events.insert(0, vocabulary.start)
    if not events:
        raise ConfigurationError("an empty prompt came, and this vocabulary has no start; give at least one event.")
    for event in events:
        vocabulary.meaning(event)
    return events


def _can_cache(trunk: MusicTransformer) -> bool:
    """Prompts of a tuner would be put in again with each event."""
    return not any(isinstance(module, Prompted) for module in trunk.modules())


@torch.no_grad()
def _next_scores(
    trunk: MusicTransformer, head: NextEventHead, events: Sequence[int], past: Sequence[KeyValues] | None
) -> Tensor:
    """Logits (vocabulary,) of what comes behind the events; past holds what was computed of them."""
    known = past[0].length if past else 0
    new = torch.tensor([events[known:]], device=trunk.embedding.weight.device)
    features = trunk.read(new, past=past)
    return head(features[:, -1:], {"input_ids": new})[0, -1].float().cpu()


def _without(scores: Tensor, vocabulary: EventVocabulary) -> Tensor:
    """Padding and the start are no events that could come."""
    never = [place for place in (vocabulary.pad, vocabulary.start) if place is not None]
    return scores.index_fill(0, torch.tensor(never), -torch.inf)


def _draw(
    scores: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> int:
    if temperature == 0:
        return int(scores.argmax())
    ordered, places = (scores / temperature).sort(descending=True, stable=True)
    chances = ordered.softmax(0)
    if top_p is not None:
        chances = chances.masked_fill(chances.cumsum(0) - chances >= top_p, 0)
    if top_k is not None:
        chances = chances[:top_k]
    return int(places[torch.multinomial(chances, 1, generator=generator)])
