"""`gudgeon enroll`: this device gets its certificate from the cloud, with a one-time token.

    gudgeon enroll --config device.toml --hardware-id                        what the token must be made for
    gudgeon enroll --config device.toml --url https://cloud:8443 --token-file F
    … | gudgeon enroll --config device.toml --token-stdin

The private key is made here and stays here. The cloud is known by the fingerprint in the token, or by --ca-file; nothing else is
trusted. Ended half way, the same command with the same token goes on. Where `update.url` is set, the repository's first root is
fetched, too, and from then on the device takes releases from there only (--root-file F: this file, brought by hand).

Exit codes: 0 enrolled; 1 the cloud refuses; 2 wrong use; 3 the configuration is wrong; 5 the cloud cannot be reached, or is
another one; 6 the disk; 8 what the cloud sent is not usable."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from edge_runtime.clock import SystemClock
from edge_runtime.config import DeviceConfig, load_device
from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import UsageError
from edge_runtime.identity import first_root
from edge_runtime.identity.cloud import Cloud, CloudRefusedError
from edge_runtime.identity.credentials import NEW, Credentials, CredentialStore, trusting
from edge_runtime.identity.first_root import read_first_root
from edge_runtime.identity.hardware import hardware_id
from edge_runtime.identity.judging import judge
from edge_runtime.link import time_floor
from edge_runtime.link.cloud_key import KEY_PATH, cloud_key
from edge_runtime.link.time_floor import TimeFloor
from edge_runtime.mqtt_access import secret_file
from edge_runtime.tls_files import KEY, ROOTS
from edge_runtime.update.tuf.repository import ROOT_LIMIT_BYTES
from edge_runtime.wire.enrolment import Token, read_token

TOKEN_LIMIT = 500
NOT_FOUND = 404


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon enroll", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True, metavar="device.toml")
    parser.add_argument("--url", metavar="URL", help="the cloud's listener for devices (identity.url, else update.url)")
    parser.add_argument("--token-file", type=Path, metavar="F", help="one line, readable by this user only")
    parser.add_argument("--token-stdin", action="store_true")
    parser.add_argument("--ca-file", type=Path, metavar="F", help="the cloud's root; else the fingerprint of the token")
    parser.add_argument(
        "--new-key", action="store_true", help="make another private key, where the old one may be known"
    )
    parser.add_argument("--root-file", type=Path, metavar="F", help="the repository's 1.root.json, brought by hand")
    parser.add_argument("--hardware-id", action="store_true", help="print what a token for this device is bound to")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    device = load_device(args.config)
    hardware = device.identity.hardware_id or hardware_id()
    if args.hardware_id:
        print(json.dumps({"device": device.device.id, "hardware": hardware}) if args.json else hardware)
        return 0
    if bool(args.token_file) == args.token_stdin:
        parser.error("expected --token-file F or --token-stdin")
    url = args.url or device.identity.url or device.update.url
    if not url:
        parser.error("expected --url URL, or identity.url in device.toml")
    root = read_first_root(args.root_file) if args.root_file else None
    made = enroll(device, url, _token(args), hardware, args.ca_file, args.new_key)
    obeys = _obey(device, url, made)
    _tell(made, args.json, _begin_trust(device, url, made, root), obeys)
    return 0


def _obey(device: DeviceConfig, url: str, made: Credentials) -> str:
    """The key of the cloud whose commands this device takes from now on; "" where it has one already."""
    state_dir = device.device.state_dir
    if cloud_key(state_dir, device.cloud.public_key) is not None:
        return ""
    text = _cloud(device, url).command_key(made)
    cloud_key(state_dir, text)  # ConfigError where it is none
    replace_file(state_dir / KEY_PATH, text.encode() + b"\n")
    return text


def _cloud(device: DeviceConfig, url: str) -> Cloud:
    return Cloud(url, judge(TimeFloor(device.device.state_dir / time_floor.FILE, SystemClock())))


def _begin_trust(device: DeviceConfig, url: str, made: Credentials, root: bytes | None) -> str:
    """The SHA-256 of the first root that was kept; "" where trust has begun before, or shall not begin here."""
    state_dir = device.device.state_dir
    if first_root.known(state_dir):
        return ""
    if root is None and device.update.url:
        try:
            found = _cloud(device, url).first_root(made, ROOT_LIMIT_BYTES)
        except CloudRefusedError as error:
            if error.status != NOT_FOUND:
                raise
            print("the cloud has no repository of releases yet; give the command again when it has", file=sys.stderr)
            return ""
        root = first_root.check_first_root(found, f"{url}: 1.root.json")
    return first_root.keep(state_dir, root) if root is not None else ""


def enroll(
    device: DeviceConfig, url: str, token: Token, hardware: str, ca_file: Path | None, new_key: bool
) -> Credentials:
    state_dir, clock = device.device.state_dir, SystemClock()
    floor = TimeFloor(state_dir / time_floor.FILE, clock)
    cloud = Cloud(url, judge(floor))
    store = CredentialStore(state_dir, device.device.id)
    key = store.key(new_key)
    with disk_errors(state_dir):
        store.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    roots = state_dir / f"{ROOTS}{NEW}"
    if ca_file is None:
        replace_file(roots, cloud.roots_of(token.root).encode())
    given = cloud.enrol(trusting(ca_file or roots), token.sent, hardware, key.request(device.device.id))
    now_ns = max(clock.wall_ns(), floor.now_ns())
    return store.adopt(given, key, new_key, now_ns, cloud.works)


def _token(args: argparse.Namespace) -> Token:
    text = secret_file(args.token_file) if args.token_file else sys.stdin.read(TOKEN_LIMIT)
    try:
        return read_token(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _tell(made: Credentials, as_json: bool, root: str, obeys: str) -> None:
    leaf = made.certificate()
    ends = leaf.not_valid_after_utc.astimezone(UTC)
    told = {
        "device": made.device, "serial": f"{leaf.serial_number:040x}", "not_after": datetime.isoformat(ends),
        "ca_file": str(made.roots_path), "cert_file": str(made.certificate_path),
        "key_file": str(made.roots_path.parent / KEY.name), "first_root": root, "cloud_key": obeys,
    }  # fmt: skip
    if as_json:
        print(json.dumps(told))
        return
    print(f"{made.device} is enrolled; its certificate holds until {ends:%Y-%m-%d %H:%M} (UTC) and renews itself")
    if root:
        print(f"takes releases from its repository only, from now on; SHA-256 of the first root: {root}")
    if obeys:
        print(f"takes desired state and commands of the cloud with the key {obeys}")
    print("for a broker that asks for it, put into device.toml:\n\n[broker]\ntls = true\nenrolled = true")
