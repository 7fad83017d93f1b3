"""Backends: the same answers as eager torch, for any batch size; the choice is by work, kept, and checked."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from neurenix.backends import BACKENDS, Backend, CannotBuild, counted, fast_forward
from neurenix.backends import choice as choosing
from neurenix.backends._export import quiet
from neurenix.devices import has_fast_int8
from neurenix.errors import UnknownNameError


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.second = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(images)).relu()).mean((2, 3)))


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.last = nn.Embedding(20, 8), nn.Linear(8, 5)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = inputs["attention_mask"].unsqueeze(-1)
        return {"features": (self.last(self.words(inputs["input_ids"])) * mask).sum(1) / mask.sum(1)}


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def texts(count: int, tokens: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(0, 20, (count, tokens), generator=generator),
        "attention_mask": torch.ones(count, tokens, dtype=torch.long),
    }


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEURENIX_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["channels_last", "openvino"])
@pytest.mark.parametrize("count", [1, 3, 8, 19])
def test_images_get_the_answers_of_eager_torch_at_any_batch_size(name: str, count: int) -> None:
    network = Network().eval()
    forward = fast_forward(network, images(8), samples=8, precision="fp32", backend=name)
    with torch.no_grad():
        torch.testing.assert_close(forward(images(count)), network(images(count)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["channels_last", "openvino"])
@pytest.mark.parametrize(("count", "tokens"), [(2, 3), (4, 7), (5, 2)])
def test_texts_of_other_number_and_length_get_them_too(name: str, count: int, tokens: int) -> None:
    network = Texts().eval()
    forward = fast_forward(network, texts(4, 5), samples=8, precision="fp32", backend=name)
    answer = forward(texts(count, tokens))
    with torch.no_grad():
        torch.testing.assert_close(answer, network(texts(count, tokens)), rtol=1e-4, atol=1e-5)


def test_bfloat16_weights_answer_in_the_types_of_eager_torch() -> None:
    network = Network().eval()
    forward = fast_forward(network, images(8), samples=8, precision="bf16", backend="bfloat16")
    eager = fast_forward(network, images(8), samples=8, precision="bf16", backend="eager")
    one, other = forward(images(8)), eager(images(8))
    assert isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype
    assert torch.cosine_similarity(one.float(), other.float()).min() > 0.999
    assert network.first.weight.dtype == torch.float32


def test_bfloat16_weights_are_refused_in_fp32() -> None:
    with pytest.raises(CannotBuild, match="fewer digits"):
        fast_forward(Network().eval(), images(8), samples=8, precision="fp32", backend="bfloat16")


def test_an_unknown_backend_gets_near_names() -> None:
    with pytest.raises(UnknownNameError, match="openvino"):
        fast_forward(Network(), images(2), samples=2, precision="fp32", backend="openvin")


def wrong_backend() -> Backend:
    def build(module: nn.Module, example: object, precision: str) -> object:
        return lambda inputs: -module(inputs).detach()

    return Backend(
        build=build, usable=lambda *_: True, convolutions={"fp32": 1e9}, products={"fp32": 1e9}, build_seconds=0.0
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["auto", "wrong"])
def test_a_backend_that_answers_differently_is_not_used(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    monkeypatch.setitem(BACKENDS._entries, "wrong", wrong_backend())
    monkeypatch.setitem(BACKENDS._canonical, "wrong", "wrong")
    said: list[str] = []
    network = Network().eval()
    forward = fast_forward(network, images(8), samples=10**6, precision="fp32", backend=backend, say=said.append)
    with torch.no_grad():
        torch.testing.assert_close(forward(images(4)), network(images(4)), rtol=1e-4, atol=1e-5)
    assert any("wrong" in message and "cosine of -1" in message for message in said)


def test_a_small_job_is_run_as_it_is_and_measures_nothing(own_cache: Path) -> None:
    fast_forward(Network().eval(), images(8), samples=100, precision="fp32")
    assert not (own_cache / "backends").exists()


def test_what_was_measured_is_kept_and_decides_the_next_time(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    fast_forward(Network().eval(), images(8), samples=10**7, precision="fp32")
    (record,) = (own_cache / "backends").glob("*.json")
    known = json.loads(record.read_text())
    assert {"eager", "openvino"} <= set(known) and all(seconds > 0 for seconds in known.values())
    record.write_text(json.dumps({name: 1.0 for name in BACKENDS} | {"eager": 1e-9}))
    said: list[str] = []
    fast_forward(Network().eval(), images(8), samples=10**7, precision="fp32", say=said.append)
    assert not said  # eager is the fastest by the record, and nothing was measured anew


@pytest.mark.parametrize("content", ["", "[]", '{"eager": "fast"}', '{"eager": -1.0}'])
def test_a_damaged_record_is_measured_again(own_cache: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    fast_forward(Network().eval(), images(8), samples=10**7, precision="fp32")
    (record,) = (own_cache / "backends").glob("*.json")
    record.write_text(content)
    fast_forward(Network().eval(), images(8), samples=10**7, precision="fp32")
    assert json.loads(record.read_text())["eager"] > 0


def test_the_work_of_a_linear_layer() -> None:
    layer = nn.Linear(7, 11)
    rows = torch.zeros(3, 7)
    done = counted(lambda: layer(rows).reshape(-1))  # a view is no work
    assert done.operations == 2 * 3 * 7 * 11
    assert not done.convolutions
    assert done.written == 3 * 11 * rows.element_size()


def test_eight_bits_answer_nearly_the_same_or_are_passed_over() -> None:
    network, said = Network().eval(), []
    forward = fast_forward(network, images(32), samples=8, precision="bf16", backend="openvino_int8", say=said.append)
    with torch.no_grad():
        answer, expected = forward(images(19)), network(images(19))
    assert isinstance(answer, Tensor) and answer.shape == expected.shape
    cosine = float(torch.cosine_similarity(answer, expected).min())
    assert cosine > 0.99 and (torch.equal(answer, expected) or not said)
    assert not torch.equal(answer, expected)
    with pytest.raises(CannotBuild, match="fewer digits"):
        fast_forward(network, images(8), samples=8, precision="fp32", backend="openvino_int8")


@pytest.mark.skipif(not has_fast_int8(torch.device("cpu")), reason="the plugin rounds only where 8 bits are fast")
@pytest.mark.parametrize(("count", "tokens"), [(2, 3), (4, 6), (7, 12)])
def test_products_in_eight_bits_answer_for_texts_of_any_length(count: int, tokens: int) -> None:
    network, said = Texts().eval(), []
    forward = fast_forward(
        network,
        texts(4, 6),
        samples=8,
        precision="fp32",
        exact=False,
        backend="openvino_int8_products",
        say=said.append,
    )
    with torch.no_grad():
        answer, expected = forward(texts(count, tokens))["features"], network(texts(count, tokens))["features"]
    assert not said and answer.shape == expected.shape
    assert float(torch.cosine_similarity(answer, expected).min()) > 0.999
    assert not torch.equal(answer, expected)


def test_a_module_without_products_has_none_in_eight_bits() -> None:
    with pytest.raises(CannotBuild, match="multiplies nothing"):
        fast_forward(nn.Conv2d(3, 4, 3), images(4), samples=8, precision="bf16", backend="openvino_int8_products")


def test_exporters_do_not_set_up_logging(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """logging.warning, which OpenVINO's reader of programs calls, sets up a handler for good where there is none."""
    monkeypatch.setattr(logging.root, "handlers", [])
    exporter = compile("import logging\nlogging.warning('not in the table')", "/packages/openvino/decoder.py", "exec")
    with quiet():
        exec(exporter, {})
    assert not logging.root.handlers and not logging.root.filters
    assert capfd.readouterr().err == ""
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", heard.append)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    with quiet():
        exec(exporter, {})
        logging.warning("the program's own")
    assert [record.getMessage() for record in heard] == ["the program's own"]


