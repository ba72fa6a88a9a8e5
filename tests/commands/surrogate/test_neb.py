"""The barrier is that of a plain band, in few calls, none of them repeated after a kill."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.emt import EMT
from ase.mep import NEB
from ase.optimize import BFGS

from aims_pax.commands.surrogate.neb import (
    FAR,
    Band,
    _chosen,
    _top_is_known,
    colliding,
    exchanged_atoms,
    force_at,
    interpolated,
    nearest_images,
    neb,
    next_image,
    overlapping_image,
    read_neb,
    relaxed_band,
)
from aims_pax.commands.surrogate.observations import SearchEnded, same_atoms
from aims_pax.errors import RestartError, SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.settings.surrogate_search import NebSettings
from aims_pax.systems import read_frame
from tests.commands.surrogate.conftest import adsorbed
from tests.sweeps import thinned


def plain_barrier(ends, images=3):
    first, last = (ase.io.read(ends[name]) for name in ("initial", "final"))
    path = [first.copy() for _ in range(images + 1)] + [last]
    band = NEB(path, climb=True, method="improvedtangent", k=0.1)
    band.interpolate()
    band.interpolate("idpp")
    for image in path:
        image.calc = EMT()
    BFGS(band, logfile=None).run(fmax=0.03, steps=200)
    return max(i.get_potential_energy() for i in path) - path[0].get_potential_energy()


def result():
    return json.loads(Path("neb/result.json").read_text())


def test_the_barrier_in_few_calls(search, ends):
    said = search(neb, images=3, **ends)
    assert result()["converged"]
    assert result()["barrier_eV"] == pytest.approx(plain_barrier(ends), abs=2e-3)
    assert result()["reference_calls"] <= 9
    assert search.calls() == result()["reference_calls"]
    assert result()["force_at_saddle_eV_per_A"] <= 0.05
    assert "converged: barrier" in said
    path = ase.io.read("neb/path.xyz", ":")
    assert [a.info["image"] for a in path] == [0, 1, 2, 3, 4]
    assert len(ase.io.read("neb/labelled.xyz", ":")) == result()["reference_calls"]
    before = result()
    assert "converged before: barrier" in search(neb, images=3, **ends)
    assert (search.calls(), result()) == (before["reference_calls"], before)
    search(neb, images=3, fmax=before["force_at_saddle_eV_per_A"] / 2, max_calls=20, **ends)
    assert result()["reference_calls"] > before["reference_calls"]  # asked for more than before
    with pytest.raises(RestartError, match=r"of another search \(images\)"):
        search(neb, images=4, **ends)


KILLED = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
from aims_pax.commands.surrogate import neb, observations

def dies_after(module, name, times):
    whole, made = getattr(module, name), []

    def called(*args, **kwargs):
        found = whole(*args, **kwargs)
        made.append(1)
        if len(made) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(module, name, called)

if sys.argv[1] == "band":  # the band of round 2 is relaxed, its label not asked for yet
    dies_after(neb, "relaxed_band", 2)
else:  # round 2: the reference has answered, and the search has not written it down
    dies_after(observations.ReferencePotential, "labels", 5)
neb.neb(Path("config.yaml"), Console(quiet=True))
"""


