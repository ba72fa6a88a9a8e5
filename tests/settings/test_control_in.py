"""control.in: nothing the user wrote is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aims_pax.errors import SettingsError
from aims_pax.settings.control_in import (
    SPECIES_KEYWORDS,
    Control,
    pair_controls,
    parse_control,
    read_control,
)

TEXT = """\
# a comment line
  xc               hse06 0.11
  hse_unit         bohr-1
  sc_accuracy_rho  1e-3   # trailing comment
  occupation_type  gaussian 1d-2
  k_grid           2 2 2
  some_new_thing   a b  c
  output           cube total_density
  cube             origin 0 0 0
  output           dos -10 10 100 0.1
"""
SPECIES = """\
  species        H
    nucleus      1
    mass         1.00794
    l_hartree    4
    cut_pot      3.5 1.5 1.0
    division     0.1930   50
    outer_grid   434
    valence      1  s   1.
    hydro 2 p 3.5
    gaussian 0 3
        34.0613410    0.00602
#   commented 1
"""


def test_every_keyword_stays_in_order_with_the_rest_of_its_line():
    assert parse_control(TEXT).keywords == (
        ("xc", "hse06 0.11"),
        ("hse_unit", "bohr-1"),
        ("sc_accuracy_rho", "1e-3"),
        ("occupation_type", "gaussian 1d-2"),
        ("k_grid", "2 2 2"),
        ("some_new_thing", "a b  c"),
        ("output", "cube total_density"),
        ("cube", "origin 0 0 0"),
        ("output", "dos -10 10 100 0.1"),
    )


def test_species_blocks_are_recognised_and_left_out():
    control = parse_control(TEXT + SPECIES)
    assert control.has_species
    assert control.keywords == parse_control(TEXT).keywords
    assert not parse_control(TEXT).has_species


def test_a_keyword_after_a_species_block_counts():
    control = parse_control("xc pbe\n" + SPECIES + "relativistic atomic_zora scalar\n" + SPECIES)
    assert control.get("relativistic") == "atomic_zora scalar"
    assert [k for k, _ in control.keywords] == ["xc", "relativistic"]


def test_text_reads_back_to_the_same():
    control = parse_control(TEXT)
    assert parse_control(control.text()) == control


def test_the_last_of_a_repeated_keyword_counts():
    assert parse_control("xc pbe\nxc pw-lda").get("xc") == "pw-lda"
    assert parse_control("xc pbe").get("spin") is None


def test_replaced_sets_in_place_once_and_appends_what_is_new():
    control = parse_control("charge 0\nxc pbe\ncharge 1").replaced(charge=-1).replaced("spin", "collinear")
    assert control.keywords == (("charge", "-1"), ("xc", "pbe"), ("spin", "collinear"))


def test_truth_values_become_fortrans():
    assert parse_control("xc pbe").replaced(compute_forces=True).get("compute_forces") == ".true."


def test_without_removes_every_line():
    assert "output" not in parse_control(TEXT).without("output", "cube")


def test_a_control_is_a_value():
    assert hash(parse_control("xc pbe")) == hash(Control((("xc", "pbe"),)))


def test_keywords_without_a_value_and_tabs_are_kept():
    assert parse_control("\tempty\nxc\tpbe").keywords == (("empty", ""), ("xc", "pbe"))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            {"water.xyz": "a.in", "0": "b.in", "ice": "c.in"},
            "'0' is a second control file for the geometry water",
        ),
        ({"water.in": "a.in", "ice": "b.in"}, "'water.in' may be the geometry water or water_in; write one"),
    ],
)
def test_a_map_of_control_files_has_one_for_each_geometry(written, said):
    with pytest.raises(SettingsError, match=r"MISC\.path_to_control: " + said):
        pair_controls(written, ["water", "ice", "water_in"])


def test_a_missing_or_empty_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"control\.in: no such file; set MISC\.path_to_control"):
        read_control(tmp_path / "control.in")
    (tmp_path / "control.in").write_text("# nothing\n")
    with pytest.raises(SettingsError, match=r"control\.in: no keywords in the file"):
        read_control(tmp_path / "control.in")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_control(tmp_path)


@pytest.fixture
def read(tmp_path):
    def of(text):
        (tmp_path / "control.in").write_text(text)
        return read_control(tmp_path / "control.in")

    return of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1d0", 1.0),
        ("-1.5D+0", -1.5),
        ("+2", 2.0),
        ("1.", 1.0),
        (".5e0", 0.5),
        ("1, of the ion", 1.0),
        ("1\t# x", 1.0),
    ],
)
def test_a_charge_is_read_as_fortran_reads_it(read, text, number):
    assert read(f"xc pbe\ncharge {text}\n").number("charge") == number


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("charge one", "charge one: expected a number like 1 or 1d0"),
        ("charge", "charge : expected a number"),
        ("charge nan", "charge nan: expected a number"),
        ("fixed_spin_moment 1d", "fixed_spin_moment 1d: expected a number"),
        ("charge 0\ncharge 1", "charge appears with different values: 0, then 1; keep one line"),
        ("spin none\nspin collinear", "spin appears with different values"),
        ("Charge 1", "upper and lower case; write charge"),
        ("md_run 1.0 NVE", "write MD_run"),
        ("spin polarized", "expected none or collinear"),
        ("default_initial_moment high", "expected a number"),
        ("compute_analytical_stress .TRUE.", r"expected \.true\. or \.false\."),
        ("k_grid 4 4", "expected three whole numbers"),
        ("k_grid 4 4 0", "expected three whole numbers"),
        ("dry_run", "dry_run: FHI-aims would compute nothing"),
        (
            "homogeneous_field 0 0 0.1",
            "homogeneous_field 0 0 0.1: FHI-aims reads this keyword in geometry.in only",
        ),
        ("k_points_external .true.", "k_points_external: .*k_list.in in the folder of each calculation"),
        ("total_energy_method rpa", "no forces for post-SCF methods"),
    ],
)
def test_what_fhi_aims_would_misread_is_refused_with_its_file_and_line(read, text, reason):
    with pytest.raises(SettingsError, match=rf"control\.in: .*{reason}"):
        read(f"xc pbe\n{text}\n")


def test_double_hybrids_are_refused_and_functionals_with_forces_are_not(read):
    with pytest.raises(SettingsError, match="xc xyg3: FHI-aims prints no forces"):
        read("xc xyg3")
    for functional in ("pbe", "hse06 0.11", "b3lyp", "scan", "hf"):
        assert read(f"xc {functional}").get("xc") == functional


def test_the_same_line_twice_does_no_harm_and_outputs_may_differ(read):
    assert read("xc pbe\nxc   pbe\noutput dipole\noutput hirshfeld\nk_grid 2,2,2").get("k_grid") == "2,2,2"


def test_a_species_block_ends_where_it_ends_for_fhi_aims():
    block = "species Fe\n nucleus 26\n plus_U 3 d 4.0\n KH_core_states 1\n hydro 4 f 9\n"
    control = parse_control(f"xc pbe0\n{block}prodbas_threshold 1e-5\n")
    assert control.keywords == (("xc", "pbe0"), ("prodbas_threshold", "1e-5"))
    assert control.hubbard == (("Fe", "plus_U 3 d 4.0"),)


def test_hubbard_lines_of_species_blocks_are_known():
    control = parse_control(
        "xc pbe\nplus_u_petukhov_mixing 1.0\nspecies Fe\n plus_u 3 d 4.0\nspecies O\n nucleus 8\n"
    )
    assert control.hubbard == (("Fe", "plus_u 3 d 4.0"),)
    assert control.get("plus_u_petukhov_mixing") == "1.0"


WORD = st.from_regex(r"[a-z][a-z_0-9]{0,9}", fullmatch=True).filter(lambda w: w != "species")
REST = st.lists(st.from_regex(r"[-.a-zA-Z0-9+]{1,8}", fullmatch=True), max_size=4).map(" ".join)


@given(st.lists(st.tuples(WORD, REST), min_size=1))
def test_any_keywords_survive_writing_and_reading(keywords):
    assert parse_control(Control(tuple(keywords)).text()).keywords == tuple(keywords)


def test_general_keywords_are_not_taken_for_species_keywords():
    general = (
        "xc spin charge k_grid relativistic occupation_type mixer sc_accuracy_rho many_body_dispersion output"
    )
    assert not SPECIES_KEYWORDS & set(general.split())
