"""The exceptions of aims-PAX.

    AimsPaxError
    ├── SettingsError        a mistake in an input file: a key, a value, a missing file
    ├── SetupError           the machine lacks a program, scheduler or package; the run stops at once
    │   ├── Busy             another aims-PAX uses the folder
    │   └── NotStored        a computed label cannot be written; it is saved elsewhere and found by the next run
    ├── RestartError         the run in the folder cannot be continued
    └── LabelError           concerns one frame; becomes an event, never ends a run by itself
        ├── NotConverged     the SCF cycle did not converge
        ├── Crashed          the reference crashed
        ├── TimedOut         the reference exceeded its time limit
        ├── Truncated        the output is incomplete
        ├── WrongShape       energy, forces or stress are missing or have the wrong size
        ├── NotFinite        NaN or infinity in a label
        ├── Mismatch         the output belongs to another calculation than the requested one
        ├── Unsupported      the reference cannot take the charge or spin of the frame
        └── Unphysical       overlapping atoms, absurd forces or energies

Only `LabelError` becomes an event; everything else ends the run with one line for the user. `RunInterrupted` is not
an error.
"""

from __future__ import annotations

from aims_pax.wire_names import in_files, name_in_files


class AimsPaxError(Exception):
    """Base class of all errors with a message for the user."""


class SettingsError(AimsPaxError):
    """A mistake in an input file: `SettingsError(text)`, or `SettingsError(place, text)`; reads "place: text".

    place: the key, or the file with its line; "" where the text says it. text: the value, what was expected and what
    to do.

    >>> error = SettingsError("'smal' is no size; nearest: small")
    >>> print(error.at("SAMPLERS[0].potential"))
    SAMPLERS[0].potential: 'smal' is no size; nearest: small
    """

    def __init__(self, *place_and_text: str) -> None:
        super().__init__(*place_and_text)
        self.text = place_and_text[-1]
        self.place = place_and_text[0] if len(place_and_text) == 2 else ""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text

    def at(self, place: str) -> SettingsError:
        """The same mistake at this place."""
        return SettingsError(place, self.text)


class SetupError(AimsPaxError):
    """The machine lacks something that every calculation needs: the run stops at once; says what to change."""


class RestartError(AimsPaxError):
    """The run in the working folder cannot be continued."""


class Busy(SetupError):
    """Another aims-PAX process uses this folder."""


class NotStored(SetupError):
    """A label was computed but cannot be written; it is saved elsewhere, where the next run finds it."""


class LabelError(AimsPaxError):
    """The reference could not label one frame. Files and reports name the failure class by `failure_name`."""

    def __init__(self, reason: str, folder: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.folder = folder

    def __reduce__(self) -> tuple[type[LabelError], tuple[str, str | None]]:
        return type(self), (self.reason, self.folder)  # pickling keeps the folder


@in_files("NotConverged")
class NotConverged(LabelError):
    """The self-consistency cycle did not converge."""


@in_files("Crashed")
class Crashed(LabelError):
    """The reference program crashed."""


@in_files("TimedOut")
class TimedOut(LabelError):
    """The reference exceeded its time limit."""


@in_files("Truncated")
class Truncated(LabelError):
    """The output is incomplete."""


@in_files("WrongShape")
class WrongShape(LabelError):
    """Energy, forces or stress are missing or do not match the number of atoms."""


@in_files("NotFinite")
class NotFinite(LabelError):
    """The label contains NaN or infinity."""


@in_files("Mismatch")
class Mismatch(LabelError):
    """The output belongs to another calculation: other atoms, electrons, spin or constraints than requested."""


@in_files("Unsupported")
class Unsupported(LabelError):
    """The reference cannot take the charge or the spin of this frame."""


@in_files("Unphysical")
class Unphysical(LabelError):
    """Atoms overlap, or energy or forces are absurdly large."""


_FORMER_NAMES = {"Insane": "Unphysical"}  # name of a failure in files of earlier versions → current name


def failure_name(error: LabelError | type[LabelError]) -> str:
    """The name of a failure class in files and reports."""
    return name_in_files(error if isinstance(error, type) else type(error))


def failure_class(name: str) -> type[LabelError]:
    """The failure class with this name in files, current or former. Raises LookupError."""
    wanted = _FORMER_NAMES.get(name, name)
    for kind in LabelError.__subclasses__():
        if failure_name(kind) == wanted:
            return kind
    raise LookupError(f"unknown failure {name!r}")


class Abandoned(Exception):
    """Work on the device was stopped after a batch or MD step because the run is stopping; it has no effect."""


class RunInterrupted(BaseException):
    """The run was asked to stop; everything is saved. `code` is the exit code.

    Like KeyboardInterrupt it is not a subclass of Exception, so that code which catches errors of a user's calculator
    does not catch it. cancel: running calculations and waiting blocks are cancelled, too.
    """

    def __init__(self, reason: str, code: int, cancel: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.cancel = cancel
