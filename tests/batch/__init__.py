"""Drivers, folders and stories that tests on a real scheduler share: tests/slurm, tests/gridengine."""
