"""Getting artifacts: over HTTP or from a folder, resumable, in bounds of size and time. Trusts nobody: the hash decides."""
