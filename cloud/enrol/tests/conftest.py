"""Both databases, as for the other tests of the cloud."""

from cloud.tests.conftest import engine, sqlite

__all__ = ["engine", "sqlite"]
