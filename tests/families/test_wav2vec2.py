"""Wav2Vec 2.0: against the library bit by bit, files of the hub, frames, hidden spans, transcribing what was learnt."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neurenix import transfer
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    LabelMismatchError,
    WeightsMismatchError,
)
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel
from neurenix.models.audio._wav2vec_network import SpanMasking
from neurenix.models.audio._wav2vec_sizes import FrameCount
from neurenix.models.audio.wav2vec2 import (
    BASE,
    LARGE_LV60,
    SYMBOLS,
    CTCHead,
    Wav2Vec2Sizes,
    convert_hub,
    new_head,
    new_wav2vec2,
)
from neurenix.transfer import AdapterTuner, Finetuner, IA3Tuner, LoraTuner, PromptTuner, load_pretrained_model

TINY = Wav2Vec2Sizes(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    conv_dim=(16, 16, 16),
    conv_stride=(5, 4, 4),
    conv_kernel=(10, 8, 4),
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
)
STABLE = replace(TINY, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
KINDS = {"wav2vec2-base-960h": TINY, "wav2vec2-large-960h-lv60-self": STABLE}
LETTERS = ("<pad>", "a", "b", " ")
SHORT = replace(  # learns two tones in a second
    TINY,
    num_hidden_layers=1,
    conv_dim=(16, 16),
    conv_stride=(10, 8),
    conv_kernel=(40, 8),
    num_conv_pos_embeddings=4,
    hidden_dropout=0.0,
    activation_dropout=0.0,
    attention_dropout=0.0,
    feat_proj_dropout=0.0,
    final_dropout=0.0,
    layerdrop=0.0,
    initializer_range=0.1,
    mask_time_prob=0.0,
)


def seeded(
    sizes: Wav2Vec2Sizes, symbols: tuple[str, ...] = SYMBOLS, space: str = "|", seed: int = 0
) -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_wav2vec2(sizes, symbols, space=space)


def library(sizes: Wav2Vec2Sizes, kind: str = "Wav2Vec2ForCTC") -> Any:
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = getattr(transformers, kind)(transformers.Wav2Vec2Config(**asdict(sizes))).eval()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    return network


def published_folder(folder: Path, network: Any, *, old: bool, vocabulary: bool = True) -> Path:
    """As the hub has it: config.json, vocab.json, and weights with the old or the new names of the positions' norm."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(network.config.to_json_string(use_diff=False))
    if vocabulary:
        (folder / "vocab.json").write_text(json.dumps({name: place for place, name in enumerate(SYMBOLS)}))
    if not old:
        save_file(state, folder / "model.safetensors")
        return folder
    for ours, theirs in (("original0", "weight_g"), ("original1", "weight_v")):
        prefix = "wav2vec2.encoder.pos_conv_embed.conv."
        state[prefix + theirs] = state.pop(f"{prefix}parametrizations.weight.{ours}")
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def sounds(lengths: tuple[int, ...] = (2000, 1400), seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {
        "waveform": torch.randn(len(lengths), max(lengths), generator=generator) * mask,
        "attention_mask": mask.long(),
    }


# --- the library's network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("old", [True, False], ids=["old names", "new names"])
def test_published_files_give_the_librarys_outputs(name: str, old: bool, tmp_path: Path) -> None:
    network = library(KINDS[name])
    ours = load_pretrained_model(name, weights=published_folder(tmp_path, network, old=old), device="cpu")
    assert ours.load_report is not None
    assert ours.load_report.names("new") == ["head.vocabulary"]  # it is in vocab.json, not among the tensors
    assert ours.load_report.names("dropped") == [] and ours.load_report.pretrained_share == 1
    inputs = sounds()
    mask = inputs["attention_mask"] if name == "wav2vec2-large-960h-lv60-self" else None
    with torch.inference_mode():
        wanted = network(inputs["waveform"], attention_mask=mask, output_hidden_states=True)
        assert torch.equal(ours(inputs), wanted.logits)
        assert torch.equal(ours(inputs["waveform"]), network(inputs["waveform"]).logits)
        assert ours.head.symbols == SYMBOLS and ours.head.blank == 0
        features = ours.features(inputs)
        assert torch.equal(features, network.wav2vec2(inputs["waveform"], attention_mask=mask).last_hidden_state)
        real = ours.trunk.feature_mask(inputs)
        by_hand = torch.stack([row[: int(count)].mean(0) for row, count in zip(features, real.sum(1), strict=True)])
        torch.testing.assert_close(ours.embed(inputs), by_hand)


def test_the_librarys_loss(tmp_path: Path) -> None:
    network = library(STABLE)
    ours = load_pretrained_model("wav2vec2-large", weights=published_folder(tmp_path, network, old=False), device="cpu")
    inputs, targets = sounds((4000, 2800)), torch.tensor([[7, 7, 5, 4], [6, 9, -100, -100]])
    with torch.no_grad():
        wanted = [
            network(
                inputs["waveform"][row : row + 1],
                attention_mask=inputs["attention_mask"][row : row + 1],
                labels=targets[row : row + 1],
            ).loss
            / count
            for row, count in enumerate((4, 2))
        ]
        loss = ours(inputs, targets)["ctc"]
    torch.testing.assert_close(loss, torch.stack(wanted).mean(), rtol=1e-5, atol=1e-5)


def test_a_file_without_texts_has_no_head(tmp_path: Path) -> None:
    """What facebook/wav2vec2-base is: the quantiser and the projections of its training are of no use here."""
    network = library(TINY, "Wav2Vec2ForPreTraining")
    ours = load_pretrained_model("wav2vec2-base", weights=published_folder(tmp_path, network, old=True), device="cpu")
    assert isinstance(ours.head, nn.Identity) and ours.load_report is not None
    assert ours.load_report.names("new") == [] and ours.load_report.pretrained_share == 1
    dropped = {name.split(".")[1] for name in ours.load_report.names("dropped")}
    assert dropped == {"quantizer", "project_hid", "project_q"}
    assert ours(sounds()).shape == (2, 32)
    ours.replace_head(new_head(ours, LETTERS, space=" "))
    assert ours(sounds()).shape == (2, 24, 4)


def test_published_numbers_of_parameters() -> None:
    wanted = {
        "wav2vec2-base": (94_371_712, 24_608),
        "wav2vec2-base-960h": (94_371_712, 24_608),
        "wav2vec2-large-960h-lv60-self": (315_438_720, 32_800),
    }
    for name, counts in wanted.items():
        with torch.device("meta"):
            parts = ARCHITECTURES[name].build(BuildOptions(num_classes=32))
        assert parts.head is not None
        assert tuple(sum(p.numel() for p in part.parameters()) for part in (parts.trunk, parts.head)) == counts


@pytest.mark.parametrize(("kind", "sizes"), [("base", BASE), ("large", LARGE_LV60)])
def test_names_are_the_published_ones(kind: str, sizes: Wav2Vec2Sizes) -> None:
    import transformers

    with torch.device("meta"):
        network = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**asdict(sizes)))
        parts = ARCHITECTURES["wav2vec2" if kind == "base" else "wav2vec2-large"].build(BuildOptions(num_classes=32))
    assert parts.head is not None
    ours = {f"trunk.{name}": tensor.shape for name, tensor in parts.trunk.state_dict().items()}
    ours |= {f"head.{name}": tensor.shape for name, tensor in parts.head.state_dict().items() if name != "vocabulary"}
    assert ours == {name: tensor.shape for name, tensor in convert_hub(network.state_dict()).items()}
    assert {name.split(".")[1] for name in ours if name.startswith("trunk.")} == {
        "masked_spec_embed",
        "feature_extractor",
        "feature_projection",
        "encoder",
    }


