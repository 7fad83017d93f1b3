"""The tuners as a user meets them: wrong arguments, resuming, what counts as a block, folders of other kinds."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from neurenix.errors import ConfigurationError, DamagedFileError, MergeError, NonFiniteError, UnknownNameError
from neurenix.models import adopt
from neurenix.transfer import (
    AdapterTuner,
    BiasTuner,
    Finetuner,
    IA3Tuner,
    LoraTuner,
    NormTuner,
    PromptTuner,
    ScaleShiftTuner,
    load_pretrained_model,
)
from neurenix.transfer.tuners.places import blocks


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm, self.second = (
            nn.Linear(width, 2 * width),
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.norm(self.first(x)).relu())


class Network(nn.Module):
    """Vectors in; two stages of two residual blocks; a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(Block(6), Block(6)), nn.Sequential(Block(6), Block(6))])
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(x)


@pytest.fixture
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network()


@pytest.fixture
def data() -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(0)
    targets = numpy.arange(24) % 3
    vectors = random.normal(size=(24, 6)).astype("float32")
    vectors[numpy.arange(24), targets] += 2
    return vectors, targets


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: AdapterTuner(model, adapter_size=0), "adapter_size=0; it is a number of features"),
        (lambda model: AdapterTuner(model, adapter_size=2.5), "adapter_size=2.5 .* a whole number"),
        (lambda model: AdapterTuner(model, adapter_init_scale=-1.0), "adapter_init_scale=-1.0"),
        (lambda model: AdapterTuner(model, adapter_type="parallel"), "declares its feed-forward parts"),
        (lambda model: AdapterTuner(model, layers=5), "layers=5; Network has 4 blocks: give 1 to 4"),
        (lambda model: AdapterTuner(model, layers=0), "give 1 to 4"),
        (lambda model: AdapterTuner(model, layers="head"), "holds none of Network's blocks"),
        (lambda model: LoraTuner(model, rank=0), "rank=0"),
        (lambda model: LoraTuner(model, lora_dropout=1.0), "lora_dropout=1.0"),
        (lambda model: LoraTuner(model, rate_ratio=0.0), "rate_ratio=0.0"),
        (lambda model: LoraTuner(model, start="pizza"), "start='pizza'; possible: 'zero'"),
        (lambda model: LoraTuner(model, target_layers="*.norm"), "holds no linear layer"),
        (lambda model: PromptTuner(model, prompt_length=0), "prompt_length=0"),
        (lambda model: PromptTuner(model, prompt_type="wide"), "possible: 'shallow', 'deep'"),
        (lambda model: PromptTuner(model, prompt_init="vocabulary"), "needs a model of texts"),
        (lambda model: IA3Tuner(model), "has nothing that IA3Tuner could train"),
        (lambda model: BiasTuner(model, learning_rate=0.0), "learning_rate=0 trains nothing"),
        (lambda model: NormTuner(nn.Sequential(nn.Linear(3, 2))), "has nothing that NormTuner could train"),
        (lambda model: ScaleShiftTuner("network"), "is a model's name; load it first"),
    ],
)
def test_wrong_arguments_get_a_named_error(network, make, message):
    with pytest.raises(ConfigurationError, match=message):
        make(network)


def test_misspelt_names_get_near_ones(network):
    with pytest.raises(UnknownNameError, match="closest: houlsby"):
        AdapterTuner(network, adapter_type="houlsbi")
    with pytest.raises(UnknownNameError, match="closest: stages"):
        LoraTuner(network, target_layers="stage")


def test_blocks_are_what_is_repeated_inside_the_stages(network):
    model = adopt(network)
    names = [f"trunk.module.stages.{stage}.{block}" for stage in range(2) for block in range(2)]
    assert [block.name for block in blocks(model, None)] == names
    assert [block.name for block in blocks(model, 1)] == names[-1:]
    assert [block.name for block in blocks(model, "stages.0")] == names[:2]
    assert [block.name for block in blocks(model, ["stages.*.1"])] == names[1::2]
    assert {block.width for block in blocks(model, None)} == {6}


@pytest.mark.parametrize("cls", [AdapterTuner, LoraTuner, ScaleShiftTuner, BiasTuner])
def test_a_killed_fit_ends_with_the_same_bits(network, data, cls):
    assert cls(network).resume_check(data, data, batch_size=4)


def test_unused_layers_below_are_kept_by_the_frozen_prefix(network, data, capsys):
    tuner = AdapterTuner(network, layers=2, frozen_prefix="always")
    kept = tuner.fit(data, epochs=3, batch_size=4, run=False)
    assert "the frozen layers run once for each of 24 samples" in capsys.readouterr().out
    plain = AdapterTuner(network, layers=2, frozen_prefix="never").fit(data, epochs=3, batch_size=4, run=False)
    assert kept["loss"] == pytest.approx(plain["loss"], abs=1e-6)


