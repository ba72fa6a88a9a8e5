"""FHI-aims from the frame to the label, against a stand-in as strict as FHI-aims that fails in every way."""

import json
import os
import pickle
import socket
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aims_pax.errors import (
    Crashed,
    Mismatch,
    NotConverged,
    NotFinite,
    SettingsError,
    SetupError,
    TimedOut,
    Truncated,
    Unphysical,
    WrongShape,
)
from aims_pax.frames import Frame
from aims_pax.labelling import calculation_folders
from aims_pax.labelling.executors.base import WorkerDied
from aims_pax.labelling.references import aims_input, fhi_aims
from aims_pax.labelling.references.fhi_aims import AimsReference
from aims_pax.potential import calculate
from aims_pax.schedulers.slurm import Slurm
from tests import worlds


@pytest.fixture
def reference(tmp_path, control):
    def make(method="emt", text=worlds.CONTROL, fault="none", redirect="", options=None, **changes):
        return AimsReference(
            control=control(text),
            species_dir=worlds.write_species(tmp_path / "species"),
            launch=worlds.launch(method, fault, redirect, **(options or {})),
            calc_dir=tmp_path / "calc",
            **changes,
        )

    return make


# the whole way there and back -----------------------------------------------------------------------------


def close(a, b, tolerance=1e-6):
    assert abs(a.energy - b.energy) < tolerance
    np.testing.assert_allclose(a.forces, b.forces, atol=tolerance, rtol=0)
    if b.stress is not None:
        np.testing.assert_allclose(a.stress, b.stress, atol=tolerance, rtol=0)


def test_a_molecule_comes_back_as_its_calculator_says(reference):
    from tblite.ase import TBLite

    frame = worlds.rattled(worlds.water(), 1)[0]
    close(
        reference("xtb").label(frame),
        calculate(frame, TBLite(method="GFN1-xTB", accuracy=0.01, verbosity=0)),
    )


def test_a_charged_radical_gets_its_charge_and_its_moment(reference):
    from tblite.ase import TBLite

    frame = replace(worlds.water(), charge=1.0, spin=2)
    truth = TBLite(method="GFN1-xTB", accuracy=0.01, verbosity=0, charge=1, multiplicity=2)
    got = reference("xtb").label(frame)
    close(got, calculate(frame, truth))
    neutral = reference("xtb").label(worlds.water())
    assert abs(got.energy - neutral.energy) > 5


def test_a_crystal_comes_back_with_its_stress(reference):
    from ase.calculators.emt import EMT

    frame = worlds.rattled(worlds.crystal(), 1)[0]
    got = reference(text=worlds.CONTROL_PERIODIC, stress=True).label(frame)
    close(got, calculate(frame, EMT()), 1e-9)
    assert got.stress.shape == (3, 3)


def test_stress_is_asked_for_only_when_wanted_and_periodic(reference):
    with_grid = reference(text=worlds.CONTROL_PERIODIC)
    assert with_grid.label(worlds.crystal()).stress is None
    # one control.in for both: the molecule must get neither k_grid nor stress, or the stand-in stops
    assert reference(text=worlds.CONTROL_PERIODIC, stress=True).label(worlds.water()).stress is None


def test_forces_on_fixed_atoms_are_raw(reference):
    frame = worlds.slab()
    frame = frame.moved(frame.positions + np.array([[0, 0, 0], [0, 0, 0.1], [0, 0, 0]]))
    got = reference(text=worlds.CONTROL_PERIODIC).label(frame)
    assert abs(got.forces[frame.fixed.all(axis=1)]).max() > 0.05


@pytest.mark.parametrize(
    "redirect", ["", " >> aims.out", " > aims.out 2> aims.err", " 2>&1 | tee aims.out", " > other.log"]
)
def test_output_is_found_wherever_the_launch_command_sends_it(reference, redirect):
    assert reference(redirect=redirect).label(worlds.dimer("Cu", 2.6)).energy


