"""`gudgeon cloud`: broker, ingest, web server and the listener for devices in one process, started in this order and stopped in
the reverse.

Each has its own thread; this thread waits for SIGTERM or SIGINT. Sockets are opened first, so that a port in use is told
before anything runs. The ready file appears when all serve. Broker and ingest may also run elsewhere.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from contextlib import ExitStack
from functools import partial

import uvicorn
from fastapi import FastAPI

from cloud.app import make_app
from cloud.audit.checkpoint import Checkpointer
from cloud.bearer import load_or_make
from cloud.broker import EmbeddedBroker
from cloud.devices.side import DeviceSide
from cloud.dispatch import Dispatch
from cloud.metrics import Read, of_broker, of_ingest
from cloud.pruner import Pruner
from cloud.registry.assigner import Assigner
from cloud.registry.renewer import Renewer
from cloud.rollout.ticker import Ticker
from cloud.serving import OnReady, few_collections, make_ingest, serve
from cloud.settings import CloudSettings, HttpSection
from cloud.sockets import listen, port_of
from cloud.store.opening import open_store
from cloud.store.writer import open_writer
from edge_runtime import log
from edge_runtime.clock import SystemClock
from edge_runtime.errors import ConfigError, GudgeonError

READY_TIMEOUT_S = 10.0
STREAMS_END_S = 1
CHECK_S = 0.2
NO_TLS = HttpSection()


class WebServer:
    """uvicorn on a socket that already listens, in its own thread (where it leaves the signals alone)."""

    def __init__(self, app: FastAPI, sock: socket.socket, section: HttpSection = NO_TLS) -> None:
        self._app, self._socket = app, sock
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STREAMS_END_S,
            lifespan="on",
            ssl_certfile=section.cert_file,
            ssl_keyfile=section.key_file,
        )
        if section.tls:
            _check_tls(config, section)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()
        waited = threading.Event()
        for _ in range(round(READY_TIMEOUT_S / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            waited.wait(0.01)
        if not self._server.started:
            raise GudgeonError("the web server did not start")

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._app.state.stop_streams()
        self._server.should_exit = True
        self._thread.join(2 * STREAMS_END_S)


def run(settings: CloudSettings, on_ready: OnReady, stop: threading.Event) -> None:
    """Serve until `stop`; `on_ready({http_port, broker_port, …})` is called once everything serves."""
    with ExitStack() as stack:
        http = listen(settings.http.host, settings.http.port, "http.port")
        stack.callback(http.close)
        broker_port = settings.broker.port
        broker = None
        if settings.broker.embedded:
            sock = listen(settings.broker.host, settings.broker.port, "broker.port")
            stack.callback(sock.close)
            broker_port, broker = port_of(sock), EmbeddedBroker(sock)
        listening = None
        if settings.devices.serve:
            listening = listen(settings.devices.host, settings.devices.port, "devices.port")
            stack.callback(listening.close)
        engine = open_store(settings.store.address)
        stack.callback(engine.dispose)
        if broker:
            broker.start()
            stack.callback(broker.stop)
        ingest = None
        if settings.ingest.here:
            writer = open_writer(engine)
            stack.callback(writer.close)
            ingest = make_ingest(settings, writer, broker_port)
            ingest.start()
            stack.callback(ingest.stop)
            if broker and not ingest.connected.wait(READY_TIMEOUT_S):
                raise GudgeonError("ingest could not connect to the embedded broker")
        told: list[Read] = [partial(of_ingest, ingest)] if ingest else []
        if broker:
            told.append(lambda: of_broker(broker.clients))
        load_or_make(settings.token_file)
        pruner = Pruner(engine, settings.store)
        pruner.start()
        stack.callback(pruner.stop)
        checkpointer = Checkpointer(engine, settings.store.key_file, settings.anchor_file, SystemClock())
        checkpointer.start()
        stack.callback(checkpointer.stop)
        dispatch = Dispatch(engine, settings.broker.host, broker_port, settings.broker)
        dispatch.start()
        stack.callback(dispatch.stop)
        connected = ingest.connected.is_set if ingest else None
        if settings.registry.folder:
            renewer = Renewer(settings.registry.folder)
            renewer.start()
            stack.callback(renewer.stop)
        registry = Assigner(settings.registry.folder) if settings.registry.folder else None
        ticker = Ticker(engine, registry)
        ticker.start()
        stack.callback(ticker.stop)
        devices = DeviceSide(engine, settings, listening, registry=registry) if listening is not None else None
        desk = devices.desk if devices else None
        app = make_app(engine, settings, connected, told=told, send=dispatch.send, registry=registry, desk=desk)
        web = WebServer(app, http, settings.http)
        web.start()
        stack.callback(web.stop)
        told_ports = {"http_port": port_of(http), "broker_port": broker_port}
        if devices is not None and listening is not None:
            devices.start()
            stack.callback(devices.stop)
            told_ports["devices_port"] = port_of(listening)
        few_collections()
        page = f"{'https' if settings.http.tls else 'http'}://{url_host(settings.http.host)}:{port_of(http)}/"
        serving = {"page": page, "broker": f"{settings.broker.host}:{broker_port}"}
        if listening is not None:
            serving["devices"] = f"https://{url_host(settings.devices.host)}:{port_of(listening)}"
        log.say(logging.INFO, "cloud serves", **serving)
        on_ready(told_ports)
        while not stop.wait(CHECK_S):
            if not web.alive or (devices is not None and not devices.alive):
                raise GudgeonError("the web server, or the listener for devices, ended; see the log above")


def _check_tls(config: uvicorn.Config, section: HttpSection) -> None:
    """Load the certificate now, so that a wrong one is told in one line; TLS 1.2 or newer."""
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        told = f"{section.cert_file}, {section.key_file}: not usable for TLS: {error}; expected PEM files of one pair"
        raise ConfigError(told) from error
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2


def url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def main(argv: list[str] | None = None) -> int:
    ready = "JSON {http_port, broker_port, devices_port}, written when all serve"
    return serve("cloud", "The cloud companion: broker, ingest, store, page.", ready, run, argv)


if __name__ == "__main__":
    sys.exit(main())