def test_learning_beats_the_head_alone(network, data):
    """The base knows nothing: what can be learned by its own blocks is more than a head can do on it."""
    random = numpy.random.default_rng(1)
    vectors = random.normal(size=(256, 6)).astype("float32")
    targets = (vectors[:, 0] * vectors[:, 1] > 0).astype("int64")  # no line parts them
    alone = Finetuner(network, 2, strategy="head")
    alone.fit((vectors, targets), epochs=20, run=False)
    for cls in (AdapterTuner, LoraTuner, ScaleShiftTuner):
        tuner = cls(network, 2, learning_rate=1e-2)
        tuner.fit((vectors, targets), epochs=20, run=False)
        gained = tuner.evaluate((vectors, targets))["accuracy"] - alone.evaluate((vectors, targets))["accuracy"]
        assert gained > 0.1, cls.__name__


def test_a_merge_that_is_not_exact_enough_changes_nothing(network, data):
    tuner = LoraTuner(network)
    tuner.fit(data, epochs=2, batch_size=8, run=False)
    before = tuner.predict_proba(data[0])
    with pytest.raises(MergeError, match="nothing was changed"):
        tuner.merge(data[0], tolerance=0.0)
    assert (tuner.predict_proba(data[0]) == before).all()
    assert tuner.merge(data[0]).samples == 24
    with pytest.raises(ConfigurationError, match="merged already"):
        tuner.merge(data[0])
    with pytest.raises(ConfigurationError, match="unmerge"):
        tuner.fit(data, epochs=1, run=False)
    tuner.unmerge()
    with pytest.raises(ConfigurationError, match="not merged"):
        tuner.unmerge()


def test_a_folder_of_another_tuner_is_refused_by_name(network, tmp_path):
    AdapterTuner(network).save(tmp_path / "adapter")
    with pytest.raises(DamagedFileError, match="describes 'AdapterTuner', not a LoraTuner"):
        LoraTuner.load(tmp_path / "adapter", model=network)
    with pytest.raises(ConfigurationError, match=r"holds no adapter_config\.json"):
        LoraTuner.from_peft(tmp_path / "adapter", network)


def test_reading_what_peft_saved_leaves_the_users_module_whole(network, data, tmp_path):
    tuner = LoraTuner(network, 3, target_layers="*", rank=2)
    tuner.fit(data, epochs=1, batch_size=8, run=False)
    tuner.save(tmp_path)
    again = LoraTuner.from_peft(tmp_path, network, num_classes=3)
    assert isinstance(network.head, nn.Linear)
    with torch.no_grad():
        found, expected = (one.model.eval().embed(torch.from_numpy(data[0])) for one in (again, tuner))
    assert torch.equal(found, expected)


def test_nan_is_named(network, data):
    vectors = data[0].copy()
    vectors[5] = numpy.nan
    with pytest.raises(NonFiniteError):
        AdapterTuner(network).fit((vectors, data[1]), epochs=1, batch_size=4, run=False)


def test_the_summary_tells_what_is_trained(network):
    summary = AdapterTuner(network, adapter_size=4).summary()
    assert summary.trainable == 4 * (2 * 4 * 6 + 4 + 6) + 6 * 3 + 3
    assert "AdapterTuner" in str(summary)


@pytest.mark.parametrize(
    "second", [lambda model: Finetuner(model, 2, strategy="head"), lambda model: LoraTuner(model, 2)]
)
def test_a_base_that_was_trained_since_it_was_loaded_is_saved_whole(second, tmp_path):
    """Its source would give the weights from before that training, and a wrong model without a word."""
    texts, labels = ["fine", "dull", "so good", "no"] * 3, ["good", "bad"] * 6
    first = Finetuner(load_pretrained_model("minilm", device="cpu"), 2, learning_rate=1e-3)
    first.fit((texts, labels), epochs=1, batch_size=4, run=False)
    tuner = second(first.model)
    tuner.fit((texts, labels), epochs=1, batch_size=4, run=False)
    tuner.save(tmp_path / "tuned")
    again = type(tuner).load(tmp_path / "tuned", device="cpu")
    assert (again.predict_proba(texts) == tuner.predict_proba(texts)).all()


def test_tuners_can_stand_on_each_other(network, data):
    first = AdapterTuner(network, adapter_size=4)
    first.fit(data, epochs=1, batch_size=8, run=False)
    second = AdapterTuner(first.model, adapter_size=2, layers=2)
    assert sum(second.model.get_parameter(name).numel() for name in second.own_parameters) == 2 * (2 * 2 * 6 + 2 + 6)
    second.fit(data, epochs=1, batch_size=8, run=False)
    assert second.predict(data[0]).shape == (24,)