def test_a_leftover_of_a_killed_run_is_not_read(reference, tmp_path):
    """`>> aims.out` would append to it, and a stale goodbye would be believed."""
    frame = worlds.dimer("Cu", 2.6)
    crashing = reference(redirect=" >> aims.out", fault="crash")
    left = left_by_a_dead_run(crashing, frame)
    (left / "aims.out").write_text("Have a nice day.\n")
    with pytest.raises(Crashed):
        crashing.label(frame)
    assert not left.exists()
    assert os.listdir(tmp_path / "calc") == ["failed"]


def left_by_a_dead_run(reference, frame):
    """The folder of a calculation whose process of this machine has ended."""
    left = reference.calc_dir / f"{frame.id}.{reference.method}.0badcafe"
    left.mkdir(parents=True)
    owner = {"frame_id": frame.id, "host": socket.gethostname(), "pid": 1, "started": "another boot:17"}
    (left / calculation_folders.OWNER).write_text(json.dumps(owner))
    return left


def test_text_of_mpi_libraries_behind_the_goodbye_does_no_harm(reference):
    """One line a rank: 14 000 characters here. FHI-aims has ended well, and its exit code says so, too."""
    frame = worlds.dimer("Cu", 2.6)
    close(reference(fault="long-tail", redirect=" > aims.out 2>&1").label(frame), reference().label(frame))


def test_a_launch_command_may_write_other_files_too(reference):
    frame = worlds.dimer("Cu", 2.6)
    exact = reference().label(frame)
    for redirect in (
        " > aims.out; date > finished.txt; ls > listing",
        " &> aims.out",
        " |& tee 'my aims.out'",
    ):
        close(reference(redirect=redirect).label(frame), exact)


def test_two_runs_may_share_a_calc_dir(reference):
    """Of one frame by two methods at once: neither touches the other's files, nor reads them."""
    frame = worlds.dimer("Cu", 2.6)
    one = reference(options={"seconds": 1.5}, redirect=" >> aims.out")
    other = reference(text=worlds.CONTROL + "charge 1\n", options={"seconds": 1.5}, redirect=" >> aims.out")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.label, frame)
        time.sleep(0.7)
        second = pool.submit(other.label, frame)
        assert second.result().energy - first.result().energy == pytest.approx(8.0)  # the stand-in's cation
    assert os.listdir(one.calc_dir) == []


def test_a_calculation_that_had_ended_well_is_not_repeated(reference, tmp_path):
    """Its run was killed before the label was stored."""
    frame = worlds.dimer("Cu", 2.6)
    counting = reference(options={"count": tmp_path / "count"}, clean_dirs=False)
    exact = counting.label(frame)
    left = left_by_a_dead_run(counting, frame)
    with tarfile.open(tmp_path / "calc" / "kept" / f"{frame.id}.{counting.method}.tar.gz") as archive:
        archive.extractall(tmp_path / "kept", filter="data")
    for path in (tmp_path / "kept" / f"{frame.id}.{counting.method}").iterdir():
        path.rename(left / path.name)
    close(counting.label(frame), exact)
    assert len((tmp_path / "count").read_text().splitlines()) == 1
    assert os.listdir(tmp_path / "calc") == ["kept"]


def test_a_full_disk_is_nobodys_structure(reference):
    with pytest.raises(SetupError, match=r"calc_dir.*No space left on device"):
        reference(fault="no-space").label(worlds.dimer("Cu", 2.6))


# inputs ---------------------------------------------------------------------------------------------------


def written(reference, frame):
    """control.in as FHI-aims gets it, as [(keyword, rest)]."""
    replace(reference, clean_dirs=False).label(frame)
    name = f"{frame.id}.{reference.method}"
    with tarfile.open(reference.calc_dir / "kept" / f"{name}.tar.gz") as archive:
        lines = archive.extractfile(f"{name}/control.in").read().decode().splitlines()
    pairs = [line.split("#")[0].split(None, 1) for line in lines if line.split("#")[0].strip()]
    return [(p[0], p[1].strip() if len(p) > 1 else "") for p in pairs]


