"""The durable queue between `control` and `link`."""
