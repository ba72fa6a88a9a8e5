"""Makes the potential named in the settings: a foundation model, a built-in calculator, or one from a user's call.

A foundation model is the short name of one that a package brings along (`settings.bundled_models`), a name that MACE
knows, or a file.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.models.kinds import load_named
from aims_pax.potential import Bound, CalculatorPotential, LabelsBound, Potential, calculate, full_stress
from aims_pax.potentials.bundled import bundled_potential
from aims_pax.potentials.light_calculators import is_light
from aims_pax.settings.augment import CallSpec
from aims_pax.settings.bundled_models import BUNDLED, named_by_calculator
from aims_pax.settings.calculator_conventions import (
    arguments,
    charge_refusal,
    conventions_of,
    dressed,
    without_key,
)
from aims_pax.user_code import load_factory, made_by

log = logging.getLogger(__name__)

BATCH = 64  # structures a graph-pes model is given at once


def make_potential(
    calculator: CallSpec | str,
    folder: Path,
    where: str = "model.calculator",
    device: str | None = None,
    dtype: str = "float32",
) -> Potential:
    """The potential for a settings entry: a foundation model, or the result of a call, which is an ASE calculator or a
    `Potential`.

    folder: contains the user's modules and files. where: settings key, for errors. device, dtype: of a foundation
    model; device None: the GPU if there is one. Raises SettingsError with the key, SetupError.
    """
    try:
        return _named(calculator, folder, device, dtype, where)
    except SettingsError as error:
        if error.place.startswith(where):
            raise
        raise SettingsError(where, str(error)) from error


def _named(calculator: CallSpec | str, folder: Path, device: str | None, dtype: str, where: str) -> Potential:
    if isinstance(calculator, str):
        return _foundation(calculator, folder, device, dtype, where)
    made = _made(calculator, folder)
    if isinstance(made, Potential):
        return made
    if not hasattr(made, "calculate") or not hasattr(made, "implemented_properties"):
        raise SettingsError(
            f"{calculator.target} returned a {type(made).__name__}, expected an ASE calculator"
        )
    if not calculator.called:  # an object from the user: its charge is already set
        return CalculatorPotential(lambda: made)
    light = is_light(made)

    def make() -> Any:
        return _made(calculator, folder) if light else made

    electrons = ElectronsOf(
        calculator.target, calculator.kwargs, folder, where,
        lambda kwargs: _made(replace(calculator, kwargs=kwargs), folder), make, light,
    )  # fmt: skip
    return CalculatorPotential(make, electrons)


def calculator_potential(factory: str, kwargs: Mapping[str, Any], folder: Path, where: str) -> Potential:
    """The calculator of `{factory, kwargs}` as a potential, a new calculator for each structure.

    The factory of a short name gives its own potential, which is faster. where: settings key, for errors. Raises
    SettingsError for a factory that cannot be found.
    """
    if (name := named_by_calculator(factory)) is not None and not kwargs:
        return bundled_potential(name)
    make = load_factory(factory, folder)
    plain = made_by(make, factory, dict(kwargs))
    electrons = ElectronsOf(
        factory, kwargs, folder, where, lambda kwargs: made_by(make, factory, kwargs)(), plain, fresh=True
    )
    return CalculatorPotential(plain, electrons)


class ElectronsOf:
    """Passes charge and spin to a calculator that moves atoms.

    If the calculator cannot be given them, a warning is logged once and it is used without: it only proposes
    structures and computes no labels.
    make: makes a calculator with other keyword arguments. plain: makes the one of the settings. fresh: make a new one
    each time.
    """

    def __init__(
        self,
        target: str,
        kwargs: Mapping[str, Any],
        folder: Path,
        where: str,
        make: Callable[[dict[str, Any]], Any],
        plain: Callable[[], Any],
        fresh: bool = False,
    ) -> None:
        self.target, self.kwargs, self.where = target, kwargs, where
        self._make, self._plain, self._fresh = make, plain, fresh
        callable_ = _BUILT_IN[target] if target in _BUILT_IN else load_factory(target, folder)
        self.how = conventions_of(target, callable_)
        self._known: dict[tuple[float | None, int | None], Any] = {}
        self._said: set[str] = set()

    def maker(self, frame: Frame) -> Callable[[], Any]:
        """A function that makes a calculator for the charge and spin of this frame."""
        if (text := charge_refusal(frame, self.kwargs, self.how, self.target)) is not None:
            if text not in self._said:
                self._said.add(text)
                log.warning("%s: %s; it still moves the atoms", self.where, text.partition("; ")[0])
            return self._plain
        kwargs = arguments(self.kwargs, frame, self.how, self.target)
        if kwargs == dict(self.kwargs):
            return self._plain
        if self._fresh:
            return lambda: self._make(kwargs)
        key = (frame.charge, frame.spin)
        if key not in self._known:
            self._known[key] = self._make(kwargs)
        return lambda: self._known[key]

    def of_atom(self, frame: Frame) -> Label:
        """The label of an isolated atom with its own charge and spin instead of those in kwargs."""
        kwargs = without_key(without_key(self.kwargs, self.how.charge), self.how.spin)
        if charge_refusal(frame, kwargs, self.how, self.target) is None:
            kwargs = arguments(kwargs, frame, self.how, self.target)
        return calculate(self.dressed(frame), self._make(kwargs))

    def dressed(self, frame: Frame) -> Frame:
        """The frame with initial charges and magnetic moments, from which the calculator takes charge and spin."""
        return dressed(frame, self.how)


def _made(value: Any, folder: Path) -> Any:
    """The value with every call replaced by its result, inner calls first."""
    if isinstance(value, list):
        return [_made(v, folder) for v in value]
    if isinstance(value, dict):
        return {k: _made(v, folder) for k, v in value.items()}
    if not isinstance(value, CallSpec):
        return value
    if not value.called:
        return _object(value.target, folder)
    make = _BUILT_IN[value.target] if value.target in _BUILT_IN else load_factory(value.target, folder)
    args, kwargs = [_made(a, folder) for a in value.args], _made(dict(value.kwargs), folder)
    try:
        return make(*args, **kwargs)
    except TypeError as error:
        raise SettingsError(f"{value.target}: {error}") from error


def _object(target: str, folder: Path) -> Any:
    """An object of a module that is used directly, not called."""
    if target in _BUILT_IN:
        raise SettingsError(f"+{target}: write +{target}(), or, with arguments, +{target}: {{…}}")
    load_factory(f"{target}.__class__", folder)  # imports the module, or raises with the missing part
    module, _, name = target.partition(":")
    return functools.reduce(getattr, name.split("."), sys.modules[module])


def _foundation(name: str, folder: Path, device: str | None, dtype: str, where: str) -> Potential:
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name in BUNDLED:
        return bundled_potential(name, device, dtype)
    try:
        return load_named(name, folder, device, dtype, key=where)
    except SettingsError as error:
        raise SettingsError(where, f"{error.text}; your own calculators must start with +") from error


def lennard_jones(**arguments: float) -> Any:
    """ASE's Lennard-Jones calculator; defaults: ε = 1 eV, σ = 1 Å, cutoff 3 σ."""
    from ase.calculators.lj import LennardJones

    return LennardJones(**arguments)


