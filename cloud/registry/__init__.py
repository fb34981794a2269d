"""The registry: the TUF repository of a fleet. Ceremony and releases offline; snapshot, timestamp and assignments online."""
