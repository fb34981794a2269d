"""Proofs: the counts are those of counting, and every kind of tampering is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from cloud.period import Period, parse_time
from cloud.proof.cli import main
from cloud.proof.statement import count, proof_lines
from cloud.proof.verify import Verdict, verify
from cloud.store.intervals import Given, Span, runs
from cloud.tests.databases import KINDS, commit, empty_store
from cloud.tests.made import batch, chained, event
from edge_runtime.errors import DataError, ResourceError, UsageError
from edge_runtime.identity import public_text
from edge_runtime.wire.batch import Head, Shed, shed_count
from edge_runtime.wire.envelope import Event, record_hash, record_line

EVENTS = chained(event(n, "metric", "k", x=n) for n in range(1, 31))
LINES = [record_line(e) for e in EVENTS]
HEADS = {"metric": Head(30, record_hash(LINES[-1]))}
GONE = Shed(
    1, "metric", 6, 10, 0, 5, "evict_oldest", record_hash(LINES[4]), record_hash(LINES[5]), record_hash(LINES[9]), 1, 2
)
THIN = Shed(
    2,
    "metric",
    11,
    20,
    5,
    shed_count(11, 20, 5),
    "thin",
    record_hash(LINES[9]),
    record_hash(LINES[10]),
    record_hash(LINES[19]),
    1,
    2,
)
KEPT = [e for e in EVENTS if not 6 <= e.seq <= 10 and (not 11 <= e.seq <= 20 or e.seq % 5 == 0)]
CLOUD_KEY = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
SECOND = 1_000_000_000
ranges = st.tuples(st.integers(1, 40), st.integers(0, 20), st.sampled_from([0, 2, 5]))


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with empty_store(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def store(empty: Engine) -> Engine:
    commit(empty, [batch(KEPT, shed=[GONE, THIN], heads=HEADS)], 1)
    commit(empty, [batch(KEPT[:3], heads=HEADS)], 1)
    return empty


def lines(engine: Engine, records: bool = True, period: Period = Period()) -> list[str]:  # noqa: B008
    return list(proof_lines(engine, CLOUD_KEY, "dev1", period, 10**18, records))


@given(st.sets(st.integers(1, 40), max_size=30), st.lists(ranges, max_size=4))
def test_the_counts_are_those_of_counting(delivered: set[int], given_up: list[tuple[int, int, int]]) -> None:
    given = [(f"p{i}", Given(first, first + more, every)) for i, (first, more, every) in enumerate(given_up)]
    lost = {n for _, g in given for n in range(g.first, g.last + 1) if not g.every or n % g.every} & set(range(1, 41))
    found = count(Span(1, 40), runs(sorted(delivered)), given)
    assert found.delivered == len(delivered)
    assert found.given.total() == len(lost - delivered)
    missing = {n for g in found.gaps for n in range(g.first, g.last + 1)}
    assert missing == set(range(1, 41)) - delivered - lost


def test_an_honest_delivery_is_valid(store: Engine) -> None:
    verdict = verify(lines(store), public_text(CLOUD_KEY))
    assert verdict.problems == []
    told = verdict.summary()
    assert {k: told[k] for k in ("produced", "delivered", "duplicates", "shed", "missing", "gaps", "signature_ok")} == {
        "produced": 30, "delivered": 17, "duplicates": 3, "shed": 13, "missing": 0, "gaps": [], "signature_ok": True,
    }  # fmt: skip
    assert verdict.records == 17
    assert verdict.valid


def test_a_gap_is_told(empty: Engine) -> None:
    engine = empty
    commit(engine, [batch([*EVENTS[:3], *EVENTS[8:]], heads=HEADS)], 1)
    told = verify(lines(engine)).summary()
    assert told["gaps"] == [{"chain": EVENTS[0].chain, "stream": "metric", "first": 4, "last": 8}]
    assert (told["valid"], told["missing"]) == (True, 5)


def dated(*seqs: int) -> list[Event]:
    """Records of a clock that is right, one each second; what is missing of them was lost."""
    made = chained(event(n, "metric")._replace(wall_ns=n * SECOND, wall_uncertainty_ns=0) for n in range(1, 31))
    return [e for e in made if e.seq in seqs]


HEADS_DATED = {"metric": Head(30, record_hash(record_line(dated(30)[0])))}


def told_of(engine: Engine, start_s: int | None, end_s: int | None) -> tuple[int, int, int, int]:
    period = Period(*(None if s is None else s * SECOND for s in (start_s, end_s)))
    verdict = verify(lines(engine, period=period))
    s = verdict.summary()
    assert verdict.valid, verdict.problems
    return s["produced"], s["delivered"], s["shed"], s["missing"]


def test_a_period_covers_the_records_in_it(empty: Engine) -> None:
    commit(empty, [batch(dated(*range(1, 31)), heads=HEADS_DATED)], 1)
    assert told_of(empty, 21, 26) == (5, 5, 0, 0)
    assert told_of(empty, None, 4) == (3, 3, 0, 0)
    assert told_of(empty, 28, None) == (3, 3, 0, 0)
    assert told_of(empty, 40, 50) == told_of(empty, 2 * 10**9, None) == (0, 0, 0, 0)


def test_what_is_missing_at_the_border_of_a_period_belongs_to_it(empty: Engine) -> None:
    commit(empty, [batch(dated(*range(1, 10), *range(15, 20), *range(25, 29)), heads=HEADS_DATED)], 1)
    assert told_of(empty, 12, 22) == (15, 5, 0, 10)
    assert told_of(empty, 11, 13) == (5, 0, 0, 5)
    assert told_of(empty, 26, None) == (5, 3, 0, 2)
    assert told_of(empty, None, None) == (30, 18, 0, 12)


def test_what_was_given_up_over_a_longer_time_than_the_period_belongs_to_it(empty: Engine) -> None:
    before, first, last = (record_hash(record_line(e)) for e in dated(5, 6, 15))
    shed = Shed(1, "metric", 6, 15, 0, 10, "evict_oldest", before, first, last, 6 * SECOND, 15 * SECOND)
    commit(empty, [batch(dated(*range(1, 6), *range(16, 31)), heads=HEADS_DATED, shed=[shed])], 1)
    assert told_of(empty, 9, 11) == (10, 0, 10, 0)
    assert told_of(empty, 12, 18) == (12, 2, 10, 0)
    assert told_of(empty, 16, 18) == (2, 2, 0, 0)


def test_a_period_goes_by_the_time_that_is_known_now(empty: Engine) -> None:
    """The device woke up in 1970 and learned the time later in the same boot."""
    early = [event(n, "metric")._replace(mono_ns=n * SECOND, wall_ns=n) for n in range(1, 5)]
    late = event(5, "metric")._replace(mono_ns=5 * SECOND, wall_ns=10**18 + 5 * SECOND, wall_uncertainty_ns=1)
    made = chained([*early, late])
    heads = {"metric": Head(5, record_hash(record_line(made[-1])))}
    commit(empty, [batch(made, heads=heads)], 1)
    line = list(proof_lines(empty, CLOUD_KEY, "dev1", Period(10**18 + 2 * SECOND), 2 * 10**18, True))
    assert verify(line).summary()["produced"] == 4


def change(text: list[str], at: int, old: str, new: str) -> list[str]:
    assert old in text[at], text[at]
    return [*text[:at], text[at].replace(old, new, 1), *text[at + 1 :]]


def resigned(text: list[str], key: Ed25519PrivateKey, old: str, new: str) -> list[str]:
    """The cloud itself lies."""
    import base64

    line = change(text, 0, old, new)[0]
    signature = base64.b64encode(key.sign(b"gudgeon statement\n" + line.encode())).decode()
    return [line, json.dumps({"key": public_text(key), "signature": signature}), *text[2:]]


OTHER = Ed25519PrivateKey.generate()
TAMPERED: list[tuple[str, Callable[[list[str]], list[str]], str]] = [
    ("a byte of a record", lambda p: change(p, 4, '"x":3', '"x":4'), "does not follow from the record before it"),
    ("the last record", lambda p: change(p, len(p) - 1, '"x":30', '"x":31'), "is not the one in the statement"),
    ("a record dropped", lambda p: p[:4] + p[5:], "17 stated as delivered"),
    ("a record invented", lambda p: [*p, p[-1].replace('"seq":30', '"seq":31')], "18 records included"),
    ("a record twice", lambda p: [*p[:5], p[4], *p[5:]], "a repeat, or out of order"),
    ("two swapped", lambda p: [*p[:4], p[5], p[4], *p[6:]], "a repeat, or out of order"),
    ("no record at all", lambda p: [*p[:2], "rubbish"], "not JSON"),
    ("the count", lambda p: change(p, 0, '"delivered":17', '"delivered":18'), "the signature of the statement"),
    ("the count, signed", lambda p: resigned(p, OTHER, '"shed":13', '"shed":12'), "shed is not the sum"),
    (
        "a range, signed",
        lambda p: resigned(p, OTHER, '"first":6,"last":10', '"first":6,"last":9'),
        "as shed, the cloud does not",
    ),
    (
        "a checkpoint, signed",
        lambda p: resigned(p, OTHER, '\\"counter\\":', '\\"counter\\":1'),
        "the signature of the checkpoint",
    ),
    ("another cloud", lambda p: resigned(p, OTHER, '"v":1', '"v":1'), "expected was"),
]


@pytest.mark.parametrize(("tamper", "problem"), [(t, p) for _, t, p in TAMPERED], ids=[n for n, *_ in TAMPERED])
def test_tampering_is_named(store: Engine, tamper: Callable[[list[str]], list[str]], problem: str) -> None:
    commit(store, [batch([], heads=HEADS, shed=[GONE, THIN], device="dev1")], 1)
    verdict: Verdict = verify(tamper(lines(store)), public_text(CLOUD_KEY))
    assert not verdict.valid
    assert any(problem in p for p in verdict.problems), verdict.problems


def test_a_device_key_that_was_not_expected(store: Engine) -> None:
    verdict = verify(lines(store), device_keys=[public_text(OTHER)])
    assert any("not among the device keys" in p for p in verdict.problems)


@pytest.mark.parametrize("text", [[], ["{}"], ["rubbish", "x"], ["[]", "{}"], ['{"v":1}', '{"key":"","signature":""}']])
def test_what_is_no_proof(text: list[str]) -> None:
    with pytest.raises(DataError, match="not a delivery proof"):
        verify(text)


def test_the_command(store: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = store.url.set(drivername=store.dialect.name).render_as_string(hide_password=False)
    (tmp_path / "cloud.toml").write_text(f'[store]\nurl = "{url}"\n')
    out = tmp_path / "proof.ndjson"
    assert main(["dev1", "--config", str(tmp_path / "cloud.toml"), "--out", str(out), "--records", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["produced"], told["shed"], told["signature_ok"], told["issued_at"][-1]) == (30, 13, True, "Z")
    assert main(["--verify", str(out)]) == 0
    assert "valid: signatures fit, 17 records checked" in capsys.readouterr().out
    out.write_text(out.read_text().replace('"x":3}', '"x":4}'))
    assert main(["--verify", str(out)]) == 1
    assert "PROBLEM: record" in capsys.readouterr().out
    (tmp_path / "noise").write_bytes(b"\xff\n" * 9)
    with pytest.raises(DataError, match="not a delivery proof"):
        main(["--verify", str(tmp_path / "noise")])
    kept = out.read_text()
    with pytest.raises(UsageError, match="no signed records of device 'dev9'"):
        main(["dev9", "--config", str(tmp_path / "cloud.toml"), "--out", str(out)])
    assert out.read_text() == kept


def test_what_cannot_be_asked_is_told_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text("")
    with pytest.raises(ResourceError, match="there is no store yet"):
        main(["dev1", "--config", str(tmp_path / "cloud.toml")])
    for url in ("nonsense", "http://", "ftp://host"):
        with pytest.raises(UsageError, match="no address of a cloud; expected http://HOST:PORT"):
            main(["dev1", "--cloud", url])
    assert [path.name for path in tmp_path.iterdir()] == ["cloud.toml"]


def test_times() -> None:
    assert parse_time("1970-01-01T00:00:01Z") == parse_time("1970-01-01T00:00:01") == 10**9
    with pytest.raises(UsageError, match="ISO 8601"):
        parse_time("yesterday")
    assert replace(GONE, id=3).last == 10
