"""Selectors choose, save, load and shrink an extractor; wrong use is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from neurenix.errors import (
    ConfigurationError,
    DamagedFileError,
    InputMismatchError,
    LabelMismatchError,
    UnknownNameError,
)
from neurenix.transfer.features import SELECTIONS, FeatureExtractor, FeatureSelector

PLANTED = [3, 11, 20]


def planted(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns 3, 11 and 20 of 24 shift with the class, which also gives them the larger variance."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(240) % 3
    features = torch.randn(240, 24, generator=generator)
    for column, positive in zip(PLANTED, range(3), strict=True):
        features[:, column] += 4.0 * (targets == positive)
    return features, targets


@pytest.mark.parametrize("method", SELECTIONS)
@pytest.mark.parametrize("kind", [torch.long, torch.float])
def test_planted_columns_are_found(method: str, kind: torch.dtype) -> None:
    features, targets = planted()
    if kind == torch.float:
        targets = features[:, PLANTED]
    assert FeatureSelector(method, count=3).fit(features, targets).indices.tolist() == PLANTED


@pytest.mark.parametrize("method", ["mutual_information", "l1"])
def test_several_targets_at_once(method: str) -> None:
    features, targets = planted()
    labels = nn.functional.one_hot(targets)
    assert FeatureSelector(method, count=3).fit(features, labels).indices.tolist() == PLANTED


def test_share_and_ties() -> None:
    selector = FeatureSelector(share=0.5).fit(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    assert selector.indices.tolist() == [0, 1]  # of equal columns the first


def test_transform_keeps_the_kind() -> None:
    features, _ = planted()
    selector = FeatureSelector(count=3).fit(features)
    assert torch.equal(selector.transform(features), features[:, PLANTED])
    array = features.numpy()
    assert isinstance(selector.transform(array), numpy.ndarray)
    with pytest.raises(InputMismatchError, match="24 columns"):
        selector.transform(features[:, :5])


def test_the_index_survives_saving(tmp_path: Path) -> None:
    features, targets = planted()
    selector = FeatureSelector("mi", count=3, seed=4).fit(features, targets)
    selector.save(tmp_path / "index.json")
    loaded = FeatureSelector.load(tmp_path / "index.json")
    assert loaded.method == "mutual_information" and torch.equal(loaded.indices, selector.indices)
    assert torch.equal(loaded.transform(features), selector.transform(features))
    assert json.loads((tmp_path / "index.json").read_text())["indices"] == PLANTED


@pytest.mark.parametrize(
    "change", [{"indices": [99]}, {"indices": []}, {"format": 2}, {"width": "many"}, {"scores": {}}]
)
def test_a_damaged_index_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "index.json"
    FeatureSelector(count=3).fit(planted()[0]).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DamagedFileError, match="index"):
        FeatureSelector.load(path)


def test_an_extractor_gives_only_the_chosen_columns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    whole = FeatureExtractor(model, ["0", "1"])
    inputs = torch.randn(30, 4)
    selector = FeatureSelector(count=3).fit(whole(inputs))
    small = whole.select(selector)
    torch.testing.assert_close(small(inputs), whole(inputs)[:, selector.indices])
    widths = {name: place.stop - place.start for name, place in small.columns.items()}
    of_first = int((selector.indices < 3).sum())
    assert widths == {"0": of_first, "1": 3 - of_first}
    assert whole(inputs).shape == (30, 5)
    with pytest.raises(ConfigurationError, match="flatten=True"):
        FeatureExtractor(model, flatten=False).select(selector)


def test_wrong_use_is_named() -> None:
    features, targets = planted()
    with pytest.raises(UnknownNameError, match="variance"):
        FeatureSelector("varience", count=1)
    with pytest.raises(ConfigurationError, match="either count or share"):
        FeatureSelector()
    with pytest.raises(ConfigurationError, match="either count or share"):
        FeatureSelector(count=1, share=0.5)
    with pytest.raises(ConfigurationError, match="at least 1"):
        FeatureSelector(count=0)
    with pytest.raises(ConfigurationError, match="cannot be chosen from 24"):
        FeatureSelector(count=25).fit(features)
    with pytest.raises(ConfigurationError, match="needs targets"):
        FeatureSelector("l1", count=1).fit(features)
    with pytest.raises(LabelMismatchError, match="5 targets for 240"):
        FeatureSelector("l1", count=1).fit(features, targets[:5])
    with pytest.raises(InputMismatchError, match="NaN"):
        FeatureSelector(count=1).fit(features / 0.0)
    with pytest.raises(ConfigurationError, match="call fit"):
        FeatureSelector(count=1).transform(features)
