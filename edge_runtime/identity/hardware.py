"""What this board says that it is: the first of these that there is, as one word. An enrolment token is bound to it.

It is what the board says of itself: it keeps a token for one board from being used on another by mistake or by who found it, and
proves nothing against somebody who can make a board say something else.
"""

from __future__ import annotations

import re
from pathlib import Path

from edge_runtime.errors import ConfigError
from edge_runtime.wire.enrolment import HARDWARE

#: the board's serial number (Raspberry Pi, Jetson), the firmware's (PC; for root only), that of this installation
SOURCES: dict[str, str] = {
    "serial": "proc/device-tree/serial-number",
    "dmi": "sys/class/dmi/id/product_uuid",
    "machine": "etc/machine-id",
}


def hardware_id(root: Path = Path("/")) -> str:
    for kind, path in SOURCES.items():
        try:
            text = (root / path).read_bytes()[:200].decode(errors="replace")
        except OSError:
            continue
        found = re.sub(r"[^A-Za-z0-9_.-]", "", text)
        if found and HARDWARE.fullmatch(f"{kind}:{found}"):
            return f"{kind}:{found.lower()}"
    names = ", ".join(f"/{path}" for path in SOURCES.values())
    raise ConfigError(f"this board has no number of its own ({names}); set identity.hardware_id in device.toml")
