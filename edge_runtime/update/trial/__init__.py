"""Health gates of models: a candidate proves itself in a process of its own before it may answer."""
