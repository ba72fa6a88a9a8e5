"""Spectra: normalised, with the derivatives of the normalised spectra; the missing extra is named."""

import sys

import numpy as np
import pytest

from aims_pax.errors import SettingsError, SetupError
from aims_pax.models.gp.soap import LARGEST_RATIO, SoapDescriptor, require_featomic
from tests.models.gp import systems


def test_without_featomic_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "featomic", None)
    with pytest.raises(SetupError, match=r"pip install 'aims-pax\[gpr\]'"):
        require_featomic()


def test_spectra_are_normalised_and_their_slopes_tangential():
    pytest.importorskip("featomic")
    descriptor = SoapDescriptor((29, 79), 5.0, 4, 3, 0.5)
    found = descriptor.of([x.frame for x in systems.alloy(2)])
    assert set(found) == {29, 79}
    copper = found[29]
    assert copper.values.shape == (6, descriptor.size)
    assert np.linalg.norm(copper.values, axis=1) == pytest.approx(1)
    along = np.einsum("gkd,gd->gk", copper.slopes, copper.values[copper.centre])
    assert np.abs(along).max() < 1e-12
    assert copper.strained is None
    bare = descriptor.of([systems.alloy(1)[0].frame], slopes=False)
    assert bare[79].slopes is None


def test_a_width_that_is_too_small_for_the_cutoff_is_one_line(capfd):
    pytest.importorskip("featomic")
    for n, l_max in ((1, 0), (6, 4), (3, 10)):
        SoapDescriptor((1,), 5.0, n, l_max, 5.0 / LARGEST_RATIO).check()
    with pytest.raises(
        SettingsError, match=r"width 0.01 Å is too small for cutoff 5 Å: raise it \(soap_sigma"
    ) as found:
        SoapDescriptor((1,), 5.0, 6, 4, 0.01).check()
    assert "\n" not in str(found.value)
    assert capfd.readouterr().err == ""  # no stack of featomic


def test_whatever_featomic_cannot_compute_is_a_mistake_in_the_settings(monkeypatch):
    pytest.importorskip("featomic")
    monkeypatch.setattr("aims_pax.models.gp.soap.LARGEST_RATIO", 1e3)
    with pytest.raises(
        SettingsError, match=r"SOAP with cutoff 4 Å, n 2, l 1 and width 0.01 Å cannot be computed"
    ):
        SoapDescriptor((1,), 4.0, 2, 1, 0.01).check()
