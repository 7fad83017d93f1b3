"""Weights at an address, checked against their published hash before they get their name."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, final

from ...errors import UnsafeFileError, WeightsNotFoundError
from ...storage import cache_folder, check_hash, file_sha256, replacing
from .._records import UrlSource
from ._fetched import Fetched, is_offline

TIMEOUT_SECONDS = 30
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def fetch_from_url(source: UrlSource) -> Fetched:
    """Download once into the cache folder; a file that is there already is used as it is."""
    _check_address(source.url)
    target = _cached_path(source)
    if not target.is_file():
        if is_offline():
            raise _not_found(source, target, "offline mode is on (HF_HUB_OFFLINE)")
        _download(source, target)
    return Fetched(path=target, sha256=source.sha256, renewable=not is_offline())


def _cached_path(source: UrlSource) -> Path:
    address = hashlib.sha256(source.url.encode()).hexdigest()[:12]
    return cache_folder() / "weights" / address / Path(urllib.parse.urlsplit(source.url).path).name


def _download(source: UrlSource, target: Path) -> None:
    opener = urllib.request.build_opener(_CheckedRedirects())
    try:
        with opener.open(source.url, timeout=TIMEOUT_SECONDS) as response, replacing(target) as temporary:
            with temporary.open("wb") as stream:
                shutil.copyfileobj(response, stream, 1 << 20)
            check_hash(target, file_sha256(temporary), source.sha256)
    except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise _not_found(source, target, str(getattr(error, "reason", error)) or type(error).__name__) from None


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