def test_sounds_are_prepared_as_the_librarys_are() -> None:
    from transformers import Wav2Vec2FeatureExtractor

    raw = [np.random.default_rng(0).normal(size=count).astype(np.float32) * 3 + 1 for count in (900, 500)]
    wanted = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)(
        raw, sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    prepared = seeded(TINY).preprocess.wrap([(sound, 0) for sound in raw], False)
    inputs, _ = prepared.collate([prepared[0], prepared[1]])
    torch.testing.assert_close(inputs["waveform"], wanted["input_values"], rtol=1e-5, atol=1e-5)
    assert torch.equal(inputs["attention_mask"], wanted["attention_mask"].long())
    values = seeded(TINY).preprocess.to_json()
    assert json.loads(json.dumps(values)) == values and "files" not in values
    assert type(seeded(TINY).preprocess).from_json(values) == seeded(TINY).preprocess


# --- frames and masks -------------------------------------------------------------------------------------------------


def test_frames_are_counted_as_convolutions_make_them() -> None:
    assert BASE.frames.shortest == 400 and int(BASE.frames.of(torch.tensor(16_000))) == 49
    for count in (FrameCount((10, 8, 4), (5, 4, 4)), FrameCount((3, 2), (1, 3))):
        layers = [nn.Conv1d(1, 1, kernel, stride) for kernel, stride in zip(count.kernels, count.strides, strict=True)]
        for samples in (count.shortest, count.shortest + 1, 333, 1000):
            made = nn.Sequential(*layers)(torch.zeros(1, 1, samples)).shape[2]
            assert int(count.of(torch.tensor(samples))) == made
        with pytest.raises(RuntimeError, match="Kernel size"):
            nn.Sequential(*layers)(torch.zeros(1, 1, count.shortest - 1))


@torch.inference_mode()
def test_what_is_filled_up_does_not_matter_to_networks_that_read_the_mask() -> None:
    both, alone = sounds((2000, 1400)), sounds((2000, 1400))
    alone = {name: tensor[1:, :1400] for name, tensor in alone.items()}
    for sizes, equal in ((STABLE, True), (TINY, False)):
        model = seeded(sizes)
        frames = int(model.trunk.frames.of(torch.tensor(1400)))
        assert model.trunk.feature_mask(both).sum(1).tolist() == [24, frames]
        found = model.features(both)[1, :frames], model.features(alone)[0]
        assert torch.allclose(*found, atol=1e-5) == equal


def test_what_is_no_waveform() -> None:
    model = seeded(TINY)
    for wrong in (torch.zeros(2, 1, 2000), torch.zeros(2, 2000, dtype=torch.int64), {"codes": torch.zeros(2, 3)}, None):
        with pytest.raises(InputMismatchError, match="reads waveforms"):
            model.features(wrong)
    with pytest.raises(InputMismatchError, match="needs 105"):
        model.features(torch.zeros(2, 104))


# --- spans that training hides ----------------------------------------------------------------------------------------


def test_spans_are_as_long_and_many_as_asked() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = SpanMasking(0.3, 5, 2).draw([200] * 200 + [4, 5, 0, 30], 210)
        assert not drawn[:200, 200:].any() and not drawn[200].any() and not drawn[202].any()
        assert drawn[201].sum() == 5 and 6 <= drawn[203, :30].sum() <= 15
        # n spans of 5 begin in n of 196 places; a place is free where none of the 5 before it was drawn
        free = np.mean([np.prod([(196 - n - k) / (196 - k) for k in range(5)]) for n in (12,)])
        assert drawn[:200, 5:195].float().mean().item() == pytest.approx(1 - free, abs=0.01)
        assert not SpanMasking(0.5, 10, 2).draw([9], 9).any()
        torch.manual_seed(0)
        assert torch.equal(SpanMasking(0.3, 5, 2).draw([200] * 200 + [4, 5, 0, 30], 210), drawn)


def test_frames_and_features_are_hidden_in_training_alone() -> None:
    model = seeded(replace(TINY, mask_time_prob=0.5, mask_time_length=4, mask_feature_prob=0.3, mask_feature_length=3))
    seen: list[Tensor] = []
    model.trunk.encoder.pos_conv_embed.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach()))
    inputs = sounds()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for training in (True, False):
            model.train(training)
            model.trunk.feature_projection.eval()
            model.trunk.feature_extractor.eval()
            model.features(inputs)
    trained, evaluated = seen
    vector = model.trunk.masked_spec_embed.detach()
    zero = (trained == 0).all(1, keepdim=True)
    time = ((trained == vector) | zero).all(2)
    assert 0.2 < time.float().mean() < 0.8 and zero.any()
    kept = ~time.unsqueeze(2) & ~zero
    assert torch.equal(trained[kept], evaluated[kept]) and not (evaluated == vector).all(2).any()
    with torch.no_grad():
        assert torch.equal(model.eval().features(inputs), model.features(inputs))


