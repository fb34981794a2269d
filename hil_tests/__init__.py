"""End to end, numbered in dependency order: real processes, real protocols, this machine only."""
