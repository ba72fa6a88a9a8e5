"""The fast reader gives what ASE's reader gives, to the last bit, or nothing."""

import numpy as np
import pytest
from ase.calculators.calculator import all_properties
from ase.io import extxyz

from aims_pax import fast_extxyz, labelled_data
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelled_data import read_labelled, to_extxyz

ORIGINS = [
    {},
    {"system": "water", "stage": "active learning", "trajectory": 3, "step": 1250, "method": "0123456789ab"},
    {"system": "001", "name": "F", "title": "1e3", "x": "001", "y": "F", "z": "nan", "sampler": "1 2 3"},
    {"system": "Wäßrig", "source": "given:my data/a [b].xyz#12", "note": "it's = 'so', {yes}"},
    {"temperature": 300.0, "small": 1e-05, "tiny": -2.5e-300, "large": 123456789012345, "neg": -7},
    {"label": 'quoted "text"', "comment_2": "two  spaces", "path": "C:\\data", "empty": "", "flag": True},
    {
        "multiplicity": 3,
        "pair_energy": 12,
        "kind": "inf",
        "other": "Infinity war",
        "list": "1 2 3",
        "huge": 123456789012345678,
    },
]


def structure(rng: np.random.Generator, kind: int, origin: dict) -> LabelledFrame:
    n = int(rng.integers(1, 9))
    more: dict = {}
    if kind & 1:
        more |= {"cell": rng.normal(0, 5, (3, 3)), "pbc": [True, True, bool(kind & 2)]}
    if kind & 4:
        more |= {"charge": float(rng.choice([-1.0, 0.0, 0.5])), "spin": int(rng.integers(1, 4))}
    if kind & 8:
        more |= {"fixed": rng.random((n, 3) if kind & 2 else n) < 0.5}
    if kind & 16:
        more |= {"moments": rng.normal(size=n), "charges": rng.normal(size=n), "masses": rng.uniform(1, 9, n)}
    if kind & 32:
        more |= {
            "zero_moments": rng.random(n) < 0.5,
            "statements": ("homogeneous_field 0.1 0.0 0.0", "set_vacuum_level 1"),
        }
    stress = rng.normal(0, 10.0 ** rng.integers(-7, 1), (3, 3)) if kind & 1 else None
    frame = Frame(rng.integers(1, 119, n), rng.normal(0, 10.0 ** rng.integers(-3, 5), (n, 3)), **more)
    energy = float(rng.choice([-12.5, -3.0, 1e-05, -1e-300, 0.0, float(rng.normal())]))
    label = Label(energy, rng.normal(0, 5, (n, 3)), None if stress is None else (stress + stress.T) / 2)
    return LabelledFrame(frame, label, origin)


def every_kind() -> list[LabelledFrame]:
    rng = np.random.default_rng(7)
    return [structure(rng, kind, origin) for kind in range(64) for origin in ORIGINS]


def content(labelled: LabelledFrame) -> list:
    """Everything in it, so that equal means equal to the last bit and in type."""
    arrays = labelled.frame.arrays() | {"forces": labelled.label.forces}
    if labelled.label.stress is not None:
        arrays["stress"] = labelled.label.stress
    values = [(k, v.dtype.str, v.shape, v.tobytes()) for k, v in sorted(arrays.items())]
    scalars = [labelled.label.energy, labelled.frame.charge, labelled.frame.spin, labelled.id]
    return [
        values,
        [(type(v), repr(v)) for v in scalars],
        [(k, type(v), v) for k, v in labelled.origin.items()],
    ]


def outcome(path) -> list:
    found: list = []
    try:
        for labelled in read_labelled(path):
            found.append(content(labelled))
    except SettingsError as error:
        found.append(str(error))
    return found


@pytest.fixture
def by_ase(monkeypatch):
    """The outcome of reading a file by ASE's reader alone."""

    def read(path) -> list:
        with monkeypatch.context() as patch:
            patch.setattr(labelled_data, "read_own_structures", lambda blocks: [None] * len(blocks))
            return outcome(path)

    return read


def test_all_that_is_written_is_read_as_by_ase(tmp_path, by_ase):
    written = every_kind()
    path = tmp_path / "all.xyz"
    path.write_text(to_extxyz(written))
    assert outcome(path) == by_ase(path)
    assert [c[1][-1] for c in outcome(path)] == [(str, repr(x.id)) for x in written]


def test_only_unusual_entries_need_the_slow_reader():
    slow = {3, 5, 6}  # brackets, quotations, backslashes, words that are numbers to ASE
    for k, origin in enumerate(ORIGINS):
        rng = np.random.default_rng(k)
        for kind in range(64):
            head, comment, *rows = to_extxyz([structure(rng, kind, origin)]).splitlines(keepends=True)
            (found,) = fast_extxyz.read_own_structures([(comment.removesuffix("\n"), rows)])
            assert found is not None or k in slow, comment


