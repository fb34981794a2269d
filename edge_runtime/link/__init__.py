"""The `link` process: uplink to the cloud; it has no way to an actuator."""
