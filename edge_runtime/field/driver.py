"""Driver: speaks one protocol to one Endpoint. The seam behind which every PLC protocol stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_runtime.field.tag import Sample, Tag

Value = int | float | bool


class Driver(Protocol):
    """Read and write named points of one endpoint.

    Every method raises `errors.EndpointError` when the endpoint cannot be reached, does not answer within its
    time-out, or answers with an exception; after that the driver is closed and `connect` may be called again.
    Not safe for use from two threads.
    """

    def connect(self) -> None:
        """Open the connection and prove with one real read that the endpoint answers; never "connects" to nothing."""

    def read(self, tags: Sequence[Tag]) -> list[Sample]:
        """One Sample per Tag, in order. Neighbouring addresses are fetched in one request. A point that the
        endpoint refuses has quality BAD and value None; the others are still read."""

    def write(self, values: Sequence[tuple[Tag, Value]]) -> None:
        """Write all values; neighbouring addresses go in one request (Modbus FC16), in the order given."""

    def close(self) -> None: ...
