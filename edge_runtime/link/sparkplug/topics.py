"""The topics of Sparkplug B, one table.

    spBv1.0/<group>/<message>/<edge node>[/<device>]
    spBv1.0/STATE/<host>

message   direction     seq   what it says
NBIRTH    node → host   0     the node is here; all of its metrics, and the bdSeq of this connection
NDEATH    node → host   none  the node is gone; the last will, with the bdSeq of its connection
NDATA     node → host   yes   values of the node
DBIRTH    node → host   yes   the line is here; all of its metrics
DDEATH    node → host   yes   the line is gone
DDATA     node → host   yes   values of the line
NCMD      host → node   none  a request to the node, such as `Node Control/Rebirth`
DCMD      host → node   none  a request to the line
STATE     host → node   none  {"online": bool, "timestamp": ms}, retained
"""

from __future__ import annotations

from dataclasses import dataclass

NAMESPACE = "spBv1.0"
NODE_MESSAGES = ("NBIRTH", "NDEATH", "NDATA", "NCMD")
LINE_MESSAGES = ("DBIRTH", "DDEATH", "DDATA", "DCMD")
ID_LIMIT = 128


def check_id(name: str, value: str) -> None:
    """ValueError where `value` cannot be one level of a topic."""
    if not value or len(value) > ID_LIMIT or any(c in "+#/" or ord(c) < 32 for c in value):
        raise ValueError(f"{name} = {value!r}: expected 1 to {ID_LIMIT} characters without + # /")


@dataclass(frozen=True)
class Names:
    """Who we are to the host."""

    group: str
    node: str
    line: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_id(name, value)

    def topic(self, message: str) -> str:
        if message in NODE_MESSAGES:
            return f"{NAMESPACE}/{self.group}/{message}/{self.node}"
        if message in LINE_MESSAGES:
            return f"{NAMESPACE}/{self.group}/{message}/{self.node}/{self.line}"
        raise ValueError(f"unknown Sparkplug message {message!r}")


def state_topic(host: str) -> str:
    return f"{NAMESPACE}/STATE/{host}"
