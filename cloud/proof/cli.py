"""`gudgeon proof`: ask the cloud for its signed statement about a device, check it, print it; or check one offline.

Exit codes: 0 valid and without a gap; 1 not valid, or records are missing; others as usual."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from cloud.client import add_token_arguments, streamed
from cloud.period import parse_period
from cloud.proof.statement import proof_lines
from cloud.proof.verify import Verdict, verify
from cloud.settings import load_cloud
from cloud.store.opening import open_existing
from edge_runtime.durable import disk_errors
from edge_runtime.identity import load_or_make


def main(argv: list[str]) -> int:
    args = _arguments(argv)
    if args.verify:
        with disk_errors(args.verify), args.verify.open(encoding="utf-8", errors="replace") as file:
            verdict = verify(file, args.cloud_key, args.device_key)
    else:
        verdict = verify(_kept(_fetch(args), args.out), args.cloud_key, args.device_key)
    print(json.dumps(verdict.summary()) if args.json else _text(verdict))
    return 0 if verdict.valid and not verdict.statement["missing"] else 1


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gudgeon proof", description=__doc__)
    parser.add_argument("device", nargs="?", metavar="DEVICE")
    parser.add_argument("--from", dest="start", metavar="T", help="ISO 8601, UTC; the records' wall time")
    parser.add_argument("--to", dest="end", metavar="T")
    parser.add_argument("--cloud", metavar="URL", help="of the running cloud, such as http://127.0.0.1:8080")
    add_token_arguments(parser)
    parser.add_argument("--config", type=Path, metavar="cloud.toml", help="read the cloud's store directly")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the proof")
    parser.add_argument(
        "--records", action="store_true", help="with every record line, so that each hash can be checked"
    )
    parser.add_argument("--verify", type=Path, metavar="FILE", help="check a kept proof; nothing else is needed")
    parser.add_argument("--cloud-key", default="", metavar="K", help="base64; the statement must be signed by it")
    parser.add_argument("--device-key", action="append", default=[], metavar="K", help="base64; repeatable")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if not args.verify and (not args.device or bool(args.cloud) == bool(args.config)):
        parser.error("expected DEVICE and one of --cloud URL or --config cloud.toml, or --verify FILE")
    return args


def _fetch(args: argparse.Namespace) -> Iterator[str]:
    times = {"from": args.start, "to": args.end}
    known = {name: text for name, text in times.items() if text is not None}
    period = parse_period(args.start, args.end)
    if args.config:
        store = load_cloud(args.config).store
        engine, key = open_existing(store.address), load_or_make(store.key_file)
        try:
            yield from proof_lines(engine, key, args.device, period, time.time_ns(), args.records)
        finally:
            engine.dispose()
        return
    path = f"/devices/{quote(args.device, safe='')}/proof"
    with streamed(args, path, known | {"records": args.records}) as answer:
        yield from answer.iter_lines()


def _kept(lines: Iterable[str], path: Path | None) -> Iterator[str]:
    if path is None:
        yield from lines
        return
    rest = iter(lines)
    first = next(rest, None)  # where there is no proof, a file that is there stays as it is
    if first is None:
        return
    with disk_errors(path), path.open("w", encoding="utf-8") as file:
        for line in itertools.chain([first], rest):
            file.write(line + "\n")
            yield line


def _text(verdict: Verdict) -> str:
    s = verdict.statement
    out = [
        f"device {s['device']}, {s['from'] or 'the beginning'} to {s['to'] or 'now'}, stated {s['issued_at']}",
        f"produced {s['produced']}, delivered {s['delivered']}, duplicates dropped {s['duplicates']}, shed {s['shed']}, "
        f"missing {s['missing']}" + (f", no longer stored {s['pruned']}" if s.get("pruned") else ""),
    ]
    for chain in s["chains"]:
        out.append(f"chain {chain['chain']}, key {chain['key']}")
        for name, stream in chain["streams"].items():
            out.append(f"  {name:<10} {stream['first']}…{stream['last']}: delivered {stream['delivered']}")
            out += [f"    {policy}: {n} given up" for policy, n in stream["shed_by_policy"].items()]
            out += [f"    given up in {r['first']}…{r['last']} ({r['policy']})" for r in stream["ranges"][:20]]
            out += [f"    no longer stored: {stream['pruned']}"] if stream.get("pruned") else []
            out += [f"    MISSING {first}…{last}" for first, last in stream["gaps"][:20]]
    out += [f"finding: {f['kind']} {f['stream']} {f['seq']}: {f['detail']}" for f in s["findings"]]
    out += [f"PROBLEM: {problem}" for problem in verdict.problems]
    checked = f", {verdict.records} records checked" if verdict.records else ""
    out.append(
        ("valid" if verdict.valid else "NOT VALID")
        + f": signatures {'fit' if verdict.signature_ok else 'DO NOT FIT'}{checked}"
    )
    return "\n".join(out)
