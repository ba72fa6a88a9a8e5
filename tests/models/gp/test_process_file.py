"""Saved processes predict the same, and other files are refused."""

import numpy as np
import pytest

from aims_pax.errors import SettingsError
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.models.gp.process_file import load_process, process_hash, save_process
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
