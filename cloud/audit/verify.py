"""Check a chain of audit rows against checkpoints. Pure: rows come in, findings come out.

| what was done | how it shows |
|---|---|
| a row edited | its hash is not that of its content, or the next row does not hold it, or a checkpoint does not |
| a row deleted | a number is missing and a link broken |
| rows exchanged | numbers out of order |
| the end cut off | a checkpoint tells of a row that is not there |
| a checkpoint forged | its signature does not fit the key |
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cloud.audit.row import GENESIS, AuditRow

FINDINGS = 100


class Report(NamedTuple):
    """`last`, `hash`: of the last row. `signed`: up to which row a checkpoint holds the chain. `archived`: up to which row it was
    not looked at here, because those rows are in an archive."""

    rows: int
    last: int
    hash: str
    signed: int
    findings: list[str]
    archived: int = 0


def check(
    rows: Iterable[tuple[AuditRow, str | None]],
    checkpoints: Iterable[tuple[int, str] | str],
    after: int = 0,
    before: str | None = GENESIS,
) -> Report:
    """`rows` with the hash that was kept with each, if any; they come `after` that row, whose hash is `before` (None: not known).
    `checkpoints`: (seq, hash), or what is wrong with one; those of rows further back are passed over. At most `FINDINGS`."""
    findings: list[str] = []
    held: dict[int, set[str]] = {}
    for found in checkpoints:
        if isinstance(found, str):
            findings.append(found)
        elif found[0] > after:
            held.setdefault(found[0], set()).add(found[1])
        elif found[0] == after and before not in (None, found[1]):
            findings.append(f"row {after} is not the one that was signed: it or one before it was changed")
    count, at, signed = 0, after, 0
    for row, kept in rows:
        count += 1
        digest = row.digest()
        if row.seq != at + 1:
            what = f"rows {at + 1} to {row.seq - 1} are missing" if row.seq > at + 1 else "it is out of order"
            findings.append(f"row {row.seq} follows row {at}: {what}")
        if before is not None and row.prev != before:
            findings.append(
                f"row {row.seq} does not hold the hash of the row before it: one of the two was changed or put in"
            )
        if kept is not None and kept != digest:
            findings.append(f"row {row.seq} was edited: its content does not give the hash that was kept")
        for promised in held.pop(row.seq, ()):
            if promised == digest:
                signed = max(signed, row.seq)
            else:
                findings.append(f"row {row.seq} is not the one that was signed: it or one before it was changed")
        at, before = row.seq, digest
        if len(findings) >= FINDINGS:
            break
    else:
        for seq in sorted(held):
            where = "the end was cut off" if seq > at else "it was left out"
            findings.append(f"a checkpoint holds row {seq}, which is not there: {where}")
    return Report(count, at, before or GENESIS, signed, findings[:FINDINGS])
