"""Sparkplug B 3.0 in the place of our own topics: the device as an edge node, the line as its device."""
