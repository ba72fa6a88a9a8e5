"""Decides what should happen next: one module per stage, with a state and the pure functions `step`, `outstanding`.

No torch, no ase, no parsl, no files and no clock in here. `engine/event_loop.py` runs all stages in the same way.
"""
