"""Features are what the layers give, and the model is left as it was."""

from __future__ import annotations

import copy

import numpy
import pytest
import timm
import torch
from torch import Tensor, nn

from neurenix.errors import ConfigurationError, InputMismatchError, UnknownNameError
from neurenix.models._pretrained_model import PretrainedModel
from neurenix.nn import Pool
from neurenix.storage import tensor_digest
from neurenix.transfer.features import FeatureExtractor
from neurenix.vision import ImageInput, ImagePreprocess


class Net(nn.Module):
    """Two stages, the first followed by an in-place activation that is used twice, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 5, 3, stride=2)
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(5, 2)
        self.ran_to_the_end = 0

    def forward(self, images: Tensor) -> Tensor:
        features = self.act(self.second(self.act(self.first(images))))
        logits = self.head(self.drop(features.mean((2, 3))))
        self.ran_to_the_end += 1
        return logits


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_pooled_layers_are_joined_in_the_order_asked_for(net: Net, images: Tensor) -> None:
    extractor = FeatureExtractor(net, ["second", "first"])
    features = extractor(images)
    net.eval()
    first = net.first(images)
    second = net.second(first.clone().relu())
    torch.testing.assert_close(features, torch.cat([second.mean((2, 3)), first.mean((2, 3))], 1))
    assert extractor.columns == {"second": slice(0, 5), "first": slice(5, 9)}


def test_a_later_in_place_layer_does_not_change_what_was_read(net: Net, images: Tensor) -> None:
    maps = FeatureExtractor(net, "first", pooling="none", flatten=False)(images)["first"]
    assert maps.shape == (6, 4, 8, 8) and maps.min() < 0  # the ReLU in place comes right after


@pytest.mark.parametrize(("pooling", "expected"), [("max", lambda m: m.amax((2, 3))), ("none", lambda m: m.flatten(1))])
def test_poolings(net: Net, images: Tensor, pooling: str, expected: object) -> None:
    features = FeatureExtractor(net, "first", pooling=pooling)(images)
    torch.testing.assert_close(features, expected(net.eval().first(images)))  # type: ignore[operator]


def test_gem_of_a_constant_map_is_the_constant() -> None:
    features = FeatureExtractor(nn.Identity(), pooling="gem")(torch.full((1, 2, 3, 3), 2.0))
    torch.testing.assert_close(features, torch.full((1, 2), 2.0))


def test_the_model_is_untouched(net: Net, images: Tensor) -> None:
    net.first.eval()
    before = {name: tensor_digest(tensor) for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    features = FeatureExtractor(net, ["first", "head"])(images)
    assert not features.requires_grad and not features.is_inference()
    assert {name: tensor_digest(tensor) for name, tensor in net.state_dict().items()} == before
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())


def test_the_model_is_restored_after_an_error(net: Net) -> None:
    net.train()
    with pytest.raises(RuntimeError):
        FeatureExtractor(net, "first")(torch.randn(2, 7, 8, 8))
    assert net.training and not any(module._forward_hooks for module in net.modules())


def test_the_forward_pass_ends_after_the_last_layer_read(net: Net, images: Tensor) -> None:
    extractor = FeatureExtractor(net, "first")
    extractor(images)
    assert net.ran_to_the_end == 1  # the first call looks at one sample all the way
    extractor(images)
    assert net.ran_to_the_end == 1


def test_early_end_is_not_caught_by_the_model() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            try:
                return self.inner(inputs)
            except Exception:  # noqa: BLE001
                return inputs

    model, inputs = Careful(), torch.randn(3, 2)
    extractor = FeatureExtractor(model, "inner")
    torch.testing.assert_close(extractor(inputs), model.inner(inputs))
    torch.testing.assert_close(extractor(inputs), model.inner(inputs))


def test_offloaded_models_run_to_the_end(net: Net, images: Tensor) -> None:
    net.second._hf_hook = object()  # what accelerate leaves on a module whose weights it moves
    extractor = FeatureExtractor(net, "first")
    extractor(images)
    extractor(images)
    assert net.ran_to_the_end == 3


def test_normalize_scales_each_layer_and_keeps_zeros(net: Net, images: Tensor) -> None:
    images[0] = 0.0
    nn.init.zeros_(net.first[0].bias)
    features = FeatureExtractor(net, ["first", "second"], normalize=True)(images)
    assert features[0, :4].tolist() == [0.0] * 4
    torch.testing.assert_close(features[1:, :4].norm(dim=1), torch.ones(5))
    torch.testing.assert_close(features[:, 4:].norm(dim=1), torch.ones(6))


@pytest.mark.parametrize(
    ("layer", "message"),
    [("unused", "did not call"), ("act", "called 2 times")],
)
def test_layers_without_one_output(net: Net, images: Tensor, layer: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FeatureExtractor(net, layer)(images)


def test_unknown_layer_names_the_nearest(net: Net) -> None:
    with pytest.raises(UnknownNameError, match="second"):
        FeatureExtractor(net, "secnd")


def test_parameters_and_empty_lists_are_refused() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32)
    with pytest.raises(ConfigurationError, match="is a parameter"):
        FeatureExtractor(vit, "cls_token")
    with pytest.raises(ConfigurationError, match="reads nothing"):
        FeatureExtractor(vit, [])


def test_unknown_pooling(net: Net) -> None:
    with pytest.raises(UnknownNameError, match="avg"):
        FeatureExtractor(net, "first", pooling="avgg")


def test_class_pooling_of_a_map(net: Net, images: Tensor) -> None:
    with pytest.raises(InputMismatchError, match="first token"):
        FeatureExtractor(net, "first", pooling="cls")(images)


def test_a_wildcard_takes_the_outermost_layers() -> None:
    resnet = timm.create_model("resnet18")
    assert FeatureExtractor(resnet, "layer*").layers == ("layer1", "layer2", "layer3", "layer4")
    assert FeatureExtractor(resnet, "layer1.*.bn2").layers == ("layer1.0.bn2", "layer1.1.bn2")


def test_vit_leaves_its_class_token_out() -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = vit.forward_features(images).detach()
    torch.testing.assert_close(FeatureExtractor(vit, "norm")(images), tokens[:, 1:].mean(1))
    torch.testing.assert_close(FeatureExtractor(vit, "norm", pooling="cls")(images), tokens[:, 0])
    patches = vit.patch_embed(images).detach()  # four patches, before the class token is put in front
    torch.testing.assert_close(FeatureExtractor(vit, "patch_embed")(images), patches.mean(1))


def test_swin_has_its_channels_last() -> None:
    torch.manual_seed(0)
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), num_heads=(2, 2)).eval()
    images = torch.randn(2, 3, 56, 56)
    maps = swin.forward_features(images).detach()
    torch.testing.assert_close(FeatureExtractor(swin, "norm")(images), maps.mean((1, 2)))
    convolved = swin.patch_embed.proj(images).detach()  # its convolution is NCHW all the same
    torch.testing.assert_close(FeatureExtractor(swin, "patch_embed.proj")(images), convolved.mean((2, 3)))


def test_channels_last_can_be_declared() -> None:
    maps = torch.randn(2, 3, 4, 5)
    features = FeatureExtractor(nn.Identity(), channels_last=True)(maps)
    torch.testing.assert_close(features, maps.mean((1, 2)))


class Tokens(nn.Module):
    """A transformer in miniature, with the outputs of transformers' blocks and models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.block = Wrapped(nn.Linear(4, 4))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.block(self.embed(input_ids))[0]
        return {"last_hidden_state": hidden, "pooler_output": hidden[:, 0]}


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> tuple[Tensor, None]:
        return self.inner(hidden), None


