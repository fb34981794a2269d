"""A pump set that wears out: motor, centrifugal pump, ball bearing, control valve. See docs/reference/simulator.md."""
