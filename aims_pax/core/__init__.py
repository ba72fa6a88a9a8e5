"""What should happen next: one module per stage, each a pure triple (state, step, outstanding).

No torch, no ase, no parsl, no files and no clock in here. The shell (`engine/event_loop.py`) drives every stage alike.
"""