def test_damaged_and_edited_files_read_as_by_ase(tmp_path, by_ase):
    """Characters and lines changed anywhere: the same structures, and the same words of the error."""
    rng = np.random.default_rng(11)
    good = [structure(rng, kind, ORIGINS[kind % 2]) for kind in (0, 1, 4, 11, 19, 36)]
    text = to_extxyz(good)
    letters = "\n \t0123456789.-+eTF\"'=:,_aHX\\{[\r\u00a0"
    path = tmp_path / "edited.xyz"
    differ = 0
    for _ in range(400):
        where, how = int(rng.integers(len(text))), int(rng.integers(4))
        letter = letters[rng.integers(len(letters))]
        edited = text[:where] + ["", letter, letter + text[where], "\n" + letter][how] + text[where + 1 :]
        path.write_bytes(edited.encode())
        expected = by_ase(path)
        assert outcome(path) == expected, (where, how, letter)
        differ += isinstance(expected[-1], str)
    assert differ > 100  # the edits did damage


def test_entries_in_another_form_are_not_guessed():
    comment, rows = 'Properties=species:S:1:pos:R:3:REF_forces:R:3 frame_id=x pbc="F F F"', ["H \n"]
    assert fast_extxyz._entries(comment) == {
        "Properties": "species:S:1:pos:R:3:REF_forces:R:3", "frame_id": "x", "pbc": "F F F",
    }  # fmt: skip
    for other in (
        "flag",
        "a='b'",
        "a={1 2}",
        'a=b"c"',
        '"a"=b',
        "a=b=c",
        "a= b",
        "a=1,2",
        "=b",
        "a=1 a=1",
        " a=1",
    ):
        assert fast_extxyz._header(f"{comment} {other}") is None, other
    for text in ("1e3", "007", "1_0", "nan", "T F", "t", "inf x", "0x10", "_JSON 1", ""):
        assert fast_extxyz._value("other", text) is None, text
    assert fast_extxyz._value("pair_energy", "1234567890123456") is None  # an int of ASE's
    assert fast_extxyz.read_own_structures([(comment, rows), ("", [])]) == [None, None]


def test_tensors_are_nine_numbers_of_ordinary_size():
    text = "1 -2.5 3e-05 0.0 1e5 6. 7 8 9"
    assert fast_extxyz._nine(text).ravel().tolist() == [float(w) for w in text.split()]
    for other in (
        text + " 1",
        text[:-2],
        text.replace("6.", "1e999"),
        text.replace("6.", "nan"),
        "1  " + text[2:],
    ):
        assert fast_extxyz._nine(other) is None, other


def test_numbers_in_columns_are_those_of_float():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 10.0**k, 3000) for k in range(-9, 6)])
    texts = [
        f" {v:16.8f}" for v in [*values[abs(values) < 1e6], 0.0, -0.0, 9999999.99999999, -999999.99999999]
    ]
    found, valid = fast_extxyz._fixed_point(np.frombuffer("".join(texts).encode(), np.uint8).reshape(-1, 17))
    assert valid.all()
    assert found.tobytes() == np.array([float(t) for t in texts]).tobytes()


def test_fields_with_anything_else_are_found():
    import re

    rng = np.random.default_rng(4)
    letters = " -.0159:/aPx+\t\n\x00\x7f"
    fields = []
    for _ in range(20000):
        field = list(f" {rng.normal(0, 10.0 ** rng.integers(-3, 6)):16.8f}"[:17])
        for _ in range(int(rng.integers(0, 4))):
            field[rng.integers(17)] = letters[rng.integers(len(letters))]
        fields.append("".join(field))
    found, valid = fast_extxyz._fixed_point(np.frombuffer("".join(fields).encode(), np.uint8).reshape(-1, 17))
    expected = [re.fullmatch(r" +-?\d{1,7}\.\d{8}", field) is not None for field in fields]
    assert valid.tolist() == expected
    assert all(float(t) == v for t, v, good in zip(fields, found, valid, strict=True) if good)
    assert 2000 < sum(expected) < 18000


def test_entries_with_another_meaning_are_those_of_ase():
    names = {
        *all_properties,
        *extxyz.per_config_properties,
        *extxyz.SPECIAL_3_3_KEYS,
        *extxyz.UNPROCESSED_KEYS,
    }
    assert names - {"Lattice"} <= fast_extxyz.OTHER_MEANING


def test_lines_of_cell_vectors_behind_our_structures_are_not_dropped(tmp_path):
    text = to_extxyz([structure(np.random.default_rng(1), 0, {})])
    (tmp_path / "a.xyz").write_text(text + "VEC1 9 0 0\nVEC2 0 9 0\nVEC3 0 0 9\n")
    with pytest.raises(SettingsError):
        list(read_labelled(tmp_path / "a.xyz"))


@pytest.mark.parametrize(
    "entry", ["units=bohr", "energy_unit=Hartree", "bohr=T", "coordinates=fractional", "note=nm"]
)
def test_units_written_beside_our_entries_are_refused_as_by_ase(tmp_path, by_ase, entry):
    path = tmp_path / "edited.xyz"
    text = to_extxyz([structure(np.random.default_rng(1), 0, {})])
    path.write_text(text.replace(" pbc=", f" {entry} pbc="))
    assert entry in path.read_text()
    assert outcome(path) == by_ase(path)
    assert isinstance(outcome(path)[0], str) == (entry != "note=nm")
