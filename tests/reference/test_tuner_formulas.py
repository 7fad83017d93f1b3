"""Parameter-efficient tuners against the published equations, the published counts, and peft."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, WeightsMismatchError
from neurenix.transfer import AdapterTuner, IA3Tuner, LoraTuner, PromptTuner, ScaleShiftTuner, load_pretrained_model
from neurenix.transfer.tuners.method import MethodTuner

WIDTH, INNER, LAYERS = 384, 1536, 6  # MiniLM
TEXTS = ["a good film, and a long one", "bad"]


@functools.cache
def minilm() -> Any:
    return load_pretrained_model("minilm", device="cpu")


@functools.cache
def vit() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_pretrained_model("vit-tiny-patch16-224", weights=None, input_shape=(32, 32, 3), device="cpu")


@pytest.fixture
def tokens() -> dict[str, Tensor]:
    rows = [minilm().preprocess(text) for text in TEXTS]
    longest = max(len(row["input_ids"]) for row in rows)
    pad = torch.nn.functional.pad
    return {name: torch.stack([pad(row[name], (0, longest - len(row[name]))) for row in rows]) for name in rows[0]}


def shaken(tuner: MethodTuner) -> MethodTuner:
    """Own parameters moved away from where they start, so that a wrong place makes a difference."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in tuner.own_parameters:
            parameter = tuner.model.get_parameter(name)
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    tuner.model.eval()
    return tuner


def counted(tuner: MethodTuner) -> int:
    return sum(tuner.model.get_parameter(name).numel() for name in tuner.own_parameters)


# --- bottleneck adapters -----------------------------------------------------------------------------------------


def test_adapters_have_the_published_number_of_parameters() -> None:
    """Houlsby et al. 2019, section 2.1: 2 m d + d + m for each adapter, of which each block has two; Pfeiffer's one."""
    each = 2 * 64 * WIDTH + WIDTH + 64
    assert counted(AdapterTuner(minilm(), 3)) == 2 * LAYERS * each
    assert counted(AdapterTuner(minilm(), 3, adapter_type="pfeiffer")) == LAYERS * each
    assert counted(AdapterTuner(minilm(), 3, adapter_type="parallel", layers=2)) == 2 * each


