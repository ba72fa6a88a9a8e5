"""Batch schedulers: submit a job, ask for its state, end it."""
