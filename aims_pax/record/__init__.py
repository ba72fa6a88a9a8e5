"""What is written down: the run's folder, its checkpoints, the journal of events, the log, the report."""
