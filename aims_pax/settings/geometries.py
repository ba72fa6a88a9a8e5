"""The systems of a run: the geometries named in its settings, with the charges and spins set in MISC.

Charge and spin can be set in three places: MISC.charge and MISC.spin, the geometry file, and the input of the
reference (control.in, REFERENCE.kwargs). If two of them differ, the error names both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.charge_and_spin import check_electrons
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, LabelledFrame
from aims_pax.isolated_atoms import is_lone
from aims_pax.settings.calculator_conventions import charge_refusal, conventions_of, written_charge_and_spin
from aims_pax.settings.callables import loaded
from aims_pax.settings.control_in import Control, matching, pair_controls, read_control
from aims_pax.settings.yaml_reader import Place
from aims_pax.systems import System, geometry_paths, read_system, read_systems, system_of

if TYPE_CHECKING:
    from aims_pax.settings.settings import LabellingSettings

Finding = tuple[Place, str]
WORDS = {"charge": "charge", "spin": "multiplicity"}


def read_geometries(settings: LabellingSettings) -> tuple[System, ...]:
    """The systems of MISC.path_to_geometry with their charge and spin.

    Raises SettingsError that lists all mistakes, one per line.
    """
    systems, findings = found_geometries(settings)
    if findings:
        raise SettingsError("\n".join(f"{'.'.join(map(str, place))}: {text}" for place, text in findings))
    return systems


def found_geometries(settings: LabellingSettings) -> tuple[tuple[System, ...], list[Finding]]:
    """The systems, and contradictions in their charges and spins. Raises SettingsError for unreadable files."""
    systems = read_systems(geometry_paths(settings.misc.path_to_geometry, settings.folder))
    findings: list[Finding] = []
    for key in ("charge", "spin"):
        systems = tuple(_with(systems, key, getattr(settings.misc, key), findings))
    if not findings:
        inputs = _inputs(settings, systems)
        for system in systems:
            findings += _contradictions(settings, system, inputs.get(system.name))
    return systems, findings


def read_geometry(settings: LabellingSettings, path: Path) -> System:
    """The structure of a file that a command names itself, with its charge and spin in MISC.

    Raises SettingsError naming the file or the key: for contradictions, and where MISC has a value for each geometry
    but none for this one.
    """
    system = read_system(path)
    values = electrons_of_misc(settings)
    for key, value in values.items():
        stated = getattr(system.frame, key) is not None
        if isinstance(value, Mapping) and system.name not in value and not stated:
            raise SettingsError(
                f"MISC.{key}",
                f"set for each geometry, but for none called {system.name} ({path}); add it, or write the "
                f"{WORDS[key]} into this file",
            )
    system = replace(system, frame=with_settings(system.frame, system.name, values))
    for place, text in _contradictions(settings, system, _inputs(settings, [system]).get(system.name)):
        raise SettingsError(".".join(map(str, place)), text)
    return system


def with_settings(frame: Frame, name: str | None, values: Mapping[str, Any]) -> Frame:
    """A structure derived from the geometry of this name, with its charge and spin in MISC (`electrons_of_misc`).

    Raises SettingsError if MISC contradicts the structure, or if its geometry is unknown.
    """
    for key in WORDS:
        frame = _set(frame, key, _value_for(frame, key, name, values), f"a structure {frame.formula}")
    return frame


def electrons_of_misc(settings: LabellingSettings) -> dict[str, Any]:
    """{charge, spin: the value in MISC for all structures, or {name of a geometry: value}}.

    Raises SettingsError for a map that names an unknown geometry.
    """
    values: dict[str, Any] = {key: getattr(settings.misc, key) for key in WORDS}
    if any(isinstance(v, Mapping) for v in values.values()):
        systems = read_systems(geometry_paths(settings.misc.path_to_geometry, settings.folder))
        for key, written in values.items():
            if isinstance(written, Mapping):
                values[key], findings = _by_name(systems, key, written)
                if findings:
                    place, text = findings[0]
                    raise SettingsError(".".join(map(str, place)), text)
    return values


def completing(settings: LabellingSettings) -> Callable[[LabelledFrame], LabelledFrame]:
    """A function that adds MISC.charge and MISC.spin to a structure of the user's data that states none.

    A structure that states something else stays as it is, and so does an atom alone. The function raises
    SettingsError if MISC has a value for each geometry, and a structure is of none of them.
    """
    values = electrons_of_misc(settings)
    each = any(isinstance(value, Mapping) for value in values.values())
    systems = found_geometries(settings)[0] if each else ()

    def completed(labelled: LabelledFrame) -> LabelledFrame:
        frame = labelled.frame
        if is_lone(labelled):
            return labelled
        name = system_of(frame, {"system": "", **labelled.origin}, systems) or None
        wanted = {key: _value_for(frame, key, name, values) for key in WORDS}
        own = {key: getattr(frame, key) for key in wanted}
        if any(own[k] is not None and v is not None and own[k] != v for k, v in wanted.items()):
            return labelled
        added = {k: v for k, v in wanted.items() if v is not None and own[k] is None}
        return replace(labelled, frame=replace(frame, **added)) if added else labelled

    return completed


def _value_for(frame: Frame, key: str, name: str | None, values: Mapping[str, Any]) -> Any:
    """The charge or spin in MISC for a structure of the geometry of this name, or None. Raises SettingsError."""
    value = values[key]
    if not isinstance(value, Mapping):
        return value
    if name is None and getattr(frame, key) is None:
        raise SettingsError(
            f"MISC.{key} is set for each geometry, but this structure ({frame.formula}) has neither a {key} "
            f"nor a geometry name; add {key}=… or system=NAME to its header"
        )
    return value.get(name)


def _with(systems: Sequence[System], key: str, written: Any, findings: list[Finding]) -> Iterator[System]:
    """The systems with one key of MISC applied."""
    values: Mapping[str, Any] = {s.name: written for s in systems}
    if isinstance(written, Mapping):
        values, wrong = _by_name(systems, key, written)
        findings += wrong
    for system in systems:
        try:
            frame = _set(system.frame, key, values.get(system.name), f"geometry {system.name}")
        except SettingsError as error:
            findings.append((("MISC", key), error.text))
            frame = system.frame
        yield replace(system, frame=frame)


def _by_name(
    systems: Sequence[System], key: str, written: Mapping[Any, Any]
) -> tuple[dict[str, Any], list[Finding]]:
    """{name of a geometry: value} from a map in MISC, and its mistakes."""
    values: dict[str, Any] = {}
    findings: list[Finding] = []
    names = [s.name for s in systems]
    for said, value in written.items():
        place: Place = ("MISC", key, said)
        try:
            name = matching(said, names)
        except SettingsError as error:
            findings.append((place, str(error)))
            continue
        if name is None:
            text = f"no geometry is called {said!r}; expected one of {', '.join(names)}"
            findings.append((place, text))
        elif name in values:
            findings.append((place, f"a second value for the geometry {name}; keep one"))
        else:
            values[name] = value
    return values, findings


def _set(frame: Frame, key: str, value: Any, whose: str) -> Frame:
    """The frame with this charge or spin. Raises SettingsError if it already has another value."""
    own = getattr(frame, key)
    if value is None or own == value:
        return frame
    if own is not None:
        raise SettingsError(
            f"MISC.{key}",
            f"{value:g} contradicts the {WORDS[key]} {own:g} in the file of {whose}; remove one",
        )
    return replace(frame, **{key: value})


# ---------------------------------------------------------------- the input of the reference


def _inputs(settings: LabellingSettings, systems: Sequence[System]) -> dict[str, tuple[str, Control]]:
    """{system: (file, control.in)}; empty if FHI-aims is not the reference or a file cannot be read."""
    if settings.reference.type != "aims":
        return {}
    written = settings.misc.path_to_control
    try:
        pairs = (
            {s.name: written for s in systems}
            if isinstance(written, str)
            else pair_controls(written, [s.name for s in systems])[0]
        )
        controls = {file: read_control(settings.path(file)) for file in dict.fromkeys(pairs.values())}
    except SettingsError:
        return {}  # the check of control.in reports it
    return {name: (file, controls[file]) for name, file in pairs.items()}


def _contradictions(
    settings: LabellingSettings, system: System, given: tuple[str, Control] | None
) -> Iterator[Finding]:
    """Contradictions between the input of the reference and the frame, and impossible pairs of charge and spin."""
    frame = system.frame
    charge, spin = frame.charge, frame.spin
    place: Place = ("MISC", "spin")
    try:
        said = {} if given is None else _said(given[1])
    except SettingsError as error:
        yield ("MISC", "path_to_control"), f"{given[0] if given else ''}: {error}"
        return
    for key, (line, value) in said.items():
        own = getattr(frame, key)
        if own is not None and own != value and given is not None:
            yield (
                ("MISC", "path_to_control"),
                f"{given[0]} has {line}, which contradicts the {WORDS[key]} {own:g} of geometry {system.name} "
                f"({_source(settings, system.name, key)}); remove one",
            )
    charge = said["charge"][1] if charge is None and "charge" in said else charge
    if spin is None and "spin" in said:
        spin, place = int(said["spin"][1]), ("MISC", "path_to_control")
    if settings.reference.type == "calculator":
        text, charge, spin = _of_calculator(settings, frame)
        if text is not None:
            yield ("REFERENCE",), f"geometry {system.name}: {text}"
            return
        place = place if frame.spin is not None else ("REFERENCE", "kwargs")
    try:
        check_electrons(frame, charge, spin)
    except SettingsError as error:
        yield place, f"geometry {system.name} ({frame.formula}): {error}"


def _of_calculator(settings: LabellingSettings, frame: Frame) -> tuple[str | None, float | None, int | None]:
    """(why the calculator cannot take the charge and spin of the frame, or None; its final charge; its final spin)."""
    reference = settings.reference
    try:
        make = loaded(str(reference.factory), settings.folder)
    except Exception:  # the user's module may raise any exception; the check of factories reports it
        return None, frame.charge, frame.spin
    convention = None if reference.spin_convention == "None" else reference.spin_convention
    how = conventions_of(str(reference.factory), make, reference.charge_key, reference.spin_key, convention)
    text = charge_refusal(frame, reference.kwargs, how, f"REFERENCE.factory {reference.factory}")
    charge, spin = written_charge_and_spin(reference.kwargs, how)
    return text, charge if frame.charge is None else frame.charge, spin if frame.spin is None else frame.spin


def _said(control: Control) -> dict[str, tuple[str, float]]:
    """{charge, spin: (the line, value)} fixed by a control.in; a non-integer moment does not fix the spin."""
    said: dict[str, tuple[str, float]] = {}
    for keyword, key in (("charge", "charge"), ("multiplicity", "spin"), ("fixed_spin_moment", "spin")):
        rest = control.get(keyword)
        if rest is None:
            continue
        value = control.number(keyword)
        assert value is not None
        if keyword == "fixed_spin_moment":
            if value != int(value):
                continue
            value = abs(value) + 1
        said[key] = (f"{keyword} {rest}", value)
    return said


def _source(settings: LabellingSettings, name: str, key: str) -> str:
    """Where the charge or spin of a system is set."""
    written = getattr(settings.misc, key)
    by_map = isinstance(written, Mapping) and any(Path(n).stem == name or n == name for n in written)
    return f"MISC.{key}" if by_map or isinstance(written, int | float) else "from its file"
