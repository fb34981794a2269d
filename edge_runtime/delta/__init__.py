"""Artifacts as differences to another one: made by the cloud, undone by the device within bounds. Trusts nothing in a delta."""
