from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from neurenix.data import ArrayDataset, DataLoader, ImageFiles, Subset, _stream, collate, padding_share
from neurenix.errors import (
    ConfigurationError,
    EmptyDatasetError,
    InputMismatchError,
    LabelMismatchError,
    SkippedSamplesWarning,
    TooManyBadSamplesError,
    UnreadableSampleError,
)


class Noise:
    """Every sample draws from all three global generators."""

    def __init__(self, count=10):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.tensor([index, torch.rand(()).item(), np.random.rand(), random.random()]), index


def by_index(batches):
    found = {}
    for batch in batches:
        found.update({int(i): tuple(row.tolist()) for i, row in zip(batch.indices, batch.inputs, strict=True)})
    return found


def test_batches_unpack_and_cover_the_data_in_order():
    loader = DataLoader(dataset=(np.arange(7.0)[:, None], list(range(7))), batch_size=3)
    assert len(loader) == 3
    seen = [(inputs.flatten().tolist(), targets.tolist()) for inputs, targets in loader]
    assert seen == [([0, 1, 2], [0, 1, 2]), ([3, 4, 5], [3, 4, 5]), ([6], [6])]


def test_each_pass_is_the_next_epoch_and_any_epoch_can_be_asked_for():
    loader = DataLoader(ArrayDataset(np.arange(20)), batch_size=20, shuffle=True)
    first, second = next(iter(loader)).indices, next(iter(loader)).indices
    assert not torch.equal(first, second)
    assert torch.equal(next(loader.batches(1)).indices, second)
    other = DataLoader(ArrayDataset(np.arange(20)), batch_size=20, shuffle=True, seed=1)
    assert not torch.equal(next(other.batches(0)).indices, first)


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    alone = by_index(DataLoader(Noise(), batch_size=4, seed=5).batches(3))
    workers = by_index(DataLoader(Noise(), batch_size=3, shuffle=True, num_workers=2, seed=5).batches(3))
    ranks = [DataLoader(Noise(), batch_size=2, seed=5).batches(3, rank=r, world_size=2) for r in range(2)]
    shared = by_index([batch for rank in ranks for batch in rank])
    assert alone == workers == shared
    assert alone != by_index(DataLoader(Noise(), batch_size=4, seed=5).batches(4))
    assert alone != by_index(DataLoader(Noise(), batch_size=4, seed=6).batches(3))
    assert len({value for row in alone.values() for value in row[1:]}) == 30