@pytest.mark.parametrize(("where", "calls"), thinned([("label", 5), ("band", 4)], 2))
def test_a_process_killed_by_sigkill_in_round_2_has_no_call_repeated_by_the_next(search, ends, where, calls):
    keys = {"reference": {"factory": "counted:make"}, "CLUSTER": {"type": "local", "executor": "inline"}}
    Path("config.yaml").write_text(yaml.safe_dump({**keys, "images": 3, **ends}))
    killed = subprocess.run([sys.executable, "-c", KILLED, where], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert search.calls() == calls
    said = search(neb, images=3, **ends)
    assert f"continues with {calls} labels" in said
    assert result()["converged"]
    assert search.calls() == result()["reference_calls"]
    frames = ase.io.read("neb/labelled.xyz", ":")
    assert len({a.positions.tobytes() for a in frames}) == len(frames) == search.calls()
    assert result()["barrier_eV"] == pytest.approx(plain_barrier(ends), abs=2e-3)


def test_the_calls_are_bounded_and_the_path_is_written(search, ends):
    with pytest.raises(SearchEnded, match="not converged after 4 reference calculations"):
        search(neb, images=3, max_calls=4, fmax=1e-4, **ends)
    assert not result()["converged"]
    assert len(ase.io.read("neb/path.xyz", ":")) == 5


def test_ends_that_do_not_belong_together_are_refused(search, ends):
    other = ase.io.read("last.xyz")
    ase.io.write("other.xyz", other[[4, 0, 1, 2, 3]])
    with pytest.raises(SettingsError, match="another order"):
        search(neb, initial="first.xyz", final="other.xyz")
    other.cell[0, 0] += 1
    ase.io.write("other.xyz", other)
    with pytest.raises(SettingsError, match="another cell"):
        search(neb, initial="first.xyz", final="other.xyz")


def test_two_ends_that_are_one_structure_are_refused_before_anything_is_calculated(search, ends):
    with pytest.raises(SettingsError, match="two different ends"):
        search(neb, initial="first.xyz", final="first.xyz")
    assert search.calls() == 0


def test_ends_of_another_charge_or_with_fixed_atoms_elsewhere_are_refused(ends):
    first = read_frame(Path(ends["initial"]))
    with pytest.raises(SettingsError, match="another charge"):
        same_atoms(first, replace(first, charge=1.0))
    charged, last = replace(first, charge=1.0), replace(first.moved(first.positions + 0.1), charge=1.0)
    assert nearest_images(charged, last).constitution == charged.constitution


def test_an_image_that_is_very_uncertain_is_labelled_before_the_highest():
    energies = np.array([0, 1, 3, 2, 0.0])
    assert next_image(Band(np.zeros((5, 1, 3)), energies, np.array([0.1, 0.2, 0.4])), 0.15) == 2
    assert next_image(Band(np.zeros((5, 1, 3)), energies, np.array([0.1, 0.2, 0.5])), 0.15) == 3


def test_the_first_band_goes_the_short_way(ends):
    first, last = (read_frame(Path(ends[name])) for name in ("initial", "final"))
    band = interpolated(first, nearest_images(first, last), 3)
    assert band.shape == (5, 5, 3)
    assert np.linalg.norm(np.diff(band[:, -1], axis=0), axis=1).max() < 1.5


def test_without_climbing_the_search_ends_too(search, ends):
    """The highest image is not at the saddle: its force along the path never vanishes."""
    search(neb, images=4, climb=False, fmax=0.05, max_calls=20, **ends)
    assert result()["converged"]
    assert result()["reference_calls"] == search.calls() <= 12
    assert 0 < result()["barrier_eV"] <= plain_barrier(ends) + 2e-3


def band_and_labels(ends, forces, deviation):
    """A band of one known structure on a straight path, with these forces on its first moving atom."""
    first = read_frame(Path(ends["initial"]))
    free = int(np.flatnonzero(~first.fixed.any(axis=1))[0])
    positions = np.repeat(first.positions[None], 5, axis=0)
    positions[:, free, 0] += 0.3 * np.arange(5)
    labels = []
    for r, f in zip(positions[1:-1], forces, strict=True):
        own = np.zeros_like(r)
        own[free] = f
        labels.append(LabelledFrame(first.moved(r), Label(0.0, own)))
    return Band(positions, np.array([0.0, 0.1, 0.3, 0.2, 0.0]), np.array(deviation)), first, labels


def keys_of(**more):
    return NebSettings(initial="a", final="b", fmax=0.05, max_unc_forces=0.1, **more)


def test_the_most_uncertain_image_comes_next_where_the_highest_is_known(ends):
    band, first, labels = band_and_labels(ends, [[0, 0.2, 0], [0, 0.01, 0], [0, 0, 0]], [0.01, 0.12, 0.11])
    known = SimpleNamespace(template=first, data=labels[1:2])
    assert _chosen(keys_of(), band, known) == 3, "the highest is labelled"
    moved = replace(band, positions=band.positions + 1e-3)
    assert _top_is_known(keys_of(), moved, known)
    assert _chosen(keys_of(), moved, known) == 2 + int(np.argmax(band.deviation[1:]))
    assert _chosen(keys_of(), replace(band, deviation=np.array([0.01, 0.02, 0.03])), known) == 2, "converged"
    with pytest.raises(SearchEnded, match="all 3 images are labelled"):
        _chosen(keys_of(), band, SimpleNamespace(template=first, data=labels))


def test_without_climbing_only_the_force_across_the_path_counts(ends):
    band, _, labels = band_and_labels(ends, [[3, 0, 0], [2, 0.04, 0], [0, 0, 0]], [0, 0, 0])
    assert force_at(keys_of(climb=False), band, 2, labels[1]) == pytest.approx(0.04)
    assert force_at(keys_of(), band, 2, labels[1]) == pytest.approx(2.0, rel=1e-3)


def test_a_path_that_only_rises_has_no_barrier_below_its_end(search):
    """Its highest inner image was called the saddle point: a barrier of 1.6 eV to a structure at 2.6 eV."""
    ase.io.write("near.xyz", Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]]))
    ase.io.write("far.xyz", Atoms("Cu2", [[0, 0, 0], [0, 0, 3.4]]))
    said = search(neb, initial="near.xyz", final="far.xyz", images=3, climb=False)
    assert said.count(": not a minimum, so that") == 2
    assert "no structure between the ends is higher than final" in said
    assert result()["barrier_eV"] == pytest.approx(result()["energy_difference_eV"])
    assert result()["saddle_image"] == 4


