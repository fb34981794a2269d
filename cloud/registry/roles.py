"""Who signs what, one table.

root                          three persons, two of whom must sign; offline. Says whose keys the others are
targets                       offline. Delegates, and names the keys of assignments
models runtime config os      offline. The artifacts below the path of that name
snapshot timestamp            online: the cloud signs them anew by itself
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from edge_runtime.wire.target import KINDS


class Role(NamedTuple):
    """`days`: how long a version is valid. `online`: the cloud has the key."""

    days: int
    online: bool = False


DELEGATED = tuple(KINDS)
ROLES: Mapping[str, Role] = {
    "root": Role(365),
    "targets": Role(365),
    **{name: Role(365) for name in DELEGATED},
    "snapshot": Role(14, online=True),
    "timestamp": Role(3, online=True),
}
OFFLINE = tuple(name for name, role in ROLES.items() if not role.online)
ONLINE = tuple(name for name, role in ROLES.items() if role.online)
ROOT_THRESHOLD = 2
#: an online role is signed anew when less than this part of its time is left
RENEW_BELOW = 2 / 3
