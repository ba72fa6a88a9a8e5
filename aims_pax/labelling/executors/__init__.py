"""Where reference calculations run: in this process, in workers on this machine, in jobs of a cluster."""
