"""train.in: every key, every mistake with its line, nothing silent."""

import random
import string

import pytest

from aims_pax.errors import SettingsError
from aims_pax.settings.gpr_input import KEYS, is_gpr_input, read_gpr_input

WRITTEN = {  # a value that is not the default, as text, and as it is read
    "train_file": ("./a/*.xsf", "./a/*.xsf"), "test_file": ("b.xsf", "b.xsf"), "file_format": ("vasp-out", "vasp-out"),
    "descriptor": ("Cartesian", "cart"), "scale": ("1.5", 1.5), "weight": ("2d0", 2.0), "fit_scale": ("False", False),
    "fit_weight": ("F", False), "prior_update": ("false", False), "noise": ("1e-5", 1e-5), "noisefactor": ("1", 1.0),
    "batch_size": ("10", 10), "data_process": ("iterative", "iterative"), "standardization": ("True", True),
    "descriptor_standardization": ("True", True), "filter": ("True", True), "filter_threshold": ("0.2", 0.2),
    "get_variance": ("False", False), "train_write": ("True", True), "train_model_save": ("True", True),
    "test_write": ("True", True), "additional_write": ("True", True), "disp_length": ("0.03", 0.03),
    "num_copy": ("3", 3), "soap_r_cut": ("4.5", 4.5), "soap_n_max": ("4", 4), "soap_l_max": ("3", 3),
    "soap_sigma": ("0.4", 0.4), "soap_rbf": ("polynomial", "polynomial"),
    "soap_centers": ("[[0, 0, 1.5], [2, 0, 0]]", ((0.0, 0.0, 1.5), (2.0, 0.0, 0.0))), "soap_n_jobs": ("4", 4),
    "mace_system": ("molecules", "molecules"), "mace_model": ("large", "large"), "mace_delta": ("1e-3", 1e-3),
    "mace_invariants": ("False", False), "mace_num_layers": ("2", 2), "mace_n_jobs": ("2", 2),
    "cheb_rad_order": ("8", 8), "cheb_rad_cutoff": ("4.0", 4.0), "cheb_ang_order": ("4", 4),
    "cheb_ang_cutoff": ("2.5", 2.5), "cheb_delta": ("1e-3", 1e-3), "constraints": ("False", False),
    "force": ("False", False), "autograd": ("True", True), "seed": ("7", 7), "overwrite": ("True", True),
    "max_unc_forces": ("0.2", 0.2), "min_separation": ("0.5", 0.5),
    "baseline": ('{factory: "ase.calculators.emt:EMT"}', {"factory": "ase.calculators.emt:EMT"}),
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    def of(text, name="train.in"):
        path = tmp_path / name
        path.write_text(text)
        return read_gpr_input(path)

    return of


def test_there_are_the_44_published_keys_one_of_the_document_and_ours():
    assert KEYS.keys() == WRITTEN.keys()
    assert sum(not key.ours for key in KEYS.values()) == 45


@pytest.mark.parametrize("name", KEYS)
def test_every_key_is_read_in_any_case_and_has_an_effect_or_says_that_it_has_none(read, name):
    text, value = WRITTEN[name]
    settings = read(
        f"Train_File x.xsf\n{name.upper()} {text}  # a remark\n" if name != "train_file" else f"{name} {text}"
    )
    assert settings[name] == value
    assert settings[name] != KEYS[name].default
    said = [note for note in settings.notes if f" {name} has no effect" in note]
    assert len(said) <= 1
    if KEYS[name].idle:
        assert said, "a key without effect is not silent"


@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_key_is_read_from_yaml(read, name):
    text, value = WRITTEN[name]
    settings = read(
        f"Train_file: x.xsf\n{name}: {text}\n" if name != "train_file" else f"{name}: {text}", "gpr.yaml"
    )
    assert settings[name] == value


def test_the_document_runs_as_it_is_printed(read):
    settings = read(
        "# File path\nTrain_file ./example/3_Li-EC/train_set/file_*.xsf\nTest_file ./t/file_*.xsf\n\n"
        "File_format xsf  # Other DFT output files, which can be read via ASE\n"
        "Get_variance True  # False -> only energy\nDescriptor cart  # cart or soap\nscale 0.4  # default: 0.4\n"
        "! a remark\nweight 1.0\ndata_process batch  # batch (memory cost up)\nbatch_size 25\n"
        "Additional_write False\nDisp_length 0.05\nNum_copy 20  # [num_copy] multiples\n"
    )
    assert settings["num_copy"] == 20
    assert settings["descriptor"] == "cart"
    assert any("num_copy has no effect with Additional_write" in note for note in settings.notes)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Trian_file a", r"train.in:2: Trian_file: unknown key; nearest: train_file"),
        ("qqqqq 1", r"train.in:2: qqqqq: unknown key$"),
        ("scale", r"train.in:2: scale: no value; expected a number above 0"),
        ("scale -1", r"train.in:2: scale: expected a number above 0, got '-1'"),
        ("scale nan", "expected a number above 0, got 'nan'"),
        ("num_copy 2.5", "expected a whole number of at least 1, got '2.5'"),
        ("filter maybe", "expected True or False, got 'maybe'"),
        ("descriptor mace", "auto, cart or soap .features of MACE"),
        ("descriptor internal", "expected auto, cart or soap, got 'internal'"),
        ("soap_centers [[0, 0]]", "points of three numbers"),
        ("soap_centers [[0, 0", "a list of points such as"),
        ("test_file", "no value; expected a word"),
    ],
)
def test_mistakes_are_named_with_line_and_nearest_key(read, line, said):
    with pytest.raises(SettingsError, match=said):
        read(f"train_file a.xsf\n{line}\n")