def rounding_backend() -> Backend:
    """Answers with three digits, at no cost."""

    def build(module: nn.Module, example: object, precision: str) -> object:
        return lambda inputs: (module(inputs).detach() * 100).round() / 100

    hope = {"fp32": 1e9}
    return Backend(
        build=build,  # type: ignore[arg-type]
        usable=lambda *_: True,
        convolutions=hope,
        products=hope,
        build_seconds=0.0,
        rounds=True,
    )


@pytest.mark.parametrize("exact", [True, False])
def test_fewer_digits_are_taken_only_where_fp32_need_not_be_exact(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, exact: bool
) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    monkeypatch.setattr(
        choosing, "_seconds", lambda forward, batch, best=1.0: 1.0 if "eager" in forward.__qualname__ else 0.1
    )
    for name in list(BACKENDS):
        monkeypatch.delitem(BACKENDS._entries, name)
    monkeypatch.setitem(BACKENDS._entries, "rounding", rounding_backend())
    monkeypatch.setitem(BACKENDS._canonical, "rounding", "rounding")
    network = Network().eval()
    forward = fast_forward(network, images(8), samples=10**6, precision="fp32", exact=exact)
    with torch.no_grad():
        is_rounded = not torch.allclose(forward(images(4)), network(images(4)), atol=1e-6)
    assert is_rounded == (not exact)


