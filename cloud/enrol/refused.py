"""What `cloud.enrol` says no with. `status` is that of HTTP; the text says what to do, and no more than the asker may know."""

from __future__ import annotations

from edge_runtime.errors import GudgeonError


class RefusedError(GudgeonError):
    def __init__(self, text: str, status: int = 403) -> None:
        super().__init__(text)
        self.status = status
