"""Which calculators may be made several times and used side by side."""

from ase.calculators.dftb import Dftb
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from tblite.ase import TBLite

from aims_pax.potentials.light_calculators import is_light


def test_only_calculators_that_compute_in_memory_are_light():
    class Mine(EMT):
        pass

    assert is_light(TBLite(method="GFN2-xTB"))
    assert is_light(SumCalculator([EMT(), TBLite(method="GFN2-xTB")]))
    assert not is_light(Mine())  # unknown: it may write files
    assert not is_light(Dftb())
    assert not is_light(SumCalculator([EMT(), Mine()]))
