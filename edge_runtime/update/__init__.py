"""The only road to `slots/`: trust, slots, install."""
