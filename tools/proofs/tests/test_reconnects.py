"""The check of `make reconnects` finds what it is there for."""

from __future__ import annotations

from edge_runtime.field.tag import Gap, Quality, Reason, Sample
from tools.proofs.reconnects import LIMIT_S, Ledger


def sample(at_s: float, value: float, quality: Quality = Quality.GOOD) -> Sample:
    return Sample("logged", value, quality, round(at_s * 1e9), 0, Reason.NONE)


def test_a_pause_needs_a_gap() -> None:
    ledger = Ledger()
    for report in (sample(0, 1), sample(0.9, 2), sample(2.0, 3, Quality.BAD), sample(2.5, 4)):
        ledger.add(report, history=False)
    assert len(ledger.unrecorded) == 1
    ledger.add(Gap("logged", 0, 1, 0, 1, "x"), history=False)
    ledger.add(sample(2.5 + 3 * LIMIT_S, 5), history=False)
    assert len(ledger.unrecorded) == 1
    ledger.add(sample(2.5, 6), history=False)
    assert len(ledger.unrecorded) == 2, "time went back"


def test_with_a_history_nothing_is_missing() -> None:
    ledger = Ledger()
    for report in (sample(0, 1), sample(0.5, 3), sample(0.9, 90), sample(1.0, 80)):
        ledger.add(report, history=True)
    assert [text.split(" without")[0] for text in ledger.unrecorded] == [
        "logged: from 3 to 90",
        "logged: from 90 to 80",
    ]
