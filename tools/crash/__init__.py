"""`make crash-points`: a crash at every operation that outlives the process, and what may be on the disk afterwards."""
