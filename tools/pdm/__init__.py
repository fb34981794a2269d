"""Predictive maintenance, offline part: tables of tags → feature view → models → calibration → signed bundle."""
