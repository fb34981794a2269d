"""Rollouts through the store and simulated devices: groups, thresholds, aborts, and what a device is given."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.rollout import fleet as stored_fleet
from cloud.rollout import store
from cloud.rollout.shown import listed
from cloud.rollout.tests.made import NEW, NEWER_TARGET, SLOT_SET, TARGET, World, fleet
from edge_runtime.errors import UsageError
from edge_runtime.wire.assignment import read_assignment
from edge_runtime.wire.signed import unseal

TWO = [{"name": "canary", "count": 2, "soak_s": 60}, {"name": "all"}]
ONE = [{"name": "all"}]


def items(world: World, name: str) -> Any:
    text = world.poll(name)[name].assignment
    return {} if text is None else read_assignment(unseal(text.encode(), "assignment").body).items


def test_group_by_group_until_all_have_confirmed(engine: Engine) -> None:
    world = World(engine, fleet(12))
    world.poll()
    assert world.start(groups=TWO)["state"] == "running"
    world.later(1)
    world.poll()
    assert world.show()["exposed"] == 2
    world.run(2)
    assert len(world.confirmed()) == 2
    assert world.show()["groups"][0]["state"] == "open"
    world.later(1)
    assert world.show()["groups"][0]["state"] == "soaking"
    world.later(58)
    world.poll()
    assert world.show()["exposed"] == 2, "the soak time is not over"
    world.later(2)
    world.run(8)
    told = world.show()
    assert (told["state"], told["confirmed"], told["failed"]) == ("finished", 12, 0)
    assert len(world.confirmed()) == 12
    assert all(len(d.taken) == 1 for d in world.devices.values()), "no device twice"


def test_a_bad_artifact_stops_in_the_canary(engine: Engine) -> None:
    world = World(engine, fleet(30, bad=range(30)))
    world.poll()
    world.start(groups=[{"name": "canary", "count": 3}, {"name": "all"}])
    world.run(10)
    told = world.show()
    assert (told["state"], told["exposed"], told["failed"]) == ("aborted", 3, 3)
    assert "canary: 0 of 3 devices confirmed and 3 failed" in told["reason"] or "had to confirm" in told["reason"]
    assert not world.confirmed()
    assert all(not world.devices[name].items for name in world.devices), "nothing is asked of anybody any more"


def test_an_absolute_number_of_failures(sqlite: Engine) -> None:
    world = World(sqlite, fleet(40, bad=range(0, 40, 2)))
    world.poll()
    world.start(groups=ONE, max_in_flight=4, abort={"count": 3, "executed": 1000})
    world.run(30)
    told = world.show()
    assert told["state"] == "aborted"
    assert told["reason"].endswith("devices failed, the limit is 3")
    assert told["exposed"] <= 2 * 3 + 4


def test_silent_devices_count_as_failed_and_may_come_back(sqlite: Engine) -> None:
    world = World(sqlite, fleet(5, silent=[0]))
    world.poll()
    world.start(groups=ONE, silent_after_s=300, abort={"failed": 1.0})
    world.run(6, seconds=40)
    assert world.show()["failed"] == 0
    world.run(4, seconds=60)
    assert world.show()["groups"][0]["counts"]["silent"] == 1
    device = world.devices["dev00000"]
    device.fate, device.gone = "good", False
    world.poll()
    assert world.show()["groups"][0]["counts"]["silent"] == 0
    assert world.show()["confirmed"] == 5


def test_one_that_goes_back_after_it_confirmed_has_failed(engine: Engine) -> None:
    world = World(engine, fleet(10, regrets=[0, 1, 2, 3]))
    world.poll()
    world.start(groups=[{"name": "canary", "where": ["device=dev00000|dev00001"], "soak_s": 600}, {"name": "all"}])
    world.run(8)
    told = world.show()
    assert told["state"] == "aborted"
    assert told["exposed"] == 2
    history = (stored_fleet.device(engine, "dev00000") or {})["history"]
    assert [row["state"] for row in history] == ["failed", "confirmed", "working", "offered"]
    assert "after it was confirmed" in history[0]["reason"]


def test_what_is_refused_is_tried_again_after_a_pause_and_not_for_ever(sqlite: Engine) -> None:
    world = World(sqlite, fleet(2))
    world.devices["dev00000"].refusals = 1
    world.devices["dev00001"].refusals = 9
    world.poll()
    world.start(groups=ONE, tries=3, retry_s=100, abort={"failed": 1.0}, silent_after_s=3600)
    world.run(3, seconds=10)
    assert world.show()["groups"][0]["counts"]["retry"] == 2
    assert items(world, "dev00000") == {}, "nothing is given while it waits"
    world.run(60, seconds=30)
    counts = world.show()["groups"][0]["counts"]
    assert (counts["confirmed"], counts["failed"]) == (1, 1)
    assert world.devices["dev00001"].refusals == 6


def test_pause_stages_and_resume_goes_on(engine: Engine) -> None:
    world = World(engine, fleet(4))
    world.poll()
    world.start(groups=ONE, max_in_flight=2)
    world.later(1)
    world.poll()
    flying = [name for name in world.devices if SLOT_SET in world.devices[name].items]
    assert len(flying) == 2
    for _ in range(2):
        assert store.pause(engine, "r1", "line change", world.now_ns)["state"] == "paused"
    assert items(world, flying[0])[SLOT_SET].go == "stage"
    world.run(5)
    assert not world.confirmed()
    assert world.show()["exposed"] == 2
    for _ in range(2):
        assert store.resume(engine, "r1", world.now_ns)["state"] == "running"
    world.run(12)
    assert world.show()["state"] == "finished"
    assert len(world.confirmed()) == 4


def test_abort_takes_back_what_was_not_begun_and_leaves_what_was_confirmed(engine: Engine) -> None:
    world = World(engine, fleet(6))
    world.poll()
    world.start(groups=TWO)
    world.run(4)
    assert len(world.confirmed()) == 2
    for _ in range(2):
        assert store.abort(engine, "r1", "wrong recipe", world.now_ns)["state"] in ("aborting", "aborted")
    world.run(2)
    told = world.show()
    assert (told["state"], told["reason"], told["exposed"]) == ("aborted", "wrong recipe", 2)
    assert store.abort(engine, "r1", "again", world.now_ns)["reason"] == "wrong recipe"
    assert len(world.confirmed()) == 2
    with pytest.raises(UsageError, match="is aborted, it cannot be resumed"):
        store.resume(engine, "r1", world.now_ns)


def test_abort_with_revert_takes_the_fleet_back(engine: Engine) -> None:
    world = World(engine, fleet(6))
    world.poll()
    world.start(groups=ONE, on_abort="revert")
    world.run(5)
    assert world.show()["state"] == "finished"
    store.abort(engine, "r1", "it drifts", world.now_ns)
    world.run(3)
    assert world.show()["state"] == "aborted"
    assert not world.confirmed()
    assert world.show()["groups"][0]["counts"]["cancelled"] == 6


def test_approval_by_another_person(sqlite: Engine) -> None:
    world = World(sqlite, fleet(3))
    world.poll()
    assert world.start(groups=ONE, approval=True)["state"] == "waiting_approval"
    world.run(2)
    assert world.show()["exposed"] == 0
    with pytest.raises(PermissionError, match="another person must approve it"):
        store.approve(sqlite, "r1", "anna", world.now_ns)
    for _ in range(2):
        assert store.approve(sqlite, "r1", "berta", world.now_ns)["state"] == "running"
    world.run(6)
    assert (world.show()["state"], world.show()["approved_by"]) == ("finished", "berta")


def test_devices_that_are_not_here_are_not_waited_for_and_get_it_when_they_come(sqlite: Engine) -> None:
    world = World(sqlite, fleet(6))
    world.poll()
    world.now_ns += 7200 * 10**9
    away = ["dev00004", "dev00005"]
    world.poll(*(set(world.devices) - set(away)))
    for name in away:
        world.devices[name].gone = True
    world.start(groups=ONE, absent_after_s=3600)
    world.run(6)
    told = world.show()
    assert (told["state"], told["confirmed"], told["groups"][0]["absent"]) == ("finished", 4, 2)
    world.devices["dev00004"].gone = False
    world.run(5)
    assert world.show()["confirmed"] == 5


def test_devices_that_come_later_join_the_last_group_that_is_not_open(sqlite: Engine) -> None:
    world = World(sqlite, fleet(6))
    world.poll()
    world.start(groups=TWO)
    world.later(1)
    world.devices |= {d.name: d for d in fleet(9)[6:]}
    world.poll()
    world.later(1)
    assert [g["members"] for g in world.show()["groups"]] == [2, 7]
    world.run(12)
    assert (world.show()["state"], world.show()["confirmed"]) == ("finished", 9)


def test_a_second_rollout_on_the_same_devices_is_refused_or_replaces_the_first(engine: Engine) -> None:
    world = World(engine, fleet(8))
    world.poll()
    world.start("r1", groups=TWO)
    world.run(2)
    with pytest.raises(UsageError, match=r"live rollout on the same devices: r1 \(8 devices\)"):
        world.create("r2", target=NEWER_TARGET, groups=ONE, begin=True)
    assert [r["id"] for r in listed(engine, world.now_ns, 9)] == ["r1"]  # no draft is left in the way of the next try
    world.create("r3", target=NEWER_TARGET, groups=ONE, replaces="r1", begin=True)
    world.run(8)
    assert (world.show("r1")["state"], world.show("r1")["reason"]) == ("aborted", "replaced by r3")
    assert (world.show("r3")["state"], world.show("r3")["confirmed"]) == ("finished", 8)


def test_other_hardware_and_a_higher_floor_are_skipped(sqlite: Engine) -> None:
    world = World(sqlite, fleet(4))
    world.registry.artifacts[TARGET] = type(world.registry.artifacts[TARGET])(NEW, 2, ("x86_64",))
    world.devices["dev00000"].hardware = "aarch64"
    world.devices["dev00001"].floor = 3
    world.poll()
    world.start(groups=ONE)
    world.run(6)
    told = world.show()
    assert (told["state"], told["confirmed"], told["groups"][0]["counts"]["skipped"]) == ("finished", 2, 2)
    reasons = {row["device"]: row["reason"] for row in store_devices(sqlite)}
    assert reasons["dev00000"] == "made for x86_64, the device is aarch64"
    assert reasons["dev00001"] == "index 2 is below the device's floor 3"


def store_devices(engine: Engine) -> list[dict[str, Any]]:
    from cloud.rollout.shown import devices

    return devices(engine, "r1", None, "", 100)


def test_an_artifact_that_is_withdrawn_stops_its_rollout(sqlite: Engine) -> None:
    world = World(sqlite, fleet(6))
    world.poll()
    world.start(groups=TWO)
    world.later(1)
    world.poll()
    del world.registry.artifacts[TARGET]
    assert world.later(1) == {"r1": "aborting"}
    world.poll()
    assert all(not d.items for d in world.devices.values())
    world.run(3)
    assert "was withdrawn" in world.show()["reason"]


def test_a_window_in_the_zone_of_the_device(sqlite: Engine) -> None:
    world = World(sqlite, fleet(2))
    world.poll()
    with stored_fleet.writing(sqlite).begin() as connection:
        stored_fleet.set_zone(connection, "dev00000", "Europe/Berlin", world.now_ns)
    world.start(groups=ONE, window="02:00-04:00", silent_after_s=86400)
    world.later(1)
    assert items(world, "dev00001")[SLOT_SET].window == "02:00-04:00", "its own local time decides"
    local_hour = 22  # 2026-05-28 20:26 UTC is 22:26 in Berlin
    assert items(world, "dev00000")[SLOT_SET].go == "stage"
    assert items(world, "dev00000")[SLOT_SET].window == ""
    world.later((26 - local_hour) * 3600)
    assert items(world, "dev00000")[SLOT_SET].go == "activate"


def test_a_counter_rises_with_the_content_alone_and_is_signed_again_in_time(engine: Engine) -> None:
    world = World(engine, fleet(2))
    assert world.poll()["dev00000"].assignment is None
    world.start(groups=ONE)
    world.later(1)
    world.run(5)

    def told() -> Any:
        text = world.poll("dev00000")["dev00000"].assignment or ""
        return read_assignment(unseal(text.encode(), "assignment").body)

    first = told()
    world.later(3600)
    assert told() == first
    world.later(13 * 3600)
    again = told()
    assert (again.counter, again.items) == (first.counter, first.items)
    assert again.expires_ns > first.expires_ns
    world.devices["dev00000"].slots[SLOT_SET] = (
        world.devices["dev00000"]
        .slots[SLOT_SET]
        .__class__(**{**vars(world.devices["dev00000"].slots[SLOT_SET]), "counter": first.counter + 50})
    )
    assert told().counter == first.counter + 51, "above all that the device has seen"
