"""The stores of the cloud's other tests."""

from cloud.tests.conftest import engine, sqlite

__all__ = ["engine", "sqlite"]