def test_masks_tuples_and_mappings() -> None:
    torch.manual_seed(0)
    model = Tokens()
    inputs = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    hidden = model(**inputs)["last_hidden_state"].detach()
    expected = torch.stack([hidden[0].mean(0), hidden[1, :2].mean(0)])
    torch.testing.assert_close(FeatureExtractor(model, "block")(inputs), expected)
    torch.testing.assert_close(FeatureExtractor(model)(inputs), expected)
    torch.testing.assert_close(FeatureExtractor(model, pooling="last")(inputs)[1], hidden[1, 1])


def test_time_first_outputs_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="rows are not samples"):
        FeatureExtractor(nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 2)), "1")(torch.randn(3, 5, 4))


def test_outputs_without_a_tensor_are_refused() -> None:
    class Odd(nn.Module):
        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"left": inputs, "right": inputs}

    with pytest.raises(ConfigurationError, match="left.*right"):
        FeatureExtractor(Odd())(torch.randn(1, 2))


def _pretrained(pooling: str = "max") -> PretrainedModel:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    return PretrainedModel(trunk=trunk, pool=Pool(pooling), head=nn.Linear(4, 2), feature_size=4, stages=["0"])


def test_without_layers_a_pretrained_model_gives_what_enters_its_head(images: Tensor) -> None:
    model = _pretrained()
    torch.testing.assert_close(FeatureExtractor(model)(images), model.embed(images).detach())
    maps = model.features(images).detach()
    torch.testing.assert_close(FeatureExtractor(model, pooling="avg")(images), maps.mean((2, 3)))


