"""The reference programs: what they are given, and what their output says."""
