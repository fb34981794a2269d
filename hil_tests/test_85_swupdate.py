"""Debian's own SWUpdate against the DDI routes: a signed image, cut in the middle of its download, resumed, installed, told."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from sqlalchemy import Connection

from cloud.ddi import store
from cloud.ddi.routes import Ddi, make_router
from cloud.sockets import listen, port_of
from cloud.store.opening import open_store
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import SlotStatus, UpdateState
from hil_tests import swu
from hil_tests.bench import wait_for
from tools.chaos.proxy import ProxyControl

SIZE_BYTES = 6 << 20
SLOW_BYTES_PER_S = 1 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not shutil.which("swupdate") or not shutil.which("openssl"), reason="no swupdate: make setup-swupdate"
    ),
]


class Cloud:
    """The DDI routes on a socket. `ranges`: of each request for the file, where it began."""

    def __init__(self, folder: Path, image: bytes) -> None:
        self.file, self.told, self.ranges = folder / "press.swu", list[SlotStatus](), list[str]()
        self.file.write_bytes(image)
        self.item: Item | None = Item("os/press/1.0.0.swu", hashlib.sha256(image).hexdigest(), "r-1")
        self.engine = open_store(f"sqlite:///{folder / 'cloud.db'}")
        ddi = Ddi(self.engine, lambda _, device: self.item, self._hear, lambda item: self.file, poll_s=1)
        with ddi.writing() as connection:
            self.token = store.make_token(connection, "press-1", 1)
        self.app = FastAPI()
        self.app.include_router(make_router(ddi))
        self.app.middleware("http")(self._look)

    def _hear(self, connection: Connection, device: str, status: SlotStatus, now_ns: int) -> None:
        self.told.append(status)

    async def _look(self, request: Request, go: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "GET" and request.url.path.endswith(".swu"):
            self.ranges.append(request.headers.get("range", ""))
        return await go(request)

    @contextmanager
    def serve(self) -> Iterator[int]:
        with listen("127.0.0.1", 0, "") as sock:
            server = uvicorn.Server(uvicorn.Config(self.app, log_config=None, timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
            thread.start()
            try:
                yield port_of(sock)
            finally:
                server.should_exit = True
                thread.join(10)
                self.engine.dispose()


@contextmanager
def proxy(folder: Path, to: int) -> Iterator[tuple[int, ProxyControl]]:
    with listen("127.0.0.1", 0, "") as sock:
        port = port_of(sock)
    control = folder / "proxy.sock"
    command = [sys.executable, "-m", "tools.chaos.proxy", "--listen", f"127.0.0.1:{port}", "--to", f"127.0.0.1:{to}"]
    process = subprocess.Popen([*command, "--control", control])
    try:
        yield port, ProxyControl(control)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def client(folder: Path, port: int, token: str, certificate: Path, *more: str) -> Iterator[Path]:
    """SWUpdate as the daemon of a device."""
    suricatta = f"-t DEFAULT -u http://127.0.0.1:{port} -i press-1 -k {token} -p 1 -r 20 -w 1 {' '.join(more)}"
    log = folder / f"swupdate{len(more)}.log"
    (folder / "tmp").mkdir(exist_ok=True)
    command = ["swupdate", "-k", certificate, "-H", "board:1.0", "-l", "4", "-M", "-m", "-u", suricatta]
    with log.open("wb") as output:
        environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            yield log
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def test_a_signed_image_is_cut_resumed_installed_and_told(tmp_path: Path) -> None:
    image = random.Random(7).randbytes(SIZE_BYTES)
    place = tmp_path / "rootfs.bin"
    signer = swu.release_key(tmp_path)
    cloud = Cloud(tmp_path, swu.build(tmp_path, image, place, "1.0.0", signer))
    with cloud.serve() as port, proxy(tmp_path, port) as (through, control):
        control.set(bytes_per_s=SLOW_BYTES_PER_S)
        with client(tmp_path, through, cloud.token, signer[0]) as log:
            wait_for("a third of the file", lambda: control.counts().get("bytes_down", 0) > SIZE_BYTES // 3, 60)
            control.cut()
            wait_for("the cut", lambda: control.counts().get("cut", 0))
            control.set()
            wait_for("the end", lambda: b"SWUPDATE successful" in log.read_bytes(), 60)
        assert place.read_bytes() == image
        resumed = [r for r in cloud.ranges if r]
        assert resumed, cloud.ranges
        assert int(resumed[0].removeprefix("bytes=").split("-")[0]) > 0
        assert cloud.told[-1].state is UpdateState.DOWNLOADING  # installed and not yet booted: nothing is claimed

        with client(tmp_path, through, cloud.token, signer[0], "-c", "2"):  # after its restart, as its boot script says
            wait_for("its success", lambda: cloud.told[-1].state is UpdateState.STAGED)
    last = cloud.told[-1]
    assert (last.installed, last.running, last.confirmed) == (cloud.item.sha256 if cloud.item else "", "", "")


def test_an_image_of_another_signer_is_refused_by_the_device_and_told(tmp_path: Path) -> None:
    signer = swu.release_key(tmp_path)
    (tmp_path / "other").mkdir()
    stranger = swu.release_key(tmp_path / "other")
    place = tmp_path / "rootfs.bin"
    cloud = Cloud(tmp_path, swu.build(tmp_path, b"bad" * 1000, place, "1.0.0", stranger))
    with cloud.serve() as port, client(tmp_path, port, cloud.token, signer[0]):
        wait_for("the failure", lambda: cloud.told and cloud.told[-1].state is UpdateState.REFUSED, 60)
    assert not place.exists()
    assert cloud.told[-1].reason
