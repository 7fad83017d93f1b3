"""Models that are cut in test_split.py: what of them is frozen, and what their boundary has to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neurenix.models import PretrainedModel, adopt
from neurenix.nn import Pool
from neurenix.training.freezing import Phase, apply_phase, expanded, frozen_now, set_training_mode

Inputs = Tensor | dict[str, Tensor]
WORDS, WIDTH = 90, 32  # of the small text models
RESNET = ("conv1", "bn1", "layer1", "layer2", "layer3")


@dataclass(frozen=True)
class Case:
    """make: the model. frozen: layers that are. boundary: dtype and shape of its tensors, "t" for the tokens.

    random: the trained part draws numbers. statistics: it has running statistics, which a pass changes.
    """

    make: Callable[[], PretrainedModel]
    frozen: tuple[str, ...]
    boundary: tuple[tuple[torch.dtype, tuple[int | str, ...]], ...]
    text: bool = False
    random: bool = False
    statistics: bool = False

    def model(self) -> PretrainedModel:
        """Seeded, in training mode but for what is frozen, as in a fit."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = self.make()
        return freeze(model, self.frozen)

    def inputs(self, count: int, seed: int, longest: int = 11) -> Inputs:
        """A batch that no other seed gives."""
        return texts(count, seed, longest) if self.text else images(count, seed)


def freeze(model: PretrainedModel, layers: Sequence[str]) -> PretrainedModel:
    """Freeze layers, besides what is frozen already, and set modes as a fit does."""
    phase = Phase("test", tuple(dict.fromkeys([*expanded(model, layers), *frozen_now(model)])))
    apply_phase(model, phase)
    set_training_mode(model, phase)
    return model


def images(count: int, seed: int) -> Tensor:
    """(count, 3, 64, 64)."""
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def texts(count: int, seed: int, longest: int = 11) -> dict[str, Tensor]:
    """Word numbers and masks (count, longest) of texts with different lengths, the last of which is the longest."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator)
    lengths[0], lengths[-1] = longest // 2, longest
    mask = (torch.arange(longest) < lengths[:, None]).long()
    words = torch.randint(5, WORDS, (count, longest), generator=generator)
    return {"input_ids": words * mask, "attention_mask": mask}


class TextTrunk(nn.Module):
    """An encoder of the transformers library as a trunk."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.module(**inputs).last_hidden_state


class BertClassifier(nn.Module):
    """What BertForSequenceClassification computes, from a mapping to a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = bert()
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(WIDTH, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.classifier(self.dropout(self.bert(**inputs).pooler_output))


class SkipAround(nn.Module):
    """The frozen convolution's input and its output are both read above the boundary, the input pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU(inplace=True))
        self.frozen = nn.Sequential(nn.Conv2d(6, 10, 3, stride=2), nn.BatchNorm2d(10), nn.ReLU(inplace=True))
        self.trained = nn.Sequential(nn.Conv2d(10, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.3))
        self.beside = nn.Conv2d(6, 6, 1)
        self.fc = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        below = self.stem(images)
        above = self.trained(self.frozen(below))
        beside = self.beside(nn.functional.adaptive_avg_pool2d(below, above.shape[-1]))
        return self.fc((above + beside).mean((2, 3)))


def bert() -> nn.Module:
    """Four small layers, all dropouts at 0.1."""
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64
        )
    )


def gpt2() -> nn.Module:
    """Four small layers, all dropouts at 0.1."""
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(vocab_size=WORDS, n_embd=WIDTH, n_layer=4, n_head=4, n_positions=64, use_cache=False))


def t5() -> nn.Module:
    """Four small layers with dropouts at 0.1, one of them on the embedding itself."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=WORDS, d_model=WIDTH, d_kv=8, num_layers=4, num_heads=4, d_ff=64))


def bert_with_lora() -> nn.Module:
    """All of it frozen but low-rank updates of the last layer's queries and values, with a dropout of their own."""
    from peft import LoraConfig, inject_adapter_in_model

    lora = LoraConfig(r=4, target_modules=["query", "value"], layers_to_transform=[3], lora_dropout=0.1)
    tuned = inject_adapter_in_model(lora, bert())
    with torch.no_grad():  # an update starts at zero, and so would the gradient of its first factor
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter)
    return tuned


