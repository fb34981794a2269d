"""Start the independent servers: `modbus_peer.c` is compiled against libmodbus, `opcua_peer.js` runs on node-opcua.

`missing_modbus` and `missing_opcua` say why one cannot be started here, and what to do; "" where it can.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path

from edge_runtime.errors import ResourceError

HERE = Path(__file__).parent
NODE_MODULES = Path(__file__).parents[2] / "var" / "opcua-peer" / "node_modules"
LIBRARY = ("/usr/include/modbus/modbus.h", "/usr/local/include/modbus/modbus.h")
READY_S = 60.0


def missing_modbus() -> str:
    if shutil.which("gcc") is None or not any(Path(p).exists() for p in LIBRARY):
        return "libmodbus or gcc is not installed; run: make setup-field"
    return ""


def missing_opcua() -> str:
    if shutil.which("node") is None:
        return "node is not installed; install Node.js 18 or newer"
    if not (NODE_MODULES / "node-opcua").exists():
        return f"node-opcua is not in {NODE_MODULES}; run: make setup-opcua-peer"
    return ""


class Peer:
    """A running server. `tell` writes a command to it; `ready` are the words of its ready line."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        try:
            while not (line := lines.get(timeout=READY_S)).startswith("ready "):
                if line == "":
                    raise ResourceError(f"{command[0]}: ended before it was ready, with code {self._process.wait()}")
        except queue.Empty:
            self.close()
            raise ResourceError(f"{command[0]}: not ready within {READY_S:.0f} s") from None
        self.ready = line.split()[1:]

    @property
    def port(self) -> int:
        return int(self.ready[0])

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self, lines: queue.SimpleQueue[str]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.put(line.strip() or " ")
        lines.put("")


def build_modbus(folder: Path) -> Path:
    """Compile the C server into the folder."""
    binary = folder / "modbus_peer"
    done = subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-O1", "-o", str(binary), str(HERE / "modbus_peer.c"), "-lmodbus"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ResourceError(f"modbus_peer.c: does not compile: {done.stderr.strip().splitlines()[-1]}")
    return binary


def modbus_tcp(folder: Path) -> Peer:
    return Peer([str(build_modbus(folder)), "tcp"])


def modbus_rtu(folder: Path, device: str) -> Peer:
    return Peer([str(build_modbus(folder)), "rtu", device])


def opcua(folder: Path) -> Peer:
    """`ready` are its port and the path of its certificate (PEM)."""
    command = ["node", str(HERE / "opcua_peer.js"), str(folder / "pki")]
    return Peer(command, {**os.environ, "NODE_PATH": str(NODE_MODULES)})
