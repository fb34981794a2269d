"""Group commit: everyone gets an answer, whatever happens to the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from edge_runtime.outbox import group as module
from edge_runtime.outbox.group import GroupCommit, Request
from edge_runtime.tests.waiting import PATIENCE_S, until


class Disk:
    """Commits that stop until they are let go. `groups`: how many requests each had."""

    def __init__(self) -> None:
        self.groups: list[Sequence[Request]] = []
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def commit(self, group: Sequence[Request]) -> None:
        self.groups.append(group)
        self.begun.release()
        self.go.acquire()

    @property
    def sizes(self) -> list[int]:
        return [len(g) for g in self.groups]


def start(group: GroupCommit[Request], request: Request) -> threading.Thread:
    """Submits in a thread of its own, and waits until it has its place."""
    known = len(group._waiting)
    thread = threading.Thread(target=group.submit, args=(request,))
    thread.start()
    until(lambda: len(group._waiting) > known or request.done or group._leader is request, lambda: None)
    return thread


def waiting(
    group: GroupCommit[Request], disk: Disk, count: int, size_bytes: int = 1
) -> tuple[list[Request], list[threading.Thread]]:
    """One under way, and `count` that wait behind it."""
    requests = [Request(size_bytes) for _ in range(count + 1)]
    first = start(group, requests[0])
    disk.begun.acquire()
    return requests, [first, *(start(group, r) for r in requests[1:])]


def let_go(disk: Disk, threads: list[threading.Thread], commits: int = 10) -> None:
    disk.go.release(commits)
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_all_that_wait_share_the_next_commit() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, 100)
    requests, threads = waiting(group, disk, 20)
    let_go(disk, threads)
    assert disk.sizes == [1, 20]
    assert all(r.done and r.error is None for r in requests)
    assert list(disk.groups[1]) == requests[1:]  # in the order of their arrival
    assert group._leader is None


def test_a_transaction_has_a_limit_and_one_that_is_too_large_goes_alone() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, 10)
    _, threads = waiting(group, disk, 5, size_bytes=4)
    large = Request(1000)
    threads.append(start(group, large))
    let_go(disk, threads)
    assert disk.sizes == [1, 2, 2, 1, 1]
    assert large.done


def test_what_a_commit_raises_everyone_of_the_group_gets() -> None:
    failed = OSError("no")
    disk = Disk()

    def commit(group: Sequence[Request]) -> None:
        disk.commit(group)
        if len(group) > 1:
            raise failed

    group = GroupCommit(commit, 100)
    requests, threads = waiting(group, disk, 3)
    let_go(disk, threads)
    assert [r.error for r in requests] == [None, failed, failed, failed]
    group.submit(after := Request(1))
    assert after.error is None


class Interrupted:
    """A request's lock whose holder is interrupted while it waits for its turn."""

    def __init__(self) -> None:
        self.waits, self.strike = threading.Event(), threading.Event()
        self.woken = False

    def acquire(self) -> bool:
        self.waits.set()
        self.strike.wait(PATIENCE_S)
        raise KeyboardInterrupt

    def release(self) -> None:
        self.woken = True


def interrupted(group: GroupCommit[Request]) -> tuple[Interrupted, threading.Thread]:
    request = Request(1)
    turn = Interrupted()
    request.turn = turn  # type: ignore[assignment]

    def work() -> None:
        with pytest.raises(KeyboardInterrupt):
            group.submit(request)

    thread = threading.Thread(target=work)
    thread.start()
    turn.waits.wait(PATIENCE_S)
    return turn, thread


def test_one_that_is_interrupted_while_it_waits_is_not_stored_and_holds_up_nobody() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, 100)
    _, threads = waiting(group, disk, 2)
    turn, thread = interrupted(group)
    more = start(group, Request(1))
    turn.strike.set()
    thread.join(PATIENCE_S)
    let_go(disk, [*threads, more])
    assert disk.sizes == [1, 3]


def test_one_that_is_interrupted_within_a_commit_still_wakes_the_next() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, 100)
    _, threads = waiting(group, disk, 1)
    turn, thread = interrupted(group)
    last = start(group, Request(1))
    disk.go.release()
    disk.begun.acquire()  # the group of three is being committed
    turn.strike.set()
    thread.join(PATIENCE_S)
    let_go(disk, [*threads, last])
    assert disk.sizes == [1, 3]


def test_one_that_is_interrupted_as_the_next_leader_hands_over() -> None:
    disk = Disk()
    group = GroupCommit(disk.commit, 100)
    _, threads = waiting(group, disk, 0)
    turn, thread = interrupted(group)
    last = start(group, Request(1))
    disk.go.release()
    threads[0].join(PATIENCE_S)
    assert turn.woken  # to lead, but it will not
    turn.strike.set()
    thread.join(PATIENCE_S)
    let_go(disk, [last])
    assert disk.sizes == [1, 1]


def raising(error: BaseException) -> Callable[..., None]:
    def work(*_: object, **__: object) -> None:
        raise error

    return work


def test_a_leader_that_is_interrupted_before_its_commit_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    group = GroupCommit[Request](lambda _: None, 100)
    with monkeypatch.context() as patch:
        patch.setattr(group, "_gather", raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            group.submit(Request(1))
    assert group._leader is None
    assert group._waiting == []
    group.submit(request := Request(1))
    assert request.done


def test_the_next_leader_waits_for_as_many_as_last_time_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.01)
    disk = Disk()
    group = GroupCommit(disk.commit, 100)
    _, threads = waiting(group, disk, 4)
    let_go(disk, threads)
    assert group._expected == 4
    group.submit(alone := Request(1))  # nobody else comes
    assert alone.done
    assert group._expected == 1


def test_many_threads_many_times() -> None:
    stored: list[Request] = []
    group = GroupCommit[Request](stored.extend, 50)
    begin = threading.Barrier(12)
    mine: list[list[Request]] = [[] for _ in range(12)]

    def work(requests: list[Request]) -> None:
        begin.wait()
        for _ in range(100):
            requests.append(Request(7))
            group.submit(requests[-1])
            assert requests[-1].done

    threads = [threading.Thread(target=work, args=(m,)) for m in mine]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert len(stored) == len(set(map(id, stored))) == 1200
    assert {id(r) for r in stored} == {id(r) for m in mine for r in m}
