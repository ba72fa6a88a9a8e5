"""What drives every stage: the event loop, signals and walltime, snapshots, the end of a run."""
