"""CHGNet with a small package in its place, which answers in its units."""

from __future__ import annotations

import sys
import types
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.units import GPa

from aims_pax.errors import Crashed, SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.potential import Potential, calculate
from aims_pax.potentials import chgnet as module
from aims_pax.potentials.bundled import bundled_potential
from tests import worlds


class StandInModel(torch.nn.Module):
    """EMT in the units of the package: eV/atom, eV/Å, GPa, all in single precision."""

    is_intensive = True

    def __init__(self, loaded):
        super().__init__()
        self.loaded, self.asked = loaded, []
        self.weight, self.graph_converter = torch.nn.Parameter(torch.zeros(2)), Converter()

    @classmethod
    def load(cls, model_name, use_device, verbose):
        print("CHGNet will run on", use_device)
        warnings.warn("weights of an old file", FutureWarning, stacklevel=1)
        torch.set_default_dtype(torch.float32)
        return cls((model_name, use_device, verbose))

    def predict_graph(self, graphs, task, batch_size):
        """A dictionary for one graph, a list for several."""
        self.asked.append((len(graphs), task, batch_size))
        said = []
        for atoms in graphs:
            atoms.calc = EMT()
            energy = atoms.get_potential_energy() / (len(atoms) if self.is_intensive else 1)
            stress = atoms.get_stress(voigt=False) / GPa
            said.append(
                {"e": np.float32(energy), "f": np.float32(atoms.get_forces()), "s": np.float32(stress)}
            )
        return said[0] if len(said) == 1 else said


class Converter:
    """From structures to graphs."""

    response = "warn"

    def set_isolated_atom_response(self, response):
        self.response = response

    def __call__(self, atoms):
        if not np.isfinite(atoms.positions).all():
            raise RuntimeError("no neighbours can be found")
        if len(atoms) == 1 and self.response == "error":
            raise ValueError("Structure has 1 isolated atom(s)")
        return atoms


def structure(lattice, species, coords, coords_are_cartesian=False):
    """Fractional coordinates unless it is told otherwise."""
    place = {"positions" if coords_are_cartesian else "scaled_positions": coords}
    return Atoms(species, cell=lattice, pbc=True, **place)


@pytest.fixture
def packages(monkeypatch):
    """Small packages chgnet and pymatgen."""
    contents = {"chgnet": {}, "chgnet.model": {"CHGNet": StandInModel}, "pymatgen": {}}
    for name, content in (contents | {"pymatgen.core": {"Structure": structure}}).items():
        made = types.ModuleType(name)
        made.__dict__.update(content, __spec__=types.SimpleNamespace(name=name))
        monkeypatch.setitem(sys.modules, name, made)
    module._loaded.cache_clear()
    yield
    module._loaded.cache_clear()


@pytest.fixture
def chgnet(packages):
    return bundled_potential("chgnet", "cpu")


CRYSTALS = [worlds.rattled(worlds.crystal(repeat=n), 1, 0.1, seed=n)[0] for n in (1, 2)]


def agree(label, frame):
    known = calculate(frame, EMT())
    assert label.energy == pytest.approx(known.energy, abs=1e-5)
    np.testing.assert_allclose(label.forces, known.forces, atol=1e-5)
    np.testing.assert_allclose(label.stress, known.stress, atol=1e-6)
    assert label.forces.dtype == label.stress.dtype == np.float64


def test_energies_forces_and_stress_are_in_our_units_and_computed_in_batches(chgnet):
    assert isinstance(chgnet, Potential)
    for label, frame in zip(chgnet.labels(CRYSTALS), CRYSTALS, strict=True):
        agree(label, frame)
    assert chgnet.model.asked == [(2, "efs", module.BATCH)]
    (alone,) = chgnet.labels(CRYSTALS[1:])
    agree(alone, CRYSTALS[1])
    assert chgnet.labels([]) == []
    assert len(chgnet.model.asked) == 2, "not asked for nothing"


def test_a_model_of_total_energies_is_not_multiplied_by_the_number_of_atoms(chgnet):
    chgnet.model.is_intensive = False
    agree(chgnet.labels(CRYSTALS[:1])[0], CRYSTALS[0])


def test_bound_it_follows_positions_and_cells(chgnet):
    bound = chgnet.bind(CRYSTALS[:1])
    moved = CRYSTALS[0].moved(1.02 * CRYSTALS[0].positions, 1.02 * CRYSTALS[0].cell)
    said = bound(torch.tensor(moved.positions), torch.tensor(moved.cell[None]), stress=True)
    known = calculate(moved, EMT())
    np.testing.assert_allclose(said.forces[0], known.forces, atol=1e-5)
    np.testing.assert_allclose(said.stress[0, 0], known.stress, atol=1e-6)


def test_it_is_loaded_once_for_each_device_frozen_and_in_silence(packages, capsys):
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one, again = (bundled_potential("chgnet", "cpu") for _ in range(2))
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert one.model is again.model
    assert one.model.loaded == (module.VERSION, "cpu", False)
    assert [p.requires_grad for p in one.model.parameters()] == [False]
    assert bundled_potential("chgnet", "cuda").model.loaded[1] == "cuda"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("gone", ["chgnet.model", "pymatgen.core"])
def test_without_a_package_it_names_the_extra(gone, packages, monkeypatch):
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(SetupError, match=rf"pip install 'aims-pax\[chgnet\]' \(.*{gone}"):
        module.Chgnet("cpu")


def test_molecules_and_elements_that_it_does_not_know_are_refused(chgnet):
    with pytest.raises(SettingsError, match=r"needs a crystal.* \(H2O\); choose another potential"):
        chgnet.bind([*CRYSTALS, worlds.water()])
    with pytest.raises(SettingsError, match=r"does not know Rn, only H to Bi, Ac to Pu"):
        chgnet.labels([Frame([86], np.zeros((1, 3)), np.eye(3), True)])


def test_a_structure_without_a_graph_is_a_crash_of_this_structure(chgnet):
    with pytest.raises(Crashed, match=r"chgnet: Cu: .*isolated"):
        chgnet.labels([Frame([29], np.zeros((1, 3)), 30 * np.eye(3), True)])
    gone = CRYSTALS[0].moved(np.full((4, 3), np.nan))
    with pytest.raises(Crashed, match=r"chgnet: Cu4: no neighbours can be found"):
        chgnet.labels([CRYSTALS[0], gone])