def test_the_hidden_vector_learns_and_short_sounds_are_read() -> None:
    model = seeded(replace(TINY, mask_time_prob=0.5, layerdrop=0.0)).train()
    sum(model(sounds((2000,)), torch.tensor([[5, 6, 7]])).values()).backward()
    assert model.trunk.masked_spec_embed.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.features(sounds((200,))).shape == (1, 2, 32)  # of two frames, fewer than a span has


# --- symbols ----------------------------------------------------------------------------------------------------------


def test_symbols_come_from_the_vocabulary_beside_the_weights(tmp_path: Path) -> None:
    sizes = replace(TINY, vocab_size=6, pad_token_id=5)
    folder = published_folder(tmp_path, library(sizes), old=False)
    (folder / "vocab.json").write_text(json.dumps({"é": 0, "|": 3, "b": 1, "[PAD]": 5}))
    model = load_pretrained_model("wav2vec2-base-960h", weights=folder, device="cpu")
    assert model.head.symbols == ("é", "b", "<2>", "|", "<4>", "[PAD]") and model.head.blank == 5
    assert model.head.encode("b É").tolist() == [1, 3, 0]
    twin = copy.deepcopy(model)
    assert twin.head.symbols == model.head.symbols and torch.equal(twin(sounds()), model(sounds()))
    again = tmp_path / "ours.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, again)
    (folder / "vocab.json").unlink()
    read = load_pretrained_model("wav2vec2-base-960h", weights=again, device="cpu")
    assert read.head.symbols == model.head.symbols and read.head.blank == 5
    assert {fate.fate for fate in read.load_report.tensors} == {"matched"}
    with pytest.raises(WeightsMismatchError, match="6 symbols apart"):
        load_pretrained_model("wav2vec2-base-960h", weights=folder / "model.safetensors", device="cpu")
    for wrong in ('{"a": 7}', '{"a": 0, "b": 0}', '{"eng": {"a": 0}}', "[1]"):
        (folder / "vocab.json").write_text(wrong)
        with pytest.raises(DamagedFileError, match="a number of its own below 6"):
            load_pretrained_model("wav2vec2-base-960h", weights=folder / "model.safetensors", device="cpu")