def test_every_keyword_reaches_aims_as_written(reference):
    text = (
        "xc hse06 0.11\nhse_unit bohr-1\nsc_accuracy_rho 1e-3\noutput cube total_density\noutput dipole\n"
        "output hirshfeld\nmbd_std a=0.83 beta=0.83\nspin none\n"
    )
    pairs = written(reference(text=text), worlds.dimer("Cu", 2.6))
    for line in text.splitlines():
        keyword, rest = line.split(None, 1)
        assert (keyword, rest) in [(k, " ".join(r.split())) for k, r in pairs]
    assert [r for k, r in pairs if k == "output"] == ["cube total_density", "dipole", "hirshfeld"]
    assert ("compute_forces", ".true.") in pairs
    assert [k for k, _ in pairs].count("species") == 1


def test_what_every_calculation_lacks_stops_the_run(reference, tmp_path):
    with pytest.raises(SetupError, match="92_U_default missing"):
        reference().label(Frame([92], [[0, 0, 0]]))
    with pytest.raises(SetupError, match="no k_grid"):
        reference().label(worlds.crystal())
    wire = Frame([29], [[0, 0, 0]], np.diag([2.5, 0, 0]), [True, False, False])
    with pytest.raises(SetupError, match="three lattice vectors"):
        reference(text=worlds.CONTROL_PERIODIC).label(wire)
    with pytest.raises(SetupError, match="not a folder"):
        replace(reference(), species_dir=tmp_path / "nowhere").check()
    with pytest.raises(SetupError, match=r"cannot be run.*no_such_aims"):
        replace(reference(), launch="/no_such_aims.x").label(worlds.water())
    with pytest.raises(
        SetupError, match=r"cannot be run.*it runs in the folder of each calculation, so write paths"
    ):
        replace(reference(), launch="bin/no_such_aims.x").label(worlds.water())
    with pytest.raises(SetupError, match="cannot be run"):
        reference(fault="missing").label(worlds.water())


# failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("unconverged", NotConverged, "did not converge"),
        ("unconverged-goodbye", NotConverged, "did not converge"),
        ("crash", Crashed, "exit code 2: forrtl"),
        ("segfault", Crashed, "SIGSEGV"),
        ("truncated", Truncated, "ends early"),
        ("nan", NotFinite, "forces"),
        ("stars", NotFinite, "too large to be printed"),
        ("no-header", Truncated, "number of atoms"),
        ("no-forces", WrongShape, "no forces"),
        ("no-output", Crashed, "no output"),
        ("wrong-atoms", WrongShape, "3 atoms, the frame has 2"),
        ("huge-force", Unphysical, "force 1e[+]05"),
        ("other-charge", Mismatch, "57 electrons; with charge 0 there are 58"),
        ("other-spin", Mismatch, "2 spin channels"),
        ("other-atoms", Mismatch, r"atom 1 is 2\.6 Å"),
        ("relaxed", Mismatch, "several structures"),
    ],
)
def test_each_fault_has_its_class_and_its_files_are_kept(reference, tmp_path, fault, kind, reason):
    frame = worlds.dimer("Cu", 2.6)
    with pytest.raises(kind, match=reason) as caught:
        reference(fault=fault).label(frame)
    kept = Path(caught.value.folder)
    assert kept == tmp_path / "calc" / "failed" / f"{frame.id}.{reference().method}.tar.gz"
    with tarfile.open(kept) as archive:
        names = {Path(n).name for n in archive.getnames()}
    assert {"geometry.in", "control.in", "aims.out"} <= names
    assert os.listdir(tmp_path / "calc") == ["failed"]


def test_waiting_for_a_step_of_slurm_is_not_charged_to_the_calculation(reference, monkeypatch):
    frame = worlds.dimer("Cu", 2.6)
    late = reference(time_limit=8.0)
    late = replace(late, launch=f"sleep 10; {late.launch}")
    with pytest.raises(TimedOut, match="limit of 8 s"):
        late.label(frame)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    close(late.label(frame), reference().label(frame))


