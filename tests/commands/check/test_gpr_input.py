"""`aims-PAX check train.in` refuses what `aims-PAX gpr` would refuse, and trains nothing."""

import sys

import numpy as np
import pytest

from aims_pax.commands.check.gpr_input import checked_gpr_input, checked_surrogate_input
from aims_pax.errors import SettingsError, SetupError
from aims_pax.structure_files.xsf import xsf_text
from tests.models.gp import systems


def test_it_reads_settings_and_structures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, x in enumerate(systems.h2(np.linspace(1, 2, 4))):
        (tmp_path / f"a{k}.xsf").write_text(xsf_text(x.frame, x.label.energy, x.label.forces))
    (tmp_path / "train.in").write_text("train_file a*.xsf\nbatch_size 3\n")
    found = checked_gpr_input(tmp_path / "train.in")
    assert "4 structures to train on, 0 to test" in found.text
    assert "descriptor auto" in found.text
    assert len(found.warnings) == 1
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / "a2.xsf").write_text("broken")
    with pytest.raises(SettingsError, match=r"a2.xsf:1"):
        checked_gpr_input(tmp_path / "train.in")


def test_searches_are_read_with_their_reference(tmp_path, monkeypatch):
    import ase.io
    from ase.build import molecule

    monkeypatch.chdir(tmp_path)
    ase.io.write("a.xyz", molecule("CH3CH2OH"))
    (tmp_path / "c.yaml").write_text('structure: a.xyz\nreference: {factory: "ase.calculators.emt:EMT"}\n')
    found = checked_surrogate_input(tmp_path / "c.yaml")
    assert "C2H6O, 9 atoms · reference calculator; `aims-PAX relax" in found.text
    assert "fmax: 0.01" in found.text
    text = (tmp_path / "c.yaml").read_text()
    (tmp_path / "c.yaml").write_text(text + 'baseline: {factory: "ase.calculators.lj:LennardJones"}\n')
    assert (
        "baseline:\n  factory: ase.calculators.lj:LennardJones"
        in checked_surrogate_input(tmp_path / "c.yaml").text
    )
    (tmp_path / "c.yaml").write_text(text + 'baseline: {factory: "ase.calculators.lj:LennardJohn"}\n')
    with pytest.raises(SettingsError, match=r"baseline: .*LennardJohn"):
        checked_surrogate_input(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(text)
    monkeypatch.setitem(sys.modules, "featomic", None)
    with pytest.raises(SetupError, match=r"aims-pax\[gpr\]"):
        checked_surrogate_input(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("data: {}\n")
    assert checked_surrogate_input(tmp_path / "c.yaml") is None
    assert checked_surrogate_input(tmp_path / "a.xyz") is None
