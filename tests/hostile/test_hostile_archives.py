"""Archives that want to write elsewhere, or everything: refused by name, and nothing is left of them."""

from __future__ import annotations

import io
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from PIL import Image

from neurenix import archives
from neurenix.archives import extract, unpacked
from neurenix.data import as_dataset
from neurenix.errors import DamagedFileError, UnsafeFileError

NAMES = [
    "../escape",
    "a/../../escape",
    "/absolute",
    "//double",
    "..\\escape",
    "a\\..\\..\\escape",
    "C:\\escape",
    "C:escape",
    "\\\\server\\share",
    "..",
    "a/..",
    "./../escape",
    "new\nline",
    "nul\x01byte",
    "x" * 300,
    "/".join(["deep"] * 400),
]
KINDS = {
    "symlink": (tarfile.SYMTYPE, "/etc/passwd"),
    "symlink inside": (tarfile.SYMTYPE, "good"),
    "hardlink": (tarfile.LNKTYPE, "/etc/passwd"),
    "hardlink inside": (tarfile.LNKTYPE, "good"),
    "character device": (tarfile.CHRTYPE, ""),
    "block device": (tarfile.BLKTYPE, ""),
    "fifo": (tarfile.FIFOTYPE, ""),
}
CLASHES = [("A.txt", "a.txt"), ("caf\u00e9", "cafe\u0301"), ("same", "same"), ("Straße", "STRASSE")]


def make_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("good", *names):
            entry = zipfile.ZipInfo("x")
            entry.filename = entry.orig_filename = name
            archive.writestr(entry, b"content")
    return path


def make_tar(path: Path, *names: str, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in ("good", *names):
            entry = tarfile.TarInfo(name)
            entry.size = 7
            archive.addfile(entry, io.BytesIO(b"content"))
    return path


def check_refused(archive: Path, folder: Path, match: str = "nothing was unpacked") -> None:
    before = {path for path in folder.parent.rglob("*")}
    with pytest.raises(UnsafeFileError, match=match):
        extract(archive, folder)
    assert {path for path in folder.parent.rglob("*")} == before
    assert not Path("/absolute").exists()


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names_that_leave_the_folder(make: Callable[..., Path], name: str, tmp_path: Path) -> None:
    suffix = "zip" if make is make_zip else "tar"
    check_refused(make(tmp_path / f"a.{suffix}", name), tmp_path / "inner" / "out")


@pytest.mark.parametrize("names", CLASHES, ids=str)
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_fall_together(make: Callable[..., Path], names: tuple[str, str], tmp_path: Path) -> None:
    suffix = "zip" if make is make_zip else "tar"
    check_refused(make(tmp_path / f"a.{suffix}", *names), tmp_path / "inner" / "out", "falls together")


@pytest.mark.parametrize(("kind", "target"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("then", [False, True], ids=["alone", "then a file through it"])
def test_links_and_devices(kind: bytes, target: str, then: bool, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
        if then:
            archive.addfile(tarfile.TarInfo("link/file"))
    check_refused(tmp_path / "a.tar", tmp_path / "inner" / "out", "is a link or a device")


def test_links_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    check_refused(tmp_path / "a.zip", tmp_path / "inner" / "out", "is a link or a device")


def test_bombs_end_before_they_fill_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_FREE_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (200 << 20))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as packed:
        entry = tarfile.TarInfo("zeros")
        entry.size = 200 << 20
        packed.addfile(entry, io.BytesIO(b"\0" * entry.size))
    for name in ("a.zip", "a.tar.gz"):
        began = time.monotonic()
        check_refused(tmp_path / name, tmp_path / "inner" / "out", "a way to fill a disk")
        assert time.monotonic() - began < 1
    # a zip that declares one byte: its reader stops there, and the checksum says so
    for start in (content.find(b"PK\x03\x04") + 22, content.find(b"PK\x01\x02") + 24):
        content[start : start + 4] = (1).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises((DamagedFileError, UnsafeFileError)):
        extract(tmp_path / "b.zip", tmp_path / "inner" / "out")


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_MEMBERS", 50)
    check_refused(
        make_tar(tmp_path / "a.tar", *(str(i) for i in range(60))), tmp_path / "inner" / "out", "more than 50 members"
    )


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_damaged_archives_are_named(name: str, damage: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / name, "b") if name == "a.zip" else make_tar(tmp_path / name, "b", mode="w:gz")
    content = path.read_bytes()
    middle = len(content) // 3
    path.write_bytes(
        {
            "cut": content[:middle],
            "flip": content.replace(b"content", b"cOntent", 1)
            if name == "a.zip"
            else content[:-6] + b"\0" + content[-5:],
            "empty": b"",
            "text": b"no archive",
        }[damage]
    )
    with pytest.raises((DamagedFileError, UnsafeFileError), match=name):
        extract(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz", "a.tar.bz2"])
def test_a_good_archive_of_pictures_is_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURENIX_HOME", str(tmp_path / "home"))
    for kind in ("birds", "bugs"):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(numpy.full((8, 8, 3), number, "uint8")).save(tmp_path / "pictures" / kind / f"{number}.png")
    if name == "a.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in (tmp_path / "pictures").rglob("*.png"):
                archive.write(path, path.relative_to(tmp_path))
    else:
        kinds = {"a.tar": "w", "a.tar.xz": "w:xz", "a.tar.bz2": "w:bz2"}
        with tarfile.open(tmp_path / name, kinds.get(name, "w:gz")) as packed:  # type: ignore[call-overload]
            packed.add(tmp_path / "pictures", "pictures")
    data = as_dataset(tmp_path / name)
    assert len(data) == 6 and data.classes == ["birds", "bugs"]
    assert unpacked(tmp_path / name).name == "pictures"  # once: it is there
    mode = next(unpacked(tmp_path / name).rglob("*.png")).stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
