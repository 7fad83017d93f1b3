"""SimOTA, its losses and the decoding of YOLOX, against the paper's equations written as plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neurenix.models.vision._simota import (
    assign,
    corners,
    decode,
    iou_loss,
    matching_cost,
    near_objects,
    overlap,
    place_grid,
)
from neurenix.models.vision._yolox_head import l1_loss

SIZES, STRIDES, CLASSES = [(8, 6), (4, 3), (2, 2)], (8, 16, 32), 3


def iou(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = width * height if width > 0 and height > 0 else 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def assigned_by_loops(
    predicted: list, logits: list, objectness: list, places: list, boxes: list, labels: list
) -> dict[int, tuple[int, float]]:
    """Place -> (object, IoU). Sec. 2.1: eq. 1 as cost, centre prior, dynamic k, cheapest object for a shared place."""
    asked, both = [], set()
    for place, (x, y, stride) in enumerate(places):
        near = False
        for number, (left, top, right, bottom) in enumerate(boxes):
            inside = left < x < right and top < y < bottom
            central = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)) < 2.5 * stride
            near = near or inside or central
            if inside and central:
                both.add((number, place))
        if near:
            asked.append(place)
    wanted: dict[int, list[tuple[float, int]]] = {}
    for number, box in enumerate(boxes):
        costs, overlaps = [], []
        for place in asked:
            overlaps.append(iou(box, predicted[place]))
            cost = -3 * math.log(overlaps[-1] + 1e-8)
            for kind in range(CLASSES):
                chance = math.sqrt(sigmoid(logits[place][kind]) * sigmoid(objectness[place]))
                cost -= math.log(chance if kind == labels[number] else 1 - chance)
            costs.append((cost + (0 if (number, place) in both else 1e5), place))
        count = max(1, int(sum(sorted(overlaps)[-10:])))
        for cost, place in sorted(costs)[:count]:
            wanted.setdefault(place, []).append((cost, number))
    chosen = {place: min(wishes)[1] for place, wishes in wanted.items()}
    return {place: (number, iou(boxes[number], predicted[place])) for place, number in chosen.items()}


def scene(seed: int, objects: int) -> tuple[Tensor, ...]:
    """Predictions near the truth for some places, so that overlaps are large enough for several places per object."""
    generator = torch.Generator().manual_seed(seed)
    grid, strides = place_grid(SIZES, STRIDES, torch.zeros((), dtype=torch.float64))
    points = (grid + 0.5) * strides[:, None]
    low = torch.rand(objects, 2, generator=generator, dtype=torch.float64) * torch.tensor([28.0, 40.0])
    boxes = torch.cat([low, low + 6 + 14 * torch.rand(objects, 2, generator=generator, dtype=torch.float64)], dim=1)
    nearest = torch.cdist(points, (boxes[:, :2] + boxes[:, 2:]) / 2).argmin(1)
    predicted = boxes[nearest] + torch.randn(len(points), 4, generator=generator, dtype=torch.float64)
    logits = torch.randn(len(points), CLASSES + 1, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (objects,), generator=generator)
    return predicted, logits[:, 1:], logits[:, 0], points, strides, boxes, labels


@pytest.mark.parametrize("seed", range(6))
def test_assignment_is_that_of_plain_loops(seed: int) -> None:
    predicted, logits, objectness, points, strides, boxes, labels = scene(seed, objects=1 + seed)
    found = assign(predicted, logits, objectness, points, strides, boxes, labels)
    places = [(*point, stride) for point, stride in zip(points.tolist(), strides.tolist(), strict=True)]
    expected = assigned_by_loops(
        predicted.tolist(), logits.tolist(), objectness.tolist(), places, boxes.tolist(), labels.tolist()
    )
    assert sorted(expected) == found.places.tolist()
    assert len(expected) > len(boxes)  # dynamic: several places answer for an object
    assert [expected[place][0] for place in found.places.tolist()] == found.objects.tolist()
    assert found.overlaps.tolist() == pytest.approx([expected[place][1] for place in found.places.tolist()])


def test_a_shared_place_goes_to_the_cheaper_object() -> None:
    """Two objects on one spot and one place there: it cannot answer for both."""
    grid, strides = place_grid([(1, 1)], (8,), torch.zeros(()))
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 7, 7]])
    found = assign(boxes[:1], torch.zeros(1, 2), torch.zeros(1), (grid + 0.5) * 8, strides, boxes, torch.tensor([0, 1]))
    assert (found.places.tolist(), found.objects.tolist()) == ([0], [0])


def test_images_without_objects_and_objects_out_of_reach() -> None:
    predicted, logits, objectness, points, strides, boxes, labels = scene(0, objects=2)
    for none in (boxes[:0], torch.tensor([[900.0, 900, 901, 901]], dtype=torch.float64)):
        found = assign(predicted, logits, objectness, points, strides, none, labels[: len(none)])
        assert found.places.numel() == found.objects.numel() == found.overlaps.numel() == 0


def test_boxes_are_decoded_as_published() -> None:
    generator = torch.Generator().manual_seed(1)
    grid, strides = place_grid(SIZES, STRIDES, torch.zeros(()))
    raw = torch.randn(1, len(grid), 4, generator=generator)
    found, place = decode(raw, grid, strides), 0
    for (height, width), stride in zip(SIZES, STRIDES, strict=True):
        for row in range(height):
            for column in range(width):
                x, y, w, h = raw[0, place].tolist()
                wanted = [(x + column) * stride, (y + row) * stride, math.exp(w) * stride, math.exp(h) * stride]
                assert found[0, place].tolist() == pytest.approx(wanted, rel=1e-5)
                box = corners(found[0, place]).tolist()
                assert box[2] - box[0] == pytest.approx(wanted[2], rel=1e-3, abs=1e-4)
                place += 1
    assert place == found.shape[1]
    targets = corners(found[0])
    assert float(l1_loss(raw[0], targets, grid, strides)) == pytest.approx(0, abs=2e-2)  # decoding, undone
    assert float(l1_loss(raw[0] + 1, targets, grid, strides)) == pytest.approx(4 * place, rel=1e-3)


def test_overlap_and_its_loss_by_hand() -> None:
    """Squares of side 2, one apart in x and y: 1 / 7. No overlap costs 1, a perfect box nothing."""
    first = torch.tensor([[0.0, 0, 2, 2]] * 3)
    second = torch.tensor([[1.0, 1, 3, 3], [5, 5, 6, 6], [0, 0, 2, 2]])
    assert overlap(first, second).tolist() == pytest.approx([1 / 7, 0, 1])
    assert iou_loss(first, second).tolist() == pytest.approx([1 - 1 / 49, 1, 0])
    boxes = torch.rand(20, 4, generator=torch.Generator().manual_seed(2)).double()
    boxes[:, 2:] += boxes[:, :2]
    for box, other in zip(boxes, boxes.flip(0), strict=True):
        assert float(overlap(box, other)) == pytest.approx(iou(box.tolist(), other.tolist()))


def test_centre_prior_by_hand() -> None:
    """Stride 8, a box 40 wide: 19 pixels from its centre is central (2.5 * 8 = 20), 21 is not, and 19 is inside too."""
    points = torch.tensor([[39.0, 20.0], [41.0, 20.0], [20.0, 20.0]])
    inside, central = near_objects(points, torch.tensor([8.0] * 3), torch.tensor([[0.0, 0, 40, 40]]))
    assert inside.tolist() == [[True, False, True]]
    assert central.tolist() == [[True, False, True]]
    inside, central = near_objects(points, torch.tensor([8.0] * 3), torch.tensor([[19.0, 19, 21, 21]]))
    assert inside.tolist() == [[False, False, True]]
    assert central.tolist() == [[True, False, True]]


def test_cost_of_certain_answers_is_finite() -> None:
    """Chances that round to 0 and 1 cost 100 nats at most, as in torch's binary cross-entropy."""
    cost = matching_cost(torch.tensor([[200.0, -200.0]]), torch.tensor([200.0]), torch.tensor([0, 1]), torch.ones(2, 1))
    assert cost[:, 0].tolist() == pytest.approx([0, 200])
