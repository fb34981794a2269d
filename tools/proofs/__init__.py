"""Long proofs, each a command of its own: what the outbox promises, at the size at which it promises it."""
