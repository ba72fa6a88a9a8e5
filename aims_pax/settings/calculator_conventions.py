"""How the charge and the spin of a structure are passed to an ASE calculator: which argument, which convention.

Codes differ: they take `multiplicity` (2S+1), the number of unpaired electrons (2S, `uhf`, `nupdown`), the magnetic
moment of the cell in μB (also 2S), or read values from the Atoms object. For a factory that is not known here, the
user sets REFERENCE.charge_key, spin_key and spin_convention; without them, a structure that needs a charge or spin is
refused.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aims_pax.charge_and_spin import default_initial_moment
from aims_pax.errors import Unsupported
from aims_pax.frames import Frame

INFO = "atoms.info"  # the calculator reads atoms.info["charge"] and atoms.info["spin"] (2S+1)
INITIAL_CHARGES = "atoms.initial_charges"  # it sums the initial charges of the atoms
INITIAL_MOMENTS = "atoms.initial_magnetic_moments"  # it sums the initial magnetic moments of the atoms: 2S
ON_ATOMS = (INFO, INITIAL_CHARGES, INITIAL_MOMENTS)
MULTIPLICITY, UNPAIRED = "multiplicity", "unpaired_electrons"


@dataclass(frozen=True)
class Conventions:
    """charge, spin: the argument, with dots for nested tables (`input_data.system.tot_charge`), or one of ON_ATOMS;
    None: the factory has no such argument.

    unpaired: the spin argument is 2S instead of 2S+1. fractions: non-integer charges are allowed. ambiguous: a spin
    argument of unknown convention. open_shell: further arguments that unpaired electrons need (a value, or a function
    of the frame); REFERENCE.kwargs takes precedence. closed_shell: the argument is also set for multiplicity 1.
    total_spin: it reads S from atoms.info["total_spin"], where structures of aims-PAX have 2S+1. molecules: it ignores
    the cell without a word, and would compute one cell of a crystal as a molecule. moments: it reads the initial
    magnetic moments of the atoms; those that do not get none. highest: the largest multiplicity that it can be given.
    """

    charge: str | None = None
    spin: str | None = None
    unpaired: bool = False
    fractions: bool = False
    ambiguous: str | None = None
    open_shell: Mapping[str, Any] = field(default_factory=dict)
    closed_shell: bool = True
    total_spin: bool = False
    molecules: bool = False
    moments: bool = True
    highest: int | None = None

    def table(self) -> dict[str, Any]:
        """As a dict, for the description of a reference method."""
        return {"charge": self.charge, "spin": self.spin, "unpaired_electrons": self.unpaired}


_MULT = Conventions("charge", "multiplicity")
_ON_INFO = Conventions(INFO, INFO, fractions=True)
KNOWN: dict[str, Conventions] = {  # key: start of the module path, then the name of the calculator
    "tblite.ase:TBLite": replace(_MULT, fractions=True),
    "xtb.ase:XTB": Conventions(INITIAL_CHARGES, INITIAL_MOMENTS, fractions=True),
    "ase.calculators.orca:ORCA": Conventions("charge", "mult", molecules=True, moments=False),
    "ase.calculators.psi4:Psi4": replace(
        _MULT, open_shell={"reference": "uhf"}, molecules=True, moments=False
    ),
    "ase.calculators.gaussian:Gaussian": Conventions("charge", "mult"),
    "ase.calculators.qchem:QChem": replace(_MULT, molecules=True),
    "ase.calculators.nwchem:NWChem": Conventions("charge", INITIAL_MOMENTS),
    "ase.calculators.mopac:MOPAC": Conventions("charge", INITIAL_MOMENTS, highest=5),
    "ase.calculators.gamess_us:GAMESSUS": Conventions("contrl.icharg", "contrl.mult", molecules=True),
    "ase.calculators.turbomole:Turbomole": Conventions(
        "total charge", "multiplicity", open_shell={"uhf": True}
    ),
    "ase.calculators.cp2k:CP2K": replace(_MULT, open_shell={"uks": True}, moments=False),
    "ase.calculators.dftb:Dftb": Conventions("Hamiltonian_Charge", fractions=True, moments=False),
    "ase.calculators.elk:ELK": Conventions(moments=False),
    "ase.calculators.vasp:Vasp": Conventions(
        "charge", "nupdown", unpaired=True, fractions=True, open_shell={"ispin": 2}, closed_shell=False
    ),
    "ase.calculators.espresso:Espresso": Conventions(
        "input_data.system.tot_charge",
        "input_data.system.tot_magnetization",
        unpaired=True,
        fractions=True,
        open_shell={"input_data.system.nspin": 2},
        closed_shell=False,
    ),
    "ase.calculators.aims:Aims": Conventions(
        "charge",
        "fixed_spin_moment",
        unpaired=True,
        fractions=True,
        open_shell={"spin": "collinear", "default_initial_moment": default_initial_moment},
        closed_shell=False,
    ),
    "ase.calculators.castep:Castep": Conventions("charge", fractions=True),
    "gpaw:GPAW": Conventions(
        "charge",
        INITIAL_MOMENTS,
        fractions=True,
        open_shell={  # includes GPAW's own defaults: an incomplete table would override them
            "occupations.fixmagmom": True,
            "occupations.name": "fermi-dirac",
            "occupations.width": lambda frame: 0.1 if frame.pbc.any() else 0.0,
        },
    ),
    "aimnet:AIMNet2ASE": Conventions("charge", "mult"),
    "aimnet2calc:AIMNet2ASE": Conventions("charge", "mult"),
    "fairchem:FAIRChemCalculator": _ON_INFO,
    "mace.calculators:mace_omol": _ON_INFO,
    "aims_pax.potentials.bundled:so3lr": _ON_INFO,
    "aims_pax.potentials.bundled:chgnet": Conventions(),
    "so3krates_torch.calculator.so3:TorchkratesCalculator": Conventions(
        INFO, fractions=True, total_spin=True
    ),
}
# argument names with only one possible meaning
CHARGES = ("charge", "total_charge", "net_charge", "chrg")
SPINS = {
    "multiplicity": MULTIPLICITY, "mult": MULTIPLICITY, "spin_multiplicity": MULTIPLICITY,
    "uhf": UNPAIRED, "nopen": UNPAIRED, "nupdown": UNPAIRED, "unpaired_electrons": UNPAIRED,
    "tot_magnetization": UNPAIRED, "fixed_spin_moment": UNPAIRED,
}  # fmt: skip
EITHER = ("spin", "total_spin", "spinmult")  # 2S+1 in some codes, 2S in PySCF and CASTEP


def conventions_of(
    factory: str,
    make: Callable[..., Any],
    charge_key: str | None = None,
    spin_key: str | None = None,
    spin_convention: str | None = None,
) -> Conventions:
    """From the settings; otherwise from KNOWN; otherwise from the names of the calculator's arguments.

    factory: `package.module:callable` as the user wrote it. make: the imported callable.
    """
    found = _known(factory, make) or _inspected(make)
    if charge_key is not None:
        found = replace(found, charge=charge_key, fractions=True)
    if spin_key is not None:
        last = spin_key.rpartition(".")[2]
        own = found.spin == spin_key and found.ambiguous is None
        said = spin_convention or SPINS.get(last) or (MULTIPLICITY if spin_key == INFO else None)
        if said is None and own:
            return found
        unclear = said is None and spin_key not in ON_ATOMS
        found = replace(
            found,
            spin=spin_key,
            unpaired=said == UNPAIRED,
            ambiguous=spin_key if unclear else None,
            open_shell=found.open_shell if own else {},
        )
    elif spin_convention is not None:
        spin = found.ambiguous or found.spin
        found = replace(found, spin=spin, unpaired=spin_convention == UNPAIRED, ambiguous=None)
    return found


def arguments(kwargs: Mapping[str, Any], frame: Frame, how: Conventions, who: str) -> dict[str, Any]:
    """kwargs with the charge and spin of this frame added; unchanged where the frame has no charge or spin.

    Raises Unsupported if the calculator cannot take a value or the frame, or if kwargs contradict it.
    """
    made: dict[str, Any] = dict(kwargs)
    if how.molecules and frame.pbc.any():
        raise Unsupported(
            f"{frame.formula} is periodic, and {who} would compute one cell of it as a molecule; choose a reference "
            "for periodic structures, or remove the cell (pbc) if it is a molecule"
        )
    magnetic = frame.spin is None and frame.moments is not None and bool(frame.moments.any())
    if magnetic and not how.moments and entry_of(made, str(how.spin)) is None:
        instead = (
            "remove the moments, or choose a reference that reads them"
            if how.spin is None
            else "write spin=… (the multiplicity 2S+1) into the header of the structure, set MISC.spin, or remove the "
            "moments"
        )
        raise Unsupported(
            f"{frame.formula} has initial magnetic moments, but {who} does not read them; {instead}"
        )
    if how.highest is not None and (multiplicity := _multiplicity(frame)) > how.highest:
        raise Unsupported(
            f"{frame.formula} has multiplicity {multiplicity}, and {who} takes at most {how.highest}; choose another "
            "reference"
        )
    if frame.charge is not None and how.charge not in (INFO, INITIAL_CHARGES):
        made = _with_charge(made, frame, how, who)
    if frame.spin is not None:
        made = _with_spin(made, frame, how, who)
    return made


def _multiplicity(frame: Frame) -> int:
    """2S+1 as stated, otherwise from the sum of the initial magnetic moments."""
    if frame.spin is not None:
        return frame.spin
    return 1 if frame.moments is None else 1 + round(abs(float(frame.moments.sum())))


def dressed(frame: Frame, how: Conventions) -> Frame:
    """The frame with initial charges and moments that sum to its charge and 2S, if the calculator sums them; without
    a multiplicity where the calculator would take it for S; without moments that it does not read (Psi4 would forget
    the multiplicity)."""
    if not how.moments:
        frame = replace(frame, moments=None, zero_moments=None)
    if how.charge == INITIAL_CHARGES and frame.charge is not None:
        frame = replace(frame, charges=_on_heaviest(frame, frame.charge))
    if how.total_spin and frame.spin is not None:
        frame = replace(frame, spin=None)  # closed shell; others are refused by `arguments`
    if how.spin == INITIAL_MOMENTS and frame.spin is not None:
        unpaired = frame.spin - 1
        if frame.moments is None or abs(abs(frame.moments.sum()) - unpaired) > 1e-6:
            frame = replace(frame, moments=_on_heaviest(frame, unpaired))
    return frame


def charge_refusal(frame: Frame, kwargs: Mapping[str, Any], how: Conventions, who: str) -> str | None:
    """Why this calculator cannot take a frame, or its charge and spin; or None."""
    try:
        arguments(kwargs, frame, how, who)
    except Unsupported as error:
        return error.reason
    return None


def written_charge_and_spin(kwargs: Mapping[str, Any], how: Conventions) -> tuple[float | None, int | None]:
    """The charge and the multiplicity 2S+1 set in kwargs; None where one is not set or not a number."""
    charge = None if how.charge in (None, *ON_ATOMS) else entry_of(kwargs, str(how.charge))
    spin = None if how.ambiguous or how.spin in (None, *ON_ATOMS) else entry_of(kwargs, str(how.spin))
    fits = isinstance(spin, int | float) and spin == int(spin)
    return (
        charge if isinstance(charge, int | float) else None,
        int(spin) + how.unpaired if isinstance(spin, int | float) and fits else None,
    )


def check_keys(charge_key: str | None, spin_key: str | None, spin_convention: str | None) -> None:
    """Raise ValueError for invalid keys."""
    for name, key, wrong in (
        ("charge_key", charge_key, INITIAL_MOMENTS),
        ("spin_key", spin_key, INITIAL_CHARGES),
    ):
        if key == wrong or (key is not None and key.startswith("atoms.") and key not in ON_ATOMS):
            own = INITIAL_CHARGES if name == "charge_key" else INITIAL_MOMENTS
            raise ValueError(f"{name}: {key}: expected the name of an argument, {INFO}, or {own}")
    if spin_convention == MULTIPLICITY and spin_key == INITIAL_MOMENTS:
        raise ValueError(
            f"spin_convention: {MULTIPLICITY}: magnetic moments count unpaired electrons; remove it"
        )


# ---------------------------------------------------------------- one frame


def _with_charge(made: dict[str, Any], frame: Frame, how: Conventions, who: str) -> dict[str, Any]:
    charge = frame.charge
    assert charge is not None
    if how.charge is None:
        if charge == 0:
            return made
        raise Unsupported(
            f"{frame.formula} has charge {charge:g}, and {who} has no known argument for the charge; name the "
            "argument with REFERENCE.charge_key, or choose a reference that takes one"
        )
    whole = charge == int(charge)
    if not whole and not how.fractions:
        raise Unsupported(f"{frame.formula} has charge {charge:g}, and {who} takes only whole charges")
    return _put(
        made, how.charge, int(charge) if whole else charge, f"the charge {charge:g} of {frame.formula}"
    )


def _with_spin(made: dict[str, Any], frame: Frame, how: Conventions, who: str) -> dict[str, Any]:
    spin = frame.spin
    assert spin is not None
    if how.ambiguous is not None and spin != 1:
        raise Unsupported(
            f"{frame.formula} has multiplicity {spin}, and {how.ambiguous} of {who} can mean 2S+1 or 2S; set "
            f"REFERENCE.spin_convention: {MULTIPLICITY} or {UNPAIRED}"
        )
    if how.spin is None or how.ambiguous is not None:
        if spin == 1:
            return made
        if how.total_spin:
            raise Unsupported(
                f"{frame.formula} has multiplicity {spin}, and {who} reads the spin S, not 2S+1, from atoms.info; "
                "write so3lr, which is given the multiplicity"
            )
        raise Unsupported(
            f"{frame.formula} has multiplicity {spin}, and {who} has no known argument for the spin; name the "
            "argument with REFERENCE.spin_key (and spin_convention), or choose a reference that takes one"
        )
    if how.spin not in ON_ATOMS and (spin > 1 or how.closed_shell or entry_of(made, how.spin) is not None):
        value = spin - 1 if how.unpaired else spin
        made = _put(made, how.spin, value, f"the multiplicity {spin} of {frame.formula}")
    for key, value in how.open_shell.items() if spin > 1 else ():
        if entry_of(made, key) is None:
            made = _put(made, key, value(frame) if callable(value) else value, "")
    return made


def _put(kwargs: dict[str, Any], key: str, value: Any, what: str) -> dict[str, Any]:
    """kwargs with this entry set; missing tables along the dotted key are created.

    Raises Unsupported if kwargs already has another value.
    """
    present = entry_of(kwargs, key)
    if present is not None and present != value:
        raise Unsupported(
            f"REFERENCE.kwargs has {key}: {present}, which contradicts {what}; remove it from REFERENCE.kwargs, or "
            "correct the structure"
        )
    made = copy.copy(kwargs)
    inner, (*tables, last) = made, _path(kwargs, key)
    for name in tables:
        inner[name] = dict(inner.get(name) or {})
        inner = inner[name]
    inner[last] = value
    return made


def entry_of(kwargs: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, or None."""
    found: Any = kwargs
    for name in _path(kwargs, key):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _path(kwargs: Mapping[str, Any], key: str) -> list[str]:
    """The parts of a dotted key as kwargs spells them; Quantum ESPRESSO's input_data may be written without namelists.

    Inside a table upper and lower case are the same, as they are for the programs that read it: `SYSTEM` is `system`.
    """
    path = key.split(".")
    if len(path) == 3 and path[0] == "input_data":
        written = kwargs.get("input_data") or {}
        if written and not any(isinstance(v, Mapping) for v in written.values()):
            path = [path[0], path[2]]
    table = kwargs.get(path[0])
    for k, name in enumerate(path[1:], 1):
        if isinstance(table, Mapping):
            spelled = [n for n in table if isinstance(n, str) and n.lower() == name.lower()]
            path[k] = name if name in table or not spelled else spelled[0]
            table = table.get(path[k])
    return path


