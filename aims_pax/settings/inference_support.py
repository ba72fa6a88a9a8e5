"""Checks whether the inference engines set in mace.yaml can be used: from its keys alone, without a model or torch."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aims_pax.settings.mace import ArchitectureSettings, MaceMiscSettings

FIRST = {  # symmetrix: first interaction block → whether it has a residual connection
    "RealAgnosticInteractionBlock": False,
    "RealAgnosticDensityInteractionBlock": False,
    "RealAgnosticResidualInteractionBlock": True,
    "RealAgnosticDensityResidualInteractionBlock": True,
}
SECOND = ("RealAgnosticResidualInteractionBlock", "RealAgnosticDensityResidualInteractionBlock")
MAX_ELL, MAX_L = 3, 2
NATIVE_PACKAGES = "symmetrix", "orjson"
CUEQ_PACKAGES = "cuequivariance_torch", "cuequivariance_ops_torch"
CUEQ_ORDERS = (2, 3)  # correlation orders that MACE's converter knows


def objections(
    misc: MaceMiscSettings, architecture: ArchitectureSettings | None
) -> Iterator[tuple[str, str]]:
    """(key of MISC, why it cannot be used). architecture: None when the models come from files."""
    cuda = misc.device.startswith("cuda")
    if misc.inference == "native":
        reason = None if architecture is None else architecture_objection(architecture)
        if misc.device != "cpu":
            reason = f"it runs on cpu only, and MISC.device is {misc.device}"
        elif reason is None and None in map(find_spec, NATIVE_PACKAGES):
            reason = "the extra 'fast' is not installed (pip install 'aims-pax[fast]')"
        if reason is not None:
            yield "inference", f"native cannot be used: {reason}; expected auto or torch"
    if misc.enable_cueq:
        missing = [p.replace("_", "-") for p in CUEQ_PACKAGES if find_spec(p) is None]
        reason = None
        if not cuda:
            reason = f"it needs a GPU, and MISC.device is {misc.device}; set device: cuda, or remove this key"
        elif missing:
            reason = (
                f"{' and '.join(missing)} not installed (pip install 'aims-pax[cueq]'), or remove this key"
            )
        elif architecture is not None and architecture.correlation not in CUEQ_ORDERS:
            reason = f"MACE converts only models of correlation 2 and 3, not {architecture.correlation}"
        elif architecture is not None and architecture.model == "MACE":
            reason = "MACE converts only models of the kind ScaleShiftMACE"
        if reason is not None:
            yield "enable_cueq", f"cannot be used: {reason}"


def architecture_objection(architecture: ArchitectureSettings) -> str | None:
    """Why symmetrix does not support models with these keys, or None if it does."""
    a = architecture
    checks = [
        (a.num_interactions == 2, f"num_interactions is {a.num_interactions}, not 2"),
        (a.interaction_first in FIRST, f"interaction_first is {a.interaction_first}"),
        (a.interaction in SECOND, f"interaction is {a.interaction}"),
        (a.max_ell == MAX_ELL, f"max_ell is {a.max_ell}, not {MAX_ELL}"),
        (a.max_L <= MAX_L, f"max_L is {a.max_L}, larger than {MAX_L}"),
        (a.radial_type == "bessel", f"radial_type is {a.radial_type}, not bessel"),
        (a.gate == "silu", f"gate is {a.gate}, not silu"),
    ]
    wrong = next((reason for fits, reason in checks if not fits), None)
    return None if wrong is None else f"symmetrix does not support this architecture ({wrong})"