def test_a_program_that_slurm_never_starts_is_no_failure_of_its_frame(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(fhi_aims, "SCHEDULER_AWAY", 1.0)
    monkeypatch.setattr(Slurm, "kill_wait", 0.0)
    says = "echo 'srun: Job 7 step creation temporarily disabled, retrying' >&2"
    never = replace(reference(time_limit=1.0), launch=f"{says}; sleep 300")
    with pytest.raises(WorkerDied, match=r"Slurm did not start it in time.*temporarily disabled") as raised:
        never.label(worlds.dimer("Cu", 2.6))
    assert 0 < raised.value.cost < 0.5  # tried three times
    assert not list((tmp_path / "calc").rglob("*.tar.gz"))


@pytest.mark.parametrize(
    "error",
    ["srun: error: Unable to create step for job 7: More processors requested than permitted",
     "There are not enough slots available in the system to satisfy the 64"],
)  # fmt: skip
def test_more_processes_than_a_job_has_cores_end_the_run_at_once(reference, error):
    large = replace(reference(), launch=f"echo '{error}' >&2; exit 1")
    with pytest.raises(SetupError, match=r"CLUSTER.launch_str: .* cannot be run"):
        large.label(worlds.dimer("Cu", 2.6))


@pytest.mark.parametrize("cause", ["NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", "PREEMPTION"])
def test_a_program_that_slurm_ends_is_no_failure_of_its_frame(reference, tmp_path, cause):
    says = f"echo 'slurmstepd: error: *** STEP 7.3 ON n12 CANCELLED AT 2026-11-27T03:04:05 DUE TO {cause} ***' >&2"
    ended = replace(reference(), launch=f"echo begun > aims.out; {says}; exit 1")
    with pytest.raises(WorkerDied, match=cause) as raised:
        ended.label(worlds.dimer("Cu", 2.6))
    assert 0 < raised.value.cost < 0.5  # tried three times
    assert not list((tmp_path / "calc").rglob("*.tar.gz"))


@pytest.mark.parametrize("end", ["exit 143", "kill -TERM $$"])
def test_a_program_that_gets_sigterm_is_no_failure_of_its_frame(reference, tmp_path, end):
    """With #SBATCH --signal=TERM@180, all steps of a job get it."""
    ended = replace(reference(), launch=f"echo begun > aims.out; {end}")
    with pytest.raises(WorkerDied, match="ended from outside \\(killed by SIGTERM\\)"):
        ended.label(worlds.dimer("Cu", 2.6))
    assert not list((tmp_path / "calc").rglob("*.tar.gz"))


def test_a_missing_stress_names_the_numerical_one(reference):
    periodic = reference(text=worlds.CONTROL_PERIODIC, stress=True)
    frame = worlds.crystal()
    silent = replace(periodic, launch=periodic.launch + " | grep -v Symmetrized")
    with pytest.raises(WrongShape, match="compute_numerical_stress"):
        silent.label(frame)


def test_a_hang_is_killed_with_its_grandchildren_after_the_time_limit(reference, tmp_path):
    pid_file = tmp_path / "pid"
    slow = reference(fault="hang", time_limit=3.0)
    slow = replace(slow, launch=f"{slow.launch} & sleep 1.5; cp grandchild.pid {pid_file}; wait")
    begun = time.monotonic()
    with pytest.raises(TimedOut, match="limit of 3 s"):
        slow.label(worlds.dimer("Cu", 2.6))
    assert time.monotonic() - begun < 15
    grandchild = int(pid_file.read_text())
    deadline = time.monotonic() + 10  # on a busy machine a killed process takes a moment to be gone
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


def test_folders_are_kept_when_asked_and_never_the_users(reference, tmp_path):
    mine = tmp_path / "calc" / "my_notes"
    mine.mkdir(parents=True)
    (tmp_path / "calc" / "thesis.txt").write_text("years of work")
    frame = worlds.dimer("Cu", 2.6)
    (tmp_path / "calc" / frame.id).mkdir()  # looks like ours, but lacks our mark
    (tmp_path / "calc" / frame.id / "precious").touch()
    kept = reference(clean_dirs=False)
    kept.label(frame)
    kept.label(worlds.dimer("Cu", 2.7))
    kept = tmp_path / "calc" / "kept"
    method = reference().method
    assert {p.name for p in kept.iterdir()} == {
        f"{f.id}.{method}.tar.gz" for f in (frame, worlds.dimer("Cu", 2.7))
    }
    with tarfile.open(kept / f"{frame.id}.{method}.tar.gz") as archive:
        names = {Path(n).name for n in archive.getnames()}
    assert {"geometry.in", "control.in", "aims.out"} <= names
    reference().label(worlds.dimer("Cu", 2.8))
    assert not (tmp_path / "calc" / worlds.dimer("Cu", 2.8).id).exists()
    assert mine.is_dir()
    assert (tmp_path / "calc" / "thesis.txt").is_file()
    assert (tmp_path / "calc" / frame.id / "precious").is_file()


def test_only_so_many_failures_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(calculation_folders, "FAILED_FOLDERS", 3)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "by_hand.tar.gz").touch()
    for n in range(6):
        folder = tmp_path / "one"
        folder.mkdir()
        (folder / "aims.out").write_text(str(n))
        calculation_folders.pack_folder(folder, tmp_path / "failed", f"{n:020x}")
        os.utime(tmp_path / "failed" / f"{n:020x}.tar.gz", (n, n))
    assert sorted(os.listdir(tmp_path / "failed")) == [
        *(f"{n:020x}.tar.gz" for n in (3, 4, 5)),
        "by_hand.tar.gz",
    ]


