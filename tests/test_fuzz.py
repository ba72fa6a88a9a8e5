"""Readers against mutated inputs: only our own errors, no hang, nothing written."""

import contextlib
import json
import random
import resource
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from aims_pax.dataset import Dataset, read_extxyz, to_extxyz
from aims_pax.errors import AimsPaxError, LabelError, SettingsError
from aims_pax.frames import Label, LabelledFrame
from aims_pax.labelling.references.fhi_aims import read_label
from aims_pax.labelling.store import LabelStore
from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.settings import read_settings
from aims_pax.settings.control_in import read_control
from aims_pax.systems import read_systems
from tests.projects import write_project
from tests.worlds import CONTROL, STAND_IN, crystal, water, write_species

WORDS = [
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"999999999999999999999",
    b"***",
    b'"',
    b"'",
    b"#",
    b"|",
    b"%",
    b"\xe2\x88\x9e",
]
WORDS += [b"null", b"true", b":", b"{", b"}", b"[", b"]"]
WORDS += [
    b"\0",
    b"\xff\xfe",
    b"\n",
    b"\n\n",
    b"  ",
    b"\t",
    b"- ",
    b"&a ",
    b"*a",
    b"!!python/object:os.system ",
]


def mutated(original: bytes, dice: random.Random) -> bytes:
    content = bytearray(original)
    for _ in range(dice.choice([1, 1, 1, 2, 3, 10])):
        at, n = dice.randrange(len(content) + 1), dice.choice([1, 1, 4, 20, 200])
        match dice.randrange(6):
            case 0:
                content[at : at + n] = b""
            case 1:
                content[at:at] = dice.choice(WORDS)
            case 2:
                content[at:at] = content[at : at + n]
            case 3:
                content[at : at + 1] = bytes([dice.randrange(256)])
            case 4:
                other = dice.randrange(len(content) + 1)
                content[at : at + n] = content[other : other + n]
            case 5:
                content = content[: max(at, 1)]
        content = content or bytearray(b" ")
    return bytes(content)


@pytest.fixture(autouse=True)
def no_hang():
    """A reader that needs more than ten seconds, or a gigabyte, for small files hangs."""

    def hang(*_):
        raise Hangs("a reader hangs")

    before, size = signal.signal(signal.SIGALRM, hang), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size < 2**20, "kB"


class Hangs(BaseException):
    """No reader may take it for an error of the file."""


def storm(original: bytes, count: int, read, own, seed: int = 0) -> int:
    """Feed mutants to `read`; only `own` errors may come out. Returns how many were refused."""
    dice, refused = random.Random(seed), 0
    for k in range(count):
        content = mutated(original, dice)
        signal.setitimer(signal.ITIMER_REAL, 10)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(content)
        except own:
            refused += 1
        except BaseException as error:
            raise AssertionError(
                f"mutant {k}: {type(error).__name__}: {error}\n{content[:2000]!r}"
            ) from error
    assert refused > count // 20, "the mutants are too tame to show anything"
    return refused


@pytest.mark.parametrize("name", ["aimsPAX.yaml", "mace.yaml"])
def test_settings_files(tmp_path, name):
    folder = write_project(tmp_path)
    path = folder / name
    files = sorted(folder.rglob("*"))

    def read(content):
        path.write_bytes(content)
        read_settings(folder, for_run=True)

    storm(path.read_bytes(), 700, read, AimsPaxError)
    assert sorted(folder.rglob("*")) == files


GEOMETRY = """# slab
lattice_vector 4.0 0.0 0.0
  constrain_relaxation .true.
lattice_vector 0.0 4d0 0.0
lattice_vector 0.0 0.0 12.0
set_vacuum_level 9.0
atom_frac 0.0 0.0 0.1 Fe
  initial_moment 4.0
  constrain_relaxation z
atom 0.0 0.0 3.0 O
  initial_charge -1.0
  initial_moment 0
"""
PDB = """CRYST1   20.000   20.000   20.000  90.00  90.00  90.00 P 1           1
ATOM      1  N   GLY A   1       0.000   0.000   0.000  1.00  0.00           N1+
ATOM      2  CA  GLY A   1       1.450   0.000   0.000  1.00  0.00
HETATM    3 ZN    ZN A   2       2.000   1.420   0.000  1.00  0.00          ZN
END
"""
MOL = """x
  y

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 O   0  5  0  0  0  0  0  0  0  0  0  0
    0.9700    0.0000    0.0000 H   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0
M  CHG  1   1  -1
M  ISO  1   2   2
M  END
"""
XYZ = """2
Properties=species:S:1:pos:R:3:masses:R:1:initial_magmoms:R:1 Lattice="5 0 0 0 5 0 0 0 5" charge=-1 spin=1 pbc="T T F"
O 0 0 0 16.0 0.0
H 0 0 0.97 2.014 1.0
"""


