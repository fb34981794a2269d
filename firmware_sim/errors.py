"""The errors of the simulator that are told in one line, and their exit codes (the same numbers as the product's).

SimError         1
├── UsageError      2   the command line is wrong
├── ConfigError     3   line.toml or the scenario file is wrong
├── ResourceError   6   port in use, file cannot be written
├── MissingError    7   an optional package is not installed
└── DataError       8   the image folder is not as documented
"""

from __future__ import annotations


class SimError(Exception):
    exit_code = 1


class UsageError(SimError):
    exit_code = 2


class ConfigError(SimError):
    exit_code = 3


class ResourceError(SimError):
    exit_code = 6


class MissingError(SimError):
    exit_code = 7


class DataError(SimError):
    exit_code = 8
