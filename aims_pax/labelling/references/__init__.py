"""The reference programs: their input and their output."""
