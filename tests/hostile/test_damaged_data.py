"""R14 and R15: damaged and hostile files are read, or left out and listed; they stop nothing, and labels stay right."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zlib

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from neurenix.data import DataLoader, ImageFiles, ImageFolder, Subset, TableDataset, as_dataset, skipped_lines
from neurenix.errors import (
    ConfigurationError,
    NeurenixError,
    SkippedSamplesWarning,
    TooManyBadSamplesError,
    UnreadableSampleError,
)

# what Pillow says besides, of a bomb and of damaged metadata
pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SCALE = 1 if os.environ.get("NEURENIX_PROVE") else 10
GOOD, BAD = 5000 // SCALE, 1000 // SCALE
CLASSES = 8
ENDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "TIFF": "tif", "GIF": "gif"}


def picture(label):
    """16 x 16, in a grey that tells the class: label = f(content), also after lossy compression."""
    return Image.new("RGB", (16, 16), (shade(label),) * 3)


def shade(label):
    return 16 + 32 * label


def label_of(image):
    return round((np.asarray(image, dtype=np.float32).mean().item() - 16) / 32)


def encoded(image, kind, **settings):
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


# --- good files that are unusual --------------------------------------------------------------------------------------


def animated(label):
    frames = [picture(label), picture((label + 1) % CLASSES)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


def sixteen_bits(label):
    return encoded(Image.fromarray(np.full((16, 16), shade(label) << 8, dtype=np.uint16)), "PNG")


UNUSUAL = {
    "animated.gif": animated,
    "sixteen_bits.png": sixteen_bits,
    "cmyk.jpg": lambda label: encoded(picture(label).convert("CMYK"), "JPEG"),
    "palette.png": lambda label: encoded(picture(label).convert("P"), "PNG"),
    "grey.png": lambda label: encoded(picture(label).convert("L"), "PNG"),
    "grey.jpg": lambda label: encoded(picture(label).convert("L"), "JPEG"),
    "alpha.png": lambda label: encoded(picture(label).convert("RGBA"), "PNG"),
    "alpha.webp": lambda label: encoded(picture(label).convert("RGBA"), "WEBP"),
    "cmyk.tif": lambda label: encoded(picture(label).convert("CMYK"), "TIFF"),
    "png_named.jpg": lambda label: encoded(picture(label), "PNG"),
}


# --- damaged and hostile files ----------------------------------------------------------------------------------------
# Each writes a file of one kind at `path`, whose name has the right end; `whole` is a good file's content.


def truncated(path, whole, generator):
    path.write_bytes(whole[: generator.randrange(1, len(whole))])


def bits_flipped(path, whole, generator):
    content = bytearray(whole)
    for _ in range(generator.choice([1, 4, 32])):
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.write_bytes(content)


def empty(path, whole, generator):
    path.touch()


def wrong_magic(path, whole, generator):
    path.write_bytes(generator.randbytes(12) + whole[12:])


def noise(path, whole, generator):
    path.write_bytes(generator.randbytes(generator.randrange(1, 4096)))


def text(path, whole, generator):
    path.write_text("import os; os.system('touch executed')\n" * 20)


def script(path, whole, generator):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file closefile\n")


def pickled(path, whole, generator):
    path.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")


def page(path, whole, generator):
    path.write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>executed</script></svg>")


def folder(path, whole, generator):
    path.mkdir()


def dangling_link(path, whole, generator):
    path.symlink_to(path.parent / "nothing")


def circular_link(path, whole, generator):
    path.symlink_to(path)


def pipe(path, whole, generator):
    os.mkfifo(path)


def endless_device(path, whole, generator):
    path.symlink_to("/dev/zero")


def bomb(path, whole, generator):
    side = generator.choice([9_500, 60_000, 2**31 - 1])  # 90 million pixels and more, in 80 bytes
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def forbidden(path, whole, generator):
    path.write_bytes(whole)
    path.chmod(0)


DAMAGES = [
    truncated, truncated, truncated, bits_flipped, bits_flipped, empty, wrong_magic, noise, text, script, pickled, page,
    folder, dangling_link, circular_link, pipe, endless_device, bomb,
]  # fmt: skip
MAY_BE_READ = {truncated, bits_flipped}  # some of these decode, with the content of the file or nearly so
if os.geteuid() != 0:  # the superuser may read everything
    DAMAGES.append(forbidden)


def write_files(root, generator):
    """(paths, labels, what was done to each) of good, unusual and damaged files, mixed."""
    plan = [None] * GOOD + [DAMAGES[number % len(DAMAGES)] for number in range(BAD)]
    generator.shuffle(plan)
    whole = {(kind, label): encoded(picture(label), kind) for kind in ENDS for label in range(CLASSES)}
    paths, labels = [], []
    for number, damage in enumerate(plan):
        kind, label = generator.choice(list(ENDS)), generator.randrange(CLASSES)
        path = root / f"class {label}" / f"{number}.{ENDS[kind]}"
        path.parent.mkdir(exist_ok=True)
        if damage is not None:
            damage(path, whole[kind, label], generator)
        elif number % 10 == 0:
            name = generator.choice(list(UNUSUAL))
            path = path.with_name(f"{number}-{name}")
            path.write_bytes(UNUSUAL[name](label))
        else:
            path.write_bytes(whole[kind, label])
        paths.append(path)
        labels.append(label)
    return paths, labels, plan


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixed")
    return root, *write_files(root, random.Random(14))


def to_label(image):
    return torch.tensor(label_of(image))


def read(loader, epoch=0, **shares):
    """{index: (label by content, target)} of a pass, and its batches."""
    with pytest.warns(SkippedSamplesWarning):
        batches = list(loader.batches(epoch, **shares))
    rows = {}
    for batch in batches:
        if not batch.stand_in:
            rows |= dict(
                zip(
                    batch.indices.tolist(), zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True), strict=True
                )
            )
    return rows, batches


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_and_hostile_files_are_left_out_and_listed(mixed, workers):
    root, paths, labels, plan = mixed
    dataset = ImageFiles(paths, labels, transform=to_label, on_bad="skip")
    loader = DataLoader(dataset, batch_size=32, shuffle=True, num_workers=workers, bad_limit=0.2, timeout=10)
    rows, _ = read(loader)
    listed = {bad.index: bad for bad in loader.skipped}
    assert rows.keys() | listed.keys() == set(range(len(plan))) and not rows.keys() & listed.keys()
    for index, damage in enumerate(plan):
        if damage is None:
            assert rows[index] == (labels[index], labels[index]), paths[index]
        elif damage not in MAY_BE_READ:
            assert index in listed, f"{damage.__name__}: {paths[index]}"
        if index in listed:
            assert listed[index].name == str(paths[index]) and str(paths[index]) in listed[index].reason
    assert all(target == labels[index] for index, (_, target) in rows.items())
    assert not list(root.rglob("executed")) and not os.path.exists("executed")


def test_the_list_is_lines_of_json(mixed):
    _, paths, labels, _ = mixed
    loader = DataLoader(ImageFiles(paths, labels, transform=to_label, on_bad="skip"), bad_limit=0.2)
    read(loader)
    lines = [json.loads(line) for line in skipped_lines(loader.skipped).splitlines()]
    assert [(line["index"], line["name"], line["reason"]) for line in lines] == [
        (bad.index, bad.name, bad.reason) for bad in loader.skipped
    ]


def test_the_same_samples_are_skipped_in_every_epoch_process_and_number_of_workers(mixed):
    _, paths, labels, plan = mixed
    chosen = range(0, len(paths), max(1, len(paths) // 600))
    dataset = Subset(ImageFiles(paths, labels, transform=to_label, on_bad="skip"), list(chosen))

    def skipped(epoch, workers, processes):
        found, steps = set(), []
        for rank in range(processes):
            loader = DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers, bad_limit=1.0)
            rows, batches = read(loader, epoch, rank=rank, world_size=processes)
            for index, (content, target) in rows.items():
                assert target == labels[chosen[index]]
                assert content == target or plan[chosen[index]] in MAY_BE_READ
            steps.append(len(batches))
            found |= {bad.index for bad in loader.skipped}
        assert len(set(steps)) == 1 or processes == 1
        return found

    once = skipped(0, 0, 1)
    assert once
    assert all(skipped(*case) == once for case in [(1, 0, 1), (0, 2, 1), (0, 0, 2), (3, 0, 3), (0, 1, 2)])


def test_a_process_whose_whole_share_is_bad_stays_in_step(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(b"" if number in (2, 3, 11) else encoded(picture(number % CLASSES), "PNG"))
    dataset = ImageFiles(paths, [n % CLASSES for n in range(12)], transform=to_label, on_bad="skip")
    steps = []
    for rank in range(2):
        loader = DataLoader(dataset, batch_size=1, bad_limit=0.5)
        rows, batches = read(loader, rank=rank, world_size=2)
        steps.append([batch.place for batch in batches])
        assert rows.keys() == {n for n in range(rank, 12, 2)} - {2, 3, 11}
        for batch in (batch for batch in batches if batch.stand_in):
            (rest,) = [
                b for b in read(loader, rank=rank, world_size=2, start=batch.place - 1)[1] if b.place == batch.place
            ]
            assert torch.equal(rest.indices, batch.indices) and len(batch) == 1  # a resumed pass has the same one
    assert steps == [[1, 2, 3, 4, 5, 6]] * 2


def test_too_many_bad_files_stop_with_their_names(mixed):
    _, paths, labels, plan = mixed
    dataset = ImageFiles(paths, labels, transform=to_label, on_bad="skip")
    allowed = max(1, int(0.01 * len(paths)))
    for workers in (0, 2):
        with pytest.raises(TooManyBadSamplesError, match=rf"; {allowed} of {len(paths)} are allowed"):
            list(DataLoader(dataset, num_workers=workers))


def test_without_on_bad_the_first_bad_file_is_named(mixed):
    _, paths, labels, plan = mixed
    first = next(i for i, damage in enumerate(plan) if damage is not None and damage not in MAY_BE_READ)
    with pytest.raises(UnreadableSampleError) as caught:
        list(DataLoader(ImageFiles(paths[: first + 1], labels[: first + 1], transform=to_label), num_workers=1))
    assert any(str(path) in str(caught.value) for path in paths[: first + 1])


def test_a_user_who_gives_a_folder_says_it_to_the_loader(tmp_path):
    for number in range(20):
        path = tmp_path / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if number < 2 else encoded(picture(number % 2), "PNG"))
    loader = DataLoader(tmp_path, collate=lambda samples: (torch.tensor([label_of(s[0]) for s in samples]), None),
                        on_bad="skip", bad_limit=0.1)  # fmt: skip
    with pytest.warns(SkippedSamplesWarning):
        assert sum(len(batch) for batch in loader) == 18
    assert as_dataset(str(tmp_path), on_bad="skip").on_bad == "skip"
    with pytest.raises(ConfigurationError, match=r"ImageFolder\(…, on_bad='skip'\)"):
        as_dataset(ImageFolder(tmp_path), on_bad="skip")


def test_file_names_that_are_no_text_can_be_listed(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\n\xfe.png"
    with open(path, "wb"):
        pass
    loader = DataLoader(ImageFiles([os.fsdecode(path)], transform=to_label, on_bad="skip"))
    with pytest.warns(SkippedSamplesWarning):
        list(loader)
    (line,) = skipped_lines(loader.skipped).splitlines()
    assert os.fsencode(json.loads(line)["name"]) == path


# --- tables -----------------------------------------------------------------------------------------------------------


def text_of(label, number):
    return f"text {number} of class {label}"


def class_in(text):
    return torch.tensor(int(text.rpartition(" ")[2]))


TOO_MANY, BROKEN, LABELLESS, UNFILLED = (
    b"one,two,3\n",
    b"broken \xff\xfe utf-8 0,0\n",
    b"a text without a label 0\n",
    b",0\n",
)
BAD_ROWS = [TOO_MANY, BROKEN, LABELLESS, UNFILLED]


def write_csv(path, generator, *, first=None):
    """The kind of each row, in a CSV file with one bad row in six; None is a good one."""
    kinds = [None] * GOOD + [BAD_ROWS[number % 4] for number in range(BAD)]
    generator.shuffle(kinds)
    if first is not None:
        kinds[0] = first
    rows = [
        f"{text_of(n % CLASSES, n)},{n % CLASSES}\n".encode() if kind is None else kind for n, kind in enumerate(kinds)
    ]
    path.write_bytes(b"text,label\n" + b"".join(rows))
    return kinds


@pytest.mark.parametrize("first", [None, TOO_MANY, BROKEN])
def test_bad_rows_of_a_csv_file_are_left_out_and_listed(tmp_path, first):
    kinds = write_csv(tmp_path / "texts.csv", random.Random(2), first=first)
    with pytest.warns(SkippedSamplesWarning, match=r"rows of texts\.csv were left out"):
        dataset = TableDataset(tmp_path / "texts.csv", transform=class_in, on_bad="skip")
    assert dataset.targets.dtype == np.int64
    loader = DataLoader(dataset, batch_size=32, shuffle=True, bad_limit=0.5)
    rows, _ = read(loader)
    assert len(rows) == sum(kind is None for kind in kinds)
    assert all(content == target for content, target in rows.values())
    bad = {number for number, kind in enumerate(kinds) if kind is not None}
    assert {int(sample.name.rpartition(" ")[2]) for sample in loader.skipped} == bad
    assert len(loader.skipped) == len(bad) and all(sample.reason for sample in loader.skipped)


def test_rows_that_were_left_out_count_towards_the_limit(tmp_path):
    write_csv(tmp_path / "texts.csv", random.Random(2))
    with pytest.warns(SkippedSamplesWarning):
        dataset = TableDataset(tmp_path / "texts.csv", transform=class_in, on_bad="skip")
    with pytest.raises(TooManyBadSamplesError, match=r"texts\.csv row"):
        next(iter(DataLoader(Subset(dataset, range(100)))))


def test_a_bad_row_is_named_without_on_bad(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text,label\ngood,1\n" + TOO_MANY)
    with pytest.raises(UnreadableSampleError, match=r"a\.csv row 1 has 3 fields where the header has 2 \(line 3\)"):
        TableDataset(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"text,label\n" + TOO_MANY + b"good,1\n")
    with pytest.raises(UnreadableSampleError, match=r"b\.csv row 0 has 3 fields"):  # pandas alone shifts all columns
        TableDataset(tmp_path / "b.csv")


def test_unusual_csv_files_are_read(tmp_path):
    long = "x" * 200_000
    lines = ["\ufefftext,label", f'"{long}",1', '"two\nlines, and ""quotes""",0', "", "tail,1,,", "NUL \0 inside,0"]
    (tmp_path / "a.csv").write_bytes("\r\n".join(lines).encode())
    dataset = TableDataset(tmp_path / "a.csv")
    assert [dataset[i] for i in range(4)] == [
        (long, 1), ('two\nlines, and "quotes"', 0), ("tail", 1), ("NUL \0 inside", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("end", [".csv", ".parquet"])
def test_damaged_tables_are_read_or_named_errors(tmp_path, end):
    generator = random.Random(3)
    frame = pandas.DataFrame(
        {"text": [text_of(n % CLASSES, n) for n in range(60)], "label": [n % CLASSES for n in range(60)]}
    )
    whole = frame.to_csv(index=False).encode() if end == ".csv" else frame.to_parquet()
    path, named = tmp_path / f"table{end}", 0
    for number in range(max(BAD, 100)):
        damage = [truncated, bits_flipped, noise, wrong_magic, empty, pickled, text][number % 7]
        path.unlink(missing_ok=True)
        damage(path, whole, generator)
        try:
            for on_bad in ("skip", "raise"):
                rows_of(path, on_bad)
        except NeurenixError as error:
            named += path.name in str(error) or "column" in str(error)
    assert named > 0.5 * max(BAD, 100)


def rows_of(path, on_bad):
    try:
        dataset = TableDataset(path, input="text", target="label", on_bad=on_bad)
    except SkippedSamplesWarning as warning:  # pytest makes errors of warnings
        assert path.name in str(warning)
        return
    for index in range(len(dataset)):
        dataset[index]


@pytest.mark.parametrize("size", [1, 4, 8, 100])
def test_truncated_parquet_files_are_named(tmp_path, size):
    content = pandas.DataFrame({"text": ["a"] * 50, "label": [1] * 50}).to_parquet()
    (tmp_path / "cut.parquet").write_bytes(content[:-size])
    with pytest.raises(NeurenixError, match=r"cut\.parquet cannot be read as a table"):
        TableDataset(tmp_path / "cut.parquet")


def test_a_table_of_images_skips_rows_and_files(tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(b"" if number == 3 else encoded(picture(number), "PNG"))
    rows = ["path,label", "0.png,0", "1.png,1,7,8", "2.png,2", "3.png,3", "4.png,4", "no\0where.png,5", ",5", "5.png,"]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    with pytest.warns(SkippedSamplesWarning, match="2 rows"):
        dataset = TableDataset(tmp_path / "table.csv", transform=to_label, on_bad="skip")
    loader = DataLoader(dataset, bad_limit=1.0)
    found, _ = read(loader)
    assert sorted(found.values()) == [(0, 0), (2, 2), (4, 4)]
    assert len(loader.skipped) == 5
