"""Features of a pretrained network know more of clip art than its pixels do."""

from __future__ import annotations

import warnings

import numpy
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neurenix.data import ImageFolder
from neurenix.demos import clipart_path
from neurenix.transfer import FeatureExtractor, load_pretrained_model


def accuracy(train: tuple[numpy.ndarray, numpy.ndarray], test: tuple[numpy.ndarray, numpy.ndarray]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn on convergence
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(*train)
    return float(classifier.score(*test))


@pytest.mark.real_weights
def test_features_beat_pixels_by_far() -> None:
    model = load_pretrained_model("efficientnet-lite0", weights="imagenet", include_top=False, pooling="avg")
    extractor = FeatureExtractor(model)
    features, pixels = [], []
    for name in ("train", "test"):
        folder = ImageFolder(clipart_path(name))
        values, targets = extractor.extract(folder, progress=False)
        assert targets is not None
        features.append((values.numpy(), targets.numpy()))
        small = [numpy.asarray(image.convert("RGB").resize((32, 32))).ravel() / 255 for image, _ in folder]
        pixels.append((numpy.stack(small), targets.numpy()))
    reached, raw = accuracy(*features), accuracy(*pixels)
    print(f"linear probe {reached:.3f}, the same on pixels {raw:.3f}")
    assert reached > raw + 0.2
