"""Labels of a surrogate, which are marked by `provenance=surrogate:<hash>` and never pass for those of a reference."""

from __future__ import annotations

from collections.abc import Sequence

from aims_pax.errors import SettingsError
from aims_pax.frames import LabelledFrame

PROVENANCE, BY = "provenance", "surrogate:"


def is_surrogate_copy(labelled: LabelledFrame) -> bool:
    """Whether a label is that of a surrogate, not of a reference."""
    return str(labelled.origin.get(PROVENANCE, "")).startswith(BY)


def refuse_surrogate_labels(data: Sequence[LabelledFrame], use: str) -> None:
    """Raises SettingsError when labels of a surrogate would be used as if they were those of a reference."""
    n = sum(map(is_surrogate_copy, data))
    if n:
        raise SettingsError(
            f"{n} of {len(data)} structures have labels of a surrogate ({PROVENANCE}={BY}…), which cannot be {use}; "
            "remove them"
        )
