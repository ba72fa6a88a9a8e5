"""MACE: models trained as a committee, and their forces. The rest of the program uses it through `kind.KIND`.

ensemble = Ensemble.build(settings.mace, seeds, elements)
results = ensemble.train({0: MemberData(train, valid), …}, epochs=5)
potential = ensemble.potential()           # labels(frames), bind(frames): see aims_pax.potential
ensemble.save(0, path)                     # a .model file for mace.calculators.MACECalculator
"""

from typing import Any

__all__ = ["Ensemble", "EpochResult", "MemberData", "MemberResult"]


def __getattr__(name: str) -> Any:
    """Import torch and MACE only when one of these names is first used; finding the kind does not need them."""
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(name)
    home = "aims_pax.models.mace.ensemble" if name == "Ensemble" else "aims_pax.models.base"
    return getattr(import_module(home), name)
