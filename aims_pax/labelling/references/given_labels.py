"""`REFERENCE: {type: given}`: there is no method that labels; the models learn the structures that were given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aims_pax.errors import SetupError
from aims_pax.frames import Frame, Label


@dataclass(frozen=True)
class GivenLabels:
    """The reference of a run that asks for no labels."""

    quick = True

    def describe(self) -> dict[str, Any]:
        return {"type": "given"}

    def check(self) -> None:
        """Nothing can be missing."""

    def label(self, frame: Frame) -> Label:
        """Raises SetupError."""
        raise SetupError(f"{frame.formula} cannot be labelled: REFERENCE.type is given; name a reference, and start in "
                         "an empty folder with the same data")  # fmt: skip

    def stop(self) -> None:
        """Nothing runs."""
