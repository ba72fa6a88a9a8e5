"""Committees from files: MACE's own forces, the precision of the files, and what cannot be a committee."""

import numpy as np
import pytest
import torch

from aims_pax.errors import SettingsError
from aims_pax.models.mace.element_selection import select_elements
from aims_pax.models.mace.load_committee import load_committee
from aims_pax.models.mace.mace_import import quiet
from aims_pax.models.mace.model_surgery import comparison_structure
from tests.models.mace import tiny
from tests.models.mace.published import a_copy, maces_own
from tests.models.mace.test_native_support import BASE

FRAMES = [tiny.ethanol(1)[0].frame, tiny.copper(1)[0].frame]


@pytest.fixture(scope="module")
def native_files(tmp_path_factory):
    """Two members in double precision that symmetrix knows; it does not know those of `member_files`."""
    pytest.importorskip("symmetrix", reason="the extra fast is not installed")
    both = [m.frozen_copy() for m in tiny.ensemble(default_dtype="float64", **BASE).members]
    return stored(tmp_path_factory.mktemp("native"), *both)


def read(path):
    with quiet():
        return torch.load(path, weights_only=False)


def stored(folder, *models):
    """Files of these modules, as MACE writes them."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{k}.model" for k in range(len(models))]
    for path, model in zip(paths, models, strict=True):
        with quiet():
            torch.save(model, path)
    return paths


def of_maces_calculator(paths, frame):
    from mace.calculators import MACECalculator

    with quiet():
        atoms = frame.to_atoms()
        atoms.calc = MACECalculator(
            model_paths=[str(p) for p in paths], device="cpu", default_dtype="float64"
        )
        atoms.get_potential_energy()
    return atoms.calc.results["forces_comm"]


@pytest.mark.parametrize("inference", ["native", "torch"])
def test_each_member_has_the_forces_of_maces_own_calculator_in_the_order_of_the_files(
    native_files, inference
):
    paths = native_files[::-1]
    committee = load_committee(paths, inference=inference)
    assert committee.members == 2
    for frame in FRAMES:
        said = committee.evaluate([frame])
        np.testing.assert_allclose(said.forces, of_maces_calculator(paths, frame), atol=2e-6)
    assert not any(p.requires_grad for model in committee.models for p in model.parameters())


def test_it_has_the_precision_of_the_files_unless_another_is_named(member_files, tmp_path):
    """member_files: float64."""
    single_files = stored(tmp_path, *(read(path).float() for path in member_files))
    found = {
        name: {str(p.dtype) for model in load_committee(paths, dtype=dtype).models for p in model.parameters()}
        for name, paths, dtype in (
            ("as stored, single", single_files, None), ("as stored, double", member_files, None),
            ("mixed", [member_files[0], single_files[0]], None), ("named", member_files, "float32"),
            ("named, mixed", [single_files[0], member_files[0]], "float32"),
        )
    }  # fmt: skip
    assert found == {
        "as stored, single": {"torch.float32"}, "as stored, double": {"torch.float64"},
        "mixed": {"torch.float64"}, "named": {"torch.float32"}, "named, mixed": {"torch.float32"},
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_atomic_energies_are_not_rounded_in_another_precision(member_files, tmp_path, dtype):
    """Energies of heavy atoms as FHI-aims has them: single precision resolves 0.03 eV."""
    model = read(member_files[0])
    model.atomic_energies_fn.atomic_energies -= 535000.0123456
    (path,) = stored(tmp_path, model)
    exact = load_committee([path], inference="torch").evaluate(FRAMES).energies
    if dtype == "float64":  # a file in single precision that has the exact energies beside the rounded ones
        single = load_committee([path], dtype="float32", inference="torch").models[0]
        (path,) = stored(tmp_path, single)
    found = load_committee([path], dtype=dtype, inference="torch").evaluate(FRAMES).energies
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-4)


def test_of_several_heads_the_default_one_is_used(tmp_path):
    model, frame = a_copy("three heads"), comparison_structure((1, 6, 8), periodic=True)
    (path,) = stored(tmp_path, model)
    energy, forces, _ = maces_own(model, frame, "Default")
    for dtype, atol in ((None, 1e-8), ("float32", 1e-4)):
        said = load_committee([path], dtype=dtype).evaluate([frame])
        assert float(said.energies) == pytest.approx(energy, abs=atol)
        np.testing.assert_allclose(said.forces[0], forces, atol=atol)
    model.heads = ["pbe", "r2scan", "ccsd"]
    (path,) = stored(tmp_path, model)
    with pytest.raises(SettingsError, match=r"^calculator: .*0\.model has the heads pbe, r2scan, ccsd"):
        load_committee([path])


def test_models_that_do_not_fit_together_are_refused_by_their_files(member_files, tmp_path):
    fewer, wider = (read(member_files[1]) for _ in range(2))
    select_elements(fewer, (1, 8))
    wider.r_max = torch.tensor(3.6)
    for path in stored(tmp_path, fewer, wider):
        said = f"differ in elements, r_max or heads, .*: {member_files[0]}, {path}"
        with pytest.raises(SettingsError, match=said):
            load_committee([member_files[0], path])
    first, second = a_copy("three heads"), a_copy("three heads")
    second.heads = ["Default", "pbe", "r2scan"]
    with pytest.raises(SettingsError, match="differ in elements, r_max or heads"):
        load_committee(stored(tmp_path, first, second))


def test_native_inference_that_is_impossible_is_refused_by_its_own_name(member_files, native_files):
    """Also where symmetrix knows the first of the models only; `auto` evaluates both kinds, in any order."""
    both = [native_files[0], member_files[0]]
    for paths in (member_files, both, both[::-1]):
        with pytest.raises(SettingsError, match=r"^inference: native is not possible: .*max_ell is 2"):
            load_committee(paths, inference="native")
        said = load_committee(paths).evaluate(FRAMES[:1])
        np.testing.assert_allclose(said.forces, of_maces_calculator(paths, FRAMES[0]), atol=2e-6)


def test_models_with_other_radial_functions_have_their_own_forces(member_files, tmp_path):
    """The fast evaluation computes them once for all members."""
    steeper = read(member_files[1])
    steeper.radial_embedding.cutoff_fn.p = torch.tensor(8)
    paths = [member_files[0], *stored(tmp_path, steeper)]
    said = load_committee(paths).evaluate(FRAMES[:1])
    np.testing.assert_allclose(said.forces, of_maces_calculator(paths, FRAMES[0]), atol=2e-6)
