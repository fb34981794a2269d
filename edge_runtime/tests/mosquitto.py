"""Mosquitto on a free port."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.tests.waiting import answers, free_port, until

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def mosquitto(folder: Path, acl: str = "", port: int = 0) -> Iterator[int]:
    """`port` 0: a free one. `acl`: the lines of its access list; none: everybody may do everything."""
    port = port or free_port()
    conf = f"user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n"
    if acl:
        (folder / "acl").write_text(acl)
        conf += f"acl_file {folder / 'acl'}\n"
    (folder / "m.conf").write_text(conf)
    process = subprocess.Popen([str(MOSQUITTO), "-c", str(folder / "m.conf")], stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port))
        yield port
    finally:
        process.kill()
        process.wait()
