"""`gudgeon doctor`: what is installed, which engines and variants this board can run, clock, disk, real-time permissions.

Exit code 0 where the device could run, 1 where something it needs is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from edge_runtime import __version__
from edge_runtime.errors import GudgeonError

#: package → (extra, needed by the device)
PACKAGES: dict[str, tuple[str, bool]] = {
    "numpy": ("edge", True),
    "pillow": ("edge", True),
    "onnxruntime": ("edge", True),
    "ai-edge-litert": ("edge", False),
    "paho-mqtt": ("edge", True),
    "pymodbus": ("edge", True),
    "cryptography": ("edge", True),
    "asyncua": ("opcua", False),
    "protobuf": ("sparkplug", False),
    "cbor2": ("cbor", False),
    "fastapi": ("cloud", False),
    "amqtt": ("cloud", False),
}
LOW_DISK_BYTES = 256 * 1024 * 1024


class Finding(NamedTuple):
    """`ok` None: worth knowing, neither good nor bad."""

    name: str
    ok: bool | None
    text: str


def packages() -> list[Finding]:
    found = []
    for name, (extra, needed) in PACKAGES.items():
        try:
            found.append(Finding(f"package {name}", True, version(name)))
        except PackageNotFoundError:
            text = f"not installed; pip install 'gudgeon[{extra}]'"
            found.append(Finding(f"package {name}", False if needed else None, text))
    return found


def board() -> list[Finding]:
    from edge_runtime.infer.select import board as board_name

    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return [Finding("python", sys.version_info >= (3, 11), python), Finding("board", None, board_name())]


def clocks() -> list[Finding]:
    overshoot_us = []
    for _ in range(50):
        start = time.perf_counter()
        time.sleep(0.001)
        overshoot_us.append((time.perf_counter() - start - 0.001) * 1e6)
    overshoot_us.sort()
    year = time.gmtime().tm_year
    wall = "plausible" if year >= 2024 else f"not set (year {year}); events are labelled with the boot's monotonic time"
    return [
        Finding("wall clock", year >= 2024, wall),
        Finding(
            "sleep of 1 ms", None, f"{overshoot_us[25]:.0f} µs late at the median, {overshoot_us[-1]:.0f} µs at worst"
        ),
    ]


def realtime() -> list[Finding]:
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, *before)
        return [Finding("SCHED_FIFO", True, "permitted")]
    except (OSError, AttributeError) as error:
        hint = "grant CAP_SYS_NICE, or set rtprio in /etc/security/limits.conf"
        return [Finding("SCHED_FIFO", None, f"not permitted ({error}); {hint}")]


def disk(folder: Path) -> list[Finding]:
    place = folder if folder.is_dir() else Path.cwd()
    free = shutil.disk_usage(place).free
    found = [Finding(f"disk at {place}", free > LOW_DISK_BYTES, f"{free / 2**30:.1f} GiB free")]
    times_ms = []
    try:
        with tempfile.NamedTemporaryFile(dir=place) as file:
            for _ in range(20):
                start = time.perf_counter()
                file.write(b"x" * 512)
                file.flush()
                os.fdatasync(file.fileno())
                times_ms.append((time.perf_counter() - start) * 1e3)
        times_ms.sort()
        found.append(Finding("fdatasync", None, f"{times_ms[10]:.2f} ms at the median, {times_ms[-1]:.2f} ms at worst"))
    except OSError as error:
        found.append(Finding(f"write to {place}", False, str(error)))
    return found


def engines() -> list[Finding]:
    found = []
    if find_spec("onnxruntime"):
        import onnxruntime

        found.append(Finding("engine onnxruntime", True, ", ".join(onnxruntime.get_available_providers())))
    names = [n for n in ("ai_edge_litert", "tflite_runtime") if find_spec(n)]
    found.append(Finding("engine litert", True if names else None, names[0] if names else "not installed"))
    found.append(Finding("engine reference", True, "NumPy"))
    return found


def variants(bundle_dir: Path) -> list[Finding]:
    """Every variant of a bundle with its latency here, or why it is refused."""
    from edge_runtime.infer import kinds, select

    try:
        bundle = kinds.load(bundle_dir)
        with tempfile.TemporaryDirectory() as folder:
            choice = select.choose(bundle, Path(folder) / "engines.json")
    except GudgeonError as error:
        return [Finding(f"bundle {bundle_dir}", False, str(error))]
    found = [Finding(f"variant {n}", True, f"{us:.0f} µs") for n, us in choice.latency_us.items()]
    found += [Finding(f"variant {r.variant}", False, f"refused: {r.reason}") for r in choice.refused]
    found.append(Finding("fastest here", True, f"{choice.engine.variant} on {choice.engine.name}"))
    choice.engine.close()
    return found


def examine(state_dir: Path, bundle_dir: Path | None) -> list[Finding]:
    parts: list[Callable[[], list[Finding]]] = [board, packages, engines, clocks, realtime, lambda: disk(state_dir)]
    if bundle_dir:
        parts.append(lambda: variants(bundle_dir))
    return [finding for part in parts for finding in part()]


def default_bundle() -> Path | None:
    """The bundle that ships beside this package, where there is one."""
    path = Path(__file__).resolve().parent.parent / "models" / "surface"
    return path if path.is_dir() else None


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon doctor", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=Path(), help="where the device will keep its state")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), metavar="BUNDLE_DIR")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    found = examine(args.state_dir, args.bundle)
    if args.json:
        print(json.dumps({"gudgeon": __version__, "findings": [f._asdict() for f in found]}))
    else:
        print(f"gudgeon {__version__}")
        for f in found:
            print(f"  {({True: 'ok', False: 'NO', None: '·'})[f.ok]:>2}  {f.name:<24} {f.text}")
    return 1 if any(f.ok is False for f in found) else 0