def test_the_method_is_what_determines_a_label_and_nothing_else(reference, tmp_path):
    told = reference().describe()
    assert reference(fault="crash", redirect=" > aims.out", time_limit=5.0).describe() == told
    assert reference(text=worlds.CONTROL + "charge 1\n").describe() != told
    assert replace(reference(), stress=True).describe() != told
    (tmp_path / "species" / "01_H_default").write_text("tight")
    assert replace(reference(), species_dir=worlds.write_species(tmp_path / "s2", ["H"])).describe() != told


def test_a_reference_travels_to_workers(reference):
    again = pickle.loads(pickle.dumps(reference()))
    assert again == reference()
    assert again.label(worlds.dimer("Cu", 2.6)).energy


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# help for the SCF cycle, one control.in a geometry ---------------------------------------------------------


def test_an_unconverged_cycle_is_tried_again_with_the_users_changes(reference, tmp_path):
    frame = worlds.dimer("Cu", 2.6)
    rungs = ({"sc_iter_limit": 500}, {"charge_mix_param": 0.02, "sc_iter_limit": 900})
    helped = reference(fault="unconverged-once", redirect=" >> aims.out", retries=rungs, clean_dirs=False)
    close(helped.label(frame), reference().label(frame))
    with tarfile.open(tmp_path / "calc" / "kept" / f"{frame.id}.{helped.method}.tar.gz") as archive:
        kept = {Path(m.name).name: archive.extractfile(m).read().decode() for m in archive.getmembers()}
    assert {"aims.out", "aims.out.0", "aims.out.1", "control.in.0", "control.in"} <= set(kept)
    assert "SELF-CONSISTENCY" in kept["aims.out.1"]
    assert "SELF-CONSISTENCY" not in kept["aims.out"]
    assert "sc_iter_limit 500" in kept["control.in.1"]
    assert "sc_iter_limit 900" in kept["control.in"]


def test_the_last_retry_decides_and_says_how_many_there_were(reference):
    with pytest.raises(NotConverged, match="did not converge, nor with the changes of 2 retries"):
        reference(fault="unconverged", retries=({"sc_iter_limit": 1}, {"mixer": "linear"})).label(
            worlds.dimer("Cu", 2.6)
        )


def test_all_attempts_together_keep_the_time_limit(reference):
    began = time.monotonic()
    with pytest.raises(TimedOut, match="limit of 3 s"):
        reference(
            fault="unconverged", options={"seconds": 1.0}, retries=({"sc_iter_limit": 1},) * 9, time_limit=3.0
        ).label(worlds.dimer("Cu", 2.6))
    assert time.monotonic() - began < 8


def test_retries_do_not_change_the_method(reference):
    assert reference(retries=({"charge_mix_param": 0.02},)).describe() == reference().describe()


def test_missing_species_are_named_before_the_first_job(reference):
    reference().check_elements([1, 6, 29])
    with pytest.raises(SetupError, match=r"26_Fe_default, 79_Au_default missing"):
        reference().check_elements([1, 26, 79])


