"""`aims-PAX diffusion inspect`: numbers, figures and a page."""

from dataclasses import replace

import pytest

from aims_pax.commands.diffusion import train_diffusion
from aims_pax.commands.diffusion_inspect import inspect_diffusion, wasserstein_distance, write_inspection
from aims_pax.errors import LabelError, SettingsError
from aims_pax.labelled_data import structure_text
from tests.md.potentials import LennardJones
from tests.models.diffusion.structures import settings, trimers


def test_the_page_has_losses_distances_energies_and_pictures(tmp_path):
    data = tmp_path / "a.xyz"
    data.write_text("".join(structure_text(f.to_atoms()) for f in trimers(100)))
    folder = train_diffusion(data, settings(log_dir=str(tmp_path / "logs"), log_interval=1))
    found = inspect_diffusion(folder, 12, steps=4, potential=LennardJones())
    rows = dict(found.rows)
    assert rows["noisers"] == "Positions"
    assert rows["structures"] == "100 (Ar3 100)"
    assert rows["samples that pass the guard"].partition(";")[0].endswith("of 12")
    assert 0 <= float(rows["memorised (0.05 is chance)"]) <= 1
    assert [p.name for p in found.panels] == ["losses", "distances", "energies", "data", "samples"]
    page = write_inspection(folder, found)
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 5
    assert "median energy" in text
    assert {p.name for p in (folder / "inspect").iterdir()} == {f"{p.name}.png" for p in found.panels}
    data.write_text("")
    with pytest.raises(SettingsError, match=r"gone or have changed; .*-n 0"):
        inspect_diffusion(folder, 1)
    assert len(inspect_diffusion(folder, 0).panels) == 1


def test_a_project_may_be_moved(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "a.xyz").write_text("".join(structure_text(f.to_atoms()) for f in trimers(100)))
    folder = train_diffusion(old / "a.xyz", settings(log_dir=str(old / "logs")))
    expected = inspect_diffusion(folder, 4, steps=4).rows
    old.rename(new)
    assert inspect_diffusion(new / "logs" / folder.name, 4, steps=4).rows == expected
    (new / "a.xyz").rename(new / "logs" / folder.name / "a.xyz")
    assert inspect_diffusion(new / "logs" / folder.name, 4, steps=4).rows == expected
    (new / "a.xyz").write_text("other")
    assert inspect_diffusion(new / "logs" / folder.name, 4, steps=4).rows == expected
    (new / "logs" / folder.name / "a.xyz").unlink()
    with pytest.raises(SettingsError, match=r"gone or have changed"):
        inspect_diffusion(new / "logs" / folder.name, 4)


class OfCations(LennardJones):
    """Fails on all structures but cations, and on every other one of these."""

    def labels(self, frames):
        assert {f.charge for f in frames} == {1.0}
        if any(int(f.id, 16) % 2 for f in frames):
            raise LabelError("SCF not converged")
        return super().labels(frames)


def test_energies_are_those_of_the_charge_of_the_data_where_there_are_any(tmp_path):
    data = tmp_path / "a.xyz"
    data.write_text("".join(structure_text(replace(f, charge=1.0).to_atoms()) for f in trimers(100)))
    folder = train_diffusion(data, settings(log_dir=str(tmp_path / "logs")))
    rows = dict(inspect_diffusion(folder, 12, steps=4, potential=OfCations()).rows)
    assert "median energy" in rows
    assert rows["the potential fails on"].endswith("of 12 samples")


def test_the_distance_of_two_distributions_is_their_shift():
    assert wasserstein_distance([0.0, 1.0, 2.0], [0.5, 1.5, 2.5]) == pytest.approx(0.5)