def test_the_callers_generators_are_left_as_they_were():
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(DataLoader(Noise()))
    list(DataLoader(Noise(), num_workers=1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_a_pass_can_start_in_the_middle_without_reading_what_came_before():
    read = []

    class Recorder(Noise):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    whole = list(DataLoader(Noise(), batch_size=3, shuffle=True).batches(2))
    rest = list(DataLoader(Recorder(), batch_size=3, shuffle=True).batches(2, start=2))
    assert [torch.equal(a.inputs, b.inputs) for a, b in zip(rest, whole[2:], strict=True)] == [True, True]
    assert sorted(read) == sorted(torch.cat([batch.indices for batch in whole[2:]]).tolist())


def test_workers_are_kept_between_passes_and_never_more_than_batches():
    class WhoReads(Noise):
        def __getitem__(self, index):
            return os.getpid(), index

    loader = DataLoader(WhoReads(8), batch_size=8, num_workers=4)
    pids = [set(inputs.tolist()) for inputs, _ in [*loader, *loader]]
    assert pids[0] == pids[1] and len(pids[0]) == 1
    assert os.getpid() not in pids[0]
    in_memory = DataLoader(ArrayDataset(np.zeros((8, 1))), num_workers=4)
    list(in_memory)
    assert in_memory._stream.workers == 0


def test_two_passes_at_once_and_a_pass_given_up_do_not_disturb_each_other():
    loader = DataLoader(Noise(12), batch_size=2, num_workers=1)
    both = list(zip(loader.batches(0), loader.batches(1), strict=True))
    assert all(torch.equal(a.indices, b.indices) for a, b in both)
    for _ in loader.batches(2):
        break
    assert by_index(loader.batches(0)) == by_index(DataLoader(Noise(12)).batches(0))


def test_drop_last_and_ranks():
    loader = DataLoader(Noise(11), batch_size=2, drop_last=True)
    assert len(loader) == len(list(loader)) == 5
    shares = [[b.indices.tolist() for b in loader.batches(0, rank=r, world_size=2)] for r in range(2)]
    assert shares == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    with pytest.raises(ConfigurationError, match="rank=2 of world_size=2"):
        next(loader.batches(0, rank=2, world_size=2))


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return paths


def red(image):
    return torch.from_numpy(np.array(image))[0, 0, 0].long()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_is_skipped_counted_and_listed_and_labels_stay_aligned(files, workers):
    files[3].write_bytes(b"broken")
    dataset = ImageFiles(files, list(range(10)), transform=red, on_bad="skip")
    loader = DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers)
    for _ in range(2):
        with pytest.warns(SkippedSamplesWarning, match=r"1 samples could not be read.*3\.png"):
            batches = list(loader)
        assert all(torch.equal(batch.inputs, batch.targets) for batch in batches)
        assert sum(len(batch) for batch in batches) == 9
        assert [bad.index for batch in batches for bad in batch.skipped] == [3]
    assert [(bad.index, bad.name) for bad in loader.skipped] == [(3, str(files[3]))]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_file_raises_by_name_when_asked(files, workers):
    files[3].write_bytes(b"broken")
    loader = DataLoader(ImageFiles(files, transform=red), num_workers=workers)
    with pytest.raises(UnreadableSampleError, match=r"^\S+3\.png cannot be read as an image"):
        list(loader)


def test_too_many_bad_files_stop(files):
    files[3].write_bytes(b"broken")
    files[4].unlink()
    dataset = ImageFiles(files, transform=red, on_bad="skip")
    with pytest.raises(TooManyBadSamplesError, match=r"2 unreadable samples; 1 of 10 are allowed.*3\.png.*4\.png"):
        list(DataLoader(dataset))
    with pytest.warns(SkippedSamplesWarning):
        assert sum(len(batch) for batch in DataLoader(dataset, bad_limit=0.2)) == 8


def test_a_batch_of_bad_files_only_is_not_given_out(files):
    files[2].write_bytes(b"broken")
    loader = DataLoader(ImageFiles(files, transform=red, on_bad="skip"), batch_size=1)
    with pytest.warns(SkippedSamplesWarning):
        batches = list(loader)
    assert (len(batches), [bad.index for bad in loader.skipped]) == (9, [2])


class Broken(Noise):
    on_bad = "skip"  # a mistake in code is not a bad file, and is never skipped

    def __getitem__(self, index):
        return {}["key"] if index == 5 else super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_a_dataset_names_the_sample(workers):
    with pytest.raises(
        UnreadableSampleError, match=r"reading sample 5 \(sample 5\) failed with KeyError: 'key'"
    ) as caught:
        list(DataLoader(Broken(), batch_size=2, num_workers=workers))
    assert 'return {}["key"]' in caught.value.__notes__[0]


class Deadly(Noise):
    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)

    def sample_name(self, index):
        return f"file{index}.png"


class Hanging(Deadly):
    def __getitem__(self, index):
        if index == 5:
            time.sleep(2.5)
        return Noise.__getitem__(self, index)


def test_a_worker_that_dies_names_the_sample():
    with pytest.raises(UnreadableSampleError, match=r"a data worker died while reading file5\.png"):
        list(DataLoader(Deadly(), batch_size=2, num_workers=2))


def test_a_worker_that_hangs_is_an_error():
    with pytest.raises(UnreadableSampleError, match=r"nothing for 1 s while reading file5\.png"):
        list(DataLoader(Hanging(), batch_size=2, num_workers=1, timeout=1))


def test_wrong_arguments():
    with pytest.raises(EmptyDatasetError):
        DataLoader(Noise(0))
    for arguments in ({"batch_size": 0}, {"num_workers": -1}, {"bad_limit": 2.0}, {"lengths": [1, 2]}):
        with pytest.raises(ConfigurationError, match=next(iter(arguments))):
            DataLoader(Noise(), **arguments)


