"""What every parameter-efficient tuner promises, on every family that is loaded and on modules of the user's own."""

from __future__ import annotations

import copy
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.models import adopt
from neurenix.storage import tensor_digest
from neurenix.transfer import AdapterTuner, LoraTuner, PromptTuner, load_pretrained_model
from neurenix.transfer.base_state import base_name
from neurenix.transfer.tuners import TUNERS
from neurenix.transfer.tuners.method import MethodTuner

SIDE = 32
PROVE = bool(os.environ.get("NEURENIX_PROVE"))


class Residual(nn.Module):
    """x + f(x) on maps, as users write it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.second(self.norm(self.first(maps)).relu())


class OwnNetwork(nn.Module):
    """A network of the user's own, with residual blocks in a container and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.blocks = nn.Sequential(Residual(), Residual())
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class OwnTransformer(nn.Module):
    """Torch's own encoder layers, which in inference compute with their layers' weights themselves."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.patches = nn.Linear(12, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images.reshape(len(images), -1, 12))
        return self.head(self.encoder(tokens).mean(1))


def own(kind: type[nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return kind()

    return make


def random_weights(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return load_pretrained_model(name, weights=None, device="cpu", input_shape=(SIDE, SIDE, 3))

    return make


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "minilm": lambda: load_pretrained_model("minilm", device="cpu"),
    "lite0": lambda: load_pretrained_model("efficientnet-lite0", device="cpu", input_shape=(SIDE, SIDE, 3)),
    "vit": random_weights("vit-tiny-patch16-224"),
    "resnet": random_weights("resnet18"),
    "mobilenet": random_weights("mobilenetv2"),
    "own network": own(OwnNetwork),
    "own transformer": own(OwnTransformer),
}
TOKENS = {"minilm", "vit", "own transformer"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TUNERS},
    "adapter, pfeiffer": ("adapter", {"adapter_type": "pfeiffer", "adapter_size": 8}),
    "adapter, parallel": ("adapter", {"adapter_type": "parallel", "adapter_size": 8}),
    "adapter, top": ("adapter", {"layers": 1}),
    "lora, everywhere": ("lora", {"target_layers": "*", "rank": 2, "rank_stabilised": True, "rate_ratio": 16.0}),
    "lora, decomposed": ("lora", {"weight_decomposed": True, "rank": 2}),
    "lora, pissa": ("lora", {"start": "pissa", "rank": 2}),
    "prompt, shallow": ("prompt", {"prompt_type": "shallow", "prompt_length": 3, "prompt_init": "random"}),
}
DECLARE_ROLES, IMAGENET = {"minilm", "vit"}, {"resnet", "mobilenet"}
VARIED = ("minilm", "vit", "own network")  # families that every variant is tried on


def refuses(variant: str, family: str) -> bool:
    """Combinations that have no meaning; they have to be refused by name."""
    method, options = VARIANTS[variant]
    if method == "prompt":
        return family not in TOKENS
    if options.get("start") == "pissa":
        return family not in {"minilm", "vit", "own transformer"}
    return (method == "ia3" or options.get("adapter_type") == "parallel") and family not in DECLARE_ROLES


PAIRS = [
    (variant, family)
    for variant in VARIANTS
    for family in (FAMILIES if variant in TUNERS else VARIED)
    if not refuses(variant, family) and (PROVE or family != "mobilenet")  # lite0 is of the same make
]
# each variant on one family, the smallest that takes it
SOME = list(
    {variant: (variant, family) for variant, family in PAIRS if family in ("minilm", "vit", "own network")}.values()
)
REFUSED = [(variant, family) for variant in VARIANTS for family in FAMILIES if refuses(variant, family)]
every_pair = pytest.mark.parametrize(("variant", "family"), PAIRS)


@functools.cache
def base(family: str) -> nn.Module:
    return FAMILIES[family]()


@functools.cache
def data(family: str) -> Any:
    """Six samples of three classes."""
    if family == "minilm":
        words = ["a good film", "bad", "so long that it is dull", "fine", "worse than the book was", "it is what it is"]
        return words, ["good", "bad", "dull"] * 2
    random = numpy.random.default_rng(0)
    side = 12 if family.startswith("own") else SIDE
    images = torch.from_numpy(random.uniform(size=(6, 3, side, side)).astype("float32"))
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if family in IMAGENET else ((0.5,) * 3, (0.5,) * 3)
    return normalize(images, mean, std), torch.arange(6) % 3


def make(variant: str, family: str, **options: Any) -> MethodTuner:
    method, own_options = VARIANTS[variant]
    return TUNERS[method](base(family), num_classes=3, **{**own_options, "precision": "fp32", **options})


@functools.cache
def trained(variant: str, family: str) -> MethodTuner:
    tuner = make(variant, family)
    tuner.fit(data(family), batch_size=3, epochs=1, run=False)
    return tuner


def logits(tuner: MethodTuner, family: str) -> Tensor:
    inputs = data(family)[0]
    return torch.from_numpy(tuner.predict_proba(inputs)).log()


def trunk_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith("trunk.")}


@every_pair
def test_starts_as_the_base_or_nearly_so(variant: str, family: str) -> None:
    tuner, plain = make(variant, family, solve_head=False), adopt(copy.deepcopy(base(family))).eval()
    batch = tuner._loader(data(family), 3, 0).first(0)
    with torch.no_grad():
        expected, found = plain.embed(batch.inputs), tuner.model.eval().embed(batch.inputs)
    if variant.startswith("prompt"):
        assert found.shape == expected.shape and bool(found.isfinite().all())
        return  # tokens that are there from the start are seen from the start
    near = 0.15 if variant.startswith("adapter") else 1e-4
    assert float((found - expected).norm() / expected.norm()) < near


@every_pair
def test_only_own_parameters_and_the_head_move(variant: str, family: str) -> None:
    before, after = make(variant, family), trained(variant, family)
    moved = {
        name
        for name, tensor in after.model.state_dict().items()
        if not torch.equal(tensor, before.model.state_dict()[name])
    }
    assert {name for name in moved if not name.startswith("head.")} <= set(after.own_parameters)
    assert any(name in moved for name in after.own_parameters)
    assert {"head.weight", "head.bias"} <= moved


@every_pair
def test_the_base_keeps_every_byte_and_comes_back(variant: str, family: str) -> None:
    tuner = trained(variant, family)
    expected, found = trunk_state(adopt(copy.deepcopy(base(family)))), trunk_state(tuner.detach())
    assert found.keys() == expected.keys()
    assert all(tensor_digest(found[name]) == tensor_digest(expected[name]) for name in expected)


@every_pair
def test_saved_and_loaded_gives_the_same_answers(variant: str, family: str, tmp_path: Path) -> None:
    tuner = trained(variant, family)
    tuner.save(tmp_path / "tuned")
    own_module = base(family) if family.startswith("own") else None
    loaded = type(tuner).load(tmp_path / "tuned", model=own_module, device="cpu")
    assert torch.equal(logits(loaded, family), logits(tuner, family))
    assert loaded.settings == tuner.settings
    if family in ("minilm", "lite0"):  # whose base can be had again
        saved = json.loads((tmp_path / "tuned" / "neurenix.json").read_text())["tensors"]["changed"]
        changed = {base_name(name) for name in saved if base_name(name) in tuner._originals}
        assert {base_name(name) for name in saved if not name.startswith("head.")} - changed <= {
            base_name(name) for name in tuner.own_parameters
        }


@pytest.mark.parametrize(("variant", "family"), PAIRS if PROVE else SOME)
def test_a_copy_is_a_tuner_of_its_own(variant: str, family: str) -> None:
    tuner = make(variant, family)
    twin = copy.deepcopy(tuner)
    twin.fit(data(family), batch_size=3, epochs=1, run=False)
    assert torch.equal(logits(twin, family), logits(trained(variant, family), family))  # the same seed, the same run
    fresh = make(variant, family)
    assert all(torch.equal(tensor, fresh.model.state_dict()[name]) for name, tensor in tuner.model.state_dict().items())


@every_pair
def test_merges_with_a_certificate_or_says_why_not(variant: str, family: str) -> None:
    tuner = copy.deepcopy(trained(variant, family))
    expected = logits(tuner, family)
    if VARIANTS[variant][0] in ("adapter", "prompt"):
        with pytest.raises(ConfigurationError, match="cannot be merged"):
            tuner.merge(data(family)[0])
        return
    certificate = tuner.merge(data(family)[0])
    assert certificate.difference < 1e-4 and certificate.samples == 6 and "float32" in str(certificate)
    plain = adopt(copy.deepcopy(base(family)))
    kinds = [type(module) for module in plain.trunk.modules()]
    assert [type(module) for module in tuner.model.trunk.modules()] == kinds
    torch.testing.assert_close(logits(tuner, family), expected, atol=1e-3, rtol=1e-3)
    with pytest.raises(ConfigurationError, match="merged"):
        tuner.save("nowhere")
    tuner.unmerge()
    assert torch.equal(logits(tuner, family), expected)


@pytest.mark.parametrize(("variant", "family"), [pair for pair in (PAIRS if PROVE else SOME) if pair[1] in VARIED])
def test_learns_in_bfloat16(variant: str, family: str) -> None:
    tuner = make(variant, family, precision="bf16", frozen_prefix="never")
    history = tuner.fit(data(family), batch_size=6, epochs=2, run=False)
    assert all(numpy.isfinite(history["loss"]))


@pytest.mark.parametrize(("variant", "family"), REFUSED)
def test_what_has_no_meaning_is_refused_by_name(variant: str, family: str) -> None:
    with pytest.raises(ConfigurationError, match="no tokens|declares|could train|linear layers alone"):
        make(variant, family)


@pytest.mark.parametrize("method", [name for name in TUNERS if name != "prompt"])  # which takes no layers
def test_a_wrong_layer_gets_near_names(method: str) -> None:
    with pytest.raises(UnknownNameError, match=r"closest: encoder\.layer"):
        TUNERS[method](base("minilm"), layers=["encoder.layer.55"])
    with pytest.raises(ConfigurationError, match="give 1 to 6"):
        TUNERS[method](base("minilm"), layers=7)


def test_a_saved_tuning_is_the_same_in_a_new_process(tmp_path: Path) -> None:
    expected = {}
    for variant in list(VARIANTS)[:: 1 if PROVE else 3]:
        trained(variant, "minilm").save(tmp_path / variant)
        expected[variant] = logits(trained(variant, "minilm"), "minilm").tolist()
    program = """
