"""The files of neb, relax and md: own keys, and the reference here or in aimsPAX.yaml."""

import pytest

from aims_pax.errors import SettingsError
from aims_pax.settings.surrogate_search import read_surrogate_search, search_of
from aims_pax.settings.yaml_reader import read_document

SHORT = 'reference: {factory: "ase.calculators.emt:EMT"}\n'
LONG = 'REFERENCE: {type: calculator, factory: "ase.calculators.emt:EMT"}\n'


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def of(text, command="relax"):
        (tmp_path / "c.yaml").write_text(text)
        return read_surrogate_search(tmp_path / "c.yaml", command)

    return of


@pytest.mark.parametrize("reference", [SHORT, LONG])
def test_the_reference_in_the_file_or_of_the_folder(read, tmp_path, reference):
    assert read("structure: a.xyz\n" + reference).reference.reference.factory == "ase.calculators.emt:EMT"
    with pytest.raises(SettingsError, match="REFERENCE: mandatory here"):
        read("structure: a.xyz\n")
    (tmp_path / "aimsPAX.yaml").write_text(LONG)
    assert read("structure: a.xyz\n").reference.reference.factory == "ase.calculators.emt:EMT"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SHORT, r"c.yaml: structure: mandatory"),
        ("structure: a\nfmx: 1\n" + SHORT, r"c.yaml:2: fmx: unknown key; nearest: fmax"),
        ("structure: a\nfmax: -1\n" + SHORT, r"c.yaml:2: fmax: -1"),
        ("structure: a\n" + SHORT + LONG, "no REFERENCE besides"),
        ("structure: a\nreference: emt\n", "expected .factory, kwargs."),
        ("structure: a\nREFERENCE: {type: aims}\n", "species_dir|launch_str|control"),
        ("structure: a\nREFERENCE: {factry: x}\n", "factry"),
    ],
)
def test_mistakes_are_named(read, text, said):
    with pytest.raises(SettingsError, match=said):
        read(text)


def test_unusual_values_are_mentioned(read):
    assert "fmax" in read("structure: a\nfmax: 1.0\n" + SHORT).warnings[0]


def test_the_command_that_a_file_is_for(tmp_path):
    for text, command in (
        ("initial: a\nfinal: b\n", "neb"), ("structure: a\n", "relax"), ("structure: a\nsteps: 3\n", "md"),
        ("data: a\n", None),
    ):  # fmt: skip
        (tmp_path / "c.yaml").write_text(text)
        assert search_of(read_document(tmp_path / "c.yaml", "c.yaml")) == command
