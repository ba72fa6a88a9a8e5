"""Batch schedulers behind one protocol (`base`); which there are, and the job we are in ourselves (`registry`)."""
