"""Check a proof offline: the cloud's signature, the device's signatures, the sums, and, where the records are included,
every hash and link. Nothing but the text is needed; everything that is wrong is named."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.proof import SIGNED_PREFIX
from edge_runtime.errors import DataError
from edge_runtime.wire.batch import read_checkpoint, signed_bytes
from edge_runtime.wire.envelope import Event, genesis, read_record, record_hash

PROBLEMS = 100
TOTALS = ("produced", "delivered", "duplicates", "shed", "missing")
PRUNED = "pruned"  # not in statements of before there was pruning


@dataclass
class Verdict:
    """`problems`: one line each, at most `PROBLEMS`. `records`: how many were included and checked."""

    statement: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    records: int = 0
    signature_ok: bool = True

    def told(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS:
            self.problems.append(problem)

    @property
    def valid(self) -> bool:
        return self.signature_ok and not self.problems

    def summary(self) -> dict[str, Any]:
        s = self.statement
        gaps = [
            {"chain": c["chain"], "stream": name, "first": first, "last": last}
            for c in s["chains"]
            for name, stream in c["streams"].items()
            for first, last in stream["gaps"]
        ]
        names = ("device", "from", "to", "issued_at", *TOTALS)
        return {name: s[name] for name in names} | {
            PRUNED: s.get(PRUNED, 0), "gaps": gaps, "findings": len(s["findings"]), "records_checked": self.records,
            "signature_ok": self.signature_ok, "valid": self.valid, "problems": self.problems,
        }  # fmt: skip


def verify(lines: Iterable[str], cloud_key: str = "", device_keys: Iterable[str] = ()) -> Verdict:
    """`cloud_key`, `device_keys`: base64 keys that are known from elsewhere; none: those that the proof names are taken.
    DataError where the text is no proof."""
    rest = iter(lines)
    line, signature = next(rest, "").rstrip("\n"), next(rest, "")
    try:
        verdict = Verdict(json.loads(line))
        signed = json.loads(signature)
        _check_signature(verdict, "the statement", signed["key"], signed["signature"], SIGNED_PREFIX + line.encode())
        if cloud_key and signed["key"] != cloud_key:
            verdict.told(f"the statement is signed by {signed['key']}, expected was {cloud_key}")
        _check_sums(verdict)
        for chain in verdict.statement["chains"]:
            _check_chain(verdict, chain, list(device_keys))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not a delivery proof: {error!r}; make one with `gudgeon proof DEVICE --out FILE`") from error
    _check_records(verdict, (text.rstrip("\n") for text in rest))
    return verdict


def _check_signature(verdict: Verdict, what: str, key: str, signature: str, data: bytes) -> None:
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))
        public.verify(base64.b64decode(signature, validate=True), data)
    except (InvalidSignature, ValueError):
        verdict.signature_ok = False
        verdict.told(f"the signature of {what} does not fit: it was changed, or signed by another key")


def _check_sums(verdict: Verdict) -> None:
    streams = [(c["chain"], name, s) for c in verdict.statement["chains"] for name, s in c["streams"].items()]
    for chain, name, s in streams:
        if s["produced"] != s["last"] - s["first"] + 1 or s["produced"] != s["delivered"] + s["shed"] + s["missing"]:
            verdict.told(f"{chain}/{name}: {s['produced']} produced is not delivered + shed + missing")
        if not 0 <= s.get(PRUNED, 0) <= s["delivered"]:
            verdict.told(f"{chain}/{name}: {s[PRUNED]} no longer stored, of {s['delivered']} delivered")
    for name in TOTALS:
        if verdict.statement[name] != sum(s[name] for *_, s in streams):
            verdict.told(f"{name} is not the sum of the streams")
    if verdict.statement.get(PRUNED, 0) != sum(s.get(PRUNED, 0) for *_, s in streams):
        verdict.told("pruned is not the sum of the streams")


def _check_chain(verdict: Verdict, chain: Mapping[str, Any], device_keys: list[str]) -> None:
    """The device's own word on this chain."""
    what = f"the checkpoint of chain {chain['chain']}"
    header = chain["checkpoint"].encode()
    _check_signature(verdict, what, chain["key"], chain["signature"], signed_bytes(header))
    checkpoint = read_checkpoint(header)
    if (checkpoint.device, checkpoint.chain, checkpoint.key) != (
        verdict.statement["device"],
        chain["chain"],
        chain["key"],
    ):
        verdict.told(f"{what} is of {checkpoint.device}/{checkpoint.chain}")
    if device_keys and chain["key"] not in device_keys:
        verdict.told(f"{what} is signed by {chain['key']}, which is not among the device keys given")
    for stream, s in chain["streams"].items():
        head = checkpoint.heads.get(stream)
        if head is None or s["last"] > head.seq:
            verdict.told(f"{chain['chain']}/{stream}: record {s['last']} is beyond what the device has signed")
        elif s["last"] == head.seq and s["last_hash"] not in (None, head.hash):
            verdict.told(f"{chain['chain']}/{stream}: record {head.seq} is not the one that the device has signed")
    for shed in checkpoint.shed:
        told = chain["streams"].get(shed.stream, {"ranges": [], "first": 0, "last": 0})
        covered = any(
            r["first"] == shed.first and r["last"] >= shed.last and r["every"] == shed.every for r in told["ranges"]
        )
        if not covered and told["first"] <= shed.last and shed.first <= told["last"]:
            verdict.told(
                f"{chain['chain']}/{shed.stream}: the device states {shed.first}…{shed.last} as shed, the cloud does not"
            )


