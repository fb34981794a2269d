"""Manifests of the bundles that hold no model: a runtime release and a configuration. Pure format, standard library only.

A runtime release is a folder of wheels: Gudgeon's own and all that it needs, so that nothing is fetched when it is installed.

    kind, name, version
    python, machine, glibc    what the wheels were made for: "3.11", "x86_64" or "any", "2.28" or "any"
    outbox                    the format of the outbox that it writes (docs/explain/runtime-releases.md)
    files                     wheel → SHA-256

A configuration is one file, `config.toml`, laid over the device's own (`update.config_bundle`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_runtime.wire.manifest import SCHEMA, build, check_files, plain, read_toml

M = TypeVar("M", "RuntimeManifest", "ConfigManifest")
CONFIG_FILE = "config.toml"
ANY = "any"
FILES_LIMIT = 60
PYTHON = re.compile(r"3\.\d{1,3}")
GLIBC = re.compile(r"any|2\.\d{1,3}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
MACHINE = re.compile(r"[a-z0-9_]{1,32}")
#: name, version, build (optional), python, abi, platform
WHEEL = re.compile(
    r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)(?:-\d[A-Za-z0-9_.]*)?-([a-z0-9_.]+)-([a-z0-9_.]+)-([A-Za-z0-9_.]+)\.whl"
)
MANYLINUX = re.compile(r"manylinux_(2)_(\d+)_(\w+)|manylinux2014_(\w+)|linux_(\w+)")


@dataclass(frozen=True)
class RuntimeManifest:
    name: str
    version: str
    python: str
    machine: str
    glibc: str
    outbox: int
    files: Mapping[str, str]
    kind: str = "runtime"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _check(self, name=NAME, version=VERSION, python=PYTHON, machine=MACHINE, glibc=GLIBC)
        if self.outbox < 1:
            raise ValueError(f"outbox is {self.outbox}, expected 1 or more")
        if not 1 <= len(self.files) <= FILES_LIMIT:
            raise ValueError(f"files: {len(self.files)} wheels, expected 1 to {FILES_LIMIT}")
        if wrong := next((name for name in self.files if not WHEEL.fullmatch(name)), None):
            raise ValueError(f"files: {wrong!r} is not the name of a wheel")


@dataclass(frozen=True)
class ConfigManifest:
    name: str
    version: str
    files: Mapping[str, str]
    kind: str = "config"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _check(self, name=NAME, version=VERSION)
        if set(self.files) != {CONFIG_FILE}:
            raise ValueError(
                f"files: expected {CONFIG_FILE} and nothing else, found {', '.join(self.files) or 'nothing'}"
            )


@dataclass(frozen=True)
class Needs:
    """What wheels ask of a machine; compared as text."""

    python: str
    machine: str
    glibc: str


def parse(manifest_bytes: bytes, kind: type[M]) -> M:
    """Read `manifest.toml`; ValueError says which field is wrong and what was expected."""
    data = read_toml(manifest_bytes)
    expected = str(kind.__dataclass_fields__["kind"].default)
    if data.get("kind") != expected:
        raise ValueError(f"kind is {str(data.get('kind'))[:40]!r}, expected {expected!r}")
    manifest: M = build(kind, data, "manifest")
    check_files((), manifest.files)
    return manifest


def to_dict(manifest: RuntimeManifest | ConfigManifest) -> dict[str, Any]:
    """Plain data, ready for a TOML writer."""
    return plain(manifest)  # type: ignore[no-any-return]


def needs_of(wheels: Sequence[str], python: str) -> Needs:
    """What these wheels need together; ValueError for one that fits no Linux machine with this Python."""
    machines, glibc = set(), 0
    for wheel in wheels:
        found = WHEEL.fullmatch(wheel)
        if found is None:
            raise ValueError(f"{wheel!r} is not the name of a wheel")
        if found[5] == ANY:
            continue
        fits = [m for tag in found[5].split(".") if (m := MANYLINUX.fullmatch(tag))]
        if not fits:
            raise ValueError(f"{wheel}: not for Linux with glibc")
        machines |= {m[3] or m[4] or m[5] for m in fits}
        glibc = max(glibc, min(int(m[2] or (17 if m[4] else 0)) for m in fits))
    if len(machines) > 1:
        raise ValueError(f"wheels for {' and '.join(sorted(machines))} in one release; make one for each")
    return Needs(python, machines.pop() if machines else ANY, f"2.{glibc}" if glibc else ANY)


def misfit(needs: Needs, has: Needs) -> str:
    """Why a machine that has this cannot run it; "" where it can."""
    if needs.machine not in (ANY, has.machine):
        return f"it is for {needs.machine}, this machine is {has.machine}"
    if needs.python != has.python:
        return f"it is for Python {needs.python}, this device has {has.python}"
    if needs.glibc != ANY and (has.glibc == ANY or _number(needs.glibc) > _number(has.glibc)):
        return f"it needs glibc {needs.glibc}, this device has {has.glibc if has.glibc != ANY else 'another C library'}"
    return ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _check(manifest: object, **patterns: re.Pattern[str]) -> None:
    for name, pattern in patterns.items():
        value = getattr(manifest, name)
        if not pattern.fullmatch(value):
            raise ValueError(f"{name} is {value[:80]!r}, expected {pattern.pattern}")
