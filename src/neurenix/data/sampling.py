"""Which samples, in which order, with which randomness: pure functions of (seed, epoch, index).

Nothing here remembers anything, so a resumed run, another number of workers or another number of processes
gives the same permutation and the same augmentation of every sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigurationError

_MASK = (1 << 64) - 1
_ORDER, _BATCHES = 0x6F72646572, 0x62617463686573  # keep the streams of different uses apart
WINDOW = 50  # batches that are sorted by length together
_ALIKE = 0.95  # of a batch's longest sample, for those beyond the batch size


def mix(value: int) -> int:
    """One step of SplitMix64: a bijection of 64-bit integers in which every input bit moves every output bit.

    Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, fig. 17 (constants of
    Stafford's variant 13, as in java.util.SplittableRandom).
    """
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Seed, in [0, 2^64), of everything random that happens to sample `index` in `epoch`."""
    return mix(mix(mix(seed & _MASK) ^ (epoch & _MASK)) ^ (index & _MASK))


def epoch_order(count: int, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """Order of `count` samples in `epoch`: (count,) int64, a permutation of range(count)."""
    if not shuffle:
        return torch.arange(count)
    return torch.randperm(count, generator=_generator(seed, epoch, _ORDER))


def plain_batches(order: Tensor, size: int) -> list[Tensor]:
    """Cut `order` (n,) into consecutive batches of `size`; only the last may be smaller."""
    return list(torch.split(order, size)) if order.numel() else []


def length_batches(order: Tensor, lengths: Tensor, size: int, seed: int, epoch: int, *, shuffle: bool) -> list[Tensor]:
    """Batches of samples of similar length, so that little is padded.

    Shuffled: the order is cut into windows of 50 batches, each window is sorted by length and cut into
    batches, and its batches are shuffled; each batch is then a random draw among samples of one length.
    Unshuffled: all samples are sorted, longest first, so that the largest memory need comes first; batches of shorter
    samples hold more of them, up to the tokens of that first one, so that small ones do not idle a wide machine.
    order: (n,)   lengths: (number of samples,), in tokens   returns: batches that hold each sample of `order`
        once.
    """
    if not shuffle:
        return token_batches(order[lengths[order].argsort(descending=True, stable=True)], lengths, size)
    generator = _generator(seed, epoch, _BATCHES)
    batches: list[Tensor] = []
    for window in plain_batches(order, WINDOW * size):
        sorted_window = plain_batches(window[lengths[window].argsort(stable=True)], size)
        batches += [sorted_window[place] for place in torch.randperm(len(sorted_window), generator=generator)]
    return batches


def token_batches(order: Tensor, lengths: Tensor, size: int) -> list[Tensor]:
    """Cut `order` (n,), longest first, into batches of `size`, or of more while they stay short and alike.

    Up to the tokens that the first batch has, padded, and beyond `size` only samples of at least 95 % of the batch's
    longest, so that hardly more is padded.
    """
    sizes = lengths[order].clamp(min=1)
    falling = -sizes
    batches, start = [], 0
    while start < len(sizes):
        longest = int(sizes[start])
        alike = int(torch.searchsorted(falling, -_ALIKE * longest, right=True)) - start
        count = max(size, min(size * int(sizes[0]) // longest, alike))
        batches.append(order[start : start + count])
        start += count
    return batches


def grouped_batches(groups: Sequence[int], size: int, seed: int, epoch: int) -> list[Tensor]:
    """Batches with `size` samples of every group, or all of a smaller one; as many as the largest group fills.

    groups: sizes of the parts that the dataset consists of, one after the other. Each group begins anew in another
    order when it is through, the largest in the last batch, so that all batches are full. Within a batch the groups
    take turns, so that halves of it have both.
    """
    count = max(-(-group // size) for group in groups)
    starts = [sum(groups[:place]) for place in range(len(groups))]
    streams = []
    for place, (group, start) in enumerate(zip(groups, starts, strict=True)):
        taken = min(size, group)
        rounds = -(-count * taken // group)
        orders = [
            torch.randperm(group, generator=_generator(seed, epoch, mix(place) ^ mix(turn))) for turn in range(rounds)
        ]
        streams.append((start + torch.cat(orders)).split(taken))
    return [_in_turns([stream[place] for stream in streams]) for place in range(count)]


def _in_turns(parts: Sequence[Tensor]) -> Tensor:
    """The parts' elements, each part evenly spread over the whole."""
    places = torch.cat([(torch.arange(len(part)) + 0.5) / len(part) for part in parts])
    return torch.cat(list(parts))[places.argsort(stable=True)]


def share_batches(batches: list[Tensor], rank: int, world_size: int, *, drop_last: bool, size: int) -> list[Tensor]:
    """The part of each batch that process `rank` of `world_size` reads: every world_size-th sample.

    batches: of at least `size` samples for all processes together; at most one is incomplete.
    Every process gets the same number of batches, none of them empty, and no sample is read twice. An
    incomplete batch with fewer samples than processes takes the missing ones from a neighbour; only where the
    neighbour has none to spare (one sample per process and batch) is it left out.
    """
    if drop_last:
        batches = [batch for batch in batches if batch.numel() >= size]
    return [batch[rank::world_size] for batch in _every_process_served(batches, world_size)]


def _every_process_served(batches: list[Tensor], world_size: int) -> list[Tensor]:
    small = next((place for place, batch in enumerate(batches) if batch.numel() < world_size), None)
    if small is None:
        return batches
    if len(batches) == 1:
        raise ConfigurationError(
            f"{batches[0].numel()} samples cannot be shared by {world_size} processes; use fewer processes "
            "or more data."
        )
    neighbour = small - 1 if small else 1
    missing = world_size - batches[small].numel()
    served = list(batches)
    if batches[neighbour].numel() - missing >= world_size:
        served[small] = torch.cat([batches[small], batches[neighbour][-missing:]])
        served[neighbour] = batches[neighbour][:-missing]
    else:
        del served[small]
    return served


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(sample_seed(seed, epoch, stream) >> 1)  # torch takes 63 bits without sign
