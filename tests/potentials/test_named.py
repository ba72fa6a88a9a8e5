"""Potentials from the settings of other commands: their mistakes are named by key, their models have features."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed, CalculatorError
from ase.calculators.emt import EMT
from tblite.ase import TBLite

from aims_pax.errors import Abandoned, LabelError, SettingsError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.potential import CalculatorPotential, LabelsBound, calculate
from aims_pax.potentials.named import (
    AT_ONCE,
    LoadedPotential,
    Potentials,
    UserPotential,
    canonical_spec,
    naming_errors,
)
from aims_pax.settings.augment import CallSpec

EMT_SETTINGS = {"factory": "ase.calculators.emt:EMT"}
XTB = {"method": "GFN1-xTB", "accuracy": 0.01, "verbosity": 0}


WATER = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def test_isolated_atoms_are_in_their_ground_state(tmp_path):
    """A triplet for oxygen, whatever the charge of the molecules is."""
    named = LoadedPotential.load(
        CallSpec("tblite.ase:TBLite", kwargs={**XTB, "charge": 1, "multiplicity": 2}), tmp_path
    )
    oxygen = Frame([8], [[0, 0, 0]])
    triplet = calculate(oxygen, TBLite(**XTB, multiplicity=3)).energy
    assert named.atomic_energy(8) == pytest.approx(triplet, abs=1e-6)
    assert LoadedPotential.load(CallSpec("ase.calculators.emt:EMT"), tmp_path).atomic_energy(
        29
    ) == pytest.approx(calculate(Frame([29], [[0, 0, 0]]), EMT()).energy)


def test_a_calculator_that_labels_for_a_difference_says_what_it_cannot(tmp_path):
    emt = LoadedPotential.load(CallSpec("ase.calculators.emt:EMT"), tmp_path)
    assert "H2O has charge 1, and ase.calculators.emt:EMT has no known argument" in emt.refusal(
        replace(WATER, charge=1)
    )
    assert (
        LoadedPotential.load(CallSpec("tblite.ase:TBLite", kwargs=XTB), tmp_path).refusal(
            replace(WATER, charge=1)
        )
        is None
    )


def test_all_samplers_share_one_potential(tmp_path):
    potentials = Potentials(tmp_path, "cpu")
    assert potentials.of(EMT_SETTINGS, "x") is potentials.of(dict(EMT_SETTINGS), "y")
    assert potentials.of(EMT_SETTINGS, "x") is not potentials.of(
        {**EMT_SETTINGS, "kwargs": {"asap_cutoff": True}}, "x"
    )


class Failing:
    """Labels frames until it is told an error; also as a binding."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def labels(self, frames):
        if self.error is not None:
            raise self.error
        return [Label(0.0, np.zeros((len(f), 3))) for f in frames]

    def bind(self, frames):
        return LabelsBound(self.labels, frames)


def ask(potential, bound):
    import torch

    if not bound:
        return potential.labels([WATER])
    return potential.bind([WATER])(torch.tensor(WATER.positions), torch.tensor(WATER.cell)[None])


@pytest.mark.parametrize("bound", [False, True])
def test_before_a_potential_has_answered_once_every_error_is_its_own_and_named_by_its_key(bound):
    for error in (
        ZeroDivisionError("division by zero"),
        CalculationFailed("no binary"),
        CalculatorError("x"),
    ):
        with pytest.raises(SetupError) as refused:
            ask(UserPotential(Failing(error), "SAMPLERS.0.potential"), bound)
        assert str(refused.value) == f"SAMPLERS.0.potential: {type(error).__name__}: {error}"


@pytest.mark.parametrize("bound", [False, True])
def test_after_it_has_answered_a_failed_calculation_is_a_matter_of_its_structure(bound):
    inner = Failing()
    potential = UserPotential(inner, "key")
    ask(potential, bound)
    inner.error = CalculationFailed("SCF")
    with pytest.raises(CalculationFailed, match="SCF"):
        ask(potential, bound)
    inner.error = ZeroDivisionError("x")
    with pytest.raises(SetupError, match="key: ZeroDivisionError: x"):
        ask(potential, bound)


def test_a_patient_one_passes_all_errors_of_calculators_from_the_beginning():
    with pytest.raises(CalculatorError, match="x"):
        UserPotential(Failing(CalculatorError("x")), "key", patient=True).labels([WATER])
    with pytest.raises(SetupError):
        UserPotential(Failing(ValueError("x")), "key", patient=True).labels([WATER])


@pytest.mark.parametrize("error", [LabelError("x"), SettingsError("x"), Abandoned()])
def test_errors_of_ours_are_passed_on_as_they_are(error):
    with pytest.raises(type(error)) as passed, naming_errors("key"):
        raise error
    assert passed.value is error


def test_labels_are_made_in_batches_with_a_look_at_the_clock_before_each_and_must_be_finite(tmp_path):
    sizes, looks = [], []

    class Counting(Failing):
        def labels(self, frames):
            sizes.append(len(frames))
            return super().labels(frames)

    loaded = LoadedPotential("x", Counting(), tmp_path)
    assert len(loaded.labels([WATER] * (AT_ONCE + 3), lambda: looks.append(len(sizes)))) == AT_ONCE + 3
    assert (sizes, looks) == ([AT_ONCE, 3], [0, 1])

    class Broken(Failing):
        def labels(self, frames):
            return [Label(np.nan, np.zeros((len(f), 3))) for f in frames]

    with pytest.raises(LabelError, match="energies or forces that are not finite"):
        LoadedPotential("x", Broken(), tmp_path).labels([WATER], lambda: None)


def test_a_model_file_is_known_by_its_contents_and_a_size_by_its_name(tmp_path):
    (tmp_path / "a.model").write_bytes(b"one")
    (tmp_path / "b.model").write_bytes(b"one")
    (tmp_path / "small").write_bytes(b"no file of this name is ever meant by a size")
    a, b, size = (LoadedPotential(name, Failing(), tmp_path) for name in ("a.model", "b.model", "small"))
    assert a.identity == b.identity
    assert a.described == f"a.model (contents {a.identity[:8]})"
    before = a.identity
    (tmp_path / "a.model").write_bytes(b"two")
    assert a.identity != before
    assert (size.identity, size.described) == ("'small'", "small")


def test_what_is_neither_file_nor_size_is_named_by_its_key_with_the_other_way(tmp_path):
    with pytest.raises(
        SettingsError, match=r"^calculator: .*'smal'.*or \{factory, kwargs\} of an ASE calculator$"
    ):
        LoadedPotential.load("smal", tmp_path)


def test_only_a_mace_model_has_features(tmp_path):
    emt = LoadedPotential(CallSpec("x"), CalculatorPotential(EMT), tmp_path)
    assert emt.features([WATER]) is None
    with pytest.raises(SettingsError, match=r"SAMPLERS\.0: descriptor: mace needs a MACE model"):
        Potentials(tmp_path, "cpu").describe(EMT_SETTINGS, "SAMPLERS.0")


def test_the_former_name_of_a_foundation_model_is_a_size():
    assert canonical_spec("mace-mp0") == "small"
    assert canonical_spec("my.model") == "my.model"
    assert canonical_spec(EMT_SETTINGS).target == "ase.calculators.emt:EMT"
