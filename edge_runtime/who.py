"""Who runs this program."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """The name of the user, or their number where the system knows no name for it, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
