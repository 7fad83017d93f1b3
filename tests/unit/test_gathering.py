"""Batches that are gathered from memory at once are those that are put together sample by sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neurenix.data import ArrayDataset, DataLoader, Subset
from neurenix.data._fetching import KeyedDataset
from neurenix.data.collation import collate
from neurenix.data.relabelled import Relabelled
from neurenix.transfer.adaptation._paired import REPORTED, SOURCE, TARGET, Domain, PairedDomains
from neurenix.transfer.adaptation.gradual.pseudo_labels import PseudoLabelled

COUNT = 20


def inputs(shape: tuple[int, ...] = (4,), seed: int = 0) -> Tensor:
    return torch.randn(COUNT, *shape, generator=torch.Generator().manual_seed(seed))


def paired(columns: int = 1, targets: Any = None) -> PairedDomains:
    targets = torch.arange(COUNT) % 3 if targets is None else targets
    source, target = ArrayDataset(inputs(), targets), ArrayDataset(inputs(seed=1), targets)
    return PairedDomains(
        Domain(source, SOURCE, told=True),
        Domain(target, TARGET, told=False),
        Domain(Subset(target, [3, 1, 2]), REPORTED, told=True),
        columns=columns,
    )


NAMES = ["a", "b", "c"] * 6 + ["a", "b"]
DATASETS: dict[str, Any] = {
    "tensors": lambda: ArrayDataset(inputs((3, 5, 5)), torch.arange(COUNT) % 3),
    "without targets": lambda: ArrayDataset(inputs()),
    "arrays of float64, reals": lambda: ArrayDataset(inputs().double().numpy(), np.linspace(0, 1, COUNT)),
    "bytes, names": lambda: ArrayDataset((inputs((2, 2)) * 50).byte().numpy(), NAMES),
    "several values": lambda: ArrayDataset(inputs(), np.arange(2 * COUNT).reshape(COUNT, 2)),
    "several labels": lambda: ArrayDataset(inputs(), [["a", "b"], ["a"]] * (COUNT // 2)),
    "masks": lambda: ArrayDataset(inputs((3, 4, 4)), torch.ones(COUNT, 4, 4).long()),
    "tensors that learn": lambda: ArrayDataset(inputs().requires_grad_(), torch.arange(COUNT) % 2),
    "a part": lambda: Subset(Subset(ArrayDataset(inputs(), torch.arange(COUNT)), range(1, COUNT)), range(18, 0, -1)),
    "other numbers": lambda: Relabelled(ArrayDataset(inputs(), NAMES), ["c", "x", "b", "a"]),
    "other columns": lambda: Relabelled(
        ArrayDataset(inputs(), [["a", "b"], ["a"]] * (COUNT // 2), classes=["a", "b"]), ["b", "x", "a"]
    ),
    "hard pseudo-labels": lambda: PseudoLabelled(ArrayDataset(inputs()), range(5, 20), torch.arange(15) % 4, []),
    "soft pseudo-labels": lambda: PseudoLabelled(ArrayDataset(inputs()), range(5, 20), torch.rand(15, 3), []),
    "domains": paired,
    "domains, two values": lambda: paired(2, np.arange(2 * COUNT).reshape(COUNT, 2)),
}


def batch(dataset: Any, places: list[int], gathers: bool) -> Any:
    keyed = KeyedDataset(dataset, collate, seed=0, workers=0, deadly={})
    assert keyed.gathers
    keyed.gathers = gathers
    return keyed.__getitems__([(0, place) for place in places])


@pytest.mark.parametrize("name", DATASETS)
def test_the_same_batch(name: str) -> None:
    dataset = DATASETS[name]()
    places = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()[:11]
    assert dataset.gather(torch.tensor(places)) is not None, "there is nothing to compare"
    found, expected = (batch(dataset, places, gathers) for gathers in (True, False))
    assert torch.equal(found.indices, expected.indices)
    assert (found.targets is None) is (expected.targets is None)
    pairs = [(found.inputs, expected.inputs)] + [(found.targets, expected.targets)] * (expected.targets is not None)
    for one, other in pairs:
        assert one.dtype == other.dtype and torch.equal(one.nan_to_num(-7), other.nan_to_num(-7))
        assert one.requires_grad == other.requires_grad


def test_a_batch_is_a_copy() -> None:
    data = inputs()
    for values in (data, data.numpy()):
        (found, _), before = next(iter(DataLoader(ArrayDataset(values), batch_size=COUNT))), data.clone()
        found.zero_()
        assert torch.equal(data, before)


def test_what_cannot_be_gathered_is_put_together_sample_by_sample() -> None:
    """Domains of two sizes and labels that do not fit keep their named errors; sparse rows are stacked."""
    other = Domain(ArrayDataset(inputs((5,))), TARGET, told=False)
    domains = PairedDomains(Domain(ArrayDataset(inputs(), torch.arange(COUNT)), SOURCE, told=True), other, columns=1)
    assert domains.gather(torch.tensor([0, COUNT])) is None
    assert "different shapes" in batch(domains, [0, COUNT], gathers=True).message
    assert "has a label of 1 numbers" in batch(paired(columns=2), [0], gathers=True).message
    sparse = ArrayDataset(torch.eye(4).to_sparse())
    assert sparse.gather(torch.tensor([0])) is None


def test_a_collate_of_its_own_is_asked() -> None:
    def doubled(samples: list[Any]) -> tuple[Tensor, None]:
        return 2 * torch.stack([sample[0] for sample in samples]), None

    (found, _) = next(iter(DataLoader(ArrayDataset(inputs()), batch_size=COUNT, collate=doubled)))
    assert torch.equal(found, 2 * inputs())


@pytest.mark.parametrize("made", ["permuted", "transposed", "fortran", "channels last"])
def test_rows_lie_one_after_the_other_whatever_they_were_taken_from(made: str) -> None:
    data = inputs((5, 6, 3))
    values: Any = {
        "permuted": data.permute(0, 3, 1, 2),
        "transposed": data.numpy().transpose(0, 3, 1, 2),
        "fortran": np.asfortranarray(data.numpy()),
        "channels last": data.contiguous(memory_format=torch.channels_last),
    }[made]
    found = batch(ArrayDataset(values), [3, 1, 2], gathers=True)
    assert found.inputs.is_contiguous() and torch.equal(found.inputs, torch.as_tensor(values)[[3, 1, 2]])


@pytest.mark.filterwarnings("error")
def test_places_of_a_part_may_lie_anyhow() -> None:
    data = ArrayDataset(inputs(), torch.arange(COUNT))
    fixed = np.arange(COUNT)
    fixed.flags.writeable = False
    for places in (np.arange(COUNT)[::-1], fixed, [-1, 0]):
        part = Subset(data, places)
        expected = np.arange(COUNT)[places][:2].tolist()
        assert batch(part, [0, 1], gathers=True).targets.tolist() == expected
        assert part.gather(torch.tensor([0, 1])) is not None


def test_what_cannot_be_read_is_named() -> None:
    wrong = Subset(ArrayDataset(inputs()), [0, 99])
    assert "reading sample 1 (row 99) failed with IndexError" in batch(wrong, [0, 1], gathers=True).message


def test_a_class_that_reads_in_its_own_way_is_asked_for_each_sample() -> None:
    class Negated(ArrayDataset):  # type: ignore[misc]  # final, which nobody is held to
        def __getitem__(self, index: int) -> tuple[Tensor, Any]:
            sample, target = super().__getitem__(index)
            return -sample, target

    assert torch.equal(batch(Negated(inputs()), [2, 4], gathers=True).inputs, -inputs()[[2, 4]])
