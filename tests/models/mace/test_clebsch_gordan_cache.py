"""Coefficients from the cache are those that MACE computes; a file that is not what was written is not used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aims_pax.models.mace import clebsch_gordan_cache as cache
from aims_pax.models.mace.mace_import import clebsch_gordan, o3, symmetric_contraction

ARGUMENTS = {
    "irreps_in": o3.Irreps("0e+1o+2e"), "irreps_out": o3.Irreps("1o"), "correlation": 2, "use_cueq_cg": False,
    "dtype": torch.float64,
}  # fmt: skip


def right(**changes):
    return clebsch_gordan.U_matrix_real(**(ARGUMENTS | changes))[-1]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """An empty cache for this test; the arguments with which MACE computes."""
    monkeypatch.setenv("AIMS_PAX_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_known", {})
    monkeypatch.setattr(cache, "WORTH_A_FILE", 0.0)
    found = []

    def counted(**arguments):
        found.append(arguments)
        return clebsch_gordan.U_matrix_real(**arguments)

    monkeypatch.setattr(symmetric_contraction, "U_matrix_real", counted)
    return found


def asked(**changes):
    with cache.remembered_coefficients():
        return symmetric_contraction.U_matrix_real(**(ARGUMENTS | changes))[-1]


def forget():
    cache._known.clear()


def test_coefficients_are_computed_once_and_then_come_from_memory_and_from_the_disk(calls):
    for _ in range(2):
        assert torch.equal(asked(), right())
    forget()  # as in a new process
    assert torch.equal(asked(), right())
    assert len(calls) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": torch.float32},
        {"correlation": 1},
        {"irreps_out": o3.Irreps("0e")},
        {"irreps_in": o3.Irreps("0e+1o")},
    ],
    ids=str,
)
def test_other_arguments_have_other_coefficients(calls, changes):
    asked()
    found = asked(**changes)
    assert torch.equal(found, right(**changes))
    assert found.dtype == changes.get("dtype", torch.float64)
    assert len(calls) == 2


def test_what_a_model_does_to_its_own_does_not_change_those_of_the_next(calls):
    asked().zero_()
    assert torch.equal(asked(), right())


@pytest.mark.parametrize(
    "spoiled", [b"", b"PK\x03\x04 no archive", None, "other values", "no digest"], ids=str
)
def test_a_spoiled_file_is_computed_again_and_replaced(calls, spoiled):
    asked()
    path = cache.cache_file(ARGUMENTS)
    whole = path.read_bytes()
    if isinstance(spoiled, bytes):
        path.write_bytes(spoiled)
    elif spoiled is None:
        path.write_bytes(whole[: len(whole) // 2])
    else:
        with np.load(path) as stored:
            arrays = dict(stored)
        if spoiled == "no digest":
            del arrays["sha256"]
        np.savez_compressed(path, **(arrays | {"values": arrays["values"] * 2}))
    forget()
    assert torch.equal(asked(), right())
    assert len(calls) == 2
    forget()
    assert torch.equal(asked(), right())
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_costs_only_time(calls, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIMS_PAX_CACHE", str(tmp_path / "file"))
    assert torch.equal(asked(), right())
    forget()
    assert torch.equal(asked(), right())
    assert len(calls) == 2


def test_short_computations_are_not_stored(calls, monkeypatch):
    monkeypatch.setattr(cache, "WORTH_A_FILE", 1000.0)
    asked()
    assert not cache.cache_file(ARGUMENTS).exists()


def test_mace_has_its_own_function_again_after_an_error(calls):
    before = symmetric_contraction.U_matrix_real
    with pytest.raises(RuntimeError, match="here"), cache.remembered_coefficients():
        raise RuntimeError("here")
    assert symmetric_contraction.U_matrix_real is before
