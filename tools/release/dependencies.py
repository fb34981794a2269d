"""What Gudgeon needs at run time, as wheels: the versions that this environment has, for the machine that is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge_runtime.errors import GudgeonError, UsageError
from edge_runtime.wire.release import Needs

OLDEST_GLIBC = 5


def lock(extras: Sequence[str], target: Needs, name: str = "gudgeon") -> dict[str, str]:
    """Name → version of everything that `name` needs with these extras; UsageError where one of it is not installed here."""
    environment = {"python_version": target.python, "platform_machine": target.machine}
    found: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()

    def take(name: str, extra: str) -> None:
        for text in metadata.distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker and not needed.marker.evaluate({**environment, "extra": extra}):
                continue
            found[canonicalize_name(needed.name)] = metadata.version(needed.name)
            for more in ("", *needed.extras):
                if (needed.name, more) not in taken:
                    taken.add((needed.name, more))
                    take(needed.name, more)

    try:
        if unknown := set(extras) - set(metadata.metadata(name).get_all("Provides-Extra") or []):
            raise UsageError(f"unknown extra {sorted(unknown)[0]!r}")
        for extra in extras:
            take(name, extra)
    except metadata.PackageNotFoundError as error:
        raise UsageError(f"{error.name} is not installed here; the release takes its versions from here") from error
    return dict(sorted(found.items()))


def collect(locked: dict[str, str], target: Needs, folder: Path, wheels: Path | None = None) -> list[Path]:
    """The wheels of these versions in `folder`; from `wheels` alone where that is given. GudgeonError where one is missing."""
    glibc = int(target.glibc.partition(".")[2])
    platforms = [f"manylinux_2_{minor}_{target.machine}" for minor in range(glibc, OLDEST_GLIBC - 1, -1)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    for platform in [*platforms, f"manylinux2014_{target.machine}"]:
        command += ["--platform", platform]
    command += ["--python-version", target.python, "--implementation", "cp", "--dest", str(folder)]
    command += ["--no-index", "--find-links", str(wheels)] if wheels else []
    done = subprocess.run(
        [*command, *(f"{name}=={version}" for name, version in locked.items())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise GudgeonError(f"wheels cannot be had: {(errors or ['pip ended with an error'])[-1]}")
    return sorted(folder.glob("*.whl"))
