"""Where reference calculations run: in this process, in workers on this machine, or in cluster jobs."""
