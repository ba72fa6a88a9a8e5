"""The reference: computes energies and forces of frames (labels) and stores them.

`labeller` is the entry point; `references` know the programs, `executors` where they run, `store` holds the computed
labels, and `validation` checks structures and labels. Nothing here needs torch.
"""

from aims_pax.labelling.labeller import Calls, Labeller, Reference
from aims_pax.labelling.store import LabelStore

__all__ = ["Calls", "LabelStore", "Labeller", "Reference"]
