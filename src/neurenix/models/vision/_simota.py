"""What YOLOX learns from: decoding, the IoU loss, and SimOTA, which chooses the places that answer for each object.

Ge et al., YOLOX: Exceeding YOLO Series in 2021, arXiv:2107.08430, sec. 2.1; simplified from Ge et al., OTA: Optimal
Transport Assignment for Object Detection, CVPR 2021. Boxes are x1, y1, x2, y2 in pixels unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

CENTRE_RADIUS = 2.5  # strides from an object's centre in which places are good ones
BOX_WEIGHT = 3.0  # lambda of the cost, SimOTA's eq. 1
CANDIDATES = 10  # largest overlaps whose sum is the number of places of an object
FAR_COST = 1e5  # for places outside of the box or away from its centre: taken only where others are too few


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Which places answer for which objects of one image.

    places, objects: (p,) their numbers, each place once. overlaps: (p,) IoU of the predicted box and the object's.
    """

    places: Tensor
    objects: Tensor
    overlaps: Tensor


def place_grid(sizes: list[tuple[int, int]], strides: tuple[int, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """(places, 2) column and row of every place of maps of these sizes (height, width), and (places,) strides."""
    grids, steps = [], []
    for (height, width), stride in zip(sizes, strides, strict=True):
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grids.append(torch.stack([columns, rows], dim=2).reshape(-1, 2))
        steps.append(torch.full((height * width,), stride))
    return torch.cat(grids).to(like), torch.cat(steps).to(like)


def decode(raw: Tensor, grid: Tensor, strides: Tensor) -> Tensor:
    """Boxes of what the branch says: centre (g + t_xy) s, size exp(t_wh) s, sec. 2.1 "anchor-free".

    raw: (n, places, 4)   grid: (places, 2)   strides: (places,)   returns: (n, places, 4) cx, cy, w, h in pixels
    """
    centres = (raw[..., :2] + grid) * strides[:, None]
    return torch.cat([centres, raw[..., 2:].exp() * strides[:, None]], dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """(…, 4) cx, cy, w, h -> x1, y1, x2, y2."""
    centres, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (…, 4) with boxes (…, 4), broadcast: (…), in [0, 1]."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-16)


def iou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - IoU^2 of boxes (k, 4) each: (k,) in [0, 1].

    Yu et al., UnitBox, ACM Multimedia 2016, in the squared form of YOLOX's published training.
    """
    return 1 - overlap(predicted, wanted).square()


def near_objects(points: Tensor, strides: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Where the centres of places lie: (objects, places) bool in the box, and in the square around its centre.

    points: (places, 2) x, y in pixels   strides: (places,)   boxes: (objects, 4)
    The square reaches CENTRE_RADIUS strides of the place to each side.
    """
    inside = ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(-1)
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    central = ((points - centres).abs() < CENTRE_RADIUS * strides[:, None]).all(-1)
    return inside, central


def matching_cost(class_logits: Tensor, objectness: Tensor, labels: Tensor, overlaps: Tensor) -> Tensor:
    """c_ij = L_cls + lambda L_reg, eq. 1 of sec. 2.1: (objects, places).

    L_cls: binary cross-entropy, summed over classes, of sqrt(P(class) P(object)). L_reg: -log IoU.
    class_logits: (places, classes)   objectness: (places,) logits   labels: (objects,)   overlaps: (objects, places)
    """
    chance = (class_logits.sigmoid() * objectness.sigmoid()[:, None]).sqrt()
    yes, no = (-part.log().clamp(min=-100) for part in (chance, 1 - chance))  # clamped as torch's own loss does
    class_cost = no.sum(1) + (yes - no)[:, labels].T
    return class_cost - BOX_WEIGHT * (overlaps + 1e-8).log()


@torch.no_grad()
def assign(
    predicted: Tensor,
    class_logits: Tensor,
    objectness: Tensor,
    points: Tensor,
    strides: Tensor,
    boxes: Tensor,
    labels: Tensor,
) -> Assignment:
    """SimOTA for one image.

    predicted: (places, 4)   class_logits: (places, classes)   objectness: (places,) logits   points: (places, 2)
    strides: (places,)   boxes: (objects, 4)   labels: (objects,)
    Only places in a box or near a centre are asked. An object gets its k cheapest ones, k the whole part of the sum of
    its ten largest IoUs, at least one. A place that several objects want goes to the one for which it costs least.
    """
    inside, central = near_objects(points, strides, boxes)
    asked = (inside | central).any(0).nonzero().flatten()
    if not len(asked):
        return Assignment(places=asked, objects=asked, overlaps=strides[:0])
    overlaps = overlap(boxes[:, None], predicted[asked])
    cost = matching_cost(class_logits[asked], objectness[asked], labels, overlaps)
    cost = cost + FAR_COST * ~(inside & central)[:, asked]
    wanted = _cheapest(cost, overlaps)
    contested = wanted.sum(0) > 1
    wanted[:, contested] = functional.one_hot(cost[:, contested].argmin(0), len(boxes)).T.bool()
    taken = wanted.any(0)
    objects = wanted.float().argmax(0)[taken]
    return Assignment(places=asked[taken], objects=objects, overlaps=overlaps[objects, taken.nonzero().flatten()])


def _cheapest(cost: Tensor, overlaps: Tensor) -> Tensor:
    """(objects, places) bool: the dynamic number of cheapest places of each object."""
    counts = overlaps.topk(min(CANDIDATES, overlaps.shape[1]), dim=1).values.sum(1).int().clamp(min=1)
    order = cost.argsort(dim=1, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(cost.shape[1], device=cost.device).expand_as(order))
    return ranks < counts[:, None]