def encoder(make: Callable[[], nn.Module]) -> PretrainedModel:
    """The mean over the tokens of an encoder, and a head."""
    return PretrainedModel(
        trunk=TextTrunk(make()),
        pool=Pool("mean", channels_last=True),
        head=nn.Linear(WIDTH, 3),
        feature_size=WIDTH,
        stages=(),
    )


def from_timm(name: str, **settings: Any) -> PretrainedModel:
    """A model of timm's with a head of three."""
    import timm

    return adopt(timm.create_model(name, num_classes=3, **settings))


def from_torchvision() -> PretrainedModel:
    """A resnet50 with a head of three."""
    import torchvision

    return adopt(torchvision.models.resnet50(num_classes=3))


VIT = ("patch_embed", "cls_token", "pos_embed", *(f"blocks.{block}" for block in range(10)))
BERT = ("embeddings", "encoder.layer.0", "encoder.layer.1")
T5 = ("shared", "encoder.dropout", "encoder.block.0", "encoder.block.1", "encoder.block.2")
_FLOAT, _LONG = torch.float32, torch.long
_MASK, _TOKENS = (_LONG, ("t",)), (_FLOAT, ("t", WIDTH))
CASES = {
    "timm resnet50, fc": Case(
        make=partial(from_timm, "resnet50"), frozen=(*RESNET, "layer4"), boundary=((_FLOAT, (2048,)),)
    ),
    "timm resnet50, layer4 up": Case(
        make=partial(from_timm, "resnet50"), frozen=RESNET, boundary=((_FLOAT, (1024, 4, 4)),), statistics=True
    ),
    "torchvision resnet50, layer4 up": Case(
        make=from_torchvision, frozen=RESNET, boundary=((_FLOAT, (1024, 4, 4)),), statistics=True
    ),
    "timm vit_small, 2 blocks": Case(
        make=partial(from_timm, "vit_small_patch16_224", img_size=64), frozen=VIT, boundary=((_FLOAT, (17, 384)),)
    ),
    "timm vit_small, 2 blocks, stochastic depth": Case(
        make=partial(from_timm, "vit_small_patch16_224", img_size=64, drop_path_rate=0.4),
        frozen=VIT,
        boundary=((_FLOAT, (17, 384)),),
        random=True,
    ),
    "timm efficientnet_lite0, last stage": Case(
        make=partial(from_timm, "efficientnet_lite0"),
        frozen=("conv_stem", "bn1", *(f"blocks.{block}" for block in range(6))),
        boundary=((_FLOAT, (192, 2, 2)),),
        statistics=True,
    ),
    "BERT classifier, 2 layers": Case(
        make=lambda: adopt(BertClassifier()),
        frozen=tuple(f"bert.{name}" for name in BERT),
        boundary=(_MASK, _TOKENS),
        text=True,
        random=True,
    ),
    "GPT-2, last layer": Case(
        make=partial(encoder, gpt2),
        frozen=("wte", "wpe", "drop", "h.0", "h.1", "h.2"),
        boundary=(_MASK, _TOKENS),
        text=True,
        random=True,
    ),
    "T5 encoder, last layer": Case(
        make=partial(encoder, t5),
        frozen=T5,
        # with the root mean square of its first norm, four bytes a token instead of a pass over the block's input
        boundary=(_MASK, _TOKENS, (_FLOAT, ("t", 1))),
        text=True,
        random=True,
    ),
    "BERT with LoRA in the last layer": Case(
        make=partial(encoder, bert_with_lora), frozen=(), boundary=(_MASK, _TOKENS), text=True, random=True
    ),
    "skip around the boundary": Case(
        make=lambda: adopt(SkipAround()),
        frozen=("stem", "frozen"),
        boundary=((_FLOAT, (6, 5, 5)), (_FLOAT, (10, 7, 7))),
        random=True,
        statistics=True,
    ),
}
TEXTS = {name: case for name, case in CASES.items() if case.text}
