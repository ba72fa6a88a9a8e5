"""Saved processes predict the same, and other files are refused."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.lj import LennardJones

from aims_pax.errors import SettingsError
from aims_pax.models.gp.coordinate_process import CoordinateOptions, CoordinateProcess
from aims_pax.models.gp.gp_calculator import GPRCalculator
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.models.gp.process_file import load_any_process, load_process, process_hash, save_process
from aims_pax.models.gp.soap import SoapDescriptor
from aims_pax.models.gp.soap_points import SoapPoints
from aims_pax.potential import CalculatorPotential
from aims_pax.record.arrays import pack_arrays
from tests.models.gp import systems

pytest.importorskip("featomic")


@pytest.fixture(scope="module")
def process():
    return GaussianProcess.fit([*systems.alloy(5), *systems.h2(np.linspace(1, 2, 5))])


def test_a_file_gives_the_same_predictions(process, tmp_path):
    path = tmp_path / "a.gp"
    save_process(process, path)
    again = load_process(path)
    frames = [systems.alloy(1, seed=4)[0].frame, systems.h2([1.3])[0].frame]
    one, other = (p.predict(frames, spread=True, stress=True) for p in (process, again))
    for name in ("energies", "forces", "stress", "energy_sd", "force_sd"):
        assert np.allclose(getattr(one, name), getattr(other, name), rtol=0, atol=1e-12, equal_nan=True), name
    assert process_hash(process) == process_hash(again)
    assert again.errors.force_mae == process.errors.force_mae
    assert b"pickle" not in path.read_bytes()


def test_other_files_are_refused(process, tmp_path):
    path = tmp_path / "b.gp"
    with pytest.raises(SettingsError, match="No such file"):
        load_process(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(SettingsError, match="not a complete file"):
        load_process(path)
    path.write_bytes(pack_arrays({}, {"something": 1}))
    with pytest.raises(SettingsError, match="not the file of a Gaussian process"):
        load_process(path)
    path.write_bytes(pack_arrays({}, {"process_format": 99}))
    with pytest.raises(SettingsError, match="newer aims-PAX"):
        load_process(path)
    path.write_bytes(pack_arrays({}, {"process_format": 1, "baseline": "gfn1-xtb"}))
    with pytest.raises(SettingsError, match="baseline gfn1-xtb"):
        load_process(path)


def test_a_file_is_a_potential_of_samplers(process, tmp_path):
    from aims_pax.potentials.named import LoadedPotential

    save_process(process, tmp_path / "a.gp")
    potential = LoadedPotential.load("a.gp", tmp_path)
    frame = systems.alloy(1, seed=4)[0].frame
    (label,) = potential.labels([frame], lambda: None)
    assert label.energy == pytest.approx(process.predict([frame]).energies[0])


POINTS = SoapPoints(SoapDescriptor((29,), 4.0, 3, 2, 0.5), ((0.9, 0.9, 0.9), (2.7, 0.9, 2.7)))


@pytest.mark.parametrize(
    "options", [{}, {"standardization": True}, {"points": POINTS}], ids=["cart", "scaled", "points"]
)
def test_a_process_on_coordinates_gives_the_same_predictions_and_is_not_taken_for_another(options, tmp_path):
    data = (
        systems.copper(6)
        if options.get("points")
        else [*systems.copper(6), *systems.h2(np.linspace(1, 2, 5))]
    )
    process = CoordinateProcess.fit(data, CoordinateOptions(**options))
    path = tmp_path / "c.gp"
    save_process(process, path)
    again = load_any_process(path)
    frames = [systems.copper(1, seed=4)[0].frame, data[-1].frame]
    one, other = (p.predict(frames, spread=True) for p in (process, again))
    for name in ("energies", "forces", "energy_sd", "force_sd"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert process_hash(process) == process_hash(again)
    assert again.hyperparameters() == process.hyperparameters()
    with pytest.raises(SettingsError, match="GPRCalculator reads it"):
        load_process(path)
    atoms = frames[0].to_atoms()
    atoms.calc = GPRCalculator(path)
    assert atoms.get_potential_energy() == pytest.approx(one.energies[0], abs=1e-7)
    assert atoms.get_forces() == pytest.approx(one.forces[: len(atoms)], abs=1e-6)
    with pytest.raises(PropertyNotImplementedError, match="Descriptor auto"):
        atoms.get_stress()
    older = pack_arrays({}, {"process_format": 3})
    path.write_bytes(older)
    with pytest.raises(SettingsError, match="newer"):
        load_any_process(path)


def test_another_baseline_than_in_training_is_refused(tmp_path, caplog):
    path, data = tmp_path / "b.gp", systems.h2(np.linspace(1, 2, 5))
    baseline = CalculatorPotential(lambda: LennardJones(epsilon=0.9))
    process = GaussianProcess.fit(data, baseline=baseline, baseline_name="lj")
    save_process(process, path)
    same = load_process(path, CalculatorPotential(lambda: LennardJones(epsilon=0.9)))
    assert same.predict([data[0].frame]).energies == pytest.approx(process.predict([data[0].frame]).energies)
    assert process_hash(same) == process_hash(process)
    assert not caplog.records
    with pytest.raises(
        SettingsError, match=r"b.gp: was trained with another baseline, lj: .* H2 this one differs by"
    ):
        GPRCalculator(path, baseline=LennardJones(epsilon=0.901))
    save_process(replace(process, baseline_sample=None), path)  # as earlier versions did
    assert load_process(path, baseline).baseline is baseline
    assert "whether this is the same one is not known" in caplog.text
