"""Environments of runtime releases: a folder that Python takes for a virtual environment, made from the wheels of a release.

    <state_dir>/runtimes/<SHA-256 of the artifact>/
      bin/python          a link to the interpreter that this device has
      pyvenv.cfg          so that it looks for nothing outside
      lib/…/site-packages what the wheels hold, and compiled
      digests             of every file above; the launcher compares them before it starts anything

- Nothing is fetched and nothing of a wheel is run: a wheel is a zip file whose content goes to one place. One that wants
  another place, a link, or code at the start of the interpreter (`.pth`) is refused.
- Made under a temporary name, flushed, then renamed: it is there whole, or not at all.
- Python writes no compiled files into it later, so that everything in it has a digest.
"""

from __future__ import annotations

import hashlib
import os
import platform
import py_compile
import shutil
import stat
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.wire import manifest as wire
from edge_runtime.wire import release
from edge_runtime.wire.release import Needs, RuntimeManifest

FOLDER = "runtimes"
DIGESTS = "digests"
UNPACKED_LIMIT_BYTES = 2 * 1024**3
FILES_LIMIT = 50_000
PATH_LIMIT = 300
CHUNK_BYTES = 1024 * 1024
COMPILED_SHARE = 1.3  # what a release takes on the disk with its compiled files, of what its wheels hold


def this_machine() -> Needs:
    """What this interpreter has to offer."""
    name, version = platform.libc_ver()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Needs(python, platform.machine(), version if name == "glibc" else release.ANY)


def read_release(folder: Path, has: Needs | None = None) -> RuntimeManifest:
    """The manifest of the release in `folder`, whose files are all there and none besides, for a machine like `has` (this one);
    BundleError otherwise."""
    try:
        manifest = release.parse((folder / wire.MANIFEST).read_bytes(), RuntimeManifest)
        names = {p.name for p in folder.iterdir()} - {wire.MANIFEST}
        for name in sorted(names ^ set(manifest.files)):
            raise ValueError(f"{name} is {'missing' if name in manifest.files else 'not named in the manifest'}")
        for name, sha256 in manifest.files.items():
            if (folder / name).is_symlink() or _digest(folder / name) != sha256:
                raise ValueError(f"{name} is not the file that the manifest names")
        if why := release.misfit(Needs(manifest.python, manifest.machine, manifest.glibc), has or this_machine()):
            raise ValueError(why)
    except (ValueError, OSError) as error:
        raise BundleError(f"runtime release {folder}: {error}") from error
    return manifest


def make(folder: Path, runtimes: Path, sha256: str) -> Path:
    """The environment of the release in `folder`, made where there is none that is whole; BundleError where the release is
    refused, ResourceError where there is no room."""
    manifest, target = read_release(folder), runtimes / sha256
    if target.exists() and not problem(target):
        return target
    sweep(runtimes, keep=[p.name for p in runtimes.glob("*") if p.name != sha256])
    building = runtimes / f".{sha256}"
    wheels = [folder / name for name in sorted(manifest.files)]
    _check_room(runtimes, sum(_unpacked_bytes(wheel) for wheel in wheels))
    with disk_errors(building):
        try:
            _build(wheels, building)
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        sync_folder(runtimes)
    return target


def sweep(runtimes: Path, keep: list[str]) -> None:
    """Remove every environment but these, and what was begun and not finished."""
    with disk_errors(runtimes):
        runtimes.mkdir(parents=True, exist_ok=True)
        for path in runtimes.iterdir():
            if path.name not in keep or path.name.startswith("."):
                shutil.rmtree(path)


def problem(environment: Path) -> str:
    """What is wrong with it; "" where every file is there with its digest, and no other. The launcher looks at the same."""
    try:
        first, _, rest = (environment / DIGESTS).read_bytes().partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != first:
            return f"{DIGESTS} is damaged"
        expected = {name: sha for sha, _, name in (line.partition(" ") for line in rest.decode().splitlines())}
        found = {str(path.relative_to(environment)): path for path in _files(environment)}
        for name in sorted(found.keys() ^ expected.keys()):
            return f"{name} is missing, or should not be there"
        return next((f"{n} is damaged" for n, path in found.items() if _digest(path) != expected[n]), "")
    except (OSError, ValueError) as error:
        return str(error)