def test_all_mistakes_are_listed_at_once(read):
    with pytest.raises(SettingsError) as error:
        read("train_file a\nscale x\nweight y\nfoo 1\n")
    assert len(str(error.value).splitlines()) == 3


def test_files_without_data_are_refused(read, tmp_path):
    with pytest.raises(SettingsError, match="neither train_file nor test_file"):
        read("scale 1\n")
    with pytest.raises(SettingsError, match="without train_file"):
        read("test_file a\n")
    with pytest.raises(SettingsError, match="no such file"):
        read_gpr_input(tmp_path / "none.in")
    with pytest.raises(SettingsError, match="not a file"):
        read_gpr_input(tmp_path)
    (tmp_path / "b.in").write_bytes(b"\xff\xfe\x81")
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        read_gpr_input(tmp_path / "b.in")
    with pytest.raises(SettingsError, match="expected one value, got a table"):
        read("train_file: {a: 1}\n", "a.yaml")


@pytest.mark.parametrize("line", ["5: {a: 1}", "7:", "true: 3", "2024-01-01: 4"])
def test_names_in_yaml_that_are_no_words_are_unknown_keys(read, line):
    with pytest.raises(SettingsError, match=r":2: \S+: unknown key|:2: \S+: expected one value"):
        read(f"train_file: a.xsf\n{line}\n", "a.yaml")


def test_words_that_do_not_count_and_repeated_keys_are_mentioned(read):
    settings = read("train_file a b c\nscale 1\nscale 2\ndescriptor cart\n")
    assert settings["scale"] == 2
    assert any("'b c' has no effect" in note for note in settings.notes)
    assert any("scale appears twice; this line counts, not line 2" in note for note in settings.notes)
    assert "train.in:4: descriptor: too many" in str(settings.problem("descriptor", "too many"))


def outcome(read, text):
    """The error, or the name of the file that was read."""
    try:
        return read(text).file
    except SettingsError as error:
        return str(error)


def test_200_mutated_files_end_in_settings_or_in_one_error_with_a_line(read):
    rng = random.Random(0)
    base = [f"{name} {WRITTEN[name][0]}" for name in KEYS if name != "descriptor"]
    for _ in range(200):
        lines = [list(line) for line in rng.sample(base, 12)] + [list("train_file a.xsf")]
        for _ in range(rng.randint(1, 6)):
            line = rng.choice(lines)
            spot = rng.randrange(len(line) + 1)
            line[spot : spot + rng.randint(0, 3)] = rng.choice([*string.printable, "é", "", "[[", "\x00"])
        text = "\n".join("".join(line) for line in lines)
        said = outcome(read, text)
        assert said
        assert all("train.in" in line for line in said.splitlines())


def test_which_files_are_of_this_command(tmp_path):
    for name, text, expected in (
        ("train.in", "x", True), ("geometry.in", "x", False), ("a.yaml", "Train_file: x", True),
        ("b.yaml", "MD: {}", False), ("c.yaml", "{", False), ("d.txt", "x", False),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        assert is_gpr_input(tmp_path / name) == expected, name
