"""R16: damage that still decodes is found by the manifest of the data."""

from __future__ import annotations

import json
import os
import random

import numpy as np
import pytest
from PIL import Image

from neurenix.data import DataLoader, ImageFiles, ImageFolder, open_image, write_data_manifest
from neurenix.errors import DataManifestError, SkippedSamplesWarning, UnreadableSampleError

COUNT = 500 if os.environ.get("NEURENIX_PROVE") else 50


def photo(number):
    """A 16 x 16 picture with a hill of a colour of its own, as JPEG compresses well."""
    rows, columns = np.mgrid[0:16, 0:16]
    shade = (rows * 7 + columns * 5 + number * 11) % 256
    return Image.fromarray(np.stack([shade, 255 - shade, np.full_like(shade, number % 256)], axis=2).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    for number in range(COUNT):
        path = tmp_path / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        photo(number).save(path, quality=90)
    write_data_manifest(tmp_path)
    return tmp_path


def flip_a_bit(path, generator):
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def red(image):
    return np.asarray(image)[0, 0, 0].item()


def test_undamaged_files_are_read(folder):
    dataset = ImageFolder(folder, red, verify=True)
    assert [dataset[index] for index in range(COUNT)] == [
        (red(open_image(path)), target) for path, target in zip(dataset.paths, dataset.targets.tolist(), strict=True)
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_flipped_bit_is_found_also_where_the_image_still_decodes(folder, workers):
    generator = random.Random(16)
    paths = sorted(folder.glob("*/*.jpg"))
    for path in paths:
        flip_a_bit(path, generator)
    assert sum(decodes(path) for path in paths) > 0.5 * COUNT  # so it is not the decoder that finds them
    dataset = ImageFolder(folder, red, verify=True, on_bad="skip")
    loader = DataLoader(dataset, batch_size=50, num_workers=workers, bad_limit=1.0)
    with pytest.warns(SkippedSamplesWarning):
        assert list(loader) == []
    assert [bad.name for bad in loader.skipped] == dataset.paths
    assert all(f"{bad.name} changed since" in bad.reason for bad in loader.skipped)


def decodes(path):
    try:
        open_image(path)
    except UnreadableSampleError:
        return False
    return True


def test_equal_size_and_time_do_not_hide_a_change(folder):
    path = folder / "cats" / "0.jpg"
    before = path.stat()
    flip_a_bit(path, random.Random(0))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UnreadableSampleError, match=r"0\.jpg changed since .*data-manifest\.json was written"):
        ImageFolder(folder, verify=True)[0]


def test_a_file_that_came_or_went_is_an_unreadable_sample(folder):
    (folder / "dogs" / "1.jpg").unlink()
    photo(7).save(folder / "cats" / "new.jpg")
    dataset = ImageFolder(folder, red, verify=True, on_bad="skip")
    loader = DataLoader(dataset, bad_limit=0.1)
    with pytest.warns(SkippedSamplesWarning):
        assert sum(len(batch) for batch in loader) == COUNT - 1
    reasons = {os.path.basename(bad.name): bad.reason for bad in loader.skipped}
    assert reasons.keys() == {"1.jpg", "new.jpg"}
    assert "no such file" in reasons["1.jpg"] and "is not in" in reasons["new.jpg"]


def test_lists_of_files_are_compared_too(folder):
    paths = [folder / "cats" / "0.jpg", folder / "dogs" / "1.jpg"]
    dataset = ImageFiles(paths, verify=True)
    assert dataset[0][0].size == dataset[1][0].size == (16, 16)
    flip_a_bit(paths[1], random.Random(1))
    with pytest.raises(UnreadableSampleError, match=r"1\.jpg changed since"):
        dataset[1]


def test_a_missing_manifest_says_how_to_write_it(tmp_path):
    (tmp_path / "cats").mkdir()
    photo(0).save(tmp_path / "cats" / "0.jpg")
    with pytest.raises(DataManifestError, match=r"neurenix\.data\.write_data_manifest\('.*'\)"):
        ImageFolder(tmp_path, verify=True)
    with pytest.raises(DataManifestError, match="is no folder"):
        write_data_manifest(tmp_path / "nowhere")


HOSTILE = {
    "empty": b"",
    "cut": b'{"format": "neurenix data manifest 1", "files": {"a.jpg": {"si',
    "no text": b"\xff\xfe\x00\x00",
    "deep": b"[" * 200_000,
    "list": b"[]",
    "number": b"1" * 10_000,
    "another format": b'{"format": "other", "files": {}}',
    "no files": b'{"format": "neurenix data manifest 1", "files": 3}',
    "absolute": {"/etc/passwd": {"size": 1, "sha256": "0"}},
    "outside": {"cats/../../x.jpg": {"size": 1, "sha256": "0"}},
    "NUL": {"cats/\0.jpg": {"size": 1, "sha256": "0"}},
    "nameless": {"": {"size": 1, "sha256": "0"}},
    "size": {"cats/0.jpg": {"size": True, "sha256": "0"}},
    "hash": {"cats/0.jpg": {"size": 1, "sha256": None}},
    "entry": {"cats/0.jpg": []},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_manifests_are_named_errors(kind, folder):
    content = HOSTILE[kind]
    if isinstance(content, dict):
        content = json.dumps({"format": "neurenix data manifest 1", "files": content}).encode()
    (folder / "data-manifest.json").write_bytes(content)
    with pytest.raises(DataManifestError, match=r"data-manifest\.json .*write_data_manifest"):
        ImageFolder(folder, verify=True)


def test_damaged_manifests_are_errors_or_find_everything_else(folder):
    path, generator = folder / "data-manifest.json", random.Random(5)
    whole = path.read_bytes()
    for _ in range(COUNT):
        content = bytearray(whole)
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        try:
            dataset = ImageFolder(folder, red, verify=True, on_bad="skip")
        except DataManifestError:
            continue
        refused = sum(not reads(dataset, index) for index in range(len(dataset)))
        assert 0 <= refused <= 2  # the entry that was hit: a file of another name or hash


def reads(dataset, index):
    try:
        dataset[index]
    except UnreadableSampleError:
        return False
    return True


def test_pipes_and_names_that_are_no_text_do_not_disturb(folder):
    os.mkfifo(folder / "cats" / "pipe.jpg")
    (folder / "cats" / os.fsdecode(b"\xff\xfe.jpg")).write_bytes((folder / "cats" / "0.jpg").read_bytes())
    write_data_manifest(folder)
    dataset = ImageFolder(folder, red, verify=True)
    strange = next(index for index, path in enumerate(dataset.paths) if os.fsencode(path).endswith(b"\xff\xfe.jpg"))
    assert reads(dataset, strange)
    pipe = next(index for index, path in enumerate(dataset.paths) if path.endswith("pipe.jpg"))
    with pytest.raises(UnreadableSampleError, match=r"pipe\.jpg cannot be read as an image: it is no regular file"):
        dataset[pipe]
