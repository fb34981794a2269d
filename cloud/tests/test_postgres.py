"""A PostgreSQL server of the test's own: workers that begin together, and a server that goes away and comes back."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from cloud.sockets import listen, port_of
from cloud.store import tables as t
from cloud.store.opening import open_store, store_url
from cloud.store.postgres_server import CARELESS, PostgresServer, programs
from cloud.store.writer import open_writer
from cloud.tests.made import batch, chained, decision
from edge_runtime.errors import ResourceError

pytestmark = pytest.mark.skipif(programs() is None, reason="needs PostgreSQL: apt-get install postgresql")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="gudgeon-postgres-"))
    folder.chmod(0o755)
    with listen("127.0.0.1", 0, "") as probe:
        port = port_of(probe)
    made = PostgresServer(folder / "server", port, CARELESS)
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder)


def test_workers_that_begin_together_make_the_tables_once(server: PostgresServer) -> None:
    url = store_url(server.create("fresh"), server.password)
    opened: list[Engine] = []
    threads = [threading.Thread(target=lambda: opened.append(open_store(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for engine in opened:
        engine.dispose()


def test_a_server_that_goes_away_acknowledges_nothing_and_is_used_again(server: PostgresServer) -> None:
    engine = open_store(store_url(server.create("fresh"), server.password))
    writer = open_writer(engine)
    events = chained(decision(n) for n in range(1, 4))
    assert writer.commit([batch(events[:1])], 1)[0][1].committed == {"decision": 1}
    server.stop()
    with pytest.raises(Exception, match=r"(?i)connect|closed|terminat"):
        writer.commit([batch(events[1:2])], 2)
    server.start()
    assert writer.commit([batch(events[1:])], 3)[0][1].committed == {"decision": 3}
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(t.event)).scalar() == 3
    writer.close()
    engine.dispose()


def test_a_wrong_password_is_one_clear_line_without_it(server: PostgresServer) -> None:
    url = store_url(server.create("fresh"), "wrong-secret")
    with pytest.raises(ResourceError, match="check that the server runs, and user, password") as caught:
        open_store(url)
    assert "wrong-secret" not in str(caught.value)
