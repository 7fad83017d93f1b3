"""Pictures and tables that are something else: other decoders, bombs, paths that lead away."""

from __future__ import annotations

import io
import resource
import struct
import time
import zlib
from pathlib import Path

import pandas
import pytest
from PIL import Image

from neurenix.data import TableDataset, open_image
from neurenix.errors import NeurenixError, UnreadableSampleError

# first bytes by which Pillow would choose a decoder that nobody needs here
STARTS = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch canary) exec",
    "PDF": b"%PDF-1.4",
    "PSD": b"8BPS\0\1",
    "FITS": b"SIMPLE  =                    T",
    "FLI": b"\0\0\0\0\x12\xaf",
    "ICNS": b"icns\0\0\0\x10",
    "ICO": b"\0\0\1\0\1\0",
    "CUR": b"\0\0\2\0\1\0",
    "PCX": b"\x0a\x05\x01\x08",
    "DCX": b"\xb1\x68\xde\x3a",
    "DDS": b"DDS |\0\0\0",
    "SGI": b"\x01\xda\x01\x01",
    "SUN": b"\x59\xa6\x6a\x95",
    "PPM": b"P6 9 9 255\n" + b"\0" * 243,
    "PBM": b"P4 9 9\n" + b"\0" * 18,
    "XBM": b"#define a_width 9\n#define a_height 9\nstatic char a_bits[] = {0};",
    "XPM": b"/* XPM */\nstatic char *a[] = {",
    "MSP": b"DanM" + b"\0" * 28,
    "WAL": b"wall" * 30,
    "FTEX": b"FTEX" + b"\0" * 40,
    "BLP": b"BLP2" + b"\0" * 160,
    "BUFR": b"BUFR" + b"\0" * 20,
    "GRIB": b"GRIB\0\0\0\1",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + b"\0" * 60,
    "EMF": b"\1\0\0\0" + b"\0" * 36 + b" EMF",
    "IM": b"Image type: L\nName: a\n",
    "SPIDER": struct.pack(">27f", *([1.0] * 27)),
    "JPEG2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "AVIF": b"\0\0\0\x1cftypavif",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><!ENTITY a 'aaaa'></svg>",
    "QOI": b"qoif\0\0\0\x09\0\0\0\x09\x03\0",
}


@pytest.mark.parametrize("kind", STARTS)
def test_other_formats_are_not_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.png"
    path.write_bytes(STARTS[kind] + b"\0" * 512)
    with pytest.raises(UnreadableSampleError, match=f"{kind}.png cannot be read as an image"):
        open_image(path)


def png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def animation(frames: int) -> bytes:
    stream = io.BytesIO()
    pictures = [Image.new("P", (2, 2), number % 250) for number in range(frames)]
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:])
    return stream.getvalue()


def test_bombs_are_refused_at_once_and_take_no_memory(tmp_path: Path) -> None:
    bombs = {
        "square.png": png(12_000, 12_000, b"\0" * 1_000_000),
        "wide.png": png(100_000_000, 1, b"\0" * 1_000_000),
        "huge.png": png(2**31 - 1, 2**31 - 1, b""),
        "header.bmp": b"BM" + b"\0" * 12 + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "header.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\2\0;",
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        began = time.monotonic()
        with pytest.raises(UnreadableSampleError, match=name):
            open_image(tmp_path / name)
        assert time.monotonic() - began < 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    (tmp_path / "long.gif").write_bytes(animation(2_000))
    began = time.monotonic()
    assert open_image(tmp_path / "long.gif").size == (2, 2)
    assert time.monotonic() - began < 1


OUTSIDE = ["../secret.png", "a/../../secret.png", "a/b/../../../secret.png", "./../secret.png", "..//secret.png"]


def escapes(folder: Path) -> list[str]:
    """Forty ways to name a file outside of the root."""
    secret = folder.parent / "secret.png"
    Image.new("RGB", (4, 4)).save(secret)
    (folder / "a" / "b").mkdir(parents=True)
    links = []
    for number in range(10):
        target = [secret, folder.parent, Path("/etc/passwd"), Path("../secret.png"), Path("/")][number % 5]
        (folder / f"link{number}").symlink_to(target)
        links.append(f"link{number}" if number % 5 in (0, 2, 3) else f"link{number}/secret.png")
    absolute = [str(secret), "/etc/passwd", f"//{secret}", "/proc/self/environ", "/dev/zero"]
    deep = ["../" * depth + "etc/passwd" for depth in range(1, 16)]
    return [
        *OUTSIDE,
        *links,
        *absolute,
        *deep,
        "a/../../secret.png/",
        "a/b/../../../../etc/hostname",
        "../.",
        "..",
        "../" * 50,
    ]


def test_paths_in_a_table_stay_below_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    names = escapes(root)
    assert len(names) == 40
    for name in names:
        with pytest.raises(NeurenixError) as caught:
            TableDataset(pandas.DataFrame({"path": [name]}), input="path", kind="image", root=root)[0]
        assert "outside" in str(caught.value), name


def test_wide_and_long_tables_end_by_name(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text(",".join(f"c{i}" for i in range(200_000)) + "\n" + "1," * 199_999 + "1\n")
    (tmp_path / "line.csv").write_bytes(b"text,label\n" + b"x" * (50 << 20) + b",1\n")
    for name in ("wide.csv", "line.csv"):
        began = time.monotonic()
        try:
            TableDataset(tmp_path / name)
        except NeurenixError as error:
            assert name in str(error) or "column" in str(error)
        assert time.monotonic() - began < 90
