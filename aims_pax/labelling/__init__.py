"""The reference: what a frame's energy and forces are, where they are computed, and where they are kept.

`labeller` is the door; `aims` and `calculator` know the reference programs, `executor` where they run,
`store` what has been paid for, `validation` what a label may look like. Nothing here needs torch.
"""

from aims_pax.labelling.labeller import Calls, Labeller, Reference
from aims_pax.labelling.store import LabelStore

__all__ = ["Calls", "LabelStore", "Labeller", "Reference"]
