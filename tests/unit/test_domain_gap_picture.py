"""The picture of two domains: that it is written whole, and its projections."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from sklearn.decomposition import PCA

from neurenix.errors import ConfigurationError, UnknownNameError
from neurenix.report import plot_domain_gap
from neurenix.report.domain_gap import PROJECTIONS
from neurenix.transfer.adaptation.selection import Evidence


def evidence(shift: float, classes: int = 8) -> Evidence:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(40) % classes
    rows = torch.randn(90, 6, generator=generator)
    return Evidence(
        task="multi_class",
        source_features=rows[:40],
        source_outputs=torch.randn(40, classes, generator=generator),
        source_targets=targets,
        target_features=rows[40:] + shift,
        target_outputs=torch.randn(50, classes, generator=generator),
    )


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_picture_is_written(projection: str, tmp_path: Path) -> None:
    path = tmp_path / "gap.png"
    plot_domain_gap(path, evidence(3.0), evidence(0.0), projection=projection, names=["cat", "dog"], title="digits")
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert [other.name for other in tmp_path.iterdir()] == ["gap.png"]


def test_principal_components_are_sklearns() -> None:
    features = evidence(2.0).target_features.double().numpy()
    ours, theirs = PROJECTIONS["pca"](features, 0), PCA(2).fit_transform(features)
    numpy.testing.assert_allclose(abs(ours), abs(theirs), atol=1e-8)  # a direction's sign is free


def test_one_feature_is_drawn_on_a_line() -> None:
    assert PROJECTIONS["pca"](numpy.arange(5.0)[:, None], 0).shape == (5, 2)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="projection of features 'umap'"):
        plot_domain_gap(tmp_path / "gap.png", evidence(1.0), evidence(0.0), projection="umap")
    with pytest.raises(ConfigurationError, match="3 classes for 50 target samples"):
        plot_domain_gap(tmp_path / "gap.png", evidence(1.0), evidence(0.0), target_classes=[0, 1, 2])
    assert not list(tmp_path.iterdir())
