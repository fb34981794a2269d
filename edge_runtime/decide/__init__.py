"""From an engine's scores to an answer: rules, guard, and the control loop."""
