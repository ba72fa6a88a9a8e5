import logging
import sys
import threading
import warnings

import pytest
import torch

from aims_pax.models.mace.mace_import import default_dtype, interaction_energy, quiet


def test_known_noise_is_silenced_and_everything_else_passes(capfd):
    with quiet():
        print("cuequivariance is not available")
        warnings.warn("`torch.jit.script` is deprecated", DeprecationWarning, stacklevel=1)
    assert capfd.readouterr().out == ""
    with pytest.warns(UserWarning, match="look at this"), quiet():
        warnings.warn("look at this", UserWarning, stacklevel=1)


def test_the_default_dtype_comes_back_even_after_an_error():
    seen = []

    def fail():
        with default_dtype(torch.float64):
            seen.append(torch.get_default_dtype())
            raise RuntimeError("x")

    with pytest.raises(RuntimeError, match="x"):
        fail()
    assert seen == [torch.float64]
    assert torch.get_default_dtype() == torch.float32


def test_quiet_in_two_threads_gives_standard_output_and_warnings_back(capsys):
    before, filters = sys.stdout, list(warnings.filters)
    inside, leave = threading.Event(), threading.Event()

    def other():
        with quiet():
            inside.set()
            leave.wait(10)
            print("of the other thread")

    thread = threading.Thread(target=other)
    with quiet():
        thread.start()
        inside.wait(10)
        print("of this thread")
    print("heard")  # this one is over, the other is not
    leave.set()
    thread.join()
    assert sys.stdout is before
    assert list(warnings.filters) == filters
    assert capsys.readouterr().out == "heard\n"


def test_what_mace_prints_goes_to_the_debug_log(caplog, capsys):
    with caplog.at_level(logging.DEBUG, logger="aims_pax"), quiet():
        print("  Using head Default\n")
    assert [r.message for r in caplog.records] == ["MACE: Using head Default"]
    assert capsys.readouterr().out == ""


def test_an_error_inside_leaves_standard_output_as_it_was():
    before = sys.stdout
    with pytest.raises(RuntimeError, match="x"), quiet(), quiet():
        raise RuntimeError("x")
    assert sys.stdout is before


def test_the_energy_above_the_atoms_is_found_in_the_output_of_both_models():
    shifted = {"interaction_energy": torch.tensor([1.5]), "contributions": torch.tensor([[9.0, 9.0]])}
    plain = {"contributions": torch.tensor([[-40.0, 1.0, 2.0], [-80.0, 0.5, 0.25]])}  # E0, layer 1, layer 2
    assert interaction_energy(shifted).tolist() == [1.5]
    assert interaction_energy(plain).tolist() == [3.0, 0.75]