# --- learning ---------------------------------------------------------------------------------------------------------


def tones(text: str) -> tuple[np.ndarray, int]:
    """A tone of 50 ms for each letter, at 16 kHz."""
    time = np.arange(800) / 16_000
    pitch = {"a": 400, "b": 1500}
    return np.concatenate([np.sin(2 * np.pi * pitch[letter] * time) for letter in text]).astype(np.float32), 16_000


def test_two_sequences_of_tones_are_learnt_and_saved(tmp_path: Path) -> None:
    model = seeded(SHORT, LETTERS, space=" ")
    texts = ["ab", "ba"]
    raw = [tones(text) for text in texts]
    data = [(sound, model.head.encode(text)) for sound, text in zip(raw, texts, strict=True)]
    assert transfer.predict(model, raw) != texts
    tuner = Finetuner(model, learning_rate=1e-2, precision="fp32", weight_decay=0.0)
    history = tuner.fit(data * 4, val_dataset=data, batch_size=8, epochs=60, run=False)
    losses = [entry["loss"] for entry in history.as_json()]
    assert losses[-1] < 0.1 * losses[0]
    assert tuner.predict(raw) == texts
    assert transfer.predict(tuner.model, raw) == texts
    assert tuner.evaluate(data)["loss"] < 0.2
    tuner.model.head.beam_width = 4
    assert transfer.predict(tuner.model, raw) == texts


def test_a_tuning_of_published_weights_is_saved_and_loaded(tmp_path: Path) -> None:
    folder = published_folder(tmp_path / "base", library(TINY), old=False)
    model = load_pretrained_model("wav2vec2-base-960h", weights=folder, device="cpu")
    data = [(tones("ab"), model.head.encode("NO")), (tones("ba"), model.head.encode("ON"))]
    tuner = Finetuner(model, freeze_layers=["feature_extractor"], precision="fp32")
    tuner.fit(data, batch_size=2, epochs=1, run=False)
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", device="cpu")
    inputs = sounds()
    with torch.inference_mode():
        assert torch.equal(again.model(inputs), tuner.model.eval()(inputs))
    assert again.model.head.symbols == SYMBOLS and again.predict([tones("ab")]) == tuner.predict([tones("ab")])
    with pytest.raises(LabelMismatchError, match="its text needs 60"):
        tuner.fit([(tones("ab"), torch.arange(60) % 20 + 4)], epochs=1, run=False)


