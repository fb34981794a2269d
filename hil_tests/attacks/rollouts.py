"""Attacks on rollouts: devices that lie of themselves or speak for others, people who approve their own, and many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cloud.devices.peer import certified
from cloud.rollout import routes, store
from cloud.rollout.fleet import device as stored
from cloud.rollout.tests.made import NEW, NEWER, SLOT_SET, TARGET, World, fleet
from cloud.tests.databases import empty_store
from edge_runtime.errors import UsageError
from edge_runtime.wire.assignment import read_assignment
from edge_runtime.wire.signed import unseal
from edge_runtime.wire.update_status import LIMIT_BYTES, SlotStatus, UpdateState, UpdateStatus
from hil_tests.attacks.row import Attack

FIRST = "dev00000"


@contextmanager
def world(place: Path, count: int = 4) -> Iterator[World]:
    with empty_store("sqlite", place) as engine:
        made = World(engine, fleet(count))
        made.poll()
        yield made


def tells(there: World, **slot: object) -> None:
    """The first device tells this of its slot set."""
    told = replace(there.devices[FIRST].slots.get(SLOT_SET, SlotStatus()), **slot)  # type: ignore[arg-type]
    there.devices[FIRST].slots[SLOT_SET] = told
    there.devices[FIRST].steps = 0


def over_http(body: Callable[[World], bytes], status: int, says: str) -> Callable[[Path], None]:
    def run(place: Path) -> None:
        with world(place) as there:
            app = FastAPI()
            app.include_router(routes.router)
            app.state.engine, app.state.registry, app.state.now_ns = there.engine, there.registry, lambda: there.now_ns
            app.dependency_overrides[certified] = lambda device: device
            before = stored(there.engine, "dev00001")
            answer = TestClient(app).post(f"/device/v1/devices/{FIRST}/update", content=body(there))
            assert answer.status_code == status
            assert says in answer.text
            assert stored(there.engine, "dev00001") == before

    return run


def runs_something_else(place: Path) -> None:
    with world(place) as there:
        there.start(groups=[{"name": "all"}])
        there.later(1)
        there.poll()
        tells(there, state=UpdateState.CONFIRMED, running=NEWER, confirmed=NEWER)
        there.poll()
        assert there.show()["confirmed"] == 0


def tells_of_an_earlier_try(place: Path) -> None:
    with world(place) as there:
        there.start(groups=[{"name": "all"}])
        there.later(1)
        there.poll()
        counter = there.devices[FIRST].counter
        tells(there, state=UpdateState.ROLLED_BACK, sha256=NEW, counter=counter - 1)
        there.poll()
        assert there.show()["failed"] == 0


def absurd_counter(place: Path) -> None:
    with world(place) as there:
        tells(there, counter=2**63 - 1)
        there.start(groups=[{"name": "all"}])
        there.later(1)
        text = there.poll()[FIRST].assignment
        assert text is not None
        assert read_assignment(unseal(text.encode(), "assignment").body).counter < 2**62


def writes_into_the_history(place: Path) -> None:
    with world(place) as there:
        there.start(groups=[{"name": "all"}], abort={"failed": 1.0})
        there.later(1)
        there.poll()
        counter = there.devices[FIRST].counter
        reason = "\x00\x1b[2J'); DROP TABLE fleet; --" + "x" * 400
        tells(there, state=UpdateState.ROLLED_BACK, sha256=NEW, counter=counter, reason=reason)
        there.poll()
        newest = (stored(there.engine, FIRST) or {})["history"][0]
        assert newest["state"] == "failed"
        assert "\x00" not in newest["reason"]
        assert len(newest["reason"]) <= 300


def approves_it_alone(place: Path) -> None:
    with world(place) as there:
        there.start(groups=[{"name": "all"}], approval=True)
        with pytest.raises(PermissionError, match="another person must approve it"):
            store.approve(there.engine, "r1", "anna", there.now_ns)
        with pytest.raises(UsageError, match="cannot be resumed"):
            store.resume(there.engine, "r1", there.now_ns)
        there.run(3)
        assert there.show()["exposed"] == 0


def all_ask_at_once(place: Path) -> None:
    with world(place, 40) as there:
        there.start(groups=[{"name": "all"}], max_in_flight=3)
        there.later(1)
        for _ in range(3):
            for name in there.devices:
                there.devices[name].steps = 0
                there.poll(name)
        assert there.show()["exposed"] == 3


def withdrawn_while_it_is_given_out(place: Path) -> None:
    with world(place) as there:
        there.start(groups=[{"name": "all"}])
        there.later(1)
        del there.registry.artifacts[TARGET]
        there.poll()
        assert all(not d.items for d in there.devices.values())


ROWS: list[Attack] = [
    Attack(
        "rollout",
        "the certificate of A with the state of B",
        "the status is of device",
        over_http(
            lambda there: there.devices["dev00001"].status(there.now_ns).to_json(), 409, "the status is of device"
        ),
    ),
    Attack(
        "rollout",
        "an endless state",
        "over the limit",
        over_http(lambda _: b"x" * (LIMIT_BYTES + 1), 413, "over the limit"),
    ),
    Attack(
        "rollout",
        "a state with unknown fields",
        "unknown field",
        over_http(
            lambda there: UpdateStatus(FIRST, "b", "h", 1).to_json()[:-1] + b',"more":1}', 400, "unknown field more"
        ),
    ),
    Attack("rollout", "a device says done, and runs something else", "success is the hash", runs_something_else),
    Attack("rollout", "a failure of an earlier try is told again", "not counted", tells_of_an_earlier_try),
    Attack("rollout", "a device tells the highest counter there is", "its own matter", absurd_counter),
    Attack("rollout", "a reason with controls and SQL", "kept as text", writes_into_the_history),
    Attack("rollout", "who made it approves it", "another person must approve", approves_it_alone),
    Attack("rollout", "the whole fleet asks again and again", "max_in_flight holds", all_ask_at_once),
    Attack(
        "rollout", "the artifact is withdrawn before the next tick", "nothing is given", withdrawn_while_it_is_given_out
    ),
]
