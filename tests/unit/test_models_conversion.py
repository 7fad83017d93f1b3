"""Key names of other publishers: renamed, and proved by equal outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.local_hub import write_text_checkpoint
from torch import nn

from neurenix.errors import DamagedFileError, WeightsMismatchError
from neurenix.models import ARCHITECTURES
from neurenix.models.nlp._encoder import EncoderSizes, read_sizes
from neurenix.models.vision import vit
from neurenix.transfer import load_pretrained_model


def with_random_statistics(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return network.eval()


@torch.inference_mode()
def test_mobilenet_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    published = with_random_statistics(mobilenet_v2(weights=None))
    torch.save(published.state_dict(), tmp_path / "mobilenet.pth")
    ours = load_pretrained_model("mobilenetv2", weights=tmp_path / "mobilenet.pth", device="cpu")
    batch = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert {fate.fate for fate in ours.load_report.tensors} == {"matched"}
    torch.testing.assert_close(ours.features(batch), published.features(batch), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours(batch), published(batch), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_vit_of_torchvision(tmp_path: Path) -> None:
    from torchvision.models import VisionTransformer

    published = VisionTransformer(
        image_size=32, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
    ).eval()
    for parameter in published.parameters():
        parameter.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    save_file(vit.convert_torchvision(published.state_dict()), tmp_path / "vit.safetensors")
    ours = load_pretrained_model(
        "vit-tiny", weights=tmp_path / "vit.safetensors", input_shape=(32, 32, 3), device="cpu"
    )
    batch = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert {fate.fate for fate in ours.load_report.tensors} == {"matched"}
    torch.testing.assert_close(ours(batch), published(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", ["base", "large"])
def test_vit_keys_of_torchvision_are_all_known(size: str) -> None:
    """The real architectures, without memory: every key of torchvision's is one of timm's."""
    import timm
    from torchvision.models import get_model

    with torch.device("meta"):
        published = get_model(f"vit_{size[0]}_16", weights=None).state_dict()
        wanted = timm.create_model(f"vit_{size}_patch16_224").state_dict()
    converted = vit.convert_torchvision(published)
    assert {name: tensor.shape for name, tensor in converted.items()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }


def test_config_is_read_as_data(tmp_path: Path) -> None:
    """Keys that make other loaders import code or read paths are not looked at."""
    write_text_checkpoint(tmp_path, "bert", num_hidden_layers=1)
    (tmp_path / "modeling_evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()\n")
    content = json.loads((tmp_path / "config.json").read_text())
    content |= {"auto_map": {"AutoModel": "modeling_evil.Evil"}, "attn_implementation": "evil/kernel"}
    content |= {"_attn_implementation": "evil/kernel", "is_decoder": True, "quantization_config": {"a": 1}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = load_pretrained_model("bert-base-uncased", weights=tmp_path, device="cpu")
    assert model.load_report.pretrained_share == 1
    assert model.trunk.config._attn_implementation == "sdpa" and not model.trunk.config.is_decoder
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "64"),
        ("num_hidden_layers", -1),
        ("vocab_size", 10**12),
        ("hidden_dropout_prob", True),
        ("hidden_act", ["gelu"]),
        ("layer_norm_eps", float("nan")),
    ],
)
def test_config_with_impossible_sizes(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({key: value}))
    with pytest.raises(DamagedFileError, match=key):
        read_sizes(str(tmp_path), published=EncoderSizes(), model_type="bert")


def test_config_of_another_family(tmp_path: Path) -> None:
    write_text_checkpoint(tmp_path, "roberta")
    with pytest.raises(WeightsMismatchError, match="'roberta' model, not of a 'bert' one"):
        load_pretrained_model("bert-base-uncased", weights=tmp_path, device="cpu")


def test_config_that_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(DamagedFileError, match="list"):
        read_sizes(str(tmp_path), published=EncoderSizes(), model_type="bert")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_conversions_leave_foreign_keys_alone(name: str) -> None:
    """Every conversion is tried on every file, so an unknown key must pass through it."""
    foreign = ["x", "_blocks.0._se_reduce.weight", "_blocks.99.a", "features.77.0.weight", "encoder.layers.a.b"]
    foreign += ["bert", "_fc", "blocks.0.ln_9"]
    for record in ARCHITECTURES[name].weights.values():
        if record.convert is not None:
            assert len(record.convert({key: torch.zeros(1) for key in foreign})) == len(foreign)


def test_keys_of_another_package_are_a_mismatch(tmp_path: Path) -> None:
    save_file({"_blocks.0._se_reduce.weight": torch.zeros(1)}, tmp_path / "b0.safetensors")
    with pytest.raises(WeightsMismatchError, match="_se_reduce"):
        load_pretrained_model("efficientnet-lite0", weights=tmp_path / "b0.safetensors", device="cpu")
