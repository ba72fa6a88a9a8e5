"""What packages print, warn and change while they are used does not remain."""

import contextlib
import logging
import warnings

import pytest
import torch

from aims_pax.potentials.quiet_packages import quiet_package


def noisy():
    """As packages of foundation models are when they load their weights."""
    print("  model on cpu\n   \n")
    warnings.warn("a deprecated function", FutureWarning, stacklevel=1)
    warnings.simplefilter("always")
    torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_remains_and_what_was_printed_is_in_the_log_also_after_an_error(fails, capsys, caplog):
    before, filters = torch.get_default_dtype(), list(warnings.filters)
    outcome = pytest.raises(OSError, match="no weights") if fails else contextlib.nullcontext()
    with caplog.at_level(logging.DEBUG), outcome, quiet_package():
        noisy()
        assert torch.get_default_dtype() == torch.float64
        if fails:
            raise OSError("no weights")
    assert torch.get_default_dtype() == before
    assert warnings.filters == filters
    assert [(r.levelno, r.message) for r in caplog.records] == [(logging.DEBUG, "model on cpu")]
    print("printed afterwards")
    assert capsys.readouterr().out == "printed afterwards\n"


def test_a_default_dtype_of_the_caller_is_that_of_the_caller_afterwards():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with quiet_package():
            torch.set_default_dtype(torch.float32)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
