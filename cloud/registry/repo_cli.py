"""`gudgeon repo`: the registry, a TUF repository of what a fleet may run.

    gudgeon repo init FOLDER --root PUB --root PUB --root PUB --targets PUB    begin; then sign, then publish
    gudgeon repo init FOLDER --make-keys DIR                                   the same with new keys in DIR, signed and published
    gudgeon repo add FOLDER ARTIFACT|BUNDLE_DIR TARGET                         stage a target, such as models/surface/2.tar
    gudgeon repo remove FOLDER TARGET                                          name it no more
    gudgeon repo stage FOLDER ROLE                                             the same content for a new time
    gudgeon repo rotate FOLDER ROLE [--add PUB] [--remove ID] [--threshold N]  other keys; an online role gets a new one by itself
    gudgeon repo publish FOLDER                                                what is staged and signed enough, at one instant
    gudgeon repo renew FOLDER                                                  snapshot and timestamp anew; the cloud does it, too
    gudgeon repo status FOLDER                                                 versions, expiry, what is staged, who must sign
    gudgeon repo verify FOLDER                                                 all that is published, as a device would check it
    gudgeon repo deltas FOLDER [TARGET]                                        from older artifacts, for fewer bytes
    gudgeon repo prune FOLDER --config cloud.toml|--no-cloud [--remove]        what nothing needs any more: told, or removed
    gudgeon repo export FOLDER --to DIR --device ID --item SLOT_SET=TARGET     a medium for devices without a network

What is staged is signed with `gudgeon sign FOLDER --key KEY`, by each holder in turn."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key

from cloud.registry import artifacts, deltas, draft, making, media, pruning, publishing, status
from cloud.registry.folder import Registry
from cloud.registry.keys import read_public
from cloud.registry.roles import DELEGATED, OFFLINE, ONLINE
from cloud.registry.rotating import rotate
from cloud.registry.signing import stage
from edge_runtime.errors import UsageError
from edge_runtime.wire.assignment import SLOT_SET, TARGET, check_slot_set
from edge_runtime.wire.target import ANY

Told = dict[str, Any]


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    now = publishing.utc_now()
    told = ACTIONS[args.action](Registry(args.folder), args, now)
    print(json.dumps(told) if args.json else TEXTS.get(args.action, _plain)(told))
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon repo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    sub: dict[str, argparse.ArgumentParser] = {}
    for name in ACTIONS:
        sub[name] = actions.add_parser(name)
        sub[name].add_argument("folder", type=Path, metavar="FOLDER")
        sub[name].add_argument("--json", action="store_true")
    init = sub["init"]
    init.add_argument("--root", type=Path, action="append", default=[], metavar="PUB", help="three; two must sign")
    init.add_argument("--targets", type=Path, action="append", default=[], metavar="PUB")
    init.add_argument(
        "--delegate", action="append", default=[], metavar="ROLE=PUB", help="other keys for one of models …"
    )
    init.add_argument("--make-keys", type=Path, metavar="DIR", help="make all keys, plain, and publish: not in earnest")
    add = sub["add"]
    add.add_argument("source", type=Path, metavar="ARTIFACT|BUNDLE_DIR")
    add.add_argument("target", metavar="TARGET")
    add.add_argument("--index", type=int, metavar="N", help="by default one above the highest there is")
    add.add_argument("--floor", type=int, default=0, metavar="N", help="confirmed, it closes all below this index")
    add.add_argument("--hardware", action="append", default=[], metavar="CLASS", help="such as x86_64; all without it")
    add.add_argument("--digest", default="", metavar="D", help="of the manifest in an artifact that is packed already")
    sub["remove"].add_argument("target", metavar="TARGET")
    sub["stage"].add_argument("role", choices=OFFLINE)
    keys = sub["rotate"]
    keys.add_argument("role", choices=(*OFFLINE, *ONLINE, making.ASSIGNMENT))
    keys.add_argument("--add", type=Path, action="append", default=[], metavar="PUB")
    keys.add_argument(
        "--remove", action="append", default=[], metavar="ID", help="the beginning of a key's id, or path"
    )
    keys.add_argument("--threshold", type=int, metavar="N")
    sub["publish"].add_argument(
        "--old-keys-lost", action="store_true", help="do not ask for signatures by replaced keys"
    )
    sub["renew"].add_argument("--force", action="store_true", help="also where it is not due")
    made = sub["deltas"]
    made.add_argument("target", nargs="?", default="", metavar="TARGET")
    made.add_argument("--again", action="store_true", help="also what is there already")
    old = sub["prune"]
    cloud = old.add_mutually_exclusive_group(required=True)
    cloud.add_argument(
        "--config", type=Path, metavar="cloud.toml", help="whose store names what is assigned or on devices"
    )
    cloud.add_argument("--no-cloud", action="store_true", help="no cloud serves this registry")
    old.add_argument(
        "--keep", type=int, default=pruning.KEEP_VERSIONS, metavar="N", help="versions of each role (%(default)s)"
    )
    old.add_argument("--remove", action="store_true", help="do it; without it only told")
    export = sub["export"]
    export.add_argument("--to", type=Path, required=True, metavar="DIR")
    export.add_argument("--device", action="append", default=[], metavar="ID")
    export.add_argument("--item", action="append", default=[], metavar="SLOT_SET=TARGET")
    export.add_argument("--days", type=int, choices=range(1, 8), default=7, help="the assignment is good for (7)")
    export.add_argument("--counter", type=int, default=0, metavar="N", help="of the assignment; the seconds of now")
    return parser.parse_args(argv)


def _init(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    if args.make_keys:
        made = making.make_registry(args.folder, args.make_keys, now)
        return {"published": {role: document.version for role, document in made.published().items()}}
    delegated: dict[str, list[Key]] = {}
    for text in args.delegate:
        role, _, path = text.partition("=")
        if role not in DELEGATED or not path:
            raise UsageError(f"--delegate {text}: expected ROLE=PUB with one of {', '.join(DELEGATED)}")
        delegated.setdefault(role, []).append(read_public(Path(path)))
    root, targets = ([read_public(path) for path in paths] for paths in (args.root, args.targets))
    made = making.init(args.folder, root, targets, now, delegated)
    return {"staged": list(made.all_staged())}


def _add(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    classes = tuple(args.hardware) or (ANY,)
    if args.target.endswith(".tar") and not args.target.startswith("os/") and not args.source.is_dir():
        artifacts.check_archive(args.source)
    target = artifacts.add(registry, args.source, args.target, now, args.index, args.floor, classes, args.digest)
    return {"target": target.path, "sha256": target.sha256, "length": target.length, **target.custom}


def _remove(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    artifacts.remove(registry, args.target, now)
    return {"removed": args.target}


def _stage(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    with registry.locked():
        made = draft.next_version(
            args.role, registry.published().get(args.role), registry.staged_document(args.role), now
        )
        stage(registry, args.role, made)
    return {"staged": args.role, "version": made.signed.version}


def _rotate(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    rotate(registry, args.role, now, [read_public(path) for path in args.add], args.remove, args.threshold)
    return {"rotated": args.role, "staged": list(registry.all_staged())}


def _publish(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    return {"published": publishing.publish(registry, now, args.old_keys_lost)}


def _renew(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    return {"renewed": publishing.renew(registry, now, args.force)}


def _status(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    registry.check()
    return status.status(registry, now)


def _verify(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    return status.verify(registry, now)


def _deltas(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    registry.check()
    made = deltas.build(registry, args.target, args.again)
    return {"deltas": [vars(one) for one in made], "removed_files": deltas.sweep(registry)}


def _prune(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    registry.check()
    used = _in_use(args.config, registry) if args.config else set()
    found = (pruning.prune if args.remove else pruning.unneeded)(registry, used, args.keep)
    rows = [{"path": str(one.path), "kind": one.kind, "bytes": one.size_bytes} for one in found]
    return {"files": rows, "bytes": sum(one.size_bytes for one in found), "removed": args.remove}


def _in_use(config: Path, registry: Registry) -> set[str]:
    from cloud.registry import in_use
    from cloud.settings import load_cloud
    from cloud.store.opening import open_store

    settings = load_cloud(config)
    if settings.registry.folder is None or settings.registry.folder.resolve() != registry.folder.resolve():
        raise UsageError(f"{config}: its [registry] is not {registry.folder}, so it cannot say what of that is in use")
    engine = open_store(settings.store.address)
    try:
        with engine.connect() as store:
            return in_use.hashes(store)
    finally:
        engine.dispose()


def _export(registry: Registry, args: argparse.Namespace, now: datetime) -> Told:
    registry.check()
    items = {}
    for text in args.item:
        slot_set, _, path = text.partition("=")
        if not SLOT_SET.fullmatch(slot_set) or not TARGET.fullmatch(path):
            raise UsageError(f"--item {text}: expected SLOT_SET=TARGET, such as default=models/surface/2.tar")
        try:
            check_slot_set(slot_set, path)
        except ValueError as error:
            raise UsageError(f"--item {text}: {error}") from error
        items[slot_set] = path
    return media.export(registry, args.to, args.device, items, now, args.counter, timedelta(days=args.days))


ACTIONS: dict[str, Callable[[Registry, argparse.Namespace, datetime], Told]] = {
    "init": _init, "add": _add, "remove": _remove, "stage": _stage, "rotate": _rotate, "publish": _publish,
    "renew": _renew, "status": _status, "verify": _verify, "deltas": _deltas, "prune": _prune, "export": _export,
}  # fmt: skip


def _plain(told: Told) -> str:
    return "\n".join(f"{name}: {_value(value)}" for name, value in told.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _status_text(told: Told) -> str:
    lines = []
    for role, row in told["roles"].items():
        expires = f"expires {row['expires'][:16]} ({row['days_left']:g} days)" if row["expires"] else "not published"
        lines.append(
            f"{role:<10} version {row['version']:<4} {expires:<42} {row['threshold']} of {', '.join(row['keys'])}"
        )
    for role, row in told["staged"].items():
        for by, counted in row["signatures"].items():
            missing = f"signatures missing: {counted['missing']}" if counted["missing"] else "signed"
            lines.append(f"staged     {role} version {row['version']}: {missing} ({by}: {counted['threshold']} needed)")
    for path, target in told["targets"].items():
        state = "" if target["published"] else "  staged"
        lines.append(
            f"target     {path}  index {target['index']}  floor {target['floor']}  {target['length']} bytes{state}"
        )
    lines += [f"key        {path}" for path in told["assignment_keys"]]
    return "\n".join([*lines, *(f"WARNING: {text}" for text in told["warnings"])])


def _deltas_text(told: Told) -> str:
    rows = [
        f"{row['target']}  from {row['source'] or 'nothing'}: whole {row['full_bytes']}, "
        + "".join(f"{name} {size}, " for name, size in row["sizes"].items())
        + (f"published {row['chosen']}" if row["chosen"] else "none published")
        for row in told["deltas"]
    ]
    return "\n".join(rows or ["nothing to do"])


def _prune_text(told: Told) -> str:
    rows = [f"{row['kind']:<10} {row['bytes']:>12}  {row['path']}" for row in told["files"]]
    done = "removed" if told["removed"] else "would go; nothing was removed, say --remove"
    return "\n".join([*rows, f"{len(rows)} files, {told['bytes']} bytes: {done}" if rows else "nothing to remove"])


TEXTS: dict[str, Callable[[Told], str]] = {"status": _status_text, "deltas": _deltas_text, "prune": _prune_text}
