"""What MACE imports and we do not use is loaded on first use, and then it is all there."""

import json
import subprocess
import sys

import pytest

from tests.sweeps import thinned

SELDOM = (
    "torch._dynamo.convert_frame",
    "scipy.signal",
    "scipy.stats",
    "pandas",
    "matplotlib.pyplot",
    "torchmetrics",
)
LOOK = f"import json, sys; print(json.dumps([n for n in {SELDOM!r} if n in sys.modules]))"


def loaded(code: str) -> list[str]:
    """Which of the seldom used modules a new process has after this code."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\n{LOOK}"], text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_that_builds_a_committee_needs_none_but_what_optimisers_need():
    code = """
from tests.models.mace.tiny import ensemble
from tests.worlds import water
assert len(ensemble(elements=(1, 8)).potential().labels([water()])) == 1
"""
    assert loaded(code) == ["torch._dynamo.convert_frame"]  # each optimiser of torch imports it
    assert loaded("import aims_pax.models.mace.ensemble, aims_pax.models.mace.native") == []


def test_used_they_are_there_and_the_package_keeps_its_function():
    code = """
import aims_pax.models.mace.mace_import, mace.tools, scipy, torch
scipy.signal.find_peaks, torch._dynamo.config
function = mace.tools.train
from mace.tools.train import MACELoss, SWAContainer, evaluate
assert isinstance(MACELoss, type) and MACELoss.__module__ == "mace.tools.train"
assert mace.tools.train is function and function.module.loaded().train.__name__ == "train"
assert mace.tools.SWAContainer(None, None, 3, None).start == 3
import e3nn.io, mace.tools.compile as c
assert c.dynamo.config is torch._dynamo.config
"""
    assert {"scipy.signal", "torch._dynamo.convert_frame", "torchmetrics"} <= set(loaded(code))


@pytest.mark.parametrize(
    "first", thinned(["import torch._dynamo, scipy.signal, mace.tools.train", "import mace.modules"], 2)
)
def test_what_is_loaded_already_stays(first):
    code = f"""
import torch
torch.serialization.add_safe_globals([slice])
{first}
import aims_pax.models.mace.mace_import, mace.tools, sys
assert sys.modules["mace.tools.train"].MACELoss.__name__ == "MACELoss"
assert mace.tools.train.__name__ == "train"
"""
    assert "scipy.signal" in loaded(code)


@pytest.mark.slow
def test_a_package_that_does_something_else_with_them_is_imported_with_all(tmp_path):
    package = tmp_path / "odd"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from mace.tools.train import MACELoss\n\nclass Loss(MACELoss): pass\n"
    )
    code = f"""
import sys, torch
sys.path.insert(0, {str(tmp_path)!r})
torch.serialization.add_safe_globals([slice])
from aims_pax.models.mace.late_imports import import_late
import_late("odd")
assert sys.modules["odd"].Loss.__mro__[1].__name__ == "MACELoss"
"""
    assert "torchmetrics" in loaded(code)