class Repeating(nn.Module):
    """Loops as often as there are tokens, so a recording holds for one length alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.last = nn.Embedding(20, 8), nn.Linear(8, 5)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        words, state = self.words(inputs["input_ids"]), torch.zeros(len(inputs["input_ids"]), 8)
        for place in range(words.shape[1]):
            state = 0.5 * state + words[:, place]
        return {"features": self.last(state)}


def test_a_recording_that_holds_for_one_length_alone_is_not_used() -> None:
    network = Repeating().eval()
    try:
        forward = fast_forward(network, texts(4, 6), samples=8, precision="fp32", backend="openvino")
    except CannotBuild as error:
        assert "torch.export" in str(error) or "other lengths" in str(error)
        return
    for tokens in (2, 6, 9):
        with torch.no_grad():
            torch.testing.assert_close(forward(texts(3, tokens)), network(texts(3, tokens)), rtol=1e-4, atol=1e-5)


class Peeking(nn.Module):
    """What it calls depends on the values of its images."""

    def __init__(self, asked: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.asked, self.last = asked, nn.Linear(3 * 16 * 16, 5)

    def forward(self, batch: Tensor) -> Tensor:
        rows = batch.flatten(1)
        return self.last(rows if self.asked(rows.mean()) > 0 else -rows)


class Counting(nn.Module):
    """What it calls depends on how many images there are."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own, self.first = own, nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images).relu()
        if self.own:
            return maps.reshape(int(images.shape[0]), -1)
        return torch.stack([maps[place].mean((1, 2)) for place in range(len(images))])


@pytest.mark.parametrize("own", [True, False])
def test_calls_that_depend_on_the_number_of_images_are_made_for_the_right_one(own: bool) -> None:
    network, said = Counting(own).eval(), []
    forward = fast_forward(network, images(32), samples=8, precision="fp32", backend="openvino", say=said.append)
    assert not said
    with torch.no_grad():
        torch.testing.assert_close(forward(images(9)), network(images(9)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("asked", [lambda mean: mean, Tensor.item, Tensor.tolist, lambda mean: mean.detach().numpy()])
def test_calls_that_depend_on_values_are_not_recorded(asked: Callable[[Tensor], Any]) -> None:
    with pytest.raises(CannotBuild, match="torch.export cannot read it"):
        fast_forward(Peeking(asked).eval(), images(8).abs(), samples=8, precision="fp32", backend="openvino")


def test_what_is_asked_and_does_not_matter_does_not_matter() -> None:
    """As transformers ask about their masks: not where tensors have no values."""

    def asked(mean: Tensor) -> float:
        return 1.0 if isinstance(mean, FakeTensor) or torch.jit.is_tracing() else max(1.0, mean.item())

    network, said = Peeking(asked).eval(), []
    fast_forward(network, images(8), samples=8, precision="fp32", backend="openvino", say=said.append)
    assert not said


def signal_stack() -> int:
    """Address of the stack that this thread handles signals on; 0 for its own."""

    class Stack(ctypes.Structure):
        _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.start or 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the stack of signals")
@pytest.mark.parametrize("backend", ["openvino", "openvino_int8"])
def test_a_build_leaves_the_stack_of_signals_alone(backend: str) -> None:
    """One that the plugin set and freed made the end of any child process a segmentation fault."""
    before = signal_stack()
    forward = fast_forward(Network().eval(), images(8), samples=8, precision="bf16", backend=backend)
    assert signal_stack() == before, "while the plugin is loaded"
    forward(images(8))


def test_only_eager_torch_is_given_arranged_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other backends take batches as they come, and what arranging takes is not counted as eager torch's time."""
    module, asked = Network().eval(), list[int]()

    def arranged(inputs: Tensor) -> Tensor:
        asked.append(len(inputs))
        return inputs

    def forward(backend: str) -> choosing.Forward:
        example = images(8)
        return fast_forward(module, example, samples=8, precision="fp32", backend=backend, arranged=arranged)

    forward("channels_last")(images(8))
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)  # worth a measurement
    forward("auto")
    assert asked == []
    forward("eager")(images(6))
    assert asked == [6]


# --- what a job may be ---------------------------------------------------------------------------------------------


def registered(monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any], **settings: Any) -> None:
    """A backend called "odd", tried first and for every job."""
    given: dict[str, Any] = {"usable": lambda *_: True, "convolutions": {"fp32": 1e9}, "products": {"fp32": 1e9}}
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    monkeypatch.setitem(BACKENDS._entries, "odd", Backend(build=build, build_seconds=0.0, **given, **settings))
    monkeypatch.setitem(BACKENDS._canonical, "odd", "odd")


