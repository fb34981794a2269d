"""Attacks and faults on identity and updates, one row each, in one file an area. `hil_tests/test_90_attacks.py` runs them all."""
