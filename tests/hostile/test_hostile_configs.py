"""config.json of a stranger: sizes are taken from it and nothing else, and only sizes that can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.hostile.test_hostile_weights import load_all

from neurenix.errors import NeurenixError
from neurenix.storage import write_tensors
from neurenix.transfer import load_pretrained_model

SIZES = {
    "model_type": "bert",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
}
# keys that make other loaders import, fetch or run something
IGNORED: list[dict[str, Any]] = [
    {"auto_map": {"AutoModel": "modeling_evil.Evil"}},
    {"auto_map": {"AutoConfig": "attacker/repo--configuration_evil.Evil"}},
    {"_attn_implementation_internal": "kernels-community/evil"},
    {"_attn_implementation": "attacker/kernel:evil"},
    {"attn_implementation": "attacker/kernel"},
    {"_experts_implementation": "attacker/kernel"},
    {"custom_pipelines": {"evil": {"impl": "evil.Evil"}}},
    {"custom_pipeline": "attacker/repo"},
    {"kernel_config": {"RMSNorm": "attacker/kernels:evil"}},
    {"quantization_config": {"quant_method": "evil", "modules": "os.system"}},
    {"architectures": ["os.system"]},
    {"tokenizer_class": "../../evil.Tokenizer"},
    {"_name_or_path": "attacker/repo"},
    {"base_model_name_or_path": "/etc"},
    {"adapter_config": {"base": "../../.."}},
    {"trust_remote_code": True},
    {"transformers_version": "__import__('os').system('x')"},
    {"torch_dtype": "__import__('os')"},
    {"id2label": {"0": "<script>alert(1)</script>"}},
    {"peft_type": "../evil"},
    {"finetuning_task": "$(touch canary)"},
    {"task_specific_params": {"evil": "!!python/object/apply:os.system [x]"}},
]
REFUSED: list[Any] = [
    {"vocab_size": 10**7, "hidden_size": 10**6},
    {"num_hidden_layers": 10**6},
    {"hidden_size": 0},
    {"num_attention_heads": 0},
    {"num_attention_heads": 3},
    {"hidden_act": "os.system"},
    {"hidden_act": "__import__('os').system('x')"},
    {"hidden_size": "8"},
    {"hidden_size": -8},
    {"hidden_size": True},
    {"hidden_size": 10**400},
    {"layer_norm_eps": "1"},
    {"vocab_size": None},
    {"model_type": "evil"},
    {"model_type": {"a": 1}},
    b"[1, 2",
    b"",
    b"[" * 100_000,
    b'{"hidden_size": NaN}',
    b"\xff\xfe\x00",
]


def lay(folder: Path, change: Any) -> None:
    """A whole little BERT whose config.json has been changed, and code beside it that wants to be imported."""
    folder.mkdir(parents=True)
    model = little_bert(folder.parent.parent)
    (folder / "model.safetensors").write_bytes(model)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]))
    for name in ("modeling_evil.py", "configuration_evil.py", "evil.py"):
        (folder / name).write_text("open('canary', 'w')\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": "evil.Tokenizer"}}))
    content = change if isinstance(change, bytes) else json.dumps({**SIZES, **change}).encode()
    (folder / "config.json").write_bytes(content)


def little_bert(folder: Path) -> bytes:
    path = folder / "little.safetensors"
    if not path.exists():
        source = folder / "source"
        source.mkdir()
        (source / "config.json").write_text(json.dumps(SIZES))
        from transformers import BertConfig, BertModel

        sizes = {key: value for key, value in SIZES.items() if key != "model_type"}
        network = BertModel(BertConfig(**sizes), add_pooling_layer=False)
        write_tensors(path, network.state_dict())
    return path.read_bytes()


def test_nothing_that_a_config_names_is_imported_fetched_or_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path / "warm" / "good", {})  # loaded before the watch begins, so that all imports are over
    for number, change in enumerate([*IGNORED, *REFUSED]):
        lay(tmp_path / "configs" / f"{number:02d}", change)
    found = load_all(tmp_path / "configs", "configs")
    answers = [answer for answers in found["answers"].values() for answer in answers]
    assert len(answers) == len(IGNORED) + len(REFUSED) == 42
    assert found["seen"] == [] and not list(tmp_path.rglob("canary"))
    assert set(answers[: len(IGNORED)]) == {"loaded"}
    refused = answers[len(IGNORED) :]
    assert not [answer for answer in refused if not answer.startswith(("DamagedFileError", "WeightsMismatchError"))]
    print(f"{len(answers)} hostile configs, 0 executed: {len(IGNORED)} keys ignored, {len(refused)} refused by name")
    assert found["grown"] < 300


@pytest.mark.parametrize("change", [{"hidden_size": 16}, {"num_hidden_layers": 3}])
def test_sizes_that_are_not_those_of_the_weights_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    lay(tmp_path / "configs" / "a", change)
    with pytest.raises(NeurenixError, match="would be pretrained"):
        load_pretrained_model("bert-base-uncased", weights=tmp_path / "configs" / "a", device="cpu")
