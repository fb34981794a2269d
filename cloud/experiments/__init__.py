"""Two or more models side by side, each on its own cohort of devices, and a test that may be looked at at any time.

plan        arms, shares, what is counted
sequential  the always-valid test, and the check of the sample ratio (pure)
store       experiments, their cohorts, and what their devices decided
routes      the API; `cli`: gudgeon experiment
"""
