"""The Music Transformer: against the paper's formulas as loops, both kinds of files, training and generation."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.tensor_bundles import write_bundle
from torch import Tensor, nn

from neurenix.audio import PIANO_EVENTS, MidiPreprocess, Note, read_midi, write_midi
from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    UnsafeFileError,
    WeightsMismatchError,
    WeightsNotFoundError,
)
from neurenix.models import ARCHITECTURES, BuildOptions, PretrainedModel
from neurenix.models.audio._music_network import SelfAttention, skew
from neurenix.models.audio.music_transformer import (
    PUBLISHED,
    MusicTransformer,
    MusicTransformerSizes,
    NextEventHead,
    generate,
    new_music_transformer,
)
from neurenix.transfer import AdapterTuner, Finetuner, LoraTuner, PromptTuner, load_pretrained_model

TINY = MusicTransformerSizes(width=32, layers=2, heads=8, hidden=48, max_length=64, dropout=0.0)
RELATIVE = MusicTransformerSizes(
    width=32, layers=2, heads=4, hidden=48, max_length=64, attention="relative", dropout=0.0
)


def seeded(sizes: MusicTransformerSizes, seed: int = 0) -> PretrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_music_transformer(sizes)


def events(count: int = 2, length: int = 20, vocabulary: int = 310, seed: int = 0) -> dict[str, Tensor]:
    ids = torch.randint(2, vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


# --- the network ----------------------------------------------------------------------------------------------------


def naive_relative_attention(layer: SelfAttention, hidden: Tensor) -> Tensor:
    """Shaw et al.'s O(L² d) way, which section 3.4 of the paper starts from: R (L, L, d) holds E_r at (i, j)."""
    length, heads = hidden.shape[1], layer.heads
    far = layer.relative.shape[0] - 1
    table = torch.zeros(length, length, layer.relative.shape[1])
    for i in range(length):
        for j in range(i + 1):
            table[i, j] = layer.relative[far - (i - j)]
    query, key, value = (
        part(hidden).reshape(len(hidden), length, heads, -1).permute(0, 2, 1, 3) for part in (layer.q, layer.k, layer.v)
    )
    scores = query @ key.transpose(-1, -2) + (query.unsqueeze(3) * table).sum(-1)
    scores = scores / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~torch.ones(length, length).tril().bool(), -math.inf).softmax(-1)
    return layer.output_transform((weights @ value).permute(0, 2, 1, 3).reshape(hidden.shape))


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_relative_attention_equals_the_naive_formula(length: int) -> None:
    layer = seeded(RELATIVE).trunk.layers[0].self_attention
    hidden = torch.randn(3, length, 32, generator=torch.Generator().manual_seed(1))
    seen = torch.ones(length, length).tril().bool()[None, None]
    with torch.no_grad():
        torch.testing.assert_close(layer(hidden, seen), naive_relative_attention(layer, hidden), atol=1e-5, rtol=1e-5)


def test_skew_of_the_papers_figure() -> None:
    """Columns are distances -2, -1, 0; row i keeps its last i + 1 and moves them to keys 0 … i."""
    by_distance = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    moved = skew(by_distance)
    assert moved.tril().tolist() == [[3, 0, 0], [5, 6, 0], [7, 8, 9]]
    assert skew(by_distance[1:]).tolist()[1] == [7, 8, 9]  # the last two queries of three keys
    assert skew(by_distance[1:]).tolist()[0][:2] == [5, 6]