@pytest.mark.parametrize("sizes", [TINY, STABLE], ids=["base", "large"])
def test_tuners_find_their_places(sizes: Wav2Vec2Sizes) -> None:
    model = seeded(sizes)
    kinds = ["houlsby", "pfeiffer", "parallel"]
    tuners = [AdapterTuner(model, num_classes=3, adapter_type=kind) for kind in kinds]
    tuners += [maker(model, num_classes=3) for maker in (LoraTuner, IA3Tuner, PromptTuner)]
    for tuner in tuners:
        assert tuner.model(sounds()).shape == (2, 3)
    names = model.stages
    for stage in names:
        tuned = Finetuner(model, num_classes=3, freeze_layers=[stage]).model
        assert any(not parameter.requires_grad for parameter in tuned.trunk.parameters())
    tuned = Finetuner(model, num_classes=3, freeze_layers=list(names)).model
    assert not any(parameter.requires_grad for parameter in tuned.trunk.parameters())


def test_classes_of_sounds_are_learnt_too() -> None:
    tuner = Finetuner(seeded(SHORT, LETTERS, space=" "), num_classes=2, learning_rate=1e-2, precision="fp32")
    data = [(tones("aa"), 0), (tones("bb"), 1)]
    tuner.fit(data * 4, batch_size=8, epochs=30, run=False)
    assert tuner.predict([sound for sound, _ in data]).tolist() == [0, 1]


# --- files that cannot be used ----------------------------------------------------------------------------------------


def test_configurations_that_cannot_be(tmp_path: Path) -> None:
    folder = published_folder(tmp_path, library(TINY), old=False)
    content = json.loads((folder / "config.json").read_text())
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"conv_kernel": [10, 8]}, DamagedFileError, "conv_dim, conv_kernel and conv_stride"),
        ({"conv_stride": [5, 0, 4]}, DamagedFileError, "conv_dim, conv_kernel and conv_stride"),
        ({"conv_dim": []}, DamagedFileError, "conv_dim"),
        ({"conv_dim": [16, "a", 16]}, DamagedFileError, "conv_dim"),
        ({"feat_extract_norm": "batch"}, DamagedFileError, "'group' or 'layer'"),
        ({"feat_extract_activation": "os.system"}, DamagedFileError, "feat_extract_activation"),
        ({"num_conv_pos_embedding_groups": 5}, DamagedFileError, "multiple of the heads"),
        ({"num_conv_pos_embeddings": 0}, DamagedFileError, "num_conv_pos_embeddings"),
        ({"mask_time_prob": 2}, DamagedFileError, "shares"),
        ({"mask_time_length": 0}, DamagedFileError, "mask_time_length"),
        ({"hidden_size": 9_000_000}, DamagedFileError, "parameters"),
        ({"pad_token_id": 32}, DamagedFileError, "token 32"),
        ({"model_type": "hubert"}, WeightsMismatchError, "'hubert'"),
        ({"add_adapter": True}, WeightsMismatchError, "adapters"),
        ({"adapter_attn_dim": 16}, WeightsMismatchError, "adapters"),
    ]
    for change, kind, message in wrong:
        (folder / "config.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(kind, match=message):
            load_pretrained_model("wav2vec2-base-960h", weights=folder, device="cpu")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    folder = published_folder(tmp_path, library(TINY), old=False)
    file = folder / "model.safetensors"
    state = library(TINY).state_dict()
    swapped = {name.replace("attention.q_proj", "attention.query"): tensor for name, tensor in state.items()}
    swapped = {name.replace("feed_forward", "mlp"): tensor.contiguous() for name, tensor in swapped.items()}
    save_file(swapped, file)
    with pytest.raises(WeightsMismatchError, match=r"trunk\.encoder\.layers"):
        load_pretrained_model("wav2vec2-base-960h", weights=folder, device="cpu")
    save_file({name: tensor.contiguous() for name, tensor in library(STABLE).state_dict().items()}, file)
    other = {**json.loads((folder / "config.json").read_text()), "intermediate_size": 64}
    (folder / "config.json").write_text(json.dumps(other))
    with pytest.raises(WeightsMismatchError, match="48x32 in the file, 64x32 here"):
        load_pretrained_model("wav2vec2-base-960h", weights=folder, device="cpu")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedFileError):
        load_pretrained_model("wav2vec2-base-960h", weights=folder, device="cpu")


def test_heads_for_other_models() -> None:
    with pytest.raises(ConfigurationError, match="is no Wav2Vec"):
        new_head(load_pretrained_model("resnet18", weights=None, device="cpu"), LETTERS)
    head = new_head(seeded(TINY), LETTERS, space=" ")
    assert isinstance(head, CTCHead) and head.symbols == LETTERS
    with pytest.raises(ConfigurationError, match="classes of your own"):
        head.for_classes(3)
