"""`control` has sockets to the PLC, the camera and this device only; `link` has neither PLC nor camera. Read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

from hil_tests.bench import wait_for
from hil_tests.line import line_with_device


def remote_ports(pid: int) -> set[tuple[str, int]]:
    """(remote address, remote port) of every internet socket of a process; a listener has the port 0."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(fd))
        except OSError:
            continue
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = row.split()
            if columns[9] in inodes:
                address, port = columns[2].split(":")
                found.add((address, int(port, 16)))
    return found


def test_control_talks_to_plc_and_camera_only(tmp_path: Path) -> None:
    loopback = "0100007F"
    with line_with_device(tmp_path, parts=0, parts_per_s=20) as line:
        wait_for("some answers", lambda: line.stats()["answered"] > 10)
        allowed = {(loopback, line.ports["modbus_port"]), (loopback, line.ports["camera_port"])}
        assert remote_ports(line.pid("control")) == allowed
        assert not remote_ports(line.pid("link")) & allowed
