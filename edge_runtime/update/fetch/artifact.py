"""An artifact by the fewest bytes: as a delta to one that is here, packed, or whole; the next way wherever one does not work out.

A delta is a hint of somebody unknown. It is fetched in bounds, undone in a process of its own that may take only so much
memory, time and disk, and counts only if the artifact's own hash comes out. Nothing of it can make a fetch fail: it costs bytes
at most, and of those not more than the whole file would.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.clock import Clock
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import GudgeonError, ResourceError
from edge_runtime.update.fetch.download import Progress, download, quiet
from edge_runtime.update.fetch.fetcher import Fetcher, FetchError, fetch_small
from edge_runtime.update.fetch.pace import DEFAULT, Limits, Pace
from edge_runtime.update.fetch.partial import Wanted, finished
from edge_runtime.wire import archive, delta
from edge_runtime.wire.delta import Candidate

UNDO_LIMIT_S = 900.0
HINT_LIMITS = Limits(deadline_s=60.0)
UNDO = "edge_runtime.delta.undo"


@dataclass(frozen=True)
class Fetched:
    """`way`: a format of `wire.delta`, ``whole``, or ``kept`` where it was here already. `refused`: why deltas did not do."""

    path: Path
    way: str
    refused: tuple[str, ...] = ()


def fetch(
    fetcher: Fetcher,
    wanted: Wanted,
    folder: Path,
    clock: Clock,
    sources: Mapping[str, Path],
    limits: Limits = DEFAULT,
    progress: Progress = quiet,
    rng: random.Random | None = None,
) -> Fetched:
    """The artifact's file in `folder`. `sources`: artifacts of this device, by SHA-256, each the bundle folder that was
    unpacked of it. Errors are those of `download`."""
    if done := finished(folder, wanted):
        return Fetched(done, "kept")
    refused: list[str] = []
    deltas = folder / f"{wanted.sha256}.deltas"
    briefly = replace(limits, deadline_s=limits.deadline_s / 4, tries=min(limits.tries, 3))
    for source in [*sources, delta.NOTHING]:
        for candidate in _candidates(fetcher, wanted, source, clock, refused):
            packed = Wanted(f"{delta.folder(source)}/{candidate.file}", candidate.length, candidate.sha256)
            try:
                path = download(fetcher, packed, deltas, clock, briefly, progress, rng)
                _undo(path, wanted, source, sources.get(source), deltas, folder)
            except GudgeonError as error:
                refused.append(f"{candidate.format}: {error}")
                if isinstance(
                    error, ResourceError
                ):  # a delta needs room beside the artifact; without it that may be enough
                    _clean(deltas)
            else:
                progress(wanted.length, wanted.length)
                _clean(deltas)
                return Fetched(folder / wanted.sha256, candidate.format, tuple(refused))
    whole = download(fetcher, wanted, folder, clock, limits, progress, rng)
    _clean(deltas)  # kept until here: a fetch that was cut goes on with them
    return Fetched(whole, "whole", tuple(refused))


def _clean(deltas: Path) -> None:
    with disk_errors(deltas):
        if deltas.is_dir():
            shutil.rmtree(deltas)


def _candidates(
    fetcher: Fetcher, wanted: Wanted, source: str, clock: Clock, refused: list[str]
) -> tuple[Candidate, ...]:
    """What is offered from this source, the smallest first; whatever is wrong with the offer means: nothing."""
    path = delta.hint_path(source, wanted.sha256)
    try:
        hint = delta.read_hint(
            fetch_small(fetcher, path, Pace(clock, HINT_LIMITS), delta.LIMIT_BYTES), source, wanted.sha256
        )
    except FetchError as error:
        if not error.missing:
            refused.append(f"hint: {error}")
        return ()
    except (GudgeonError, ValueError) as error:
        refused.append(f"hint: {error}")
        return ()
    useful = [c for c in hint.candidates if c.length < wanted.length]
    return tuple(sorted(useful, key=lambda c: c.length))


def _undo(path: Path, wanted: Wanted, source: str, bundle: Path | None, deltas: Path, folder: Path) -> None:
    """Make the artifact of a delta. GudgeonError where it does not lead there."""
    old, made = deltas / "source", deltas / "made"
    with disk_errors(deltas):
        for left in (old, made):
            left.unlink(missing_ok=True)
        if bundle:
            _pack(bundle, old, source)
    undo_apart(path, old if bundle else None, made, wanted.length, wanted.sha256)
    with disk_errors(folder):
        made.replace(folder / wanted.sha256)
        for suffix in (".part", ".chunks"):  # of an earlier try to fetch the whole
            (folder / f"{wanted.sha256}{suffix}").unlink(missing_ok=True)
        sync_folder(folder)


def _pack(bundle: Path, out: Path, sha256: str) -> None:
    """The artifact that a bundle folder was unpacked of, byte for byte."""
    try:
        packed = archive.pack_file(bundle, out)
    except archive.ArchiveError as error:
        raise GudgeonError(f"{bundle}: {error}") from error
    if packed.sha256 != sha256:
        raise GudgeonError(f"{bundle}: is not what {sha256[:16]} was unpacked to")


def undo_apart(
    packed: Path,
    source: Path | None,
    made: Path,
    length: int,
    sha256: str,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> None:
    """`delta.undo` in a process of its own; GudgeonError where it does not give the file. ResourceError: the disk."""
    command = [sys.executable, "-m", UNDO, str(packed), str(source or "-"), str(made), str(length), sha256]
    try:
        done = run(command, capture_output=True, text=True, timeout=UNDO_LIMIT_S, check=False, env=_environment())
    except subprocess.TimeoutExpired as error:
        raise GudgeonError(f"{packed.name}: not undone within {UNDO_LIMIT_S:.0f} s") from error
    if done.returncode == ResourceError.exit_code:
        raise ResourceError(f"{made}: {done.stderr.strip()[-200:]}; free some space")
    if done.returncode:
        made.unlink(missing_ok=True)
        raise GudgeonError(f"{packed.name}: {done.stderr.strip()[-300:] or f'ended with {done.returncode}'}")


def _environment() -> dict[str, str]:
    """As this process has it, one thread for NumPy."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
