"""The files of a run: atomic writes, run folder, lock, checkpoints, journal, log, requests, HDF5."""
