"""The tables of docs/settings.md say what the code does."""

import re

import pytest

from aims_pax.settings.augment import SECTIONS as AUGMENT
from aims_pax.settings.bias import BiasSettings
from aims_pax.settings.cluster import DynamicsProfile, ParslOptions, TrainingProfile
from aims_pax.settings.diffusion import DiffusionSettings
from aims_pax.settings.sample import SampleSettings
from aims_pax.settings.samplers import FILTERS, KINDS, OWN, SamplerSettings
from aims_pax.settings.settings import MACE, PROJECT
from aims_pax.settings.tables import BEGIN, END, commands, renewed, samplers, section_table, tables
from aims_pax.settings.training_set import MODELS, TrainingSet


def rows(text):
    return [
        line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| Parameter")
    ]


def test_every_key_has_a_row_and_every_row_four_cells():
    names = {re.sub(r"[\\*]|&nbsp;", "", row.split("|")[1]).strip() for row in rows(tables())}
    samplers = [SamplerSettings, *KINDS.values(), *OWN.values(), *FILTERS.values()]
    nested = [ParslOptions, TrainingProfile, DynamicsProfile, BiasSettings]
    sections = [*PROJECT.values(), *MACE.values(), *nested, *samplers]
    assert names == {name for section in sections for name in section.model_fields}
    assert all(len(re.split(r"(?<!\\)\|", row)) == 6 for row in rows(tables()))


def names(text):
    return [re.sub(r"[\\*]|&nbsp;", "", row.split("|")[1]).strip() for row in rows(text)]


def test_every_sampler_and_filter_has_a_table_with_all_its_own_keys():
    parts = dict(re.findall(r"^#+ (\S.*?)\n(.*?)(?=^#|\Z)", samplers(), re.MULTILINE | re.DOTALL))
    common = set(SamplerSettings.model_fields)
    assert set(names(parts["SAMPLERS"])) == common
    for kind, model in {**KINDS, **OWN}.items():
        assert set(names(parts[f"kind: {kind}"])) == set(model.model_fields) - common
    for kind, model in FILTERS.items():
        assert set(names(parts[f"filter: {kind}"])) == set(model.model_fields)


def test_the_commands_of_their_own_have_tables_with_all_their_keys():
    parts = dict(re.findall(r"^#+ (\S.*?)\n(.*?)(?=^#|\Z)", commands(), re.MULTILINE | re.DOTALL))
    assert set(names(parts["aims-PAX sample"])) == set(SampleSettings.model_fields)
    assert set(names(parts["aims-PAX training-set"])) == set(TrainingSet.model_fields)
    assert set(names(parts["aims-PAX diffusion train"])) == set(DiffusionSettings.model_fields)
    for command, models in (("augment", AUGMENT), ("training-set", MODELS)):
        for name, model in models.items():
            assert set(names(parts[f"{command}: {name}"])) == set(model.model_fields)


def test_mandatory_keys_come_first_and_carry_a_star():
    first = rows(section_table(PROJECT["ACTIVE_LEARNING"]))
    assert first[0].startswith(r"| \*num_trajectories | `int` | `1` |")
    assert first[1].startswith(r"| \*species_dir |")
    assert "\\*" not in "".join(first[2:])


@pytest.mark.parametrize(
    "row",
    [
        '| dataset_dir | `str` | `"./data"` |',
        "| max_MD_steps | `int` or `float` | `np.inf` |",
        "| radial_MLP | `list` | `[64, 64, 64]` |",
        '| config_type_weights | `dict` | `{"Default": 1.0}` |',
        r"| &nbsp;&nbsp;&nbsp;&nbsp;\*nodes_per_block | `int` | — |",
        "| &nbsp;&nbsp;&nbsp;&nbsp;run_dir | `str` or `None` | `None` |",
    ],
)
def test_types_and_defaults_are_shown_as_in_the_published_tables(row):
    assert row in tables()


def test_the_tables_between_the_markers_are_renewed():
    text = f"before\n{BEGIN}\nstale rows\n{END}\nafter\n"
    new = renewed(text)
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert "stale rows" not in new
    assert tables() in new
    assert renewed(new) == new
    with pytest.raises(ValueError, match="no marker comments"):
        renewed("nothing here")