def bottleneck(adapter: Any, x: Tensor) -> Tensor:
    return torch.relu(x @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias


def bert_block(kind: str, layer: Any, x: Tensor, mask: Tensor) -> Tensor:
    """One block by the equations of the papers, and of AdapterHub's forward passes, with the weights of `layer`."""
    inside = layer.attention
    part = getattr(inside.output.dense, "base_layer", inside.output.dense)
    h = part(inside.self(x, mask)[0])
    if kind == "houlsby":
        h = h + bottleneck(inside.output.dense.adapter, h)
    x = inside.output.LayerNorm(h + x)
    join = getattr(layer.output, "base_layer", layer.output)
    h = getattr(join.dense, "base_layer", join.dense)(layer.intermediate(x))
    if kind == "houlsby":
        h = h + bottleneck(join.dense.adapter, h)
    if kind == "parallel":
        h = h + 4.0 * bottleneck(layer.output.adapter, x)
    if kind == "pfeiffer":
        norm = join.LayerNorm.base_layer
        return norm(bottleneck(join.LayerNorm.adapter, norm(h + x)) + h + x)
    return join.LayerNorm(h + x)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer", "parallel"])
def test_adapters_compute_what_the_papers_say(kind: str, tokens: dict[str, Tensor]) -> None:
    tuner = shaken(AdapterTuner(minilm(), 3, adapter_type=kind, adapter_size=16))
    trunk: Any = tuner.model.trunk
    x = trunk.embeddings(input_ids=tokens["input_ids"])
    mask = tokens["attention_mask"].bool()[:, None, None, :].expand(-1, 1, x.shape[1], -1)
    for layer in trunk.encoder.layer:
        x = bert_block(kind, layer, x, mask)
    torch.testing.assert_close(trunk(tokens), x, atol=1e-4, rtol=1e-4)


# --- LoRA --------------------------------------------------------------------------------------------------------


def bert() -> Any:
    """transformers' own model with MiniLM's weights."""
    import transformers

    network = transformers.BertModel(minilm().trunk.config, add_pooling_layer=False)
    network.load_state_dict(minilm().trunk.state_dict(), strict=False)
    return network.eval()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft, by transformers
@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"rank_stabilised": True}, {"weight_decomposed": True}])
def test_what_we_save_opens_in_peft_and_the_reverse(
    options: dict[str, bool], tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    from peft import PeftModel

    tuner = shaken(LoraTuner(minilm(), 3, rank=4, alpha=12.0, **options))  # type: ignore[arg-type]
    ours = tuner.model.trunk(tokens)
    assert not torch.allclose(ours, minilm().trunk(tokens), atol=1e-2)
    tuner.save(tmp_path / "ours")

    theirs = PeftModel.from_pretrained(bert(), tmp_path / "ours").eval()
    torch.testing.assert_close(theirs(**tokens).last_hidden_state, ours, atol=1e-5, rtol=1e-5)

    theirs.save_pretrained(tmp_path / "theirs")
    back = LoraTuner.from_peft(tmp_path / "theirs", minilm(), num_classes=3)
    assert (back.settings.rank, back.settings.alpha) == (4, 12.0)
    assert torch.equal(back.model.eval().trunk(tokens), ours)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft, by transformers
@torch.no_grad()
@pytest.mark.parametrize("options", [{"start": "pissa"}, {"start": "olora", "rank_stabilised": True}])
def test_updates_that_began_with_the_weights_open_on_the_base(
    options: dict[str, Any], tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    """As updates of twice the rank, since peft's base has its weights whole."""
    from peft import PeftModel

    tuner = shaken(LoraTuner(minilm(), 3, rank=4, **options))
    tuner.save(tmp_path)
    theirs = PeftModel.from_pretrained(bert(), tmp_path).eval()
    torch.testing.assert_close(theirs(**tokens).last_hidden_state, tuner.model.trunk(tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft, by transformers
@torch.no_grad()
def test_updates_that_peft_made_on_a_classifier_are_read(tokens: dict[str, Tensor], tmp_path: Path) -> None:
    """There the base is one level down, and layers are named by their last part."""
    import transformers
    from peft import LoraConfig, get_peft_model

    network = transformers.BertForSequenceClassification(minilm().trunk.config)
    network.bert.load_state_dict(minilm().trunk.state_dict(), strict=False)
    theirs = get_peft_model(network, LoraConfig(r=2, target_modules=["key"], init_lora_weights=False)).eval()
    theirs.save_pretrained(tmp_path)
    ours = LoraTuner.from_peft(tmp_path, minilm(), num_classes=2)
    expected = theirs.base_model.model.bert(**tokens).last_hidden_state
    torch.testing.assert_close(ours.model.eval().trunk(tokens), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises((WeightsMismatchError, ConfigurationError)):
        LoraTuner.from_peft(tmp_path, vit(), num_classes=2)


@torch.no_grad()
def test_lora_adds_the_scaled_product(tokens: dict[str, Tensor]) -> None:
    """Hu et al. 2022, eq. 3: W x + (α / r) B A x, and α / √r in rsLoRA (Kalajdzievski 2023)."""
    for stabilised, scale in ((False, 12 / 4), (True, 12 / 2)):
        tuner = shaken(LoraTuner(minilm(), 3, rank=4, alpha=12.0, rank_stabilised=stabilised))
        layer: Any = tuner.model.trunk.get_submodule("encoder.layer.2.attention.self.query")
        x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
        product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(layer(x), layer.base_layer(x) + scale * x @ product.T, atol=1e-4, rtol=1e-4)


def test_a_faster_rate_for_b_is_that_of_lora_plus() -> None:
    tuner = LoraTuner(minilm(), 3, rate_ratio=16.0, learning_rate=1e-4)
    rates = {id(p): group["base_lr"] for group in tuner.optimizer.param_groups for p in group["params"]}
    found = {name.split(".")[-3]: rates[id(tuner.model.get_parameter(name))] for name in tuner.own_parameters}
    assert found == {"lora_A": pytest.approx(1e-4), "lora_B": pytest.approx(16e-4)}


def test_the_files_hold_the_updates_alone(tmp_path: Path) -> None:
    LoraTuner(minilm(), 3, layers=2, rank=4).save(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == 2 * 2 * 2 * 4 * WIDTH
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert size < 4 * 2 * (2 * 2 * 2 * 4 * WIDTH + 3 * (WIDTH + 1)) + 8192


# --- prompts -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("deep", [True, False])
def test_visual_prompts_are_those_of_the_paper(deep: bool) -> None:
    """Jia et al. 2022, section 3.2: [class token, prompts, patches]; deep prompts are replaced in each block."""
    tuner = shaken(PromptTuner(vit(), 3, prompt_length=5, prompt_type="deep" if deep else "shallow"))
    trunk: Any = tuner.model.trunk
    assert counted(tuner) == (12 if deep else 1) * 5 * 192
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    x, lengths = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images))), []
    assert x.shape[1] == 1 + 4
    for number, block in enumerate(trunk.blocks):
        if deep or number == 0:
            patches = x[:, 1:] if number == 0 else x[:, 6:]
            x = torch.cat([x[:, :1], block.prompts.expand(2, -1, -1), patches], 1)
        lengths.append(x.shape[1])
        x = block.base_layer(x)
    assert set(lengths) == {1 + 5 + 4}
    expected = trunk.norm(torch.cat([x[:, :1], x[:, 6:]], 1))
    torch.testing.assert_close(trunk(images), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("deep", [True, False])
def test_prompts_of_texts_are_seen_and_padding_is_not(deep: bool, tokens: dict[str, Tensor]) -> None:
    tuner = shaken(PromptTuner(minilm(), 3, prompt_length=4, prompt_type="deep" if deep else "shallow"))
    assert counted(tuner) == (LAYERS if deep else 1) * 4 * WIDTH
    together = tuner.model.embed(tokens)
    length = int(tokens["attention_mask"][1].sum())
    alone = tuner.model.embed({name: tensor[1:, :length] for name, tensor in tokens.items()})
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together, minilm().eval().embed(tokens), atol=1e-2)


# --- scaling -----------------------------------------------------------------------------------------------------


def test_ia3_trains_three_vectors_in_each_block() -> None:
    """Liu et al. 2022, section 3.3: l_k and l_v of d, l_ff of the inner width."""
    assert counted(IA3Tuner(minilm(), 3)) == LAYERS * (2 * WIDTH + INNER)
    assert counted(IA3Tuner(vit(), 3)) == 12 * (2 * 192 + 4 * 192)


@torch.no_grad()
def test_ia3_leaves_the_queries_of_a_joint_layer_alone() -> None:
    tuner = shaken(IA3Tuner(vit(), 3))
    layer: Any = tuner.model.trunk.get_submodule("blocks.3.attn.qkv")
    x = torch.randn(4, 192, generator=torch.Generator().manual_seed(3))
    plain, found = layer.base_layer(x), layer(x)
    assert torch.equal(found[:, :192], plain[:, :192])
    torch.testing.assert_close(found[:, 192:], plain[:, 192:] * layer.scale)


@torch.no_grad()
def test_scale_and_shift_are_applied_to_features() -> None:
    """Lian et al. 2022: γ ⊙ x + β, by channel in maps."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)).eval()
    tuner = shaken(ScaleShiftTuner(network, 2))
    images = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    convolution: Any = tuner.model.get_submodule("trunk.module.0")
    expected = network[0](images) * convolution.scale[:, None, None] + convolution.shift[:, None, None]
    torch.testing.assert_close(convolution(images), expected)
    assert counted(tuner) == 2 * (4 + 4)
