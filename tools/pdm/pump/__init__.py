"""The shipped bundles of the simulated pump (`models/pump`): its data, its models, and the command that makes them."""
