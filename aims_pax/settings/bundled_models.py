"""Foundation models whose weights are part of a Python package: a short name, what it can do, and what it needs.

A short name is accepted wherever settings name a potential: `initial_sampling`, `potential` of a sampler, calculators
of `aims-PAX augment` and `training-set`, and as `factory`, also of REFERENCE. Nothing is downloaded but the package.
This module describes the models; `potentials.bundled` loads them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from aims_pax.settings.yaml_reader import Place

if TYPE_CHECKING:
    from aims_pax.frames import Frame
    from aims_pax.systems import System

# atomic numbers of the Materials Project's relaxations (MPtrj), on which CHGNet and MACE-MP were trained: 89 elements
MATERIALS = frozenset({*range(1, 84), *range(89, 95)})


@dataclass(frozen=True)
class BundledModel:
    """One model.

    module: the package to import. distribution: its name for pip. extra: of aims-PAX, installs it.
    make: `module:callable` in aims-PAX, (device, dtype) → Potential. calculator: `module:callable` in aims-PAX without
    arguments, an ASE calculator.
    elements: atomic numbers. crystals_only: whether structures must be periodic in three directions.
    electrons: whether it is given charge and spin.
    trained_on, size (MB of the package), licence, citation: for the documentation.
    """

    name: str
    title: str
    module: str
    distribution: str
    extra: str
    make: str
    calculator: str
    elements: frozenset[int]
    crystals_only: bool
    electrons: bool
    trained_on: str
    size: float
    licence: str
    citation: str

    @property
    def installed(self) -> bool:
        """Whether its package can be found; nothing is imported."""
        try:
            return find_spec(self.module) is not None
        except (ImportError, ValueError):  # a module that was made without a specification
            return False

    @property
    def missing(self) -> str:
        """How to install it."""
        return f"{self.name} needs the package {self.distribution}: pip install 'aims-pax[{self.extra}]'"

    def unsuitable(self, frame: Frame) -> str | None:
        """Why it cannot evaluate a structure, or None."""
        if unknown := sorted(set(frame.numbers.tolist()) - self.elements):
            return f"{self.name} does not know {_symbols(unknown)}, only {self.elements_in_words}"
        if self.crystals_only and not frame.periodic:
            return f"{self.name} needs a crystal, periodic in three directions"
        return None

    @property
    def elements_in_words(self) -> str:
        """Their symbols, with ranges for long lists: `H, C, N`, `H to Bi`."""
        ranges: list[list[int]] = []
        for z in sorted(self.elements):
            if ranges and z == ranges[-1][-1] + 1:
                ranges[-1].append(z)
            else:
                ranges.append([z])
        return ", ".join(
            _symbols(r) if len(r) < 5 else f"{_symbols(r[:1])} to {_symbols(r[-1:])}" for r in ranges
        )


def _symbols(numbers: Iterable[int]) -> str:
    from ase.data import chemical_symbols

    return ", ".join(chemical_symbols[z] for z in numbers)


BUNDLED = {
    model.name: model
    for model in (
        BundledModel(
            name="so3lr",
            title="SO3LR",
            module="so3krates_torch",
            distribution="so3krates-torch",
            extra="so3lr",
            make="aims_pax.potentials.so3lr:So3lr",
            calculator="aims_pax.potentials.bundled:so3lr",
            elements=frozenset({1, 6, 7, 8, 9, 15, 16, 17}),
            crystals_only=False,
            electrons=True,
            trained_on="molecules and non-covalent systems, PBE0+MBD",
            size=3.0,
            licence="MIT",
            citation="10.1021/jacs.5c09558",
        ),
        BundledModel(
            name="chgnet",
            title="CHGNet 0.3.0",
            module="chgnet",
            distribution="chgnet",
            extra="chgnet",
            make="aims_pax.potentials.chgnet:Chgnet",
            calculator="aims_pax.potentials.bundled:chgnet",
            elements=MATERIALS,
            crystals_only=True,
            electrons=False,
            trained_on="relaxations of inorganic crystals (MPtrj), PBE and PBE+U",
            size=13.7,
            licence="BSD",
            citation="10.1038/s42256-023-00716-3",
        ),
    )
}


def named_by_calculator(factory: str) -> str | None:
    """The short name whose calculator this factory is, or None; a short name itself is one, too."""
    return next((m.name for m in BUNDLED.values() if factory in (m.name, m.calculator)), None)


def missing_packages(named: Iterable[tuple[Place, str]]) -> Iterator[tuple[Place, str]]:
    """(place, text) for each short name whose package is not installed. named: (place, name of any potential)."""
    for place, name in named:
        model = BUNDLED.get(name)
        if model is not None and not model.installed:
            yield place, model.missing


def unsuitable_structures(
    named: Iterable[tuple[Place, str]], systems: Collection[System]
) -> Iterator[tuple[Place, str]]:
    """(place, text) for each geometry that the model of a short name cannot evaluate."""
    for place, name in named:
        model = BUNDLED.get(name)
        if model is None:
            continue
        for system in systems:
            if text := model.unsuitable(system.frame):
                yield place, f"{text} (geometry {system.name}); choose another potential"
