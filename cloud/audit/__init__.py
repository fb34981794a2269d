"""What was done to the fleet, by whom: an append-only log in which each row holds the hash of the row before it.

    from cloud.audit import record

    with engine.execution_options(**{WRITES: True}).begin() as connection:
        …the change itself…
        record(connection, actor, "rollout.pause", name, {"reason": reason})

- The row is written in the transaction of the change: neither is there without the other.
- What was refused is recorded, too (`outcome="refused"`), in a transaction of its own.
- Rows are never changed. Checkpoints, signed with the cloud's key, tell how long the chain was.
- Old rows may go into files that the chain still joins (`cloud.audit.archive`).
"""

from cloud.audit.log import DONE, FAILED, REFUSED, record

__all__ = ["DONE", "FAILED", "REFUSED", "record"]