def without_key(kwargs: Mapping[str, Any], key: str | None) -> dict[str, Any]:
    """kwargs without this entry."""
    made = dict(kwargs)
    if key is None or key in ON_ATOMS or entry_of(kwargs, key) is None:
        return made
    inner, (*tables, last) = made, _path(kwargs, key)
    for name in tables:
        inner[name] = dict(inner[name])
        inner = inner[name]
    del inner[last]
    return made


def _on_heaviest(frame: Frame, total: float) -> Any:
    """(N,) zeros with `total` on the first of the heaviest atoms, so that the sum is exact."""
    values = np.zeros(len(frame))
    values[int(np.argmax(frame.numbers))] = total
    return values


# ---------------------------------------------------------------- one factory


def _known(factory: str, make: Callable[..., Any]) -> Conventions | None:
    """The entry of KNOWN for the calculator's class, function or base class; without arguments it does not accept."""
    owner = getattr(make, "__self__", make)  # a class whose method loads a checkpoint
    own = (getattr(make, "__module__", None) or "", getattr(make, "__qualname__", ""))
    module, _, attribute = factory.partition(":")
    names = [own, (module, attribute)]
    names += [(c.__module__, c.__qualname__) for c in getattr(owner, "__mro__", ())]
    for place, name in names:
        for known, how in KNOWN.items():
            package, _, called = known.partition(":")
            if called in (name, name.partition(".")[0]) and (
                place == package or place.startswith(f"{package}.")
            ):
                inherited = isinstance(owner, type) and called != owner.__qualname__
                return _as_inherited(how, make) if inherited else how
    return None


