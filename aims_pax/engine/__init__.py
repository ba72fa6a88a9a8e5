"""The parts that run every stage: event loop, signals and walltime, snapshots, the end of a run."""