def tensor2tensor_by_hand(state: dict[str, np.ndarray], ids: list[int], layers: int, heads: int) -> np.ndarray:
    """Magenta's decoder in numpy float64 from the checkpoint's own names, one piece without padding: its logits.

    Tensor2Tensor reads [0, e_1, …, e_t] where the zero is an empty place, and says e_1, …, e_(t + 1).
    """

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        name = f"{name}/layer_prepostprocess/layer_norm/layer_norm"
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * state[f"{name}_scale"] + state[f"{name}_bias"]

    embedding = state["transformer/symbol_modality_310_512/shared/weights_0"].astype(np.float64)
    width = embedding.shape[1]
    x = np.array([embedding[i] * (i != 0) for i in ids]) * np.sqrt(width)
    for place in range(len(ids)):
        for wave in range(width // 2):
            period = 10_000 ** (wave / (width // 2 - 1))
            x[place, wave] += np.sin(place / period)
            x[place, width // 2 + wave] += np.cos(place / period)
    for layer in range(layers):
        name = f"transformer/body/decoder/layer_{layer}"
        h = norm(x, f"{name}/self_attention")
        q, k, v = (h @ state[f"{name}/self_attention/multihead_attention/{part}/kernel"] for part in "qkv")
        mixed = np.zeros_like(x)
        for head in range(heads):
            own = slice(head * width // heads, (head + 1) * width // heads)
            for place in range(len(ids)):
                scores = k[: place + 1, own] @ q[place, own] / np.sqrt(width // heads)
                weights = np.exp(scores - scores.max())
                mixed[place, own] = weights / weights.sum() @ v[: place + 1, own]
        x = x + mixed @ state[f"{name}/self_attention/multihead_attention/output_transform/kernel"]
        h = norm(x, f"{name}/ffn") @ state[f"{name}/ffn/conv1/kernel"] + state[f"{name}/ffn/conv1/bias"]
        x = x + np.maximum(h, 0) @ state[f"{name}/ffn/conv2/kernel"] + state[f"{name}/ffn/conv2/bias"]
    return norm(x, "transformer/body/decoder") @ embedding.T


def magenta_variables(width: int = 32, layers: int = 2, hidden: int = 48) -> dict[str, np.ndarray]:
    """The published list of names, at another size."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) * shape[0] ** -0.5).astype(np.float32)

    body = "transformer/body/decoder"
    found = {"transformer/symbol_modality_310_512/shared/weights_0": drawn(310, width) * 3}
    for layer in range(layers):
        name = f"{body}/layer_{layer}"
        for part in ("q", "k", "v", "output_transform"):
            found[f"{name}/self_attention/multihead_attention/{part}/kernel"] = drawn(width, width)
        found |= {f"{name}/ffn/conv1/kernel": drawn(width, hidden), f"{name}/ffn/conv1/bias": drawn(hidden)}
        found |= {f"{name}/ffn/conv2/kernel": drawn(hidden, width), f"{name}/ffn/conv2/bias": drawn(width)}
    places = [f"{body}/layer_{layer}/{part}" for layer in range(layers) for part in ("self_attention", "ffn")]
    for place in [*places, body]:
        for kind in ("scale", "bias"):
            found[f"{place}/layer_prepostprocess/layer_norm/layer_norm_{kind}"] = drawn(width) + (kind == "scale")
    return found


@pytest.fixture(scope="module")
def magenta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint as Magenta's: the index of its bundle, with what training leaves in one beside the network."""
    variables = magenta_variables()
    name = "transformer/body/decoder/layer_0/ffn/conv1/kernel"
    more = {
        "global_step": np.array(100_000, dtype=np.int64),
        f"training/{name}/Adafactor/vr": np.zeros(3, dtype=np.float32),
        f"{name}/Adam_1": np.zeros((32, 48), dtype=np.float32),
    }
    return write_bundle(tmp_path_factory.mktemp("magenta") / "unconditional_model_16.ckpt", {**variables, **more})


def test_magentas_checkpoint_loads_whole_and_answers_as_by_hand(magenta: Path) -> None:
    model = load_pretrained_model("music-transformer", weights=magenta, device="cpu")
    assert model.load_report.pretrained_share == 1
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert len(model.load_report.tensors) == len(magenta_variables())
    assert model.stages == ("embedding", "layers.0", "layers.1", "norm") and model.head.num_outputs == 310
    ids = [0, *events(1, 11)["input_ids"][0].tolist()]
    with torch.inference_mode():
        logits = model({"input_ids": torch.tensor([ids])})[0].double().numpy()
    by_hand = tensor2tensor_by_hand(magenta_variables(), ids, 2, 8)
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4)


class TorchByHand(nn.Module):
    """What MusicTransformer-Pytorch's module holds, under its names: torch's own layers, post-norm."""

    def __init__(self, relative: bool, width: int = 32, heads: int = 4, hidden: int = 48, length: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(390, width)
        self.positional_encoding = nn.Module()
        place = torch.arange(length).unsqueeze(1)
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
        table = torch.zeros(length, width)
        table[:, 0::2], table[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        self.positional_encoding.register_buffer("pe", table.unsqueeze(1))
        self.transformer = nn.Module()
        layer = nn.TransformerEncoderLayer(width, heads, hidden, 0.0, batch_first=True)
        self.transformer.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        if relative:
            for block in self.transformer.encoder.layers:
                block.self_attn.Er = nn.Parameter(torch.rand(length, width // heads))
        self.Wout = nn.Linear(width, 390)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, mean=0.5)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embedding(ids) + self.positional_encoding.pe[: ids.shape[1], 0]
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.Wout(self.transformer.encoder(hidden, mask))


def torch_file(folder: Path, relative: bool) -> tuple[TorchByHand, Path]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        library = TorchByHand(relative).eval()
    torch.save(library.state_dict(), folder / "best_weights.pth")
    return library, folder / "best_weights.pth"


@torch.inference_mode()
def test_the_torch_layout_equals_torchs_own_layers(tmp_path: Path) -> None:
    library, file = torch_file(tmp_path, relative=False)
    with torch.no_grad():
        keys = {name: tensor.shape for name, tensor in library.state_dict().items()}
    assert len(keys) == 2 * 12 + 6
    # eight heads are the published number, and no tensor of an absolute file tells another
    library = TorchByHand(False, heads=8).eval()
    library.load_state_dict(torch.load(file, weights_only=True))
    model = load_pretrained_model("music-transformer", weights=file, device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"} and model.head.num_outputs == 390
    assert model.trunk.sizes.attention == "absolute" and model.preprocess.vocabulary.size == 390
    ids = events(vocabulary=390)["input_ids"]
    torch.testing.assert_close(model({"input_ids": ids}), library(ids), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_the_relative_torch_layout(tmp_path: Path) -> None:
    library, file = torch_file(tmp_path, relative=True)
    assert len(library.state_dict()) == 2 * 13 + 6
    model = load_pretrained_model("music-transformer", weights=file, device="cpu")
    assert {fate.fate for fate in model.load_report.tensors} == {"matched"}
    assert (model.trunk.sizes.attention, model.trunk.sizes.heads, model.trunk.max_length) == ("relative", 4, 64)
    hidden = model.trunk._embedded(events(vocabulary=390)["input_ids"], torch.arange(20))
    own, theirs = model.trunk.layers[0], library.transformer.encoder.layers[0]
    assert torch.equal(own.self_attention.relative, theirs.self_attn.Er)
    joined = theirs.norm1(hidden + naive_relative_attention(own.self_attention, hidden))
    by_hand = theirs.norm2(joined + theirs.linear2(theirs.linear1(joined).relu()))
    seen = torch.ones(20, 20).tril().bool()[None, None]
    torch.testing.assert_close(own(hidden, seen), by_hand, rtol=1e-5, atol=1e-5)


def test_published_sizes() -> None:
    with torch.device("meta"):
        parts = ARCHITECTURES["music-transformer"].build(BuildOptions(num_classes=310))
        gwinndr = [
            MusicTransformer(
                MusicTransformerSizes(vocabulary_size=390, layers=6, hidden=1024, attention=attention, layout="torch")
            )
            for attention in ("relative", "absolute")
        ]
    assert sum(p.numel() for p in parts.trunk.parameters()) == 50_565_120
    assert not list(parts.head.parameters()) and parts.stages == PUBLISHED.stages
    head = 390 * 513
    # 13.80 M and 13.02 M, of 84 and 78 tensors with the position table and the three projections in one
    counts = [sum(p.numel() for p in trunk.parameters()) + head for trunk in gwinndr]
    assert [round(count / 1e6, 2) for count in counts] == [13.80, 13.02]
    assert [len(trunk.state_dict()) + 2 - 6 * 4 for trunk in gwinndr] == [84, 78]


@torch.inference_mode()
def test_features_pooling_and_padding() -> None:
    for sizes in (TINY, RELATIVE):
        model = seeded(sizes)
        inputs = events(2, 12)
        features = model.features(inputs)
        assert features.shape == (2, 12, 32) and model(inputs).shape == (2, 12, 310)
        torch.testing.assert_close(model.embed(inputs), features[:, 1:].mean(1))  # without the start's place
        padded = {name: nn.functional.pad(tensor, (0, 5)) for name, tensor in inputs.items()}
        torch.testing.assert_close(model.features(padded)[:, :12], features)
        torch.testing.assert_close(model.embed(padded), model.embed(inputs))
        changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
        changed["input_ids"][:, 8] += 1
        torch.testing.assert_close(model.features(changed)[:, :8], features[:, :8])  # no look ahead
        assert not torch.allclose(model.features(changed)[:, 8:], features[:, 8:])
        holes = {**inputs, "attention_mask": torch.tensor([[0, 0, 0] + [1] * 9] * 2)}
        assert model.features(holes).isfinite().all()


def test_last_pooling(magenta: Path) -> None:
    model = load_pretrained_model("music-transformer", weights=magenta, include_top=False, pooling="last", device="cpu")
    inputs = events(2, 9)
    inputs["attention_mask"][1, 5:] = 0
    with torch.inference_mode():
        features = model.features(inputs)
        torch.testing.assert_close(model(inputs), torch.stack([features[0, 8], features[1, 4]]))


def test_bad_inputs() -> None:
    model = seeded(RELATIVE)
    with pytest.raises(InputMismatchError, match="mapping"):
        model(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(InputMismatchError, match="at most 64"):
        model(events(1, 65))
    with pytest.raises(ConfigurationError, match="attention='far'"):
        MusicTransformerSizes(attention="far")
    with pytest.raises(ConfigurationError, match="cannot be built"):
        MusicTransformerSizes(width=30)
    with pytest.raises(ConfigurationError, match="no vocabulary of 100"):
        new_music_transformer(MusicTransformerSizes(vocabulary_size=100, width=16, layers=1))


# --- files ----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_saved_and_loaded_again(magenta: Path, tmp_path: Path) -> None:
    for file in (magenta, torch_file(tmp_path, relative=True)[1]):
        model = load_pretrained_model("music-transformer", weights=file, device="cpu")
        save_file(model.state_dict(), tmp_path / "saved.safetensors")
        again = load_pretrained_model("music-transformer", weights=tmp_path / "saved.safetensors", device="cpu")
        assert {fate.fate for fate in again.load_report.tensors} == {"matched"}
        inputs = events()
        assert torch.equal(again(inputs), model(inputs))


def test_a_copys_head_is_tied_to_the_copy() -> None:
    model = seeded(TINY)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.trunk.embedding.weight.mul_(2)
        assert not torch.allclose(twin(events()), model(events()))
        ours = nn.functional.linear(twin.features(events()), twin.trunk.embedding.weight)
        assert torch.equal(twin(events()), ours)
    assert not any(name.startswith("head") for name in model.state_dict())


def test_files_that_do_not_fit(magenta: Path, tmp_path: Path) -> None:
    def load(variables: dict[str, np.ndarray]) -> PretrainedModel:
        return load_pretrained_model("music-transformer", weights=write_bundle(tmp_path / "m", variables), device="cpu")

    variables = magenta_variables()
    swapped = {
        name.replace("multihead_attention/q/", "multihead_attention/query/"): variables[name] for name in variables
    }
    with pytest.raises(WeightsMismatchError, match="self_attention.q.weight is not there"):
        load(swapped)
    swapped = {name.replace("/ffn/", "/mlp/"): variables[name] for name in variables}
    with pytest.raises(WeightsMismatchError, match="of another network"):
        load(swapped)
    wrong = {**variables, "transformer/body/decoder/layer_1/ffn/conv1/kernel": np.zeros((32, 7), np.float32)}
    with pytest.raises(WeightsMismatchError, match=r"layers\.1\.ffn\.conv1\.weight is \[7, 32\]"):
        load(wrong)
    missing = {name: tensor for name, tensor in variables.items() if "layer_1/self_attention/multihead" not in name}
    with pytest.raises(WeightsMismatchError, match=r"layers\.1\.self_attention\.q\.weight is not there"):
        load(missing)
    with pytest.raises(WeightsMismatchError, match="with an encoder"):
        load({**variables, "transformer/body/encoder/layer_0/ffn/conv1/bias": np.zeros(2, np.float32)})


def test_damaged_files(magenta: Path, tmp_path: Path) -> None:
    for name in (magenta, magenta.with_suffix(".data-00000-of-00001")):
        (tmp_path / name.name).write_bytes(name.read_bytes())
    index, data = tmp_path / magenta.name, tmp_path / magenta.with_suffix(".data-00000-of-00001").name
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(DamagedFileError):
        load_pretrained_model("music-transformer", weights=index)
    data.unlink()
    with pytest.raises(WeightsNotFoundError, match="beside it"):
        load_pretrained_model("music-transformer", weights=index)
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="magic"):
        load_pretrained_model("music-transformer", weights=index)
    (tmp_path / "m.pth").write_bytes(b"\x80\x02cposix\nsystem\n.")
    with pytest.raises((DamagedFileError, UnsafeFileError)):
        load_pretrained_model("music-transformer", weights=tmp_path / "m.pth")


# --- training -------------------------------------------------------------------------------------------------------


def test_losses_are_the_shifted_cross_entropy() -> None:
    model = seeded(TINY)
    inputs = events(2, 6)
    inputs["attention_mask"][1, 4:] = 0
    with torch.no_grad():
        features = model.features(inputs)
        chances = model(inputs).log_softmax(-1)
        counted = [(0, t) for t in range(5)] + [(1, t) for t in range(3)]
        by_hand = -torch.stack([chances[n, t, inputs["input_ids"][n, t + 1]] for n, t in counted]).mean()
        torch.testing.assert_close(model.head.losses(features, inputs, None)["next_event"], by_hand)
        masked = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        ids_alone = {"input_ids": inputs["input_ids"]}
        torch.testing.assert_close(model.head.losses(features, ids_alone, masked)["next_event"], by_hand)
        nothing = model.head.losses(features, inputs, torch.full((2, 6), -1))["next_event"]
        assert nothing == 0
        with pytest.raises(InputMismatchError, match="targets of shape"):
            model.head.losses(features, inputs, torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ConfigurationError, match="classes of your own"):
        model.head.for_classes(3)


def pattern(length: int) -> list[int]:
    """An arpeggio over and over: velocity once, then each note for 250 ms."""
    notes = [
        Note(start=0.25 * n, end=0.25 * (n + 1), pitch=pitch, velocity=65)
        for n, pitch in enumerate([60, 64, 67, 72, 67, 64] * length)
    ]
    return PIANO_EVENTS.encode(notes)[:length]


@pytest.mark.parametrize("attention", ["absolute", "relative"])
def test_learns_a_pattern_and_goes_on_with_it(attention: str) -> None:
    sizes = MusicTransformerSizes(
        width=48, layers=2, heads=4, hidden=96, max_length=96, attention=attention, dropout=0.0
    )
    model = seeded(sizes).train()
    ids = torch.tensor([[0, *pattern(80)]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = sum(model.head.losses(model.features(inputs), inputs, None).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 3 and losses[-1] < 0.05
    going_on = generate(model.eval(), pattern(30), 40, temperature=0)
    assert going_on == pattern(70)
    notes = read_midi(model.preprocess.to_midi(going_on))
    assert [note.pitch for note in notes[:12]] == [60, 64, 67, 72, 67, 64] * 2


def test_tuners_find_their_places(magenta: Path) -> None:
    model = load_pretrained_model("music-transformer", weights=magenta, device="cpu")
    adapters = AdapterTuner(model, num_classes=3)
    assert len([name for name, _ in adapters.model.named_modules() if name.endswith("adapter")]) == 4
    LoraTuner(model, num_classes=3)
    for kind in ("pfeiffer", "parallel"):
        AdapterTuner(model, num_classes=3, adapter_type=kind)
    prompted = PromptTuner(model, num_classes=3, prompt_length=4)
    assert prompted.model(events()).shape == (2, 3)
    frozen = Finetuner(model, num_classes=3, freeze_layers=["embedding", "layers.0"])
    names = [name for name, parameter in frozen.model.named_parameters() if not parameter.requires_grad]
    assert names and all(name.startswith(("trunk.embedding", "trunk.layers.0.")) for name in names)


def test_a_classifier_of_pieces_learns_saves_and_loads(magenta: Path, tmp_path: Path) -> None:
    """High pieces against low ones, from MIDI files, with the first layer frozen."""
    random = np.random.default_rng(0)
    pieces = []
    for number in range(16):
        low = 30 if number % 2 else 80
        notes = [
            Note(start=n / 4, end=(n + 1) / 4, pitch=low + int(random.integers(12)), velocity=65) for n in range(6)
        ]
        (tmp_path / f"{number}.mid").write_bytes(write_midi(notes))
        pieces.append((str(tmp_path / f"{number}.mid"), number % 2))
    model = load_pretrained_model("music-transformer", weights=magenta, device="cpu")
    tuner = Finetuner(
        model, num_classes=2, freeze_layers=["embedding", "layers.0"], learning_rate=3e-3, backend="eager"
    )
    tuner.fit(pieces, epochs=6, batch_size=8, run=False)
    assert tuner.evaluate(pieces)["accuracy"] == 1
    tuner.save(tmp_path / "saved")
    again = Finetuner.load(tmp_path / "saved", device="cpu")
    assert np.array_equal(again.predict_proba(pieces), tuner.predict_proba(pieces))
    assert isinstance(again.model.preprocess, MidiPreprocess)


# --- generation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [TINY, RELATIVE], ids=["absolute", "relative"])
def test_cached_generation_equals_uncached(sizes: MusicTransformerSizes) -> None:
    model = seeded(sizes)
    drawn = []
    for cached in (True, False):
        generator = torch.Generator().manual_seed(3)
        drawn.append(generate(model, pattern(10), 50, 1.5, top_p=0.95, generator=generator, cached=cached))
    assert drawn[0] == drawn[1] and len(drawn[0]) > 20
    other = generate(model, pattern(10), 50, 1.5, top_p=0.95, generator=torch.Generator().manual_seed(4))
    assert other != drawn[0] and not model.training


@torch.inference_mode()
def test_cached_features_equal_those_at_once() -> None:
    from neurenix.models.audio._music_network import KeyValues

    trunk = seeded(RELATIVE).trunk
    ids = events(2, 30)["input_ids"]
    past = [KeyValues() for _ in trunk.layers]
    parts = [trunk.read(part, past=past) for part in ids.split([1, 11, 1, 17], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), trunk.read(ids), atol=1e-5, rtol=1e-5)


def test_what_is_drawn() -> None:
    from neurenix.models.audio._music_generation import _draw

    scores = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))
    generator = torch.Generator().manual_seed(0)

    def share(**options: object) -> list[float]:
        settings = {"temperature": 1.0, "top_k": None, "top_p": None, "generator": generator, **options}
        counts = np.bincount([_draw(scores, **settings) for _ in range(1000)], minlength=4)
        return (counts / 1000).tolist()

    assert share() == pytest.approx([0.1, 0.4, 0.2, 0.3], abs=0.05)
    assert share(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.05)
    assert share(top_p=0.65) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.05)
    assert share(top_p=0.75) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], abs=0.05)
    assert share(top_p=1e-9) == share(top_k=1) == share(temperature=0) == [0, 1, 0, 0]
    assert share(temperature=0.5) == pytest.approx([1 / 30, 16 / 30, 4 / 30, 9 / 30], abs=0.05)


def test_generation_gives_valid_music_and_named_errors(magenta: Path) -> None:
    model = load_pretrained_model("music-transformer", weights=magenta, device="cpu")
    drawn = generate(model, length=100, generator=torch.Generator().manual_seed(0))
    assert 0 not in drawn and 1 not in drawn
    content = model.preprocess.to_midi(drawn)
    assert content.startswith(b"MThd") and isinstance(read_midi(content), list)
    bad = (
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_k": 0},
        {"top_p": 0.0},
        {"length": -1},
        {"length": 4000},
    )
    for options in bad:
        with pytest.raises(ConfigurationError):
            generate(model, **options)
    with pytest.raises(InputMismatchError, match="no event"):
        generate(model, [400], 3)
    headless = load_pretrained_model("music-transformer", weights=magenta, include_top=False, device="cpu")
    with pytest.raises(ConfigurationError, match="include_top"):
        generate(headless, length=3)
    full = seeded(MusicTransformerSizes(vocabulary_size=390, width=16, layers=1, layout="torch"))
    with pytest.raises(ConfigurationError, match="empty prompt"):
        generate(full, length=3)
    assert len(generate(full, [60], 5, temperature=0)) <= 6


def test_random_weights_have_the_published_form() -> None:
    assert isinstance(seeded(TINY).head, NextEventHead)
    record = ARCHITECTURES["music-transformer"].weights["magenta-unconditional-16"]
    assert record.source.url.endswith("unconditional_model_16.ckpt.index")