def test_ends_with_other_numbers_are_warned_of():
    """Two atoms that exchange their places by mistake make a path, and a barrier, that means nothing."""
    first = Frame.from_atoms(adsorbed(0))
    assert exchanged_atoms(first, Frame.from_atoms(adsorbed(1))) == []
    swapped = first.positions.copy()
    swapped[[0, 3]] = swapped[[3, 0]]
    swapped[:, 0] += first.cell[0, 0]  # in another image
    (said,) = exchanged_atoms(first, first.moved(swapped))
    assert said.startswith("final: atoms 1, 4 (counted from 1) are nearer to others of their element")


def hydrogen_cyanide():
    """HCN and HNC on one line: on the straight way the hydrogen atom passes through both others."""
    first = Frame.from_atoms(Atoms("CNH", [[0, 0, -0.50], [0, 0, 0.64], [0, 0, -1.56]]))
    return first, first.moved(np.array([[0, 0, -0.52], [0, 0, 0.64], [0, 0, 1.64]]))


def test_a_path_leads_around_atoms_on_the_straight_way():
    """It stayed on the line, where the first labels were refused as atoms 0.1 Å apart, which ended the search."""
    first, last = hydrogen_cyanide()
    assert colliding(first, last).all()
    band = interpolated(first, last, 5)
    angles = [first.moved(r).to_atoms().get_angle(2, 0, 1) for r in band]
    assert np.all(np.diff(angles) < -10)
    assert overlapping_image(first, band) is None
    bonds = np.linalg.norm(band[:, 0] - band[:, 1], axis=1)
    assert np.ptp(bonds) < 0.1


def test_ends_between_which_atoms_collide_are_refused_before_anything_is_calculated(search, monkeypatch):
    first, last = hydrogen_cyanide()
    for name, frame in (("first.xyz", first), ("last.xyz", last)):
        ase.io.write(name, frame.to_atoms())
    Path("neb.yaml").write_text("initial: first.xyz\nfinal: last.xyz\nreference: {factory: counted:make}\n")
    read_neb(Path("neb.yaml"))
    straight = np.linspace(first.positions, last.positions, 9)
    monkeypatch.setattr("aims_pax.commands.surrogate.neb.interpolated", lambda *_: straight)
    with pytest.raises(SettingsError, match=r"atoms collide on the way from initial: image \d: atoms "):
        read_neb(Path("neb.yaml"))


def test_on_one_process_the_band_moves_no_farther_than_it_can_be_trusted():
    pytest.importorskip("featomic")
    first, last = hydrogen_cyanide()
    start = interpolated(first, last, 5)
    labelled = []
    for r in (start[0], start[-1], start[3]):
        atoms = first.moved(r).to_atoms()
        atoms.calc = EMT()
        labelled.append(
            LabelledFrame(first.moved(r), Label(atoms.get_potential_energy(), atoms.get_forces()))
        )
    band = relaxed_band(keys_of(), first, start, GaussianProcess.fit(labelled), climb=False)
    moved = np.linalg.norm(band.positions - start, axis=2).max()
    assert 0 < moved <= FAR
    assert overlapping_image(first, band.positions) is None
    assert np.isfinite(band.deviation).all()
