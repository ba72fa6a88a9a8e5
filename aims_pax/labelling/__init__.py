"""The reference: what a frame's energy and forces are, where they are computed, and where they are kept.

`labeller` is the door; `aims` and `calculator` know the reference programs, `executor` where they run, `store`
what has been paid for, `validation` what a label may look like. Importing this package imports none of them.
"""