def test_half_precision_models_give_float32(net: Net, images: Tensor) -> None:
    exact = FeatureExtractor(net, "second")(images)
    half = FeatureExtractor(copy.deepcopy(net).bfloat16(), "second")(images)
    autocast = FeatureExtractor(net, "second", precision="bf16")(images)
    assert half.dtype == autocast.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.05, rtol=0.05)
    torch.testing.assert_close(autocast, exact, atol=0.05, rtol=0.05)
    assert not torch.equal(autocast, exact)


def test_raw_samples_go_through_the_models_preprocessing() -> None:
    model = _pretrained()
    model.preprocess = ImagePreprocess(ImageInput(size=(8, 8)))
    raw = [numpy.full((8, 8, 3), level, dtype="uint8") for level in (0, 100, 200)]
    batch = torch.stack([model.preprocess(sample) for sample in raw])
    torch.testing.assert_close(FeatureExtractor(model)(raw), FeatureExtractor(model)(batch))


def test_extract_gives_features_and_targets(net: Net, images: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = torch.utils.data.TensorDataset(images, torch.arange(6))
    features, targets = FeatureExtractor(net, "second").extract(dataset, batch_size=4)
    assert "features: 6/6 samples" in capsys.readouterr().err
    torch.testing.assert_close(features, FeatureExtractor(net, "second")(images))
    assert targets is not None and targets.tolist() == list(range(6))


class Sentences(torch.utils.data.Dataset[tuple[dict[str, Tensor], int]]):
    """Texts of four to six words."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], int]:
        words = torch.arange(1, 5 + index % 3)
        return {"input_ids": words, "attention_mask": torch.ones_like(words)}, index

    def collate(self, samples: list[tuple[dict[str, Tensor], int]]) -> tuple[dict[str, Tensor], Tensor]:
        rows = {name: [inputs[name] for inputs, _ in samples] for name in ("input_ids", "attention_mask")}
        padded = {name: nn.utils.rnn.pad_sequence(part, batch_first=True) for name, part in rows.items()}
        return padded, torch.tensor([target for _, target in samples])


def test_a_backend_extracts_texts_of_any_number_and_length() -> None:
    torch.manual_seed(0)
    model = Tokens()
    fast, targets = FeatureExtractor(model, "block", backend="openvino").extract(Sentences(), batch_size=4)
    eager, _ = FeatureExtractor(model, "block", backend="eager").extract(Sentences(), batch_size=2)
    torch.testing.assert_close(fast, eager)
    assert targets is not None and targets.tolist() == list(range(9))


def test_batches_of_different_widths_are_refused() -> None:
    dataset = [(torch.randn(2, length), 0) for length in (3, 4)]
    with pytest.raises(InputMismatchError, match="different shapes"):
        FeatureExtractor(nn.Identity(), pooling="none").extract(dataset, batch_size=1, progress=False)


def test_a_dataset_needs_a_matrix(net: Net, images: Tensor) -> None:
    dataset = torch.utils.data.TensorDataset(images, torch.arange(6))
    with pytest.raises(ConfigurationError, match="flatten=True"):
        FeatureExtractor(net, "second", flatten=False).extract(dataset)


def test_compiled_models_are_read_through_the_original(net: Net, images: Tensor) -> None:
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(FeatureExtractor(compiled, "second")(images), FeatureExtractor(net, "second")(images))
