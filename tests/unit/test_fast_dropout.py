"""Dropout on the CPU: what is left out, by which numbers, and attention as torch computes it with the same mask."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from neurenix.training import fast_dropout as module
from neurenix.training.fast_dropout import kept_elements
from neurenix.training.faster_calls import faster_calls

CPU = torch.device("cpu")
Mask = Tensor | None


def dropping(share: float = 0.25) -> contextlib.AbstractContextManager[object]:
    return faster_calls(nn.Dropout(share), CPU)


def heads(count: int = 3, tokens: int = 7, width: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, 2, tokens, width, generator=generator, requires_grad=True) for _ in range(3)]


def padded(count: int = 3, tokens: int = 7) -> Tensor:
    """(count, 1, 1, tokens): the first text is whole, the others are shorter."""
    lengths = torch.tensor([tokens, 4, 1])[:count]
    return (torch.arange(tokens) < lengths[:, None])[:, None, None]


def test_the_share_that_is_kept_is_the_one_that_was_asked_for() -> None:
    """With 2^20 elements one standard deviation of the share is at most 0.0005."""
    for share in (0.1, 0.5, 0.9, 1e-3):
        torch.manual_seed(0)
        kept, factor = kept_elements(torch.Size([1024, 1024]), share)
        assert float(kept.float().mean()) == pytest.approx(1 - share, abs=2e-3)
        assert factor * (1 - share) == pytest.approx(1.0, abs=2e-4)


def test_a_share_of_nearly_everything_leaves_out_nearly_everything() -> None:
    torch.manual_seed(0)
    kept, factor = kept_elements(torch.Size([1000]), 1 - 1e-9)
    assert int(kept.sum()) <= 1 and factor == 2**16


def test_neighbours_are_left_out_independently() -> None:
    """Four of them come from one number. Covariances of 2^20 pairs: a standard deviation of 0.00025."""
    torch.manual_seed(0)
    kept = kept_elements(torch.Size([2**20]), 0.5)[0].float() - 0.5
    for distance in (1, 2, 3, 4, 8):
        assert abs(float((kept[:-distance] * kept[distance:]).mean())) < 2e-3


def test_the_same_seed_gives_the_same_elements() -> None:
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(kept_elements(torch.Size([5, 7]), 0.5)[0])
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("call", [functional.dropout, torch.ops.aten.dropout.default], ids=["layer", "graph"])
def test_dropout_leaves_out_and_scales_and_so_does_its_gradient(call: object) -> None:
    values = torch.ones(64, 33, requires_grad=True)
    with dropping():
        dropped = call(values, 0.25, True)  # type: ignore[operator]
    dropped.sum().backward()
    assert sorted(set(dropped.detach().flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert values.grad is not None and torch.equal(values.grad, dropped)


def test_dropout_outside_of_training_and_of_everything_stay_torchs() -> None:
    values = torch.ones(4, 4)
    with dropping():
        assert functional.dropout(values, 0.5, training=False) is values
        assert functional.dropout(values, 1.0).sum() == 0


def test_dropout_in_place_leaves_out_the_same_elements() -> None:
    answers = []
    for call in (
        lambda values: functional.dropout(values, 0.5, inplace=True),
        lambda values: torch.ops.aten.dropout_.default(values, 0.5, True),
        lambda values: functional.dropout(values, 0.5),
    ):
        torch.manual_seed(2)
        leaf = torch.ones(9, 5, requires_grad=True)
        with dropping():
            answers.append(call(leaf * 3))
        answers[-1].sum().backward()
        assert leaf.grad is not None and torch.equal(leaf.grad, answers[-1])
    assert torch.equal(answers[0], answers[2]) and torch.equal(answers[1], answers[2])
    values = torch.ones(9, 5)
    with dropping():
        assert functional.dropout(values, 0.5, inplace=True) is values
    assert set(values.flatten().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("inplace", [False, True])
def test_a_graph_leaves_out_what_its_model_leaves_out(inplace: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5, inplace=inplace), nn.Linear(50, 3))
    values, answers = torch.randn(8, 6), []
    for forward in (model, torch.export.export(model, (values,), strict=False).module()):
        torch.manual_seed(4)
        with faster_calls(model, CPU):
            answers.append(forward(values))
    assert torch.equal(*answers)


@pytest.mark.parametrize("mask", [None, padded(), padded().expand(3, 2, 7, 7)], ids=["all", "keys", "pairs"])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_attention_is_that_of_torch_with_the_same_weights_left_out(
    mask: Mask, scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    kept, factor = kept_elements(torch.Size([3, 2, 7, 7]), 0.25)
    monkeypatch.setattr(module, "kept_elements", lambda shape, share: (kept, factor))
    results = []
    for ours in (True, False):
        inputs = heads()
        if ours:
            with dropping():
                answer = functional.scaled_dot_product_attention(*inputs, mask, 0.25, scale=scale)
        else:
            added = None if mask is None else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
            answer = torch.ops.aten._scaled_dot_product_attention_math(
                *inputs, added, 0.25, dropout_mask=kept, scale=scale
            )[0]
        answer.square().sum().backward()
        results.append([answer.detach(), *(part.grad for part in inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_who_may_look_at_nothing_sees_nothing() -> None:
    mask = padded().expand(3, 2, 7, 7).clone()
    mask[1, :, 2] = False
    inputs = heads()
    with dropping():
        answer = functional.scaled_dot_product_attention(*inputs, mask, 0.25)
    answer.sum().backward()
    assert bool((answer[1, :, 2] == 0).all())
    assert all(part.grad is not None and bool(part.grad.isfinite().all()) for part in inputs)


def test_masks_that_are_added_and_causal_ones_draw_the_same_numbers() -> None:
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    added = torch.zeros(7, 7).masked_fill(~causal, -torch.inf)
    lowest = torch.zeros(7, 7).masked_fill(~causal, torch.finfo(torch.float32).min)
    options: list[dict[str, Any]] = [
        {"is_causal": True},
        {"attn_mask": causal},
        {"attn_mask": added},
        {"attn_mask": lowest},
    ]
    answers = []
    for each in options:
        torch.manual_seed(5)
        with dropping():
            answers.append(functional.scaled_dot_product_attention(*heads(), dropout_p=0.25, **each).detach())
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])
    inputs = [part.detach() for part in heads()]
    with dropping(1e-6):
        found = functional.scaled_dot_product_attention(*inputs, dropout_p=1e-6, is_causal=True)
    torch.testing.assert_close(found, functional.scaled_dot_product_attention(*inputs, is_causal=True))


def test_a_bias_that_is_learned_gets_its_gradient() -> None:
    bias = torch.zeros(2, 7, 7, requires_grad=True)
    with dropping():
        functional.scaled_dot_product_attention(*heads(), bias, 0.25).square().sum().backward()
    assert bias.grad is not None and bool((bias.grad != 0).any(-1).all())


def test_keys_shared_by_groups_of_queries() -> None:
    query, key, value = (part.detach() for part in heads())
    query = torch.cat([query, query + 1], 1)
    with dropping(1e-6):
        found = functional.scaled_dot_product_attention(query, key, value, dropout_p=1e-6, enable_gqa=True)
    expected = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_that_are_run_again_on_the_way_back_draw_the_same(reentrant: bool) -> None:
    """Gradient checkpointing: the gradient of an element that was kept is that of the first run."""
    values = torch.ones(64, 33, requires_grad=True)
    with dropping():
        dropped = checkpoint(lambda part: functional.dropout(part.square(), 0.25), values, use_reentrant=reentrant)
    dropped.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, 2 * dropped)


class Numbered(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.attention_dropout = dropout


def test_nothing_changes_for_models_that_leave_nothing_out() -> None:
    is_off = [
        isinstance(faster_calls(layer, device), contextlib.nullcontext)
        for layer, device in (
            (nn.Linear(2, 2), CPU),
            (nn.Dropout(0.0), CPU),
            (Numbered(0.0), CPU),
            (nn.Dropout(0.1), torch.device("cuda")),
            (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1), CPU),  # whose attention calls dropout out of sight
            (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), CPU),
            (nn.Dropout(0.1), CPU),
            (Numbered(0.1), CPU),
        )
    ]
    assert is_off == [True] * 6 + [False, False]


def test_bfloat16_answers_in_bfloat16() -> None:
    inputs = [part.detach().bfloat16() for part in heads()]
    with dropping(1e-6):
        answer = functional.scaled_dot_product_attention(*inputs, padded(), 1e-6)
    expected = functional.scaled_dot_product_attention(*inputs, padded())
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer, expected, atol=3e-2, rtol=3e-2)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # which torch.func.jvp imports
def test_derivatives_that_torch_func_takes_are_torchs() -> None:
    """Energies and forces: a gradient, and rows mapped over, beside layers with dropout."""
    layer, values = nn.Dropout(0.5), torch.ones(8, 33)
    with dropping():
        gradient = torch.func.grad(lambda part: layer(part).sum())(values)
        mapped = torch.func.vmap(layer, randomness="different")(values)
        _, tangent = torch.func.jvp(layer, (values,), (torch.ones(8, 33),))
    for found in (gradient, mapped, tangent):
        assert set(found.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(mapped[0], mapped[1])
