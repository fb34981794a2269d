"""The error tree and the exit codes that the docs promise."""

from __future__ import annotations

from edge_runtime import errors
from edge_runtime.errors import GudgeonError

CODES = {
    "GudgeonError": 1,
    "UsageError": 2,
    "ConfigError": 3,
    "BundleError": 4,
    "EndpointError": 5,
    "ResourceError": 6,
    "MissingExtraError": 7,
    "DataError": 8,
}


def test_every_error_has_its_exit_code() -> None:
    found = {n: e.exit_code for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, GudgeonError)}
    assert found == CODES


def test_the_drawn_tree_agrees() -> None:
    assert errors.__doc__ is not None
    for name, code in CODES.items():
        assert any(name in line and str(code) in line.split() for line in errors.__doc__.splitlines()), name
