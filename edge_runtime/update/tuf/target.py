"""What the signed metadata say of one artifact (`wire.target`), and whether this device may take it. Pure."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from edge_runtime.errors import BundleError
from edge_runtime.wire.target import KINDS, Target, parse_target, why_not

__all__ = ["KINDS", "Target", "check_target", "read_target"]


def read_target(path: str, length: int, sha256: str | None, custom: Any) -> Target:
    """BundleError where it is not as it must be."""
    try:
        return parse_target(path, length, sha256, custom)
    except ValueError as error:
        raise BundleError(f"{error}; refused") from error


def check_target(target: Target, hardware: Set[str], floor_index: int) -> None:
    """BundleError where this device must not take it. `hardware`: the classes that the device is of."""
    if reason := why_not(target, hardware, floor_index):
        raise BundleError(f"target {target.path!r} {reason}; refused")