def test_hubbard_lines_of_species_blocks_are_never_lost(reference, control, tmp_path):
    text = "xc pbe\nspecies Cu\n  nucleus 29\n  plus_u   3 d  4.0\n"
    with pytest.raises(
        SettingsError, match=r"'plus_u 3 d 4\.0' of Cu.*would lack it.*copy the species defaults"
    ):
        reference(text=text).check()
    own = reference(text=text)
    with open(own.species_dir / "29_Cu_default", "a") as file:
        file.write("  plus_u 3 d 4.0   # eV\n")
    own.check()


def test_each_geometry_may_have_its_own_control(reference, control, tmp_path):
    both = reference(controls={"a": control("xc pbe"), "b": control("xc pbe0")})
    assert both.for_system("b").control.get("xc") == "pbe0"
    assert both.for_system("a").describe() != both.for_system("b").describe()
    with pytest.raises(SetupError, match="names no file for c"):
        both.for_system("c")
    assert reference().for_system("anything") == reference()


def test_a_controller_that_is_away_costs_time_but_no_frame(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(fhi_aims, "SCHEDULER_PAUSE", 0.1)
    away = tmp_path / "away"
    away.touch()
    srun = tmp_path / "srun"
    srun.write_text(
        f"#!/bin/bash\nif [ -e {away} ]; then rm {away}\n"
        'echo "srun: error: Unable to confirm allocation for job 6: Unable to contact slurm controller" >&2\n'
        'exit 1; fi\nexec "$@"\n'
    )
    srun.chmod(0o755)
    it = reference()
    label = replace(it, launch=f"{srun} {it.launch}").label(worlds.dimer("Cu", 2.6))
    assert not away.exists()
    close(label, it.label(worlds.dimer("Cu", 2.6)))


def test_for_atoms_stress_is_never_asked_for_and_one_control_serves(reference, control):
    both = reference(controls={"a": control(), "b": control(worlds.CONTROL_PERIODIC)}, stress=True)
    atoms = both.for_atoms()
    assert (atoms.controls, atoms.stress) == ({}, False)
    assert atoms.control == aims_input.control_for_atoms(control())


def test_forces_on_fixed_atoms_are_raw_and_labels_of_constrained_inputs_are_computed_again(
    reference, tmp_path
):
    """Versions that wrote constrain_relaxation stored the zeros that FHI-aims prints then."""
    from aims_pax.frames import Label
    from aims_pax.labelling import Labeller
    from aims_pax.labelling.factory import make_executor

    frame = replace(worlds.rattled(worlds.water(), 1)[0], fixed=np.array([True, False, False]))
    executor = make_executor("inline", 1, tmp_path / "parsl", tmp_path)
    with Labeller(reference(), tmp_path / "data", executor) as labeller:
        right = labeller.submit(frame).result(60)
        assert np.abs(right.forces[0]).max() > 0.01
        assert labeller.known(frame).forces.tolist() == right.forces.tolist()
        old = Label(right.energy, np.where(frame.fixed, 0.0, right.forces))
        labeller.store.put(frame.id, old)
        path = labeller.store.path(frame.id)
        path.write_text(path.read_text().replace('"raw_forces": true, ', ""))
        assert labeller.known(frame) is None
        assert labeller.submit(frame).result(60).forces.tolist() == right.forces.tolist()
        assert labeller.known(frame) is not None
        free = replace(frame, fixed=None)  # nobody constrained these
        labeller.store.put(free.id, Label(right.energy, np.zeros((3, 3))))
        assert labeller.known(free) is not None


def test_statements_of_the_geometry_reach_the_program_and_no_other_reference(reference):
    from aims_pax.labelling.references.ase_calculator import CalculatorReference

    frame = replace(worlds.water(), statements=("homogeneous_field 0.0 0.0 0.1",))
    with_field = reference().label(frame)
    without = reference().label(worlds.water())
    assert abs(with_field.energy - without.energy) > 1e-3, "the energies of the stand-in depend on the field"
    with pytest.raises(SetupError, match=r"homogeneous_field 0\.0 0\.0 0\.1 is known to FHI-aims only"):
        CalculatorReference("ase.calculators.emt:EMT").label(frame)
