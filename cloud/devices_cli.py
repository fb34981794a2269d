"""`gudgeon devices`: which devices may have certificates, and the authority that signs them.

    gudgeon devices list                                         each with state, hardware, and until when its certificate holds
    gudgeon devices show DEVICE                                  all of its certificates and tokens
    gudgeon devices token DEVICE --hardware ID [--ttl 1h]        a one-time token for `gudgeon enroll`, printed this once
    gudgeon devices revoke DEVICE --reason TEXT                  from now on it is nobody
    gudgeon devices replace DEVICE --hardware ID [--ttl 1h]      its name goes to other hardware; a token for that

On the cloud's own machine, with --config cloud.toml:

    gudgeon devices ca show|new-issuer|new-root|retire-root N    the local certificate authority, and its rotation
    gudgeon devices broker                                       write the files of Mosquitto (devices.broker_folder)
    gudgeon devices ddi-token DEVICE [--drop]                    what SWUpdate shows on the DDI routes, printed this once

Exit codes: 0 done; 1 refused; 2 wrong use; 3 cloud.toml is wrong; 5 the cloud cannot be reached; 6 the disk or the store."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from cloud.access.shell import shell_actor
from cloud.audit.log import record, record_alone
from cloud.ca.authority import fingerprint
from cloud.ca.local import LocalAuthority
from cloud.ddi import store as ddi
from cloud.device_cli import Cloud
from cloud.devices.broker_files import CONF, BrokerFiles
from cloud.devices.side import make_authority, make_desk
from cloud.enrol import listing
from cloud.settings import CloudSettings, load_cloud
from cloud.store.database import WRITES
from cloud.store.opening import open_store
from edge_runtime.errors import GudgeonError, UsageError
from edge_runtime.wire.topics import SEGMENT

UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    if args.action in LOCAL:
        return LOCAL[args.action](args)
    cloud = Cloud(args)
    try:
        return REMOTE[args.action](cloud, args)
    finally:
        cloud.close()


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon devices", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _remote(actions, "list", "all devices")
    _remote(actions, "show", "one device", device=True)
    for name, text in (("token", "a one-time token"), ("replace", "give the name to other hardware")):
        made = _remote(actions, name, text, device=True)
        made.add_argument(
            "--hardware", required=True, metavar="ID", help="as `gudgeon enroll --hardware-id` prints it there"
        )
        made.add_argument("--ttl", type=_ttl, default=timedelta(hours=1), metavar="1h", help="30m, 1h … 30d (1h)")
    revoke = _remote(actions, "revoke", "take its identity away", device=True)
    revoke.add_argument("--reason", required=True, metavar="TEXT")
    ca = _local(actions, "ca", "the local certificate authority")
    ca.add_argument("step", choices=tuple(CA), metavar="show|new-issuer|new-root|retire-root")
    ca.add_argument("number", nargs="?", type=int, metavar="N", help="of the root to retire")
    ca.add_argument("--force", action="store_true", help="retire a root although devices still need it")
    _local(actions, "broker", "write the files of Mosquitto")
    ddi = _local(actions, "ddi-token", "a token for a client of the DDI routes, in the place of the one before")
    ddi.add_argument("device", type=_device, metavar="DEVICE")
    ddi.add_argument("--drop", action="store_true", help="it has none from now on")
    args = parser.parse_args(argv)
    if args.action not in LOCAL and not args.config and not args.cloud:
        parser.error("expected --config cloud.toml, or --cloud URL and --token-file F")
    if args.action == "ca" and (args.number is None) == (args.step == "retire-root"):
        parser.error("retire-root, and nothing else, needs the number of a root")
    return args


def _remote(actions: Any, name: str, text: str, device: bool = False) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    if device:
        parser.add_argument("device", metavar="DEVICE")
    else:
        parser.set_defaults(device="")
    parser.add_argument("--config", type=Path, metavar="cloud.toml", help="take address and token from here")
    parser.add_argument("--cloud", metavar="URL", help="such as http://127.0.0.1:8080 (that of --config)")
    parser.add_argument("--token-file", type=Path, metavar="F", help="of an operator (that of --config)")
    parser.add_argument("--ca-file", type=Path, metavar="F", help="who signs the certificate of an https cloud")
    parser.add_argument("--json", action="store_true")
    return parser


def _local(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--config", type=Path, required=True, metavar="cloud.toml")
    parser.add_argument("--json", action="store_true")
    return parser


def _device(text: str) -> str:
    if not SEGMENT.fullmatch(text):
        raise argparse.ArgumentTypeError("expected 1 to 64 characters of A-Z a-z 0-9 _ . -")
    return text


def _ttl(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,4})([mhd])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number and m, h or d, such as 1h")
    return timedelta(**{UNITS[found[2]]: int(found[1])})


# ── over the API ────────────────────────────────────────────────────────────────────────────────────────────────────


def _list(cloud: Cloud, args: argparse.Namespace) -> int:
    told = _fleet(cloud)
    items = [{**item, "fleet": told.get(item["device"])} for item in cloud.get("/identities")["items"]]
    rows = [(i["device"], i["state"], _until(i["certificate"]), i["hardware"], *_updates(i["fleet"])) for i in items]
    names = ("device", "state", "until", "hardware", "asked", "confirmed")
    print(json.dumps(items) if args.json else _table(names, rows))
    return 0


def _fleet(cloud: Cloud) -> dict[str, Any]:
    """What devices tell of their updates (`gudgeon rollout fleet` has more)."""
    found: dict[str, Any] = {}
    after: str | None = ""
    while after is not None:
        page = cloud.get("/fleet/devices", after=after, limit=1000)
        found |= {item["device"]: item for item in page["items"]}
        after = page["next_after"]
    return found


def _updates(told: Any) -> tuple[str, str]:
    """When it last asked, and what each slot set has confirmed, with the state where that is another."""
    if not told:
        return "", ""
    slots = [
        f"{name} {slot['confirmed'][:12] or '-'}" + ("" if slot["state"] == "confirmed" else f" ({slot['state']})")
        for name, slot in sorted(told["slots"].items())
    ]
    return (_at(told["told_ns"]) if told["told_ns"] else "never"), ", ".join(slots)


def _show(cloud: Cloud, args: argparse.Namespace) -> int:
    found = cloud.get("/identities/{device}")
    if args.json:
        print(json.dumps(found))
        return 0
    reason = f" ({found['reason']})" if found["reason"] else ""
    print(f"{found['device']}: {found['state']}{reason}, hardware {found['hardware']}")
    rows = [
        (c["serial"], _at(c["issued_ns"]), _at(c["not_after_ns"]), c["reason"] or "") for c in found["certificates"]
    ]
    print(_table(("certificate", "issued", "until", "revoked because"), rows))
    print(_table(("token", "state", "until"), [(o["id"], o["state"], _at(o["expires_ns"])) for o in found["tokens"]]))
    return 0


def _token(cloud: Cloud, args: argparse.Namespace) -> int:
    asked = {"hardware": args.hardware, "ttl_s": args.ttl.total_seconds()}
    found = cloud.post("/identities/{device}/" + args.action, asked)
    print(json.dumps(found) if args.json else found["token"])
    return 0


def _revoke(cloud: Cloud, args: argparse.Namespace) -> int:
    found = cloud.post("/identities/{device}/revoke", {"reason": args.reason})
    count = len(found["serials"])
    told = f"{found['device']} is revoked; {count} certificate{'' if count == 1 else 's'} held until now"
    print(json.dumps(found) if args.json else told)
    return 0


def _until(certificate: Any) -> str:
    return _at(certificate["not_after_ns"]) if certificate else ""


def _at(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


# ── on the cloud's machine ──────────────────────────────────────────────────────────────────────────────────────────


def _ca(args: argparse.Namespace) -> int:
    settings, now = load_cloud(args.config), datetime.now(UTC)
    if settings.ca.kind != "local":
        raise UsageError(
            "this is for the local authority; cloud.toml names another one: rotate that with its own tools"
        )
    authority = LocalAuthority(settings.ca_folder)
    if args.step != "show":
        authority.create(settings.ca.name, now)
    if args.step == "retire-root" and not args.force:
        _check_unneeded(settings, authority, args.number)
    CA[args.step](authority, settings, args, now)
    found = _described(authority)
    if args.step != "show":
        _tell_audit(settings, f"ca.{args.step}", found, args)
    roots = [(f"root {r['number']}", r["fingerprint"][:16], r["until"]) for r in found["roots"]]
    issuers = [(f"issuer {i['number']}", f"of root {i['root']}", i["until"]) for i in found["issuers"]]
    print(json.dumps(found) if args.json else _table(("authority", "", "until"), roots + issuers))
    return 0


def _tell_audit(settings: CloudSettings, action: str, found: dict[str, Any], args: argparse.Namespace) -> None:
    engine = open_store(settings.store.address)
    try:
        names = [f"root {root['number']} {root['fingerprint'][:16]}" for root in found["roots"]]
        detail = {"trusted": names, "issuers": len(found["issuers"])} | ({"forced": True} if args.force else {})
        record_alone(engine, shell_actor(), action, str(args.number or found["roots"][-1]["number"]), detail=detail)
    finally:
        engine.dispose()


def _described(authority: LocalAuthority) -> dict[str, Any]:
    def until(certificate: x509.Certificate) -> str:
        return certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M")

    roots = [(number, authority.root(number)) for number in authority.root_numbers()]
    return {
        "roots": [{"number": n, "fingerprint": fingerprint(root), "until": until(root)} for n, root in roots],
        "issuers": [{"number": i.number, "root": i.root, "until": until(i.certificate)} for i in authority.issuers()],
    }


def _check_unneeded(settings: CloudSettings, authority: LocalAuthority, number: int) -> None:
    """Devices whose certificates the root vouches for, or that may not have heard of another one, would be locked out."""
    of_it = {fingerprint(i.certificate) for i in authority.issuers() if i.root == number}
    engine = open_store(settings.store.address)
    try:
        needed = listing.needing(engine, of_it, time.time_ns())
    finally:
        engine.dispose()
    if needed:
        named = ", ".join(needed[:5]) + (" …" if len(needed) > 5 else "")
        raise GudgeonError(
            f"root {number}: {len(needed)} devices still have certificates from it ({named}); wait until they have renewed them, "
            "or say --force and enrol those again"
        )


CA: dict[str, Callable[[LocalAuthority, CloudSettings, argparse.Namespace, datetime], Any]] = {
    "show": lambda authority, settings, args, now: None,
    "new-issuer": lambda authority, settings, args, now: authority.new_issuer(now),
    "new-root": lambda authority, settings, args, now: authority.new_root(settings.ca.name, now),
    "retire-root": lambda authority, settings, args, now: authority.retire_root(args.number),
}


def _broker(args: argparse.Namespace) -> int:
    settings = load_cloud(args.config)
    engine = open_store(settings.store.address)
    try:
        files = BrokerFiles(settings, make_desk(engine, settings, make_authority(settings)))
        files.write()
    finally:
        engine.dispose()
    path = str(files.folder / CONF)
    print(json.dumps({"conf": path}) if args.json else f"start the broker with: mosquitto -c {path}")
    return 0


def _ddi_token(args: argparse.Namespace) -> int:
    engine, now_ns = open_store(load_cloud(args.config).store.address), time.time_ns()
    try:
        with engine.execution_options(**{WRITES: True}).begin() as connection:
            if args.drop and not ddi.drop_token(connection, args.device):
                raise GudgeonError(f"device {args.device} has no token for the DDI routes")
            if not args.drop and ddi.revoked(connection, args.device):
                raise GudgeonError(
                    f"{args.device} was revoked; `gudgeon devices replace` gives its name to a device again"
                )
            token = None if args.drop else ddi.make_token(connection, args.device, now_ns)
            record(connection, shell_actor(), f"ddi.{'drop' if args.drop else 'token'}", args.device)
    finally:
        engine.dispose()
    told = {"device": args.device, "token": token}
    print(json.dumps(told) if args.json else token or f"{args.device} has no token any more")
    return 0


REMOTE: dict[str, Callable[[Cloud, argparse.Namespace], int]] = {
    "list": _list, "show": _show, "token": _token, "replace": _token, "revoke": _revoke,
}  # fmt: skip
LOCAL: dict[str, Callable[[argparse.Namespace], int]] = {
    "ca": _ca, "broker": _broker, "ddi-token": _ddi_token,
}  # fmt: skip
