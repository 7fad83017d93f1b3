"""Order samples of an unordered pool by how far each of them is on the way from the source to the target."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
from torch import Tensor

from .... import packages
from ....registry import Registry
from .shift import positions

# (features of the source (n, d), of the target (m, d), of the pool (p, d)) -> (p,), 0 at the source and 1 at the target
ORDERS: Registry[Callable[[Tensor, Tensor, Tensor], Tensor]] = Registry("order of a pool")
_NEIGHBOURS = 10


@ORDERS.register("geodesic")
def geodesic_progress(source: Tensor, target: Tensor, pool: Tensor) -> Tensor:
    """d(source) / (d(source) + d(target)), d the length of the shortest way from sample to sample over near neighbours.

    The way follows the samples, so a domain that turns (a picture that is rotated) is measured along its turn, as in
    Isomap (Tenenbaum, de Silva & Langford, Science 290, 2000). Each sample is joined to its 10 nearest ones, and to
    more where the pool would fall apart. (n, d), (m, d), (p, d) -> (p,), in [0, 1]
    """
    csgraph = packages.require("scipy.sparse.csgraph", purpose="ordering a pool", install="scipy")
    neighbours = packages.require("sklearn.neighbors", purpose="ordering a pool", install="scikit-learn")
    samples = torch.cat([source, pool, target]).double().numpy()
    ends = numpy.arange(len(source)), numpy.arange(len(source) + len(pool), len(samples))
    joined = min(_NEIGHBOURS, len(samples) - 1)
    while True:
        graph = neighbours.kneighbors_graph(samples, joined, mode="distance")
        graph.data = numpy.maximum(graph.data, numpy.finfo(float).tiny)  # a zero would be no edge
        lengths = [csgraph.dijkstra(graph, directed=False, indices=end, min_only=True) for end in ends]
        if joined == len(samples) - 1 or all(numpy.isfinite(length).all() for length in lengths):
            break
        joined = min(2 * joined, len(samples) - 1)
    from_source, from_target = (torch.from_numpy(length[len(source) : ends[1][0]]) for length in lengths)
    return from_source / (from_source + from_target)


@ORDERS.register("domain_score")
def domain_score(source: Tensor, target: Tensor, pool: Tensor) -> Tensor:
    """What a linear classifier of source and target says of each sample: see positions.

    The coarse order of Chen & Chao, Gradual Domain Adaptation without Indexed Intermediate Domains, NeurIPS 2021,
    section 4.1, with one classifier. (n, d), (m, d), (p, d) -> (p,)
    """
    return positions(source, target, [pool]).windows[0]
