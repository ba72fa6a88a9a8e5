"""`aims-PAX check`: finds the errors that would stop a run, without running it."""
