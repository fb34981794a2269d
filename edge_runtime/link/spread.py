"""When a device of a fleet may dial again. Pure; no chance is in it: a device always has the same place in the window.

- After a loss time is cut into windows, counted from the loss; a device tries once in a window, at its own place. So a
  fleet that lost its broker together dials at an even rate, however long the broker stays away: what failed comes one
  window later, at the same place, and never on top of what had its turn then. Only a connection that stood for a while
  begins new windows, so that a broker that accepts and kicks is not stormed either.
- Ids that end in a number, as those of a fleet mostly do, stand by the golden ratio: any run of consecutive numbers falls
  evenly into the window (three-distance theorem). What stands before the number shifts the whole row by its hash; rows
  of many prefixes, and ids without a number, meet by chance.
- The window is `MARGIN` longer than asked for: a second of it holds not more than devices ÷ `spread_s` of one row, although
  places are not perfectly even and no two handshakes take the same time.
"""

from __future__ import annotations

import hashlib
import re

GOLDEN = (5**0.5 - 1) / 2
MARGIN = 1.25
_NUMBERED = re.compile(r"(.*?)([0-9]{1,9})")


def place_of(device_id: str) -> float:
    """Where in the window this device stands: 0 ≤ place < 1."""
    found = _NUMBERED.fullmatch(device_id)
    prefix, number = (found[1], int(found[2])) if found else (device_id, 0)
    shift = int.from_bytes(hashlib.sha256(prefix.encode()).digest()[:6], "big") / 2**48
    return (shift + number * GOLDEN) % 1.0


def spread_ns(device_id: str, spread_s: float, lost_ns: int, earliest_ns: int) -> int:
    """The first moment from `earliest_ns` on at which this device, which lost its connection at `lost_ns`, may dial.
    `spread_s` 0: at once."""
    if spread_s <= 0:
        return earliest_ns
    window_ns = round(spread_s * MARGIN * 1e9)
    first_ns = lost_ns + round(place_of(device_id) * window_ns)
    windows = max(0, -(-(earliest_ns - first_ns) // window_ns))
    return first_ns + windows * window_ns
