"""Experiments over Decisions as ingest stores them, through the store, the API and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.experiments import cli, store
from cloud.experiments.plan import Arm, Experiment, experiment_of
from cloud.messages import Batch
from cloud.rollout import fleet
from cloud.rollout.tests.made import S_NS, START_NS
from cloud.rollout.tests.test_cli import Running
from cloud.tests.databases import commit
from cloud.tests.made import PLACE, batch, decision
from edge_runtime.errors import DataError, GudgeonError, UsageError

OLD, NEW = "a" * 64, "b" * 64
TWO = Experiment((Arm("old", OLD), Arm("new", NEW)))
NAMES = [f"dev{n:03d}" for n in range(28)]


class Lines:
    """Devices that decide about parts."""

    def __init__(self, engine: Engine, names: list[str]) -> None:
        self.engine, self.seq = engine, dict.fromkeys(names, 0)
        with fleet.writing(engine).begin() as connection:
            for name in names:
                fleet.set_tags(connection, name, {}, [], START_NS)

    def decide(self, device: str, digest: str, results: list[int]) -> None:
        commit(self.engine, [self._decided(device, digest, results)], START_NS)

    def _decided(self, device: str, digest: str, results: list[int]) -> Batch:
        first = self.seq[device] + 1
        self.seq[device] += len(results)
        events = [
            decision(n, device=device, result=result, bundle_digest=digest) for n, result in enumerate(results, first)
        ]
        return batch(events, place=replace(PLACE, device=device))

    def all_decide(self, asked: Experiment, name: str, rejects: dict[str, int], parts: int = 25) -> None:
        """Each device by the bundle of its arm; `rejects`: by arm, so many of its parts."""
        items = []
        for device in self.seq:
            arm = asked.arms[asked.arm_of(name, device)]
            bad = rejects[arm.name]
            items.append(self._decided(device, arm.digest, [2] * bad + [1] * (parts - bad)))
        commit(self.engine, items, START_NS)


def test_what_differs_is_found_and_what_is_alike_is_not(engine: Engine) -> None:
    lines = Lines(engine, NAMES)
    store.create(engine, "e1", TWO, "anna", START_NS)
    lines.all_decide(TWO, "e1", {"old": 3, "new": 3})
    store.look(engine, "e1", START_NS + S_NS)
    alike = store.report(engine, "e1")
    assert (alike["verdict"], alike["best"]) == ("open", None)
    for _ in range(3):
        lines.all_decide(TWO, "e1", {"old": 8, "new": 1})
        store.look(engine, "e1", START_NS + 2 * S_NS)
    told = store.report(engine, "e1")
    old, new = told["arms"]
    assert (told["verdict"], told["best"]) == ("different", "new")
    assert old["parts"] + new["parts"] == 28 * 100
    assert old["assigned"] + new["assigned"] == 28
    assert (old["devices"], old["crossed"]) == (old["assigned"], 0)
    assert old["share"] == pytest.approx(27 / 100)
    assert new["low"] < new["difference"] < new["high"] < 0
    assert (new["p"] < 0.05, new["looks"]) == (True, 4)


def test_nothing_is_counted_twice_and_other_bundles_are_not_counted(sqlite: Engine) -> None:
    lines = Lines(sqlite, NAMES[:4])
    before = decision(1, device="dev000", result=2, bundle_digest=OLD)
    commit(sqlite, [batch([before], place=replace(PLACE, device="dev000"))], START_NS)
    lines.seq["dev000"] = 1
    store.create(sqlite, "e1", TWO, "anna", START_NS)
    own = TWO.arms[TWO.arm_of("e1", "dev000")].digest
    other = NEW if own == OLD else OLD
    lines.decide("dev000", own, [1, 2, 3])
    lines.decide("dev000", other, [2, 2])
    lines.decide("dev000", "c" * 64, [2] * 5)
    for _ in range(3):
        store.look(sqlite, "e1", START_NS)
    arms = store.report(sqlite, "e1")["arms"]
    assert sum(arm["parts"] for arm in arms) == 3, "what was there before does not count"
    assert sum(arm["events"] for arm in arms) == 1
    assert sum(arm["crossed"] for arm in arms) == 2


def test_an_arm_that_devices_drop_out_of_makes_the_comparison_void(sqlite: Engine) -> None:
    lines = Lines(sqlite, [f"dev{n:03d}" for n in range(60)])
    store.create(sqlite, "e1", TWO, "anna", START_NS)
    lost = {d for d in lines.seq if TWO.arm_of("e1", d) == 1 and not d.endswith("3")}
    for device in set(lines.seq) - lost:
        lines.decide(device, TWO.arms[TWO.arm_of("e1", device)].digest, [1, 2])
    store.look(sqlite, "e1", START_NS)
    told = store.report(sqlite, "e1")
    assert (told["verdict"], told["best"]) == ("sample_ratio", None)
    assert told["sample_ratio_p"] < 0.001


def test_devices_that_come_later_get_an_arm_and_p_never_rises(sqlite: Engine) -> None:
    lines = Lines(sqlite, NAMES)
    store.create(sqlite, "e1", TWO, "anna", START_NS)
    lines.all_decide(TWO, "e1", {"old": 14, "new": 2})
    store.look(sqlite, "e1", START_NS)
    least = store.report(sqlite, "e1")["arms"][1]["p"]
    lines.all_decide(TWO, "e1", {"old": 0, "new": 12})
    with fleet.writing(sqlite).begin() as connection:
        fleet.set_tags(connection, "late", {}, [], START_NS + S_NS)
    store.look(sqlite, "e1", START_NS + 2 * S_NS)
    told = store.report(sqlite, "e1")
    assert told["arms"][1]["p"] == least <= 0.05
    assert sum(arm["assigned"] for arm in told["arms"]) == 29
    assert (fleet.device(sqlite, "late") or {})["tags"]["cohort.e1"] in ("old", "new")
    told = store.stop(sqlite, "e1", "seen enough", START_NS)
    assert told["state"] == "stopped"
    lines.all_decide(TWO, "e1", {"old": 1, "new": 1})
    store.look(sqlite, "e1", START_NS)
    assert store.report(sqlite, "e1")["arms"] == told["arms"]
    assert store.stop(sqlite, "e1", "again", START_NS)["reason"] == "seen enough"


def test_what_people_found_of_parts(engine: Engine) -> None:
    asked = replace(TWO, metric="labelled")
    lines = Lines(engine, NAMES[:2])
    store.create(engine, "e1", asked, "anna", START_NS)
    own = asked.arms[asked.arm_of("e1", "dev000")].digest
    lines.decide("dev000", own, [1, 1, 1])
    outcomes = [store.Outcome("dev000", 0, 1, 1), store.Outcome("dev000", 0, 3, 0), store.Outcome("dev000", 0, 99, 1)]
    assert store.label(engine, "e1", outcomes, START_NS) == 3
    assert store.label(engine, "e1", [store.Outcome("dev000", 0, 1, 0)], START_NS) == 3
    for _ in range(2):
        store.look(engine, "e1", START_NS)
    arm = store.report(engine, "e1")["arms"][asked.arm_of("e1", "dev000")]
    assert (arm["parts"], arm["events"]) == (2, 1)


def test_the_same_again_changes_nothing_and_another_is_refused(sqlite: Engine) -> None:
    first = store.create(sqlite, "e1", TWO, "anna", START_NS)
    assert store.create(sqlite, "e1", TWO, "berta", START_NS + 1) == first
    with pytest.raises(UsageError, match="another one"):
        store.create(sqlite, "e1", replace(TWO, metric="review"), "anna", START_NS)
    with pytest.raises(LookupError):
        store.report(sqlite, "e2")
    with pytest.raises(UsageError, match="metric is labelled"):
        store.label(sqlite, "e1", [], START_NS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arms": (Arm("a", OLD),)}, "expected 2 to 8"),
        ({"arms": (Arm("a", OLD), Arm("a", NEW))}, "same name"),
        ({"arms": (Arm("a", OLD), Arm("b", OLD))}, "same digest"),
        ({"metric": "luck"}, "reject"),
        ({"better": "sideways"}, "low or high"),
        ({"effect": 0.0}, "between 0 and 1"),
        ({"alpha": 0.9}, "up to 0.5"),
        ({"where": ("Line=7",)}, "filter"),
    ],
)
def test_a_wrong_plan_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(TWO, **change)
    assert experiment_of(TWO.to_json()) == TWO


def test_the_command(sqlite: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running = Running(sqlite, tmp_path)

    def tell(*argv: str, code: int = 0) -> Any:
        assert cli.main([*argv, *running.where, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    try:
        arms = ["--arm", f"old={OLD}:3", "--arm", f"new={NEW}:1"]
        assert tell("create", "e1", *arms, "--metric", "labelled")["verdict"] == "open"
        table = tmp_path / "outcomes.csv"
        table.write_text("device,part_epoch,part_seq,value\ndev00000,0,1,1\ndev00000,0,2,0\n")
        assert tell("label", "e1", str(table)) == {"outcomes": 2}
        assert [e["id"] for e in tell("list")] == ["e1"]
        assert sum(arm["assigned"] for arm in tell("status", "e1")["arms"]) == 12
        assert cli.main(["status", "e1", *running.where]) == 0
        assert "no difference was found yet" in capsys.readouterr().out
        assert tell("stop", "e1")["reason"] == "by token-file"
        table.write_text("device,part\nx,1\n")
        with pytest.raises(DataError, match="expected the columns"):
            cli.main(["label", "e1", str(table), *running.where])
        with pytest.raises(UsageError, match="expected NAME=TARGET"):
            cli.main(["create", "e2", "--arm", "old", *running.where])
        with pytest.raises(GudgeonError, match="is not published, or is no bundle"):
            cli.main(["create", "e2", "--arm", "a=models/x/1.tar", "--arm", f"b={NEW}", *running.where])
    finally:
        running.web.stop()
