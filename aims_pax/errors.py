"""Everything aims-PAX raises on purpose.

    AimsPaxError
    ├── SettingsError        yours: a key, a value, a file that is missing
    ├── SetupError           the machine's: binary, scheduler, extra not there; stop at once
    │   ├── Busy             another aims-PAX works here
    │   └── NotStored        a computed label cannot be written; it is kept elsewhere and found by the next run
    ├── RestartError         what lies in the folder cannot be continued
    └── LabelError           this frame only; becomes an event, never ends a run by itself
        ├── NotConverged     the SCF cycle did not converge
        ├── Crashed          the reference died
        ├── TimedOut         the reference ran past its limit
        ├── Truncated        the output ends early
        ├── WrongShape       energy, forces or stress missing or of another size
        ├── NotFinite        NaN or infinity in a label
        ├── Mismatch         the output is of another calculation than the one asked for
        ├── Unsupported      its charge or spin, which this reference cannot be given
        └── Unphysical       overlapping atoms, absurd forces or energies

Only `LabelError` becomes an event; everything else ends the run with one line for the user. `RunInterrupted` is no
error.
"""

from __future__ import annotations

from aims_pax.wire_names import in_files, name_in_files


class AimsPaxError(Exception):
    """Base of all errors whose text is written for the user."""


class SettingsError(AimsPaxError):
    """Something the user wrote: `SettingsError(text)`, or `SettingsError(place, text)`; reads "place: text".

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
    """The machine lacks something every calculation needs: stop at once and say what to change."""


class RestartError(AimsPaxError):
    """What lies in the working folder cannot be continued."""


class Busy(SetupError):
    """Another aims-PAX works in this folder."""


class NotStored(SetupError):
    """A label was computed and cannot be written; where it is kept, the next run finds it."""


class LabelError(AimsPaxError):
    """The reference could not label one frame. Files and reports name the failure class by `failure_name`."""

    def __init__(self, reason: str, folder: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.folder = folder

    def __reduce__(self) -> tuple[type[LabelError], tuple[str, str | None]]:
        return type(self), (self.reason, self.folder)  # crosses process borders whole


@in_files("NotConverged")
class NotConverged(LabelError):
    """The self-consistency cycle did not converge."""


@in_files("Crashed")
class Crashed(LabelError):
    """The reference program died."""


@in_files("TimedOut")
class TimedOut(LabelError):
    """The reference ran past its time limit."""


@in_files("Truncated")
class Truncated(LabelError):
    """The output ends before its end."""


@in_files("WrongShape")
class WrongShape(LabelError):
    """Energy, forces or stress are missing or belong to another number of atoms."""


@in_files("NotFinite")
class NotFinite(LabelError):
    """The label holds NaN or infinity."""


@in_files("Mismatch")
class Mismatch(LabelError):
    """The output is of another calculation than the one asked for: other atoms, electrons, spin, constraints."""


@in_files("Unsupported")
class Unsupported(LabelError):
    """The reference cannot be given the charge or the spin of this frame."""


@in_files("Unphysical")
class Unphysical(LabelError):
    """Atoms overlap, or energy or forces are beyond anything physical."""


_FORMER_NAMES = {"Insane": "Unphysical"}  # of failures in files of earlier versions → name today


def failure_name(error: LabelError | type[LabelError]) -> str:
    """The failure class as files and reports name it."""
    return name_in_files(error if isinstance(error, type) else type(error))


def failure_class(name: str) -> type[LabelError]:
    """The class of a failure that a file names, by today's name or an earlier one. Raises LookupError."""
    wanted = _FORMER_NAMES.get(name, name)
    for kind in LabelError.__subclasses__():
        if failure_name(kind) == wanted:
            return kind
    raise LookupError(f"no failure is called {name!r}")


class Abandoned(Exception):
    """A device turn was given up at the next batch or MD step because the run is stopping: nothing happened."""


class RunInterrupted(BaseException):
    """The run was asked to stop; everything is saved. `code` is the exit code.

    No Exception, as KeyboardInterrupt is none: what guards against errors of a user's calculator is not to take it
    for one. cancel: running calculations and waiting blocks are not left to the next run either.
    """

    def __init__(self, reason: str, code: int, cancel: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.cancel = cancel
