"""`gudgeon pack runtime|config`: one release as one archive, ready to be signed into the update repository.

A runtime release holds Gudgeon and everything that it needs as wheels; a device fetches nothing else. The versions are those
of this environment. The same sources and versions give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import tomli_w

from edge_runtime import __version__
from edge_runtime.errors import UsageError
from edge_runtime.outbox import schema
from edge_runtime.update.config_bundle import read_overlay
from edge_runtime.wire import archive, manifest, release
from edge_runtime.wire.release import CONFIG_FILE, ConfigManifest, Needs, RuntimeManifest
from tools.release.dependencies import collect, lock
from tools.release.wheel import build_wheel


def runtime_folder(folder: Path, name: str, version: str, target: Needs, wheels: list[Path]) -> RuntimeManifest:
    """Write the manifest beside the wheels, which lie in `folder`."""
    files = {w.name: hashlib.sha256(w.read_bytes()).hexdigest() for w in wheels}
    needs = release.needs_of(sorted(files), target.python)
    made = RuntimeManifest(name, version, needs.python, needs.machine, needs.glibc, schema.VERSION, files)
    (folder / manifest.MANIFEST).write_text(tomli_w.dumps(release.to_dict(made)))
    return made


def config_folder(folder: Path, name: str, version: str, source: Path) -> ConfigManifest:
    read_overlay(source)  # what a device would refuse
    shutil.copyfile(source, folder / CONFIG_FILE)
    made = ConfigManifest(name, version, {CONFIG_FILE: hashlib.sha256(source.read_bytes()).hexdigest()})
    (folder / manifest.MANIFEST).write_text(tomli_w.dumps(release.to_dict(made)))
    return made


def fill(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Make the release in `folder`; what there is to tell of it."""
    if args.what == "config":
        config_folder(folder, args.name, args.version, args.source)
        return {}
    target = Needs(args.python, args.machine, args.glibc)
    locked = lock(args.extras.split(","), target)
    wheels = [build_wheel(folder, args.version), *collect(locked, target, folder, args.wheels)]
    made = runtime_folder(folder, args.name, args.version, target, sorted(set(wheels)))
    return {"wheels": len(made.files), "python": made.python, "machine": made.machine, "glibc": made.glibc}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon pack", description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True, metavar="runtime|config")
    runtime = kinds.add_parser("runtime", help="Gudgeon itself, with all that it needs")
    config = kinds.add_parser("config", help="a part of device.toml: tags, assets, control, plc.map")
    config.add_argument("source", type=Path, metavar="CONFIG.toml")
    for one, name in ((runtime, "gudgeon"), (config, "config")):
        one.add_argument("--out", type=Path, required=True, metavar="F.tar")
        one.add_argument("--name", default=name)
        one.add_argument("--version", default=__version__, required=one is config)
        one.add_argument("--json", action="store_true")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    runtime.add_argument("--extras", default="edge", help="what the device needs, such as edge,opcua")
    runtime.add_argument("--python", default=here, help="Python of the device (default: %(default)s)")
    runtime.add_argument("--machine", default=platform.machine(), help="such as aarch64 (default: %(default)s)")
    runtime.add_argument("--glibc", default="2.36", help="of the device's system (default: %(default)s, Debian 12)")
    runtime.add_argument("--wheels", type=Path, metavar="FOLDER", help="take wheels from here and fetch nothing")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise UsageError(f"{args.out} is there already; remove it or choose another name")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        told = fill(args, folder)
        digest = manifest.digest((folder / manifest.MANIFEST).read_bytes())
        packed = archive.pack_file(folder, args.out)
    told = {"file": str(args.out), "sha256": packed.sha256, "digest": digest, "size_bytes": packed.length, **told}
    print(json.dumps(told) if args.json else "\n".join(f"{name}: {value}" for name, value in told.items()))
    return 0