def _as_inherited(how: Conventions, make: Callable[..., Any]) -> Conventions:
    """The conventions of a derived class: its own arguments first, inherited ones only if it accepts them."""
    own = _inspected(make)
    charge = own.charge or (how.charge if how.charge in ON_ATOMS or accepts(make, how.charge) else None)
    spin = how.spin if how.spin in ON_ATOMS or accepts(make, how.spin) else None
    if own.spin is not None and own.spin != how.spin:
        return replace(own, charge=charge, molecules=how.molecules, moments=how.moments)
    return replace(how, charge=charge, spin=spin)


def accepts(make: Callable[..., Any], key: str | None) -> bool:
    """Whether a callable accepts an argument of this name."""
    if key is None:
        return False
    try:
        parameters = inspect.signature(make).parameters
    except (TypeError, ValueError):  # compiled callables may have no signature
        return True
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return anything or key.partition(".")[0] in parameters


def _inspected(make: Callable[..., Any]) -> Conventions:
    """Conventions guessed from the names of the arguments; ambiguous names are marked as such."""
    names: set[str] = set()
    with suppress(TypeError, ValueError):
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = {p.name for p in inspect.signature(make).parameters.values() if p.kind in kinds}
    if accepts(make, "anything at all"):  # ASE calculators pass **kwargs on to their parameters
        for one in getattr(make, "__mro__", ()):
            defaults = getattr(one, "default_parameters", None)
            names |= set(map(str, defaults)) if isinstance(defaults, Mapping) else set()
    charge = next((n for n in CHARGES if n in names), None)
    spin = next((n for n in SPINS if n in names), None)
    unclear = next((n for n in EITHER if n in names), None) if spin is None else None
    return Conventions(charge, spin or unclear, SPINS.get(spin or "") == UNPAIRED, True, unclear)
