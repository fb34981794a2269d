"""The listener for devices: HTTPS on a port of its own, client certificates, and every route that a device may ask."""