import json, sys, torch
from pathlib import Path
from neurenix.transfer.tuners import TUNERS
folder, words = Path(sys.argv[1]), json.loads(sys.argv[2])
kinds = {cls.__name__: cls for cls in TUNERS.values()}
found = {}
for path in sorted(folder.iterdir()):
    cls = kinds[json.loads((path / "neurenix.json").read_text())["kind"]]
    found[path.name] = torch.from_numpy(cls.load(path, device="cpu").predict_proba(words)).log().tolist()
print(json.dumps(found))
"""
    command = [sys.executable, "-c", program, str(tmp_path), json.dumps(data("minilm")[0])]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert answer == expected


def test_torchs_own_encoder_layers_are_adapted_as_a_whole_only() -> None:
    """Their layers' weights are used without calling the layers, so that nothing may be put around those."""
    wrapped = [name for name, _ in make("scale_shift", "own transformer").model.named_modules() if "base_layer" in name]
    assert wrapped and not any("encoder" in name for name in wrapped)
    tuner = trained("adapter", "own transformer")
    batch = tuner._loader(data("own transformer"), 6, 0).first(0)
    with torch.no_grad():
        in_inference = tuner.model.eval()(batch.inputs)
    in_training = tuner.model.eval()(batch.inputs)  # with gradients torch takes the ordinary path
    torch.testing.assert_close(in_inference, in_training.detach(), atol=1e-5, rtol=1e-4)


