"""`gudgeon ingest`: one ingest worker. Start as many as the machine has cores for: each takes its share of the Events from the
broker (`$share`), and any may be killed at any instruction, because the broker gives what it had to the others."""

from __future__ import annotations

import gc
import os
import sys
import threading
from contextlib import ExitStack

from cloud.serving import OnReady, make_ingest, serve
from cloud.settings import CloudSettings
from cloud.store.opening import open_store
from cloud.store.writer import open_writer
from edge_runtime.errors import ConfigError


def run(settings: CloudSettings, on_ready: OnReady, stop: threading.Event) -> None:
    """Store what comes until `stop`; `on_ready` is called at the first connection to the broker."""
    if settings.broker.embedded:
        raise ConfigError("ingest workers need a broker with shared subscriptions; set embedded = false in [broker]")
    with ExitStack() as stack:
        engine = open_store(settings.store.address)
        stack.callback(engine.dispose)
        writer = open_writer(engine)
        stack.callback(writer.close)
        ingest = make_ingest(settings, writer, settings.broker.port)
        ingest.start()
        stack.callback(ingest.stop)
        while not ingest.connected.wait(0.2):
            if stop.is_set():
                return
        gc.collect()
        gc.freeze()
        on_ready({"pid": os.getpid()})
        stop.wait()


def main(argv: list[str] | None = None) -> int:
    description = "One ingest worker: Events from the broker into the store. Run several for more."
    return serve("ingest", description, "JSON {pid}, written once connected to the broker", run, argv)


if __name__ == "__main__":
    sys.exit(main())
