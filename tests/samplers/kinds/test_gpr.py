"""kind: gpr takes the candidate about which the process is most uncertain, within its limit."""

import numpy as np
import pytest
from ase.calculators.lj import LennardJones

from aims_pax.labelled_data import to_extxyz
from aims_pax.potential import CalculatorPotential
from aims_pax.sampler import LearnsFromLabels
from aims_pax.samplers import sampler
from aims_pax.samplers.kinds.gpr import GPRSamplerSettings, MostUncertainSampler
from aims_pax.samplers.surrogate import SurrogatePotential
from aims_pax.settings.md import MDSettings
from aims_pax.systems import System
from tests.models.gp import systems

DATA = systems.h2(np.linspace(1.0, 1.6, 8))
H2 = System("h2", DATA[3].frame)


def drawn(made, n=3, seed=1):
    return list(made.sample([H2], n, np.random.default_rng(seed)))


def test_before_labels_the_first_candidate_is_taken_then_the_most_uncertain_one():
    made = MostUncertainSampler(SurrogatePotential(), 12, 0.1, 5.0)
    assert isinstance(made, LearnsFromLabels)
    assert all("deviation" not in s.origin for s in drawn(made))
    made.new_labels(DATA)
    chosen = drawn(made)
    for one in chosen:
        assert one.label is None
        assert one.origin["deviation"] == pytest.approx(made.surrogate.deviations([one.frame])[0])
    random = drawn(MostUncertainSampler(made.surrogate, 1, 0.1, 5.0), n=36)
    typical = np.median(made.surrogate.deviations([s.frame for s in random]))
    assert np.mean([s.origin["deviation"] for s in chosen]) > 1.5 * typical


def test_candidates_beyond_the_limit_are_left_to_others():
    surrogate = SurrogatePotential(given=DATA)
    limit = float(
        np.median(
            surrogate.deviations([s.frame for s in drawn(MostUncertainSampler(surrogate, 1, 0.3, 9), 40)])
        )
    )
    made = drawn(MostUncertainSampler(surrogate, 20, 0.3, limit), 5)
    assert all(0 < s.origin["deviation"] <= limit for s in made)


def test_molecular_dynamics_gives_the_candidates(tmp_path):
    md = MDSettings(stat_ensemble="NVT", temperature=40.0, timestep=0.2)
    (tmp_path / "old.xyz").write_text(to_extxyz(DATA))
    keys = {"moves": "md", "candidates": 4, "skip_step": 2, "data": str(tmp_path / "old.xyz")}
    made, other = (sampler("gpr", CalculatorPotential(LennardJones), md=md, **keys) for _ in range(2))
    first = drawn(made, 2)
    assert [s.origin["step"] <= 8 for s in first] == [True, False]
    assert all(s.origin["step"] % 2 == 0 and s.origin["sampler"] == "gpr" for s in first)
    other.load_state_arrays(made.state_arrays())
    assert [s.frame.id for s in drawn(other, 2, 5)] == [s.frame.id for s in drawn(made, 2, 5)]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"data": "none.xyz"}, ("data", "none.xyz: no such file")),
        ({"sigma": 0.2}, ("sigma", "has no effect with moves: md")),
        ({"moves": "rattle", "temperature": 300}, ("temperature", "has no effect with moves: rattle")),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path, keys, problem):
    assert list(GPRSamplerSettings(kind="gpr", **keys).problems(tmp_path)) == [problem]


def test_without_a_run_it_needs_data():
    assert "give data" in GPRSamplerSettings(kind="gpr").without_reference()
    assert GPRSamplerSettings(kind="gpr", data="old.xyz").without_reference() is None