def test_a_prompt_may_begin_with_words() -> None:
    with pytest.raises(ConfigurationError, match="prompt_text"):
        PromptTuner(base("minilm"), prompt_init="text")
    tuner = PromptTuner(base("minilm"), prompt_init="text", prompt_text="is this film good", prompt_length=6)
    prompts = tuner.model.get_parameter(tuner.own_parameters[0])[0]
    words = adopt(base("minilm")).preprocess("is this film good")["input_ids"][1:-1]
    stem = base("minilm").trunk.embeddings.eval()
    expected = stem(input_ids=torch.cat([words, words])[:6].unsqueeze(0))[0]
    torch.testing.assert_close(prompts, expected)


def test_without_num_classes_the_head_is_made_for_the_data() -> None:
    tuner = AdapterTuner(base("minilm"), layers=1, adapter_size=4)
    with pytest.raises(ConfigurationError, match="has no head yet"):
        tuner.predict(["a film"])
    tuner.fit(data("minilm"), batch_size=3, epochs=1, run=False)
    assert tuner.num_outputs == 3 and tuner.settings.num_classes == 3
    assert set(tuner.predict(["a film", "a book"])) <= {"good", "bad", "dull"}


@pytest.mark.parametrize("prompt_type", ["deep", "shallow"])
def test_prompted_texts_can_be_traced_at_any_size(prompt_type: str) -> None:
    tuner = PromptTuner(base("minilm"), 3, prompt_type=prompt_type, prompt_length=3)
    inputs = dict(tuner._loader(data("minilm"), 3, 0).first(0).inputs)
    free = torch.export.Dim.DYNAMIC
    shapes = ({name: {0: free, 1: free} for name in inputs},)
    program = torch.export.export(tuner.model.trunk.eval(), (inputs,), dynamic_shapes=shapes, strict=False)
    few = {name: tensor[:2, :4] for name, tensor in inputs.items()}
    torch.testing.assert_close(program.module()(few), tuner.model.trunk(few))


def test_adapters_in_the_top_layers_leave_the_rest_to_the_frozen_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    tuner = LoraTuner(base("minilm"), layers=2, frozen_prefix="always", precision="fp32")
    tuner.fit(data("minilm"), batch_size=3, epochs=2, run=False)
    assert "the frozen layers run once for each of 6 samples" in capsys.readouterr().out
