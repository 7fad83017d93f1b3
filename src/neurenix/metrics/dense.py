"""Metrics of boxes, of pixels and of what is heard.

detection: predictions [{"boxes": (k, 4), "scores": (k,), "labels": (k,)}, …], corners x1 y1 x2 y2 in pixels.
transcription: two texts for each sample, what was heard and what was said.
segmentation: one class number for each pixel; 255 is no class and counts nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from ..packages import require
from ._metric import DETECTION, SEGMENTATION, TRANSCRIPTION, metric
from ._task import IGNORED, TaskKind

if TYPE_CHECKING:
    import torchmetrics


def _average_precision(task: TaskKind, num_outputs: int) -> Any:
    """COCO's evaluation, by a package that computes what pycocotools does, faster.

    Thresholds in double precision, as COCO has them: torchmetrics' own are those of float32, a little above.
    """
    require("faster_coco_eval", purpose="average precision", install="neurenix[detection]")
    from torchmetrics.detection import MeanAveragePrecision

    return MeanAveragePrecision(
        backend="faster_coco_eval",
        iou_thresholds=numpy.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=numpy.linspace(0, 1, 101).tolist(),
    )


@metric("mean_average_precision", "box_map", tasks=DETECTION, part="map")
def mean_average_precision(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Mean over classes and over IoU thresholds .50, .55, …, .95 of the average precision (COCO's AP)."""
    return _average_precision(task, num_outputs)


@metric("mean_average_precision_50", "box_map_50", tasks=DETECTION, part="map_50")
def mean_average_precision_50(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Mean over classes of the average precision at IoU .50 (Pascal VOC's AP)."""
    return _average_precision(task, num_outputs)


@metric("mean_average_recall", tasks=DETECTION, part="mar_100")
def mean_average_recall(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Mean over classes and IoU thresholds of the largest recall with 100 boxes per image (COCO's AR)."""
    return _average_precision(task, num_outputs)


@metric("mean_iou", "miou", "mean_intersection_over_union", tasks=SEGMENTATION)
def mean_iou(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Intersection over union of a class's pixels in all images together, mean over the classes that occur."""
    from torchmetrics.classification import MulticlassJaccardIndex

    return MulticlassJaccardIndex(max(num_outputs, 2), ignore_index=IGNORED, validate_args=False)


@metric("pixel_accuracy", tasks=SEGMENTATION)
def pixel_accuracy(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Share of pixels with the right class."""
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(max(num_outputs, 2), average="micro", ignore_index=IGNORED, validate_args=False)


@metric("word_error_rate", "wer", tasks=TRANSCRIPTION, higher_is_better=False, range=(0.0, float("inf")))
def word_error_rate(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """Words to be put in, left out or exchanged until what is heard is what was said, for each word that was said."""
    from torchmetrics.text import WordErrorRate

    return WordErrorRate()


@metric("character_error_rate", "cer", tasks=TRANSCRIPTION, higher_is_better=False, range=(0.0, float("inf")))
def character_error_rate(task: TaskKind, num_outputs: int) -> torchmetrics.Metric:
    """The same of characters, spaces included."""
    from torchmetrics.text import CharErrorRate

    return CharErrorRate()
