"""`GET /repo/metadata/…`, `/repo/targets/…`, `/repo/deltas/…`: the registry's files as they lie there, for devices.

Everything is public and signed elsewhere, or believed by nobody: no access is checked here. Whole or by one Range; `ETag` is
the SHA-256 that the file's name has, else of its time and size. A path is looked up only where it has the form that the
registry writes; links are not followed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, Response

NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}"
#: what may be asked for → longest file
PATHS: Mapping[str, tuple[re.Pattern[str], int]] = {
    "metadata": (
        re.compile(r"([1-9]\d{0,9}\.(root|targets|snapshot|models|runtime|config|os)|timestamp)\.json"),
        2 * 1024**2,
    ),
    "targets": (
        re.compile(rf"((models|runtime|config|os)/{NAME}|assignment-keys)/[0-9a-f]{{64}}\.{NAME}"),
        4 * 1024**3,
    ),
    "deltas": (re.compile(rf"[0-9a-f]{{64}}/{NAME}(/{NAME})?"), 4 * 1024**3),
}
NOTHING = (re.compile("(?!)"), 0)
SMALL_LIMIT_BYTES = 2 * 1024**2
HASH = re.compile(r"([0-9a-f]{64})\.")
#: content-addressed files never change; metadata are asked for anew each time
CACHE: Mapping[str, str] = {
    "targets": "public, max-age=31536000, immutable",
    "metadata": "no-cache",
    "deltas": "no-cache",
}


router = APIRouter(prefix="/repo", tags=["repository"])


@router.api_route("/{part}/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
def file(request: Request, part: str, path: str) -> Response:
    """Of the registry in the application's settings."""
    folder, (pattern, limit_bytes) = request.app.state.settings.registry.folder, PATHS.get(part, NOTHING)
    if folder is None or not pattern.fullmatch(path):
        raise HTTPException(404, "no such file in the repository")
    place = folder / "repo" / part / path
    status = _regular(folder / "repo", place)
    if status is None or status.st_size > limit_bytes:
        raise HTTPException(404, "no such file in the repository")
    headers = {"cache-control": CACHE[part]}
    if place.suffix == ".json":
        return _small(request, place, headers)
    named = _named(place) if part == "targets" else ""
    headers["etag"] = f'"{named or f"{status.st_mtime_ns:x}-{status.st_size:x}"}"'
    if _known(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    if "," in request.headers.get("range", ""):
        raise HTTPException(416, "one range at a time")
    return FileResponse(place, media_type="application/octet-stream", headers=headers, stat_result=status)


def _small(request: Request, place: Path, headers: dict[str, str]) -> Response:
    """Read at once: it may be replaced at any moment, and what is sent is one version of it."""
    with place.open("rb") as file:
        data = file.read(SMALL_LIMIT_BYTES + 1)
    if len(data) > SMALL_LIMIT_BYTES:
        raise HTTPException(404, "no such file in the repository")
    headers["etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
    if _known(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/json", headers=headers)


def _known(request: Request, etag: str) -> bool:
    return etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]


def _named(place: Path) -> str:
    """The SHA-256 that the name has."""
    found = HASH.match(place.name)
    return found.group(1) if found else ""


def _regular(top: Path, place: Path) -> os.stat_result | None:
    """None unless it is a regular file, and no part of its way is a link."""
    try:
        for folder in [place, *place.parents]:
            if folder == top:
                break
            if stat.S_ISLNK(folder.lstat().st_mode):
                return None
        status = place.lstat()
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None
