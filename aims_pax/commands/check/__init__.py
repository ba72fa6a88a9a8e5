"""`aims-PAX check`: what a run would refuse, found without running it."""