class GraphPes:
    """A graph-pes model as a `Potential`, evaluated in batches. calculator: the one of graph-pes."""

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator

    def labels(self, frames: Sequence[Frame]) -> list[Label]:
        labels: dict[int, Label] = {}
        for periodic in (True, False):
            chosen = [k for k, frame in enumerate(frames) if frame.periodic == periodic]
            wanted = ["energy", "forces", *(["stress"] if periodic else [])]
            said = self.calculator.calculate_all([frames[k].to_atoms() for k in chosen], wanted, BATCH)
            for k, results in zip(chosen, said, strict=True):
                stress = full_stress(results["stress"]) if periodic else None
                labels[k] = Label(float(results["energy"]), np.array(results["forces"], float), stress)
        return [labels[k] for k in range(len(frames))]

    def bind(self, frames: Sequence[Frame]) -> Bound:
        return LabelsBound(self.labels, frames)


def graph_pes_calculator(path: str) -> Potential:
    """A graph-pes model, on the GPU if there is one. Raises SetupError without the extra `graph-pes`."""
    try:
        from graph_pes.models import load_model
    except ImportError as error:
        raise SetupError(
            f"+graph_pes_calculator needs graph-pes ({error}): pip install 'aims-pax[graph-pes]'"
        ) from error
    import torch

    if not Path(path).is_file():
        raise SettingsError(f"+graph_pes_calculator: path: {path}: no such file")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return GraphPes(load_model(path).to(device).ase_calculator(skin=0.0))


_BUILT_IN: dict[str, Callable[..., Any]] = {
    "lennard_jones": lennard_jones,
    "graph_pes_calculator": graph_pes_calculator,
}
