"""Energies of isolated atoms from the reference: the zero of energy of a force field.

Each atom is computed alone, without a cell, spin-polarised, in the multiplicity of its ground state (Hund's rules).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.engine.run_context import LabellingContext
from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.isolated_atoms import isolated
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.settings.calculator_conventions import charge_refusal
from aims_pax.settings.mace import ELEMENTS, FROM_REFERENCE
from aims_pax.settings.settings import as_yaml
from aims_pax.stages.label_list import LabelRequest, label_all, open_reference
from aims_pax.systems import elements, geometry_paths, read_systems

if TYPE_CHECKING:
    from rich.console import Console

    from aims_pax.settings import LabellingSettings, Settings

log = logging.getLogger(__name__)

CLASSICAL = tuple(  # potentials without electrons
    f"ase.calculators.{name}"
    for name in ("emt", "lj", "morse", "eam", "tersoff", "tip3p", "tip4p", "ff", "kim")
)
HEAD = "# energies of isolated atoms"


def run_atomic_energies(
    settings: LabellingSettings, console: Console, symbols: Sequence[str], target: Path
) -> None:
    """`aims-PAX-atomic-energies`: energies of `symbols` and of the geometries' elements, to a file and the terminal."""
    numbers = _elements(settings, symbols)
    if not target.parent.is_dir() or target.is_dir():
        raise SettingsError(f"{target}: cannot be written there; give a file in an existing folder")
    if target.exists() and not target.read_bytes().lstrip().startswith(HEAD.encode()):
        raise SettingsError(f"{target} exists and was not written by this command; give another file with -o")
    with open_reference(settings, console, "atomic_energies.log") as context:
        energies = energies_of(context, numbers)
        by_symbol = {ELEMENTS[z - 1]: e for z, e in energies.items()}
        method = context.labeller.method_of(atom=True)
        head = f"{HEAD} in eV, reference method {method}; to use this file, write in mace.yaml:\n"
        head += f"# ARCHITECTURE: {{atomic_energies: {target}}}\n"
        context.folder.write_text(target, head + as_yaml(by_symbol))
        log.info("done: %s; for mace.yaml:", target)
    console.print(
        as_yaml({"ARCHITECTURE": {"atomic_energies": by_symbol}}), end="", markup=False, highlight=False,
        soft_wrap=True,
    )  # fmt: skip


def with_atomic_energies(settings: Settings, context: LabellingContext, numbers: Sequence[int]) -> Settings:
    """The settings, with `atomic_energies: reference` replaced by the computed energies of these elements."""
    if settings.model.atomic_energies != FROM_REFERENCE:
        return settings
    active = settings.active_learning
    # they contain their own, as a warning of the settings says
    if active is not None and active.initial_models:
        return settings
    energies = energies_of(context, numbers)
    text = ", ".join(f"{ELEMENTS[z - 1]} {e:.3f} eV" for z, e in energies.items())
    log.info("atomic energies: isolated atoms with the settings of the reference: %s", text)
    return settings.with_atomic_energies({ELEMENTS[z - 1]: e for z, e in energies.items()})


def energies_of(context: LabellingContext, numbers: Iterable[int]) -> dict[int, float]:
    """{Z: eV} of isolated atoms, ascending.

    Raises SetupError when a calculation has failed, SettingsError when a ground state is not known.
    """
    atoms = {z: LabelRequest(isolated(z), f"atom {ELEMENTS[z - 1]}", atom=True) for z in sorted(set(numbers))}
    context.labeller.check_elements(atoms)
    _warn_of_spin(context.labeller.reference, [w.frame for w in atoms.values()])
    failed = {f.frame: f for f in label_all(context, list(atoms.values()))}
    said = [
        f"{ELEMENTS[z - 1]}: {failed[w.frame.id].kind}: {failed[w.frame.id].reason}"
        for z, w in atoms.items()
        if w.frame.id in failed
    ]
    if said:
        raise SetupError(
            f"the energy of isolated atoms is not known: {'; '.join(said)}. Improve their SCF convergence "
            "(REFERENCE.retries; in control.in occupation_type, charge_mix_param) and run again, or set "
            "ARCHITECTURE.atomic_energies in mace.yaml yourself"
        )
    energies = {}
    for z, wanted in atoms.items():
        label = context.labeller.known(wanted.frame, atom=True)
        if label is None:
            raise SetupError(
                f"the label of {wanted.name} was removed from {context.folder.data / 'labels'}; run again"
            )
        energies[z] = label.energy
    return energies


def _warn_of_spin(reference: Any, atoms: Sequence[Frame]) -> None:
    """Warn when a calculator cannot be given the spin of atoms and chooses the electronic state itself."""
    if not isinstance(reference, CalculatorReference) or reference.factory.startswith(CLASSICAL):
        return
    how = reference.conventions
    said = [charge_refusal(a, {}, how, reference.factory) for a in atoms]
    if any(said):
        log.warning(
            "REFERENCE.factory %s cannot be given the spin of isolated atoms: they are computed with initial magnetic "
            "moments only, and may not be in their ground state. Set REFERENCE.spin_key to the name of the "
            "argument, and spin_convention",
            reference.factory,
        )


def _elements(settings: LabellingSettings, symbols: Sequence[str]) -> tuple[int, ...]:
    """Atomic numbers of `symbols` and of the geometries; without geometry files, of `symbols` only."""
    unknown = [s for s in symbols if s not in ELEMENTS]
    if unknown:
        raise SettingsError(f"{', '.join(unknown)}: not an element; expected symbols like H C Cu")
    named = {ELEMENTS.index(s) + 1 for s in symbols}
    paths = geometry_paths(settings.misc.path_to_geometry, settings.folder)
    if named and not any(p.exists() for p in paths):
        return tuple(sorted(named))
    return tuple(sorted(named | set(elements(s.frame for s in read_systems(paths)))))
