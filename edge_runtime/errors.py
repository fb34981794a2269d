"""Every error that a user can meet, and the exit code of each.

    GudgeonError            1   something that Gudgeon refuses or cannot do
    ├── UsageError          2   the command line is wrong
    ├── ConfigError         3   a configuration file is wrong: unknown key, wrong type, out of range
    ├── BundleError         4   a bundle is missing, corrupt, unsigned, or fails its golden vectors: refused
    ├── EndpointError       5   a PLC, camera or broker cannot be reached or answers wrongly: retried with back-off
    ├── ResourceError       6   disk full, port in use, permission denied: stop, and tell the operator
    ├── MissingExtraError   7   an optional dependency is not installed: names the install line
    └── DataError           8   a data folder or input file is not as documented

The text of an error says what happened, to what, what was expected and what to do, in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

INTERRUPTED = 130


class GudgeonError(Exception):
    """Base of all errors that are reported as one line, without a traceback."""

    exit_code = 1


class UsageError(GudgeonError):
    exit_code = 2


class ConfigError(GudgeonError):
    exit_code = 3


class BundleError(GudgeonError):
    exit_code = 4


class EndpointError(GudgeonError):
    exit_code = 5


class ResourceError(GudgeonError):
    exit_code = 6


class MissingExtraError(GudgeonError):
    exit_code = 7


class DataError(GudgeonError):
    exit_code = 8


def exit_code(name: str, main: Callable[[], int | None]) -> int:
    """What the command `name` ends with; an error that a user can meet is one line on stderr."""
    try:
        return main() or 0
    except GudgeonError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has seen enough
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
