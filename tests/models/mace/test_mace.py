import sys
import threading
import warnings

import pytest
import torch

from aims_pax.models.mace.mace_import import default_dtype, quiet


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