class Boxed(nn.Module):
    """Reads images of several sizes in a mapping, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.network(inputs["images"]) + inputs["image_sizes"].sum(1, keepdim=True) * 0.01


def boxed(count: int, size: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "images": torch.randn(count, 3, size, size, generator=generator),
        "image_sizes": torch.full((count, 2), 16.0),
    }


@pytest.mark.parametrize("backend", ["auto", "openvino"])
def test_mappings_that_are_no_texts_are_left_whole(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    module = Boxed().eval()
    forward = fast_forward(module, boxed(8), samples=10**6, precision="fp32", backend=backend)
    with torch.no_grad():
        for batch in (boxed(8), boxed(3), boxed(5, size=24)):
            torch.testing.assert_close(forward(batch), module(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name not in ("bfloat16", "compile", "onnx")])
def test_samples_of_another_shape_than_it_was_built_for(backend: str) -> None:
    network = Network().eval()
    try:
        forward = fast_forward(network, images(8), samples=8, precision="fp32", exact=False, backend=backend)
    except CannotBuild as reason:
        pytest.skip(str(reason))
    wide = torch.randn(5, 3, 24, 20, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(forward(wide), network(wide), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_backend_that_answers_with_nan_is_not_used(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    def build(module: nn.Module, example: object, precision: str) -> object:
        def forward(inputs: Tensor) -> Tensor:
            answers = module(inputs).detach()
            answers[0, 0] = value
            return answers

        return forward

    registered(monkeypatch, build)
    network, said = Network().eval(), list[str]()
    forward = fast_forward(network, images(8), samples=10**6, precision="fp32", say=said.append)
    assert any("odd is passed over: its answers have a cosine of 0" in message for message in said)
    assert bool(forward(images(4)).isfinite().all())


def test_rows_of_zeros_agree_with_rows_of_zeros_alone() -> None:
    rows = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert choosing._agreement(rows, rows) == pytest.approx(1.0)
    assert choosing._agreement(rows + torch.tensor([[1e-3, 0.0], [0.0, 0.0]]), rows) == 0.0
    assert choosing._agreement(torch.zeros(0, 3), torch.zeros(0, 3)) == 1.0


def test_a_runtime_that_fails_is_passed_over_and_told(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    def build(module: nn.Module, example: object, precision: str) -> object:
        def forward(inputs: Tensor) -> Tensor:
            raise RuntimeError("mat1 and mat2 must have the same dtype")

        return forward

    registered(monkeypatch, build)
    network, said = Network().eval(), list[str]()
    job: dict[str, Any] = {"samples": 10**6, "precision": "fp32", "say": said.append}
    fast_forward(network, images(8), **job)
    assert any("odd is passed over" in message and "the same dtype" in message for message in said)
    said.clear()
    fast_forward(network, images(8), **job)
    assert any("odd is left out: within the last day" in message for message in said)
    (record,) = (own_cache / "backends").glob("*.json")
    os.utime(record, (time.time() - 90_000,) * 2)
    said.clear()
    fast_forward(network, images(8), **job)
    assert any("odd is passed over" in message for message in said), "a failure of yesterday is believed"
    with pytest.raises(CannotBuild, match="same dtype"):
        fast_forward(network, images(8), **job, backend="odd")


def test_a_runtime_that_fails_while_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(module: nn.Module, example: object, precision: str) -> object:
        def forward(inputs: Tensor) -> Tensor:
            if len(inputs) > 4:
                raise RuntimeError("no more than four")
            return module(inputs).detach()

        return forward

    registered(monkeypatch, build)
    said = list[str]()
    fast_forward(Network().eval(), images(8), samples=10**6, precision="fp32", say=said.append)
    assert any("odd is passed over" in message and "no more than four" in message for message in said)


def test_answers_that_are_too_far_are_remembered(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    monkeypatch.setitem(BACKENDS._entries, "wrong", wrong_backend())
    monkeypatch.setitem(BACKENDS._canonical, "wrong", "wrong")
    said, job = list[str](), {"samples": 10**6, "precision": "fp32"}
    fast_forward(Network().eval(), images(8), **job)
    (record,) = (own_cache / "backends").glob("*.json")
    os.utime(record, (time.time() - 90_000,) * 2)
    fast_forward(Network().eval(), images(8), **job, say=said.append)
    assert any("wrong is left out: its answers" in message for message in said)


def test_too_little_memory_is_no_reason_to_pass_a_backend_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(module: nn.Module, example: object, precision: str) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory")

    registered(monkeypatch, build)
    with pytest.raises(torch.OutOfMemoryError):
        fast_forward(Network().eval(), images(8), samples=10**6, precision="fp32")


def test_float64_stays_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_SECONDS", 0.0)
    network, batch = Network().double().eval(), images(8).double()
    forward = fast_forward(network, batch, samples=10**6, precision="fp32")
    with torch.no_grad():
        assert torch.equal(forward(batch), network(batch))
    with pytest.raises(CannotBuild, match="float64"):
        fast_forward(network, batch, samples=8, precision="fp32", backend="openvino")