@pytest.mark.parametrize(
    ("name", "text"), [("geometry.in", GEOMETRY), ("a.pdb", PDB), ("a.sdf", MOL), ("a.xyz", XYZ)]
)
def test_structure_files(tmp_path, name, text):
    path = tmp_path / name

    def read(content):
        path.write_bytes(content)
        for system in read_systems(tmp_path / f"{name}@:"):
            frame = system.frame
            assert np.isfinite(frame.positions).all()
            assert np.isfinite(frame.cell).all()
            assert frame.charge is None or np.isfinite(frame.charge)
            assert frame.spin is None or frame.spin >= 1
            assert len(frame.id) == 20

    storm(text.encode(), 350, read, SettingsError)


def test_control_in(tmp_path):
    path = tmp_path / "control.in"

    def read(content):
        path.write_bytes(content)
        read_control(path).text()

    original = CONTROL + "  charge 1.\n  xc hse06 0.11\n  species O\n    nucleus 8\n"
    dice = random.Random(0)
    for _ in range(2000):
        with_error(read, mutated(original.encode(), dice), AimsPaxError)


def with_error(read, content, own):
    signal.setitimer(signal.ITIMER_REAL, 10)
    with contextlib.suppress(own):
        read(content)


@pytest.mark.parametrize("frame", [water(), crystal("Cu")], ids=["molecule", "crystal"])
def test_aims_out(tmp_path, frame):
    from aims_pax.labelling.references.fhi_aims import control_for, geometry_text, species_text
    from aims_pax.settings.control_in import parse_control

    species = write_species(tmp_path / "species")
    control = parse_control(CONTROL + ("  k_grid 2 2 2\n" if frame.periodic else ""))
    text = control_for(control, frame, frame.periodic).text() + species_text(species, frame)
    (tmp_path / "control.in").write_text(text)
    (tmp_path / "geometry.in").write_text(geometry_text(frame))
    run = subprocess.run(
        [sys.executable, STAND_IN, "--method", "emt"], cwd=tmp_path, capture_output=True, check=True
    )
    label = read_label(run.stdout.decode(), frame, frame.periodic)
    assert label.finite

    def read(content):
        read_label(content.decode("utf-8", "replace"), frame, frame.periodic)

    storm(run.stdout, 500, read, LabelError)


def test_datasets(tmp_path):
    path = tmp_path / "x.xyz"
    frames = [
        LabelledFrame(water(), Label(-1.0, np.ones((3, 3))), {"system": "water"}),
        LabelledFrame(crystal("Cu"), Label(-2.0, np.zeros((4, 3)), np.eye(3)), {"system": "Cu"}),
    ]

    def read(content):
        path.write_bytes(content)
        list(read_extxyz(path))

    storm(to_extxyz(frames).encode(), 1000, read, AimsPaxError)


def periodic_with_virials() -> bytes:
    """Labels as others write them: virials, plain keys, an empty line between."""
    text = to_extxyz(
        [LabelledFrame(crystal("Cu"), Label(-2.0, np.zeros((4, 3)), 0.01 * np.eye(3)), {"system": "001"})]
    )
    return (text + "\n" + text.replace("REF_stress", "REF_virials")).encode()


def test_given_files_are_read_whole_or_refused(tmp_path):
    """Whatever is done to a file: what is read are as many structures as there are headers in it."""
    from aims_pax.given_data import read_given, remarks
    from aims_pax.labelled_data import LabelKeys

    path = tmp_path / "x.xyz"

    def read(content):
        path.write_bytes(content)
        found = read_given(path, "x.xyz", "train", LabelKeys(), ())
        remarks([found], LabelKeys(), True)
        assert len(found.frames) == content.decode("utf-8", "replace").count("Properties=")
        for labelled in found.frames:
            (again,) = rewritten(labelled, tmp_path)
            assert again.origin == labelled.origin
            assert again.id == labelled.id

    storm(periodic_with_virials(), 700, read, AimsPaxError)


def rewritten(labelled, folder):
    path = folder / "again.xyz"
    path.write_text(to_extxyz([labelled]))
    return list(read_extxyz(path))


