"""Where the first structures come from, and what their calculator's failures are called."""

from types import SimpleNamespace

import numpy as np
import pytest

from aims_pax.errors import SetupError
from aims_pax.parallel.calculator_dynamics import CalculatorDynamics
from aims_pax.record.folder import RunFolder
from aims_pax.settings import read_settings
from aims_pax.stages.initial_dataset import make_sampler
from aims_pax.systems import read_systems
from tests.projects import write_project

BROKEN = """from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
class Never(EMT):
    def calculate(self, *args):
        raise ValueError("no such method")
def nothing():
    raise KeyError("license")
class Once(EMT):
    failed = []
    def calculate(self, *args):
        super().calculate(*args)
        if len(Once.failed) == 3:
            Once.failed.append(4)
            raise CalculationFailed("lost on the way")
        Once.failed.append(1)
"""


def sampled(folder, factory, n=1):
    """n structures of the initial dataset's sampler, with this calculator."""
    calculator = {"initial_calculator": {"factory": factory}}
    settings = read_settings(write_project(folder, {"INITIAL_DATASET_GENERATION": calculator}))
    run = SimpleNamespace(settings=settings, folder=RunFolder(settings))
    systems = read_systems(folder / "geometries")
    return list(
        make_sampler(run, lambda: False, CalculatorDynamics(1)).sample(systems, n, np.random.default_rng(0))
    )


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("initial_broken:Never", "ValueError: no such method"),
        ("initial_broken:nothing", "KeyError: 'license'"),
        ("initial_torn:x", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_calculator_that_does_not_work_is_named_by_its_key(tmp_path, factory, said):
    (tmp_path / "initial_broken.py").write_text(BROKEN)
    (tmp_path / "initial_torn.py").write_text("1 / 0\n")
    with pytest.raises(SetupError, match=rf"^INITIAL_DATASET_GENERATION\.initial_calculator: {said}$"):
        sampled(tmp_path, factory)


def test_once_it_has_answered_a_structure_it_fails_on_only_begins_the_trajectory_again(tmp_path):
    (tmp_path / "initial_once.py").write_text(BROKEN)
    assert len(sampled(tmp_path, "initial_once:Once", 2)) == 2