def test_collate_stacks_what_it_can():
    inputs, targets = collate([({"a": torch.ones(2), "b": 1.5}, 3), ({"a": torch.zeros(2), "b": 2}, 4)])
    assert (inputs["a"].tolist(), inputs["b"].tolist(), targets.tolist()) == ([[1, 1], [0, 0]], [1.5, 2.0], [3, 4])
    assert targets.dtype == torch.int64
    assert collate([(np.float32(1), 0.5)])[1].dtype == torch.float32
    assert collate([(torch.ones(1), None)])[1] is None


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([(torch.ones(3, 4, 4), 0), (torch.ones(3, 5, 4), 0)], InputMismatchError, r"\(3, 4, 4\), \(3, 5, 4\).*Resize"),
        ([(Image.new("RGB", (2, 2)), 0)], InputMismatchError, "PIL images.*ToTensor.*model.preprocess"),
        ([("a text", 0)], InputMismatchError, "'a text'.*prepare"),
        ([(object(), 0)], InputMismatchError, "cannot hold object"),
        ([(1.0, "cat")], LabelMismatchError, "'cat'"),
        ([(1.0, 1), (1.0, None)], LabelMismatchError, "None"),
    ],
)
def test_collate_explains_what_it_cannot(samples, error, message):
    with pytest.raises(error, match=message):
        collate(samples)


def test_own_collate_is_used():
    loader = DataLoader(Noise(4), collate=lambda samples: (len(samples), None), batch_size=3)
    assert [inputs for inputs, _ in loader] == [3, 1]


def test_lengths_make_batches_of_similar_samples():
    lengths = np.random.default_rng(0).lognormal(3, 0.6, 2000).astype(int) + 2
    data = ArrayDataset(np.arange(2000))
    loader = DataLoader(data, batch_size=16, shuffle=True, lengths=lengths)
    seen = torch.cat([batch.indices for batch in loader.batches(0)])
    assert seen.sort().values.tolist() == list(range(2000))
    assert padding_share(loader) < 0.06
    assert padding_share(DataLoader(data, batch_size=16, lengths=lengths)) < 0.03  # sorted over all
    with pytest.raises(ConfigurationError, match="needs lengths"):
        padding_share(DataLoader(data))


def test_subset_keeps_lengths_for_the_loader():
    class Sized(Noise):
        lengths = np.arange(10)

    assert Subset(Sized(), [9, 0]).lengths.tolist() == [9, 0]
    assert DataLoader(Subset(Sized(), [9, 0, 5]), batch_size=3, shuffle=True).plan(0)[0].tolist() == [1, 2, 0]


def test_a_loader_works_again_after_it_lost_a_worker(tmp_path):
    class DeadlyOnce(Noise):
        def __getitem__(self, index):
            if index == 5 and not (tmp_path / "been here").exists():
                (tmp_path / "been here").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    loader = DataLoader(DeadlyOnce(), batch_size=2, num_workers=1)
    with pytest.raises(UnreadableSampleError, match="died"):
        list(loader)
    assert sum(len(batch) for batch in loader) == 10


def test_no_bad_sample_is_allowed_with_a_limit_of_zero(files):
    files[3].write_bytes(b"broken")
    with pytest.raises(TooManyBadSamplesError, match="0 of 10 are allowed"):
        list(DataLoader(ImageFiles(files, transform=red, on_bad="skip"), bad_limit=0))


def test_a_worker_that_dies_between_batches_is_reported_by_the_loader_and_nowhere_else():
    batches = iter(DataLoader(Deadly(), batch_size=1, num_workers=1))
    first = next(batches)  # now the worker reads ahead, sample 5 too
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:  # the caller's own work, while the worker reads ahead and dies
        first.inputs.sum()
    with pytest.raises(UnreadableSampleError, match=r"file5\.png"):
        list(batches)


@pytest.mark.parametrize(("count", "width", "ahead"), [(60, 1, range(33, 36)), (24, 2**17, range(7, 9))])
def test_workers_read_ahead_as_far_as_memory_holds(tmp_path, monkeypatch, count, width, ahead):
    """Batches of a few bytes, sixteen for each worker; of half a MiB, as many as four MiB hold."""
    monkeypatch.setattr(_stream, "_AHEAD", 4 * 2**20)

    class Counted(Noise):
        def __getitem__(self, index):
            (tmp_path / str(index)).touch()
            return torch.full((width,), float(index)), index

    batches = iter(DataLoader(Counted(count), batch_size=1, num_workers=2))
    first, deadline = next(batches), time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < ahead.start and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) in ahead
    assert [int(batch.inputs[0, 0]) for batch in (first, *batches)] == list(range(count))


def test_a_slow_batch_within_the_timeout_is_waited_for():
    class Slow(Noise):
        def __getitem__(self, index):
            time.sleep(1.2 if index == 1 else 0)
            return super().__getitem__(index)

    assert len(list(DataLoader(Slow(2), batch_size=1, num_workers=1, timeout=20))) == 2
