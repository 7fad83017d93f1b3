"""Weights at an address, checked against their published hash before they get their name.

Where the publisher states no hash, that of the first download is written beside the file, and every later reading and
download has to give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, final

from ...errors import DamagedFileError, UnsafeFileError, WeightsNotFoundError
from ...storage import cache_folder, check_hash, file_sha256, replacing, write_bytes
from .._records import UrlSource
from ._fetched import Fetched, is_offline

TIMEOUT_SECONDS = 30
SHA256 = re.compile(r"[0-9a-f]{64}")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def fetch_from_url(source: UrlSource) -> Fetched:
    """Download once into the cache folder; a file that is there already is used as it is."""
    target = _cached_path(source)
    for address in source.beside:
        _fetch_whole(UrlSource(address, None), target.with_name(_name_in(address)))
    return _fetch(source, target)


def _fetch_whole(source: UrlSource, target: Path) -> None:
    """Fetch a file and compare it with its pin; one that was damaged since is fetched anew."""
    fetched = _fetch(source, target)
    if fetched.renewable and file_sha256(target) != fetched.sha256:
        target.unlink()
        fetched = _fetch(source, target)
    check_hash(target, file_sha256(target), fetched.sha256)


def _fetch(source: UrlSource, target: Path) -> Fetched:
    _check_address(source.url)
    if not target.is_file():
        if is_offline():
            raise _not_found(source, target, "offline mode is on (HF_HUB_OFFLINE)")
        _download(source, target)
    pin = _pin_of(target)
    if source.sha256 is None and not pin.is_file():
        write_bytes(pin, file_sha256(target).encode())
    return Fetched(
        path=target,
        sha256=_expected(source, target),
        renewable=not is_offline(),
        advice=_advice(source, target),
    )


def _advice(source: UrlSource, target: Path) -> str:
    return "" if source.sha256 else f"To accept another version than the pinned one, delete {_pin_of(target)}."


def _expected(source: UrlSource, target: Path) -> str | None:
    """The published hash, else the pinned one; None before the first download."""
    pin = _pin_of(target)
    if source.sha256 is not None or not pin.is_file():
        return source.sha256
    pinned = pin.read_text(encoding="utf-8", errors="replace").strip()
    if not SHA256.fullmatch(pinned):
        raise DamagedFileError(f"{pin} holds no SHA-256; delete it to pin the version anew.")
    return pinned


def _pin_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _cached_path(source: UrlSource) -> Path:
    address = hashlib.sha256(source.url.encode()).hexdigest()[:12]
    return cache_folder() / "weights" / address / _name_in(source.url)


def _name_in(url: str) -> str:
    return Path(urllib.parse.urlsplit(url).path).name


def _download(source: UrlSource, target: Path) -> None:
    opener = urllib.request.build_opener(_CheckedRedirects())
    try:
        with opener.open(source.url, timeout=TIMEOUT_SECONDS) as response, replacing(target) as temporary:
            with temporary.open("wb") as stream:
                shutil.copyfileobj(response, stream, 1 << 20)
            check_hash(target, file_sha256(temporary), _expected(source, target))
            _check_md5(source, temporary)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error} {_advice(source, target)}".strip()) from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise _not_found(source, target, str(getattr(error, "reason", error)) or type(error).__name__) from None


def _check_md5(source: UrlSource, path: Path) -> None:
    if source.md5 is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != source.md5:
        raise DamagedFileError(f"{source.url} gave a file with MD5 {found}, and {source.md5} is published for it.")


def _not_found(source: UrlSource, target: Path, reason: str) -> WeightsNotFoundError:
    return WeightsNotFoundError(
        f"The weights {source.url} could not be fetched ({reason}), and they are not in the cache at "
        f"{target}. Go online, put the file there, or give one of your own: weights=PATH."
    )


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in LOOPBACK
    if parts.scheme != "https" and not local:
        raise UnsafeFileError(f"{url} is refused: weights are fetched over https only (http only from this machine).")


@final
class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to an address that could have been asked for in the first place."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: object,
        newurl: str,
    ) -> urllib.request.Request | None:
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
