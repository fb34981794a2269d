"""The ledger, on made-up runs: each kind of failure is seen, and nothing else is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

from tools.chaos.ledger import Arrived, Cloud, Identity, Produced, ShedRange, outstanding, read_ledger, settle


def made(seq: int, stream: str = "decision", durable: bool = True) -> Produced:
    return Produced(Identity("c" * 16, stream, seq), 1000 + seq, f"hash {stream} {seq}", durable, 0)


def row(p: Produced) -> Arrived:
    return Arrived(p.identity, p.n, p.sha256, p.wall_ns)


def cloud_of(rows: list[Arrived], shed: list[ShedRange] | None = None) -> Cloud:
    decisions = [r for r in rows if r.identity.stream == "decision"]
    return Cloud(rows, shed or [], len(decisions), Counter((1, r.n) for r in decisions))


PRODUCED = [made(seq) for seq in range(1, 6)]
ROWS = [row(p) for p in PRODUCED]


def test_all_there() -> None:
    found = settle(PRODUCED, [], cloud_of(ROWS))
    assert (found.produced, found.delivered, found.lost, found.double, found.shed) == (5, 5, 0, 0, 0)


def test_a_missing_record_is_lost_unless_a_range_states_it() -> None:
    without = cloud_of(ROWS[:3] + ROWS[4:])
    assert settle(PRODUCED, [], without).lost == 1
    stated = replace(without, shed=[ShedRange("c" * 16, "decision", 4, 4, 0)])
    found = settle(PRODUCED, [], stated)
    assert (found.lost, found.shed, found.delivered) == (0, 1, 4)
    elsewhere = replace(without, shed=[ShedRange("d" * 16, "decision", 1, 9, 0)])
    assert settle(PRODUCED, [], elsewhere).lost == 1


def test_a_thinned_range_keeps_its_multiples() -> None:
    thinned = cloud_of(ROWS[:2], [ShedRange("c" * 16, "decision", 3, 5, 4)])
    found = settle(PRODUCED, [], thinned)
    assert (found.shed, found.lost) == (2, 1), "4 is a multiple of 4: it should have come"


def test_other_content_under_the_same_number_is_a_loss() -> None:
    changed = [*ROWS[:4], replace(ROWS[4], sha256="other", n=77)]
    assert settle(PRODUCED, [], cloud_of(changed)).lost == 1


def test_bulk_is_counted_apart() -> None:
    produced = [*PRODUCED, made(1, "metric", durable=False)]
    found = settle(produced, ["the disk is full"], cloud_of(ROWS))
    assert (found.lost, found.bulk_lost, found.acknowledged, found.refused) == (0, 1, 5, 1)


def test_every_second_effect_is_seen() -> None:
    again = replace(ROWS[0], identity=Identity("c" * 16, "decision", 6))
    assert settle(PRODUCED, [], cloud_of([*ROWS, again])).double >= 1
    counted_twice = replace(cloud_of(ROWS), counted=6)
    assert settle(PRODUCED, [], counted_twice).double == 1
    projected_twice = replace(cloud_of(ROWS), part_rows=Counter({(1, 1001): 2}))
    assert settle(PRODUCED, [], projected_twice).double == 1


def test_disorder_within_a_stream() -> None:
    swapped = [replace(ROWS[0], n=1002), replace(ROWS[1], n=1001)]
    assert settle([], [], cloud_of(swapped)).disordered == 1


def test_a_torn_last_line_is_left_out() -> None:
    fields = {"stream": "alarm", "chain": "c" * 16, "seq": 7, "n": 1, "sha256": "x", "durable": True, "wall_ns": 5}
    text = json.dumps(fields) + '\n{"refused":"full"}\n{"stream":"al'
    taken, refused = read_ledger(text)
    assert [p.identity.seq for p in taken] == [7]
    assert refused == ["full"]
    assert outstanding(taken) == {("c" * 16, "alarm"): 7}
