"""Engines that cannot be are refused when the settings are read, without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from aims_pax.settings import inference_support
from aims_pax.settings.mace import ArchitectureSettings
from tests.settings.folders import MACE, PROJECT, errors, read, with_key, write

NATIVE = with_key(MACE, "MISC", "inference: native")
CUEQ = with_key(MACE, "MISC", "enable_cueq: True")


@pytest.fixture
def installed(monkeypatch):
    """A list of modules that are there, everything else is not."""
    there: list[str] = ["symmetrix", "orjson", "cuequivariance_torch", "cuequivariance_ops_torch"]
    monkeypatch.setattr(inference_support, "find_spec", lambda name: name if name in there else None)
    return there


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("num_interactions: 3", "num_interactions is 3, not 2"),
        (
            "interaction_first: RealAgnosticResidualNonLinearInteractionBlock",
            "interaction_first is RealAgnosticRes",
        ),
        ("interaction: RealAgnosticInteractionBlock", "interaction is RealAgnosticInteractionBlock"),
        ("max_ell: 2", "max_ell is 2, not 3"),
        ("max_L: 3", "max_L is 3, larger than 2"),
        ("radial_type: gaussian", "radial_type is gaussian, not bessel"),
        ("gate: tanh", "gate is tanh, not silu"),
    ],
)
def test_native_inference_of_an_architecture_it_does_not_know_is_refused(tmp_path, installed, key, reason):
    mace = with_key(NATIVE, "ARCHITECTURE", key)
    said = errors(tmp_path, mace=mace)
    assert len(said) == 1
    assert said[0].startswith("mace.yaml:")
    assert (
        f"MISC.inference: native cannot be used: symmetrix does not support this architecture ({reason}"
        in said[0]
    )
    assert said[0].endswith("expected auto or torch")
    read(tmp_path, mace=mace.replace("native", "auto"))


def test_models_from_files_need_not_look_like_the_settings(tmp_path, installed):
    project = with_key(PROJECT, "ACTIVE_LEARNING", "initial_models: [a.model, b.model, c.model, d.model]")
    read(tmp_path, project, with_key(NATIVE, "ARCHITECTURE", "max_ell: 2"))


def test_native_inference_names_the_extra_and_the_device(tmp_path, installed):
    read(tmp_path, mace=NATIVE)
    on_gpu = with_key(NATIVE, "MISC", "device: cuda")
    assert "it runs on cpu only, and MISC.device is cuda" in errors(tmp_path, mace=on_gpu)[0]
    for package in ("symmetrix", "orjson"):
        installed.remove(package)
        assert "pip install 'aims-pax[fast]'" in errors(tmp_path, mace=NATIVE)[0]
        installed.append(package)


def test_cuequivariance_needs_a_gpu_its_packages_and_a_model_that_can_be_converted(tmp_path, installed):
    assert "MISC.enable_cueq: cannot be used: it needs a GPU" in errors(tmp_path, mace=CUEQ)[0]
    on_gpu = with_key(CUEQ, "MISC", "device: cuda")
    assert read(tmp_path, mace=on_gpu).mace.misc.enable_cueq
    for key, text in [
        ("correlation: 1", "correlation 2 and 3, not 1"),
        ("model: MACE", "only models of the kind ScaleShiftMACE"),
    ]:
        assert text in errors(tmp_path, mace=with_key(on_gpu, "ARCHITECTURE", key))[0]
    installed.remove("cuequivariance_ops_torch")
    said = errors(tmp_path, mace=on_gpu)
    assert len(said) == 1
    assert "cuequivariance-ops-torch not installed (pip install 'aims-pax[cueq]')" in said[0]


@pytest.mark.parametrize(
    ("keys", "fits"),
    [({}, True), ({"correlation": 1}, True), ({"max_L": 2}, True), ({"max_ell": 2, "max_L": 1}, False),
     ({"gate": "abs"}, False), ({"num_interactions": 1}, False), ({"radial_type": "chebyshev"}, False),
     ({"interaction_first": "RealAgnosticDensityInteractionBlock"}, True),
     ({"interaction": "RealAgnosticAttResidualInteractionBlock"}, False)],
)  # fmt: skip
def test_the_keys_say_the_same_as_the_model(keys, fits):
    from aims_pax.models.mace.build import build_model
    from aims_pax.models.mace.native_support import unsupported_reason
    from tests.models.mace.tiny import settings

    chosen = settings(**({"max_ell": 3, "num_channels": 4, "correlation": 2} | keys))
    assert (inference_support.architecture_objection(chosen.architecture) is None) is fits
    assert (unsupported_reason(build_model(chosen, (1, 6), 0)) is None) is fits


def test_the_default_architecture_fits():
    assert inference_support.architecture_objection(ArchitectureSettings()) is None


def test_asking_does_not_import_torch(tmp_path):
    write(tmp_path, mace=with_key(NATIVE, "ARCHITECTURE", "max_ell: 2"))
    code = (
        "import sys\nfrom aims_pax.settings import read_settings\n"
        f"try: read_settings({str(tmp_path)!r})\nexcept Exception as e: print(e)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert "native cannot be" in done.stdout
    assert done.stdout.endswith("False\n")
