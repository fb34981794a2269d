"""A fresh store for each test, as in `cloud.tests`."""

from cloud.tests.conftest import engine, sqlite

__all__ = ["engine", "sqlite"]