def _check_records(verdict: Verdict, lines: Iterator[str]) -> None:
    """Recompute every hash, and follow the links, over what was given up by its stated hashes."""
    told = {(c["chain"], name): s for c in verdict.statement["chains"] for name, s in c["streams"].items()}
    came = dict.fromkeys(told, 0)
    before: tuple[Event, bytes] | None = None
    for text in lines:
        line = text.encode()
        try:
            event = read_record(line)
        except ValueError as error:
            verdict.told(f"record {verdict.records + 1}: {error}")
            before = None
            continue
        verdict.records += 1
        place = (event.chain, event.stream)
        if place not in told or event.device != verdict.statement["device"]:
            verdict.told(f"record {event.chain}/{event.stream}/{event.seq} is not in the statement")
            continue
        came[place] += 1
        _check_link(verdict, told[place], before, event)
        if event.seq == told[place]["last"] and record_hash(line) != told[place]["last_hash"]:
            verdict.told(f"record {event.chain}/{event.stream}/{event.seq} is not the one in the statement")
        before = (event, line)
    for place, count in came.items():
        stored = told[place]["delivered"] - told[place].get(PRUNED, 0)
        if verdict.records and count != stored:
            verdict.told(f"{'/'.join(place)}: {count} records included, {stored} stated as delivered and still stored")


def _check_link(verdict: Verdict, told: Mapping[str, Any], before: tuple[Event, bytes] | None, event: Event) -> None:
    where = f"record {event.chain}/{event.stream}/{event.seq}"
    expected = genesis(event.device, event.chain, event.stream) if event.seq == 1 else None
    if before and (before[0].chain, before[0].stream) == (event.chain, event.stream):
        if before[0].seq >= event.seq:
            verdict.told(f"{where} comes after record {before[0].seq}: a repeat, or out of order")
            return
        if before[0].seq == event.seq - 1:
            expected = record_hash(before[1])
    if expected is None:
        ranges = [*told["ranges"], *told.get("pruned_ranges", ())]
        expected = next((r["last_hash"] for r in ranges if r["last"] == event.seq - 1), None)
    if expected is not None and event.prev != expected:
        verdict.told(f"{where} does not follow from the record before it: one of them was changed, dropped or invented")