def write_digests(environment: Path) -> None:
    lines = "".join(f"{_digest(path)} {path.relative_to(environment)}\n" for path in _files(environment)).encode()
    (environment / DIGESTS).write_bytes(hashlib.sha256(lines).hexdigest().encode() + b"\n" + lines)


# ── the parts of a build ────────────────────────────────────────────────────────────────────────────────────────────────


def _build(wheels: list[Path], building: Path) -> None:
    python = Path(os.path.realpath(sys.executable))
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(building), "platbase": str(building)}))
    packages.mkdir(parents=True)
    (building / "bin").mkdir()
    (building / "bin/python").symlink_to(python)
    version = ".".join(map(str, sys.version_info[:3]))
    (building / "pyvenv.cfg").write_text(
        f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    seen: set[str] = set()
    for wheel in wheels:
        _unpack(wheel, packages, seen)
    _compile(packages)
    write_digests(building)
    _flush(building)


def _unpack(wheel: Path, packages: Path, seen: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if why := _refusal(info, seen):
                raise BundleError(f"{wheel.name}: {info.filename[:PATH_LIMIT]!r}: {why}")
            seen.add(info.filename)
            target = packages / info.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, CHUNK_BYTES)


def _refusal(info: zipfile.ZipInfo, seen: set[str]) -> str:
    """Why this file of a wheel is not taken; "" where it is."""
    parts = PurePosixPath(info.filename).parts
    checks: Mapping[str, bool] = {
        "not a plain path inside the packages": "/".join(parts) != info.filename
        or bool({"..", ".", "/"} & set(parts))
        or any(c in info.filename for c in "\\\0\n")
        or len(info.filename) > PATH_LIMIT,
        "a link": stat.S_ISLNK(info.external_attr >> 16),
        "it would run whenever Python starts": info.filename.endswith(".pth")
        or parts[0] in ("sitecustomize.py", "usercustomize.py", "sitecustomize", "usercustomize"),
        "it belongs elsewhere than to the packages": parts[0].endswith(".data"),
        "compiled already": info.filename.endswith(".pyc"),
        "it is there twice": info.filename in seen,
        f"more than {FILES_LIMIT} files": len(seen) >= FILES_LIMIT,
    }
    return next((why for why, holds in checks.items() if holds), "")


def _unpacked_bytes(wheel: Path) -> int:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return sum(info.file_size for info in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise BundleError(f"{wheel.name}: not a wheel: {error}") from error


def _check_room(runtimes: Path, unpacked_bytes: int) -> None:
    if unpacked_bytes > UNPACKED_LIMIT_BYTES:
        raise BundleError(f"its wheels hold {unpacked_bytes} bytes, the limit is {UNPACKED_LIMIT_BYTES}")
    with disk_errors(runtimes):
        free = shutil.disk_usage(runtimes).free
    if free < unpacked_bytes * COMPILED_SHARE:
        needed = round(unpacked_bytes * COMPILED_SHARE / 1e6)
        raise ResourceError(f"{runtimes}: {needed} MB are needed for a runtime release, {round(free / 1e6)} are free")


def _compile(packages: Path) -> None:
    """Beside each source, valid whatever its time stamp is: the digests say that the two belong together."""
    for source in sorted(packages.rglob("*.py")):
        if "tests" not in source.relative_to(packages).parts:
            name = str(source.relative_to(packages))
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(source), dfile=name, doraise=False, quiet=2, invalidation_mode=mode)


def _flush(building: Path) -> None:
    """First everything is written, then flushed: most of it is on its way by then."""
    for path in _walk(building):
        if path.is_dir() and not path.is_symlink():
            sync_folder(path)
        elif not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _files(environment: Path) -> list[Path]:
    """All but the list of digests itself."""
    found = (p for p in sorted(environment.rglob("*")) if p.is_symlink() or not p.is_dir())
    return [path for path in found if path != environment / DIGESTS]


def _walk(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*"), reverse=True)
    yield folder


def _digest(path: Path) -> str:
    """Of a link, of where it leads."""
    if path.is_symlink():
        return hashlib.sha256(os.readlink(path).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
