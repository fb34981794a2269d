"""From end to end, small: a right program passes at every point, a broken one fails under the models that show its fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import UsageError
from tools.chaos.shim import compiler
from tools.crash.__main__ import main
from tools.crash.explore import Plan
from tools.crash.models import MODELS
from tools.crash.promises import check
from tools.crash.run import in_memory, run
from tools.crash.table import SCENARIOS, scenario

needs_compiler = pytest.mark.skipif(compiler() is None, reason="needs a C compiler: apt-get install gcc libc6-dev")
BROKEN = "tools.crash.tests.broken:"


@pytest.fixture
def work() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


@needs_compiler
def test_files_pass_at_every_point(work: Path) -> None:
    outcome = run("files", work / "files", Plan(within=1), real=1)
    assert outcome.passed, [*outcome.found.examples, *outcome.disagree]
    assert set(outcome.found.points) == set(outcome.found.within) == set(MODELS)
    assert len(set(outcome.found.points.values())) == 1, "as many points for each model"
    assert outcome.found.points["lost"] > outcome.operations / 2


@needs_compiler
def test_an_outbox_that_never_flushes_is_found_by_every_model_but_the_kind_one(work: Path) -> None:
    found = run(f"{BROKEN}UNFLUSHED", work / "broken", Plan(within=0), real=0).found
    assert {model for model in MODELS if found.failed[model]} == set(MODELS) - {"written"}
    assert any("decision 1" in example for example in found.examples)


@needs_compiler
def test_a_rename_without_flushes_is_found(work: Path) -> None:
    found = run(f"{BROKEN}RENAMED_ONLY", work / "broken", Plan(within=0), real=0).found
    assert {model for model in MODELS if found.failed[model]} == set(MODELS) - {"written"}


@needs_compiler
@pytest.mark.slow
def test_an_updater_that_starts_before_the_try_is_spent_is_found(work: Path) -> None:
    found = run(f"{BROKEN}UNSPENT", work / "broken", Plan(within=0), real=0).found
    assert all(found.failed[model] for model in MODELS)
    assert any("3 tries left after 1 starts" in example for example in found.examples)


@needs_compiler
@pytest.mark.slow
def test_an_updater_that_never_flushes_is_found(work: Path) -> None:
    found = run(f"{BROKEN}UPDATE_UNFLUSHED", work / "broken", Plan(within=0), real=0).found
    assert {model for model in MODELS if found.failed[model]} >= {"lost", "early", "some"}


def test_the_table() -> None:
    for name in SCENARIOS:
        assert scenario(name).text


def test_refusals_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["meteor"], ["json:loads"], ["json:nothing"], ["no_module:X"], ["--every", "0"]):
        with pytest.raises(UsageError):
            main(arguments)
    assert main(["--list"]) == 0
    assert "outbox-life" in capsys.readouterr().out


# ── promises ────────────────────────────────────────────────────────────────────────────────────────────────────────

CHAIN = "c0ffee00c0ffee00"
HASH = {n: f"{n:064x}" for n in range(10)}


def state(*records: tuple[int, int], head: int = 0, **more: Any) -> dict[str, Any]:
    """An outbox whose stream `decision` holds (seq, n)."""
    rows = [[seq, HASH[n], HASH.get(n - 1, ""), n] for seq, n in records]
    head = head or max((seq for seq, _ in records), default=0)
    checkpoint = {"counter": 9, "chain": CHAIN, "heads": {}, "shed": []}
    streams = {"decision": {"head": head, "records": rows}}
    return {
        "chain": CHAIN,
        "streams": streams,
        "checkpoint": checkpoint,
        "damaged": [],
        "evidence": False,
        "told_damage": False,
    } | more


def took(*records: tuple[int, int], durable: bool = True) -> dict[str, Any]:
    rows = [[CHAIN, "decision", seq, HASH[n], n] for seq, n in records]
    return {"try": [n for _, n in records], "took": rows, "durable": durable}


def sent(seq: int, n: int, counter: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "sent": {"counter": counter, "chain": CHAIN, "heads": {"decision": [seq, HASH[n]]}, "shed": []} | more,
        "records": [],
    }


TWO = took((1, 1), (2, 2))
GENESIS = "names a predecessor"
SHED = {"stream": "decision", "policy": "evict_oldest", "first": 1, "last": 1, "every": 0, "id": 1}


@pytest.mark.parametrize(
    ("notes", "found", "problem"),
    [
        ([TWO], state((1, 1)), "lost: decision 2"),
        ([took((2, 2), durable=False), took((3, 3))], state((3, 3), head=3), "lost: decision 2"),
        ([TWO], state((1, 1), (2, 3)), "another record"),
        ([TWO], state((1, 1), (2, 2), chain="0" * 16), "taken into chain"),
        ([took((1, 1))], state((1, 1), (2, 1)), "there 2 times"),
        ([took((1, 1))], state((1, 1), (2, 2)), "never appended"),
        ([TWO], state((2, 2)), "neither held"),
        ([took((2, 2), (3, 4))], state((2, 2), (3, 4)), "broken link"),
        ([TWO], state((1, 1), (2, 2)), GENESIS),
        ([sent(3, 3)], state((2, 2)), "ends before it"),
        ([sent(2, 3)], state((2, 2)), "as another record"),
        ([sent(2, 2, counter=9)], state((2, 2)), "was given out before"),
        ([sent(2, 2, shed=[SHED])], state((2, 2)), "is taken back"),
        ([], state(damaged=["outbox.db.damaged-1"]), "a sound file was set aside"),
        ([], {"error": "boom"}, "recovery failed: boom"),
    ],
)
def test_each_broken_promise_is_told(notes: list[Mapping[str, Any]], found: Mapping[str, Any], problem: str) -> None:
    assert any(problem in text for text in check(notes, found, MODELS["lost"])), check(notes, found, MODELS["lost"])


def test_what_may_go() -> None:
    unflushed = [took((3, 3), durable=False)]
    assert check(unflushed, state(), MODELS["lost"]) == []
    assert check(unflushed, state(), MODELS["written"]) == ["lost: decision 3 (n 3)"]
    acknowledged = [took((2, 2)), {"acked": {"decision": 2}}]
    assert check(acknowledged, state(head=2), MODELS["lost"]) == []
    given_up = state((2, 2), checkpoint={"counter": 9, "chain": CHAIN, "heads": {}, "shed": [SHED]})
    assert check([TWO], given_up, MODELS["lost"]) == []


@needs_compiler
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["files", "--json", "--within", "0", "--real", "0", "--every", "4"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["points"] == sum(printed["scenarios"][0]["points"].values()) > 0
    assert printed["failed"] == 0
