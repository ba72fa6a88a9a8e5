"""The force field: MACE models trained as a committee, and the forces they give.

ensemble = Ensemble.build(settings.mace, seeds, elements)
results = ensemble.train({0: MemberData(train, valid), …}, epochs=5)
potential = ensemble.potential()           # labels(frames), bind(frames): see aims_pax.potential
ensemble.save(0, path)                     # a .model file for mace.calculators.MACECalculator
"""

from aims_pax.models import evaluate
from aims_pax.models.mace import foundation
from aims_pax.models.mace.ensemble import Ensemble, MemberData
from aims_pax.models.mace.training import EpochResult, MemberResult

__all__ = ["Ensemble", "EpochResult", "MemberData", "MemberResult", "evaluate", "foundation"]
