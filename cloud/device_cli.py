"""`gudgeon device`: what a device is asked to be and to do, over the REST API of a running cloud.

    gudgeon device DEVICE desired show                         what it is asked to be, and what it reports
    gudgeon device DEVICE desired set KEY=VALUE …              change keys of it
    gudgeon device DEVICE desired unset KEY …                  back to the device's own configuration
    gudgeon device DEVICE command NAME value=VALUE --wait      do one thing once
    gudgeon device DEVICE commands                             what became of the commands
    gudgeon device DEVICE key                                  the cloud's public key, for <state_dir>/identity/cloud.pub

VALUE is JSON, or text. With --config cloud.toml the address and the token are the cloud's own.
Exit codes: 0 done; 1 the device refused, or a command did not end as `done`; 2 wrong use; 5 the cloud, or with --wait the
device, did not answer."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from cloud.client import Client, add_arguments, check_arguments
from edge_runtime.errors import EndpointError, UsageError

LOOK_EVERY_S = 0.1
GRACE_S = 10.0
COMMANDS_SHOWN = 1000


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    cloud = Cloud(args)
    try:
        return ACTIONS[args.action](cloud, args)
    finally:
        cloud.close()


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("device", metavar="DEVICE")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    desired = _action(actions, "desired", "show, set or unset the desired state")
    desired.add_argument("change", choices=("show", "set", "unset"))
    desired.add_argument("keys", nargs="*", metavar="KEY[=VALUE]")
    desired.add_argument("--if-version", type=int, metavar="N", help="only if it still has this version (0: none yet)")
    desired.add_argument("--wait", action="store_true", help="until the device reports it, or refuses")
    desired.add_argument("--timeout", type=float, default=60.0, metavar="S", help="of --wait (60)")
    command = _action(actions, "command", "one command, signed, carried out at most once")
    command.add_argument("name", metavar="NAME")
    command.add_argument("args", nargs="*", metavar="KEY=VALUE", help="value=VALUE for a point of the PLC")
    command.add_argument("--expires", type=float, default=30.0, metavar="S", help="not carried out after this (30)")
    command.add_argument("--wait", action="store_true", help="until the device has told its end")
    _action(actions, "commands", "the commands to this device and how they ended")
    _action(actions, "key", "the cloud's public key")
    args, rest = parser.parse_known_args(argv)
    listed = getattr(args, "keys" if args.action == "desired" else "args", None)
    if rest and (listed is None or any(text.startswith("-") for text in rest)):
        parser.error("unrecognized arguments: " + " ".join(rest))
    if listed is not None:
        listed += rest  # what comes after an option, argparse leaves over
    check_arguments(parser, args)
    return args


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    add_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return parser


class Cloud(Client):
    """The API of a running cloud, for one device: ``{device}`` in a path is its name."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._device = quote(args.device, safe="")

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        return super()._ask(method, path.format(device=self._device), **more)


def _pairs(texts: list[str]) -> dict[str, Any]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r}: expected KEY=VALUE")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _desired(cloud: Cloud, args: argparse.Namespace) -> int:
    if args.change == "show":
        if args.keys:
            raise UsageError("`show` takes no keys")
        return _tell_twin(cloud.get("/devices/{device}/desired"), args)
    if not args.keys:
        raise UsageError(f"`{args.change}` needs at least one key")
    change = {"set": _pairs(args.keys)} if args.change == "set" else {"unset": args.keys}
    only = {} if args.if_version is None else {"if-match": f'"{args.if_version}"'}
    found = cloud.post("/devices/{device}/desired", change, only)
    if args.wait:
        found = _until_reported(cloud, found["desired"]["version"], args.timeout)
    return _tell_twin(found, args)


def _until_reported(cloud: Cloud, version: int, timeout_s: float) -> Any:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        found = cloud.get("/devices/{device}/desired")
        told = found["reported"]
        if told and (told["version"] >= version or (told["refused"] and told["refused"]["version"] in (0, version))):
            return found
        time.sleep(LOOK_EVERY_S)
    raise EndpointError(
        f"the device did not report version {version} within {timeout_s:g} s; it gets it when it is online"
    )


def _tell_twin(found: Any, args: argparse.Namespace) -> int:
    told = found["reported"]
    if args.json:
        print(json.dumps(found))
    else:
        for side in ("desired", "reported"):
            value = found[side]
            print(f"{side:<9} " + (f"version {value['version']}: {_keys(value['state'])}" if value else "nothing"))
        for name, sides in found["delta"].items():
            print(f"delta     {name}: asked {json.dumps(sides['desired'])}, is {json.dumps(sides['reported'])}")
        if told and told["refused"]:
            print(f"refused   version {told['refused']['version']}: {told['refused']['reason']}")
    return 1 if told and told["refused"] and args.change != "show" and args.wait else 0


def _keys(state: dict[str, Any]) -> str:
    return ", ".join(f"{k} = {json.dumps(v)}" for k, v in sorted(state.items())) or "the device's own configuration"


def _command(cloud: Cloud, args: argparse.Namespace) -> int:
    body = {"name": args.name, "args": _pairs(args.args), "expires_s": args.expires}
    found = cloud.post("/devices/{device}/commands", body)
    end_s = time.monotonic() + args.expires + GRACE_S
    while args.wait and found["ended"] is None and time.monotonic() < end_s:
        time.sleep(LOOK_EVERY_S)
        found = cloud.get("/devices/{device}/commands/" + found["id"])
    print(json.dumps(found) if args.json else _line(found))
    if args.wait and found["ended"] is None:
        raise EndpointError(
            f"command {found['id']}: the device has told no end; it may be offline, or does not know the key of this cloud"
        )
    return 0 if found["ended"] in (None, "done") else 1


def _commands(cloud: Cloud, args: argparse.Namespace) -> int:
    items: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = cloud.get("/devices/{device}/commands", after=after, limit=COMMANDS_SHOWN)
        items, after = items + page["items"], page["next_after"]
    print(json.dumps(items) if args.json else "\n".join(map(_line, items)) or "no commands")
    return 0


def _line(found: Any) -> str:
    issued = datetime.fromtimestamp(found["issued_ns"] / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    reason = f": {found['reason']}" if found["reason"] else ""
    state = found["ended"] or ("accepted" if found["accepted_ns"] else "sent")
    return f"{issued}  {found['id']}  {found['name']} {json.dumps(found['args'])}  {state}{reason}"


def _key(cloud: Cloud, args: argparse.Namespace) -> int:
    found = cloud.get("/key")
    print(json.dumps(found) if args.json else found["public_key"])
    return 0


ACTIONS = {"desired": _desired, "command": _command, "commands": _commands, "key": _key}
