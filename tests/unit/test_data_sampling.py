from __future__ import annotations

import pytest
import torch

from neurenix.data import epoch_order, sample_seed
from neurenix.data.sampling import length_batches, mix, plain_batches, share_batches
from neurenix.errors import ConfigurationError


def test_mix_is_splitmix64():
    # first output of SplitMix64 for seed 0, and for seed 1234567, as published with the reference implementation
    assert mix(0) == 0xE220A8397B1DCDAF
    assert mix(1234567) == 6457827717110365317


def test_seeds_are_spread_and_depend_on_all_three():
    seeds = {sample_seed(s, e, i) for s in range(4) for e in range(10) for i in range(100)}
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**64 for seed in seeds)
    mean = sum(seeds) / len(seeds) / 2**64  # uniform: 0.5, standard error 0.0046
    assert abs(mean - 0.5) < 0.02


@pytest.mark.parametrize("count", [1, 2, 33])
def test_order_is_a_permutation_of_seed_and_epoch_alone(count):
    order = epoch_order(count, seed=3, epoch=5, shuffle=True)
    state = torch.get_rng_state()
    torch.rand(100)
    assert torch.equal(order, epoch_order(count, seed=3, epoch=5, shuffle=True))
    assert torch.equal(order.sort().values, torch.arange(count))
    torch.set_rng_state(state)


def test_order_changes_with_epoch_and_seed_and_stays_without_shuffling():
    orders = [tuple(epoch_order(20, s, e, True).tolist()) for s in range(3) for e in range(3)]
    assert len(set(orders)) == 9
    assert epoch_order(5, 1, 7, shuffle=False).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [2, 3, 8])
@pytest.mark.parametrize("count", range(4, 41, 3))
def test_processes_share_every_sample_once_in_equal_counts(count, batch, world):
    batches = plain_batches(epoch_order(count, 0, 0, True), batch * world)
    shares = [share_batches(batches, r, world, drop_last=False, size=batch * world) for r in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert all(0 < part.numel() <= batch for share in shares for part in share)
    seen = torch.cat([part for share in shares for part in share])
    assert seen.sort().values.tolist() == list(range(count))


def test_single_sample_batches_leave_the_uneven_tail_out():
    shares = [share_batches(plain_batches(torch.arange(7), 2), r, 2, drop_last=False, size=2) for r in range(2)]
    assert [[part.tolist() for part in share] for share in shares] == [[[0], [2], [4]], [[1], [3], [5]]]


def test_drop_last_drops_the_incomplete_batch():
    shares = share_batches(plain_batches(torch.arange(7), 4), 0, 2, drop_last=True, size=4)
    assert [part.tolist() for part in shares] == [[0, 2]]


def test_fewer_samples_than_processes_is_an_error():
    with pytest.raises(ConfigurationError, match="1 samples cannot be shared by 2"):
        share_batches([torch.arange(1)], 0, 2, drop_last=False, size=8)


def test_length_batches_hold_every_sample_once_and_only_neighbours_in_length():
    lengths = torch.randint(1, 100, (1000,), generator=torch.Generator().manual_seed(0))
    order = epoch_order(1000, 0, 0, True)
    batches = length_batches(order, lengths, 8, 0, 0, shuffle=True)
    assert torch.cat(batches).sort().values.tolist() == list(range(1000))
    spread = [int(lengths[b].max() - lengths[b].min()) for b in batches]
    assert sorted(spread)[len(spread) // 2] <= 3  # of 98
    means = torch.stack([lengths[b].float().mean() for b in batches])
    assert torch.corrcoef(torch.stack([means, torch.arange(len(means)).float()]))[0, 1].abs() < 0.3  # shuffled
    again = length_batches(order, lengths, 8, 0, 0, shuffle=True)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))


def test_length_batches_unshuffled_go_from_long_to_short():
    batches = length_batches(torch.arange(4), torch.tensor([3, 9, 1, 9]), 2, 0, 0, shuffle=False)
    assert [batch.tolist() for batch in batches] == [[1, 3], [0, 2]]


def test_short_samples_share_larger_batches_of_no_more_tokens_and_hardly_more_padding():
    lengths = torch.randint(3, 200, (5000,), generator=torch.Generator().manual_seed(0)).sort(descending=True).values
    batches = length_batches(torch.arange(5000), lengths, 8, 0, 0, shuffle=False)
    assert torch.cat(batches).tolist() == list(range(5000))
    assert len(batches[0]) == 8 and max(map(len, batches)) > 30
    assert all(len(batch) >= 8 for batch in batches[:-1])
    for batch in batches:
        assert len(batch) * int(lengths[batch[0]]) <= 8 * int(lengths[0])
        assert len(batch) <= 8 or int(lengths[batch[-1]]) >= 0.95 * int(lengths[batch[0]])
