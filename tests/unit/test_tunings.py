"""Several tunings of one base: shared tensors, one for each row, weighted sums, and the base untouched."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from neurenix.errors import ConfigurationError, UnknownNameError, WeightsMismatchError
from neurenix.storage import tensor_digest
from neurenix.transfer import AdapterTuner, BiasTuner, Finetuner, LoraTuner, Tunings, load_pretrained_model
from neurenix.transfer.tuners.method import MethodTuner

TEXTS = ["a good film", "a bad one", "dull and long", "I laughed all the way", "fine", "no"]
MOODS, LENGTHS = ["good", "bad", "bad", "good", "good", "bad"], ["short", "short", "long", "long", "short", "short"]


@functools.cache
def minilm() -> Any:
    return load_pretrained_model("minilm", device="cpu")


@functools.cache
def tuned(cls: type[MethodTuner], names: tuple[str, ...], seed: int = 0) -> MethodTuner:
    tuner = cls(minilm(), len(set(names)), layers=2, seed=seed, learning_rate=1e-2, precision="fp32")
    tuner.fit((TEXTS, list(names)), batch_size=3, epochs=2, run=False)
    return tuner


@pytest.fixture
def tunings() -> Tunings:
    found = Tunings(minilm())
    found.add("mood", tuned(LoraTuner, tuple(MOODS)))
    found.add("length", tuned(AdapterTuner, tuple(LENGTHS)))
    return found


def test_each_answers_as_it_did_alone_and_the_base_stays(tunings: Tunings) -> None:
    assert list(tunings) == ["mood", "length"]
    for name, alone in (("mood", tuned(LoraTuner, tuple(MOODS))), ("length", tuned(AdapterTuner, tuple(LENGTHS)))):
        assert (tunings[name].predict_proba(TEXTS) == alone.predict_proba(TEXTS)).all()
    base, loaded = tunings.base.state_dict(), minilm().state_dict()
    assert all(tensor_digest(base[name]) == tensor_digest(tensor) for name, tensor in loaded.items())


def test_the_base_is_in_memory_once(tunings: Tunings) -> None:
    tunings.add("more", tuned(BiasTuner, tuple(MOODS)))
    places = {parameter.data_ptr() for parameter in tunings.base.trunk.parameters()}
    for tuner in tunings.values():
        own = sum(1 for parameter in tuner.model.trunk.parameters() if parameter.data_ptr() not in places)
        assert own == len(tuner.own_parameters)


def test_every_row_gets_the_tuning_that_is_named_for_it(tunings: Tunings) -> None:
    names = ["mood", "length", "length", "mood", "length", "mood"]
    found = tunings.predict(TEXTS, names)
    whole = {name: tunings[name].predict(TEXTS) for name in tunings}
    assert found.tolist() == [whole[name][place] for place, name in enumerate(names)]
    with pytest.raises(ConfigurationError, match="5 names for 6 samples"):
        tunings.predict(TEXTS, names[:5])
    with pytest.raises(UnknownNameError, match="closest: mood"):
        tunings.predict(TEXTS, ["moods", *names[1:]])


def test_one_that_is_trained_on_moves_no_other(tunings: Tunings) -> None:
    before = tunings["length"].predict_proba(TEXTS)
    tunings["mood"].fit((TEXTS, MOODS), batch_size=3, epochs=1, run=False)
    assert (tunings["length"].predict_proba(TEXTS) == before).all()
    base = tunings.base.state_dict()
    assert all(tensor_digest(base[name]) == tensor_digest(tensor) for name, tensor in minilm().state_dict().items())
    tunings.remove("mood")
    assert list(tunings) == ["length"]


def test_weighted_sums_of_changes(tunings: Tunings) -> None:
    """W + Σ wᵢ ΔWᵢ: with weight 1 it is the one merged, with 0 the base; half of two is the mean of their changes."""
    other = tuned(LoraTuner, tuple(MOODS), seed=1)
    tunings.add("other", other)
    key = "encoder.layer.5.attention.self.query.weight"
    base = minilm().trunk.state_dict()[key]
    changes = {}
    for name in ("mood", "other"):
        layer: Any = tunings[name].model.trunk.get_submodule(key.removesuffix(".weight"))
        changes[name] = layer.get_delta_weight("default").detach()
    half = tunings.merged({"mood": 0.5, "other": 0.5})
    torch.testing.assert_close(half.trunk.state_dict()[key], base + (changes["mood"] + changes["other"]) / 2)
    none = tunings.merged({"mood": 0.0})
    torch.testing.assert_close(none.trunk.state_dict()[key], base)
    with pytest.raises(ConfigurationError, match="cannot be merged"):
        tunings.merged({"mood": 0.5, "length": 0.5})


def test_folders_and_other_bases(tunings: Tunings, tmp_path: Any) -> None:
    tuned(LoraTuner, tuple(MOODS)).save(tmp_path / "mood")
    tunings.add("again", tmp_path / "mood")
    assert (tunings["again"].predict_proba(TEXTS) == tunings["mood"].predict_proba(TEXTS)).all()
    with pytest.raises(ConfigurationError, match="changes the base itself"):
        tunings.add("whole", Finetuner(minilm(), 2))
    moved = load_pretrained_model("minilm", device="cpu")
    with torch.no_grad():
        moved.trunk.embeddings.word_embeddings.weight[0] += 1
    with pytest.raises(WeightsMismatchError, match="another base"):
        tunings.add("moved", LoraTuner(moved, 2))
