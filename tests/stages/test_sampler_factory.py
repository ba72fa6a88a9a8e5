"""Samplers from the list SAMPLERS."""

import sys
from types import SimpleNamespace

import pytest
import yaml

from aims_pax.errors import SettingsError, SetupError
from aims_pax.potentials.named import Potentials
from aims_pax.samplers.kinds.gpr import MostUncertainSampler
from aims_pax.samplers.kinds.md import MDSampler
from aims_pax.samplers.surrogate import SurrogateDriven
from aims_pax.settings.md import MDSettings
from aims_pax.stages.sampler_factory import mixture
from tests.md.settings import langevin
from tests.settings.folders import PROJECT
from tests.settings.folders import read as read_settings

EMT = {"factory": "ase.calculators.emt:EMT"}
MODULE = """
from aims_pax.samplers import Sample

class Own:
    name = "own"

    def __init__(self, potential=None):
        self.potential = potential

    def sample(self, systems, n, rng):
        return iter(())

class HalfState(Own):
    def state_arrays(self):
        return {}

def moody():
    raise KeyError("license")
"""


@pytest.fixture
def made(tmp_path):
    """The mixture of the samplers of this list."""
    (tmp_path / "own_samplers.py").write_text(MODULE)

    def make(*samplers, reference=None):
        read = read_settings(tmp_path, PROJECT + yaml.safe_dump({"SAMPLERS": list(samplers)})).samplers
        potentials = Potentials(tmp_path, "cpu")
        return mixture(read, lambda system: langevin(100), 300.0, 10, potentials, bool, reference=reference)

    return make


def test_samplers_come_with_their_shares_and_their_filters(made):
    parts = made(
        {
            "kind": "md",
            "share": 0.25,
            "potential": EMT,
            "filters": ["sanity", {"kind": "equilibration", "skip": 3}],
        },
        {"kind": "own_samplers:Own"},
    ).parts
    assert [part.share for part in parts] == [0.25, 0.75]
    assert [len(part.filters) for part in parts] == [2, 0]


def test_a_sampler_s_state_belongs_to_all_its_settings_but_the_share(made):
    def keys(**changes):
        mixed = made({"kind": "md", "share": 0.5, "potential": EMT, **changes}, {"kind": "own_samplers:Own"})
        return [part.key for part in mixed.parts]

    first = keys()
    assert keys(share=0.1) == first
    assert keys(temperature=500)[0] != first[0]
    assert keys(filters=["sanity"])[0] != first[0]
    assert keys(potential={**EMT, "kwargs": {"asap_cutoff": True}})[0] != first[0]
    assert first[0].startswith("0-")
    assert first[1].startswith("1-")


def test_samplers_that_name_one_potential_or_none_share_it(made):
    parts = made(
        {"kind": "own_samplers:Own", "potential": EMT},
        {"kind": "md", "potential": dict(EMT)},
        {"kind": "md"},
    ).parts
    own, one, other = (part.sampler.potential for part in parts)
    assert one.potential is other.potential is own.potential


def test_a_sampler_that_needs_the_reference_is_refused_where_there_is_none(made):
    with pytest.raises(SettingsError, match=r"^SAMPLERS\.1\.kind: .*reference"):
        made({"kind": "own_samplers:Own"}, {"kind": "aimd"})
    parts = made({"kind": "aimd"}, reference=SimpleNamespace()).parts
    assert len(parts) == 1


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        (
            "ase.calculators.emt:EMT",
            SettingsError,
            "ase.calculators.emt:EMT returned a EMT, which is not a sampler",
        ),
        ("own_samplers:HalfState", SettingsError, "HalfState has state_arrays"),
        ("own_samplers:moody", SetupError, "KeyError: 'license'"),
    ],
)
def test_a_sampler_of_the_user_that_cannot_be_used_is_named_by_its_key(made, kind, error, said):
    with pytest.raises(error) as raised:
        made({"kind": "own_samplers:Own"}, {"kind": kind})
    assert str(raised.value).startswith(f"SAMPLERS.1.kind: {said}")


def test_samplers_on_a_surrogate_share_one_and_others_stay_as_they_are(made):
    pytest.importorskip("featomic")
    spelled = {"factory": "surrogate.gpr", "kwargs": {"baseline": EMT}}
    parts = made(
        {"kind": "md", "potential": spelled},
        {"kind": "rattle_tree"},
        {"kind": "gpr", "moves": "rattle"},
        {"kind": "gpr"},
        {"kind": "md", "potential": EMT},
        reference=object(),
    ).parts
    md, trees, gpr, moved, other = (part.sampler for part in parts)
    assert isinstance(md, SurrogateDriven)
    assert md.surrogate is trees.surrogate
    assert md.surrogate.baseline is not None
    assert isinstance(gpr, MostUncertainSampler)
    assert gpr.surrogate is not md.surrogate
    assert isinstance(moved.inner, MostUncertainSampler)
    assert moved.surrogate is moved.inner.inner.potential is md.surrogate
    assert isinstance(other, MDSampler)


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"kind": "md", "potential": "surrogate.gpr"}, "only a run has; give data"),
        ({"kind": "gpr"}, "only a run has; give data"),
    ],
)
def test_a_surrogate_without_a_run_needs_data(made, sampler, said):
    with pytest.raises(SettingsError, match=said):
        made(sampler)


@pytest.mark.parametrize(
    ("potential", "said"),
    [
        ({"factory": "surrogate.gpr", "kwargs": {"base": 1}}, "baseline: …, data: …"),
        ({"factory": "surrogate.gpr", "kwargs": {"data": "none.xyz"}}, "none.xyz: no such file"),
        ({"factory": "surrogate.gpr", "kwargs": {"baseline": "surrogate.gpr"}}, "learns the labels of a run"),
    ],
)
def test_a_surrogate_that_is_written_wrongly_is_refused(made, potential, said):
    with pytest.raises(SettingsError, match=said):
        made({"kind": "md", "potential": potential}, reference=object())


@pytest.mark.parametrize("sampler", [{"kind": "md", "potential": "surrogate.gpr"}, {"kind": "gpr"}])
def test_without_the_extra_a_surrogate_is_refused_before_anything_is_labelled(made, sampler, monkeypatch):
    monkeypatch.setitem(sys.modules, "featomic", None)
    with pytest.raises(SetupError, match=r"aims-pax\[gpr\]"):
        made(sampler, reference=object())


def test_the_temperature_of_a_sampler_or_of_md_is_multiplied(tmp_path):
    one = {"kind": "md", "potential": EMT, "temperature_factor": 1.5}
    samplers = yaml.safe_dump({"SAMPLERS": [one, {**one, "temperature": 400}]})
    read = read_settings(tmp_path, PROJECT + samplers).samplers
    md = MDSettings(stat_ensemble="NVT", temperature=100.0)
    made = mixture(read, lambda _: md, 300.0, 10, Potentials(tmp_path, "cpu"), bool)
    assert [part.sampler.md_of(None).temperature for part in made.parts] == [150.0, 600.0]