def test_structures_to_label_again(tmp_path):
    from types import SimpleNamespace

    from aims_pax.commands.recalc import read_listed_structures

    path = tmp_path / "x.xyz"
    misc = SimpleNamespace(
        energy_key="REF_energy", forces_key="REF_forces", stress_key="REF_stress", virials_key="REF_virials"
    )

    def read(content):
        path.write_bytes(content)
        read_listed_structures(path, misc)

    storm(periodic_with_virials(), 1000, read, AimsPaxError)


def test_the_pool_is_read_or_refused_and_never_loses_more_than_its_torn_end(tmp_path):
    """Of a damaged pool nothing vanishes: it is as it was, or what was cut off lies beside it."""
    data = Dataset(tmp_path)
    for k in range(4):
        data.add(LabelledFrame(water().moved(water().positions + k), Label(-k, np.ones((3, 3)))), "train")
    pool, aside = tmp_path / "labelled.xyz", tmp_path / "labelled.xyz.torn"
    original, splits = pool.read_bytes(), (tmp_path / "splits.jsonl").read_bytes()

    def read(content):
        pool.write_bytes(content)
        (tmp_path / "splits.jsonl").write_bytes(splits)
        aside.unlink(missing_ok=True)
        try:
            Dataset(tmp_path)
        finally:
            cut = aside.read_bytes() if aside.exists() else b""
            assert (pool.read_bytes() + cut).rstrip(b"\n") == content.rstrip(b"\n")
            assert cut.count(b"Properties=") <= 1

    storm(original, 700, read, AimsPaxError)


def test_owners_of_folders(tmp_path):
    from types import SimpleNamespace

    from aims_pax.record import folder_owners

    folder = SimpleNamespace(
        root=tmp_path, restart=tmp_path / "restart", data=tmp_path / "data", model=tmp_path / "model",
        losses=tmp_path / "losses", checkpoints=tmp_path / "checkpoints",
    )  # fmt: skip
    folder_owners.claim(folder, "x")
    path = tmp_path / "data" / ".owner.json"
    original, dice = path.read_bytes(), random.Random(0)
    for _ in range(300):
        path.write_bytes(mutated(original, dice))
        with_error(lambda _: folder_owners.claim(folder, "x"), b"", AimsPaxError)


def test_the_bookkeeping_of_the_dataset(tmp_path):
    data = Dataset(tmp_path)
    for k in range(4):
        data.add(
            LabelledFrame(water().moved(water().positions + k), Label(-k, np.ones((3, 3)))), "train", k % 2
        )
    pool, splits = (tmp_path / "labelled.xyz").read_bytes(), (tmp_path / "splits.jsonl").read_bytes()

    def read(content):
        (tmp_path / "labelled.xyz").write_bytes(pool)
        (tmp_path / "splits.jsonl").write_bytes(content)
        Dataset(tmp_path)

    storm(splits, 1000, read, AimsPaxError)


def test_snapshots():
    original = pack_arrays(
        {"md/0/x": np.arange(30.0), "n": np.asarray(3)}, {"state": {"a": [1, 2]}, "version": 1}
    )
    storm(original, 1000, unpack_arrays, Torn)


def test_stored_labels(tmp_path):
    store = LabelStore(tmp_path, "method")
    label = Label(-1.5, np.random.default_rng(0).normal(size=(3, 3)), np.eye(3))
    store.put("frame", label)
    original, dice = store.path("frame").read_bytes(), random.Random(0)
    for _ in range(1000):
        store.path("frame").write_bytes(mutated(original, dice))
        signal.setitimer(signal.ITIMER_REAL, 10)
        found = store.get("frame")
        assert found is None or (found.energy == label.energy and np.array_equal(found.forces, label.forces))


def test_the_record_of_the_settings(tmp_path):
    from types import SimpleNamespace

    from aims_pax.record.restart_compatibility import compare_with_last_run

    writes = []
    folder = SimpleNamespace(
        root=tmp_path,
        restart=tmp_path,
        data=tmp_path,
        results=tmp_path / "results",
        write_text=lambda path, text: writes.append(text),
    )
    settings = {"aimsPAX": {"MD": {"temperature": 300.0}}, "mace": {"GENERAL": {"seed": 1}}}
    compare_with_last_run(folder, settings, "m", {"water": "1"})
    original = writes[0].encode()
    assert json.loads(original)

    def read(content):
        (tmp_path / "settings.json").write_bytes(content)
        compare_with_last_run(folder, settings, "m", {"water": "1"})

    storm(original, 500, read, AimsPaxError)
