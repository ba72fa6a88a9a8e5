"""Which card a number means, and devices that cannot work."""

from __future__ import annotations

import os

import pytest

from aims_pax.errors import SettingsError
from aims_pax.models.mace.training_workers import Place
from aims_pax.settings.cluster import ClusterSettings
from aims_pax.settings.devices import as_device, missing, only, visible
from tests.models.mace.tiny import settings

MIG = "MIG-1d4e1f4a-7d1f-5f29-a3a1-64f3b0f0c2a5"
GPUS = "GPU-8b6f2b1c-0000-1111-2222-333344445555"


@pytest.mark.parametrize(
    ("inherited", "device", "seen"),
    [
        ("2,3", "cuda:0", "2"),  # what a queue gave this job; 0 and 1 are somebody else's
        ("2,3", "cuda:1", "3"),
        (f"{GPUS},7", "cuda:0", GPUS),
        (MIG, "cuda:0", MIG),
        (" 5 , 6 ", "cuda:1", "6"),
        (None, "cuda:3", "3"),
    ],
)
def test_a_worker_sees_the_card_of_its_place_in_the_inherited_list(monkeypatch, inherited, device, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if inherited is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", inherited)
    assert Place(1, device).environment() == {"CUDA_VISIBLE_DEVICES": seen}
    assert Place(1, device).settled(settings()).misc.device == "cuda"  # the only one it sees


def test_a_list_of_rocm_is_indexed_too():
    environment = {"HIP_VISIBLE_DEVICES": "4,6", "PATH": "/bin"}
    assert only("cuda:1", environment) == {"HIP_VISIBLE_DEVICES": "6"}
    both = environment | {"CUDA_VISIBLE_DEVICES": "1,2"}
    assert only("cuda:0", both) == {"HIP_VISIBLE_DEVICES": "4", "CUDA_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("inherited", "device", "said"),
    [
        ("2,3", "cuda:2", "2 cards, cuda:0 to cuda:1"),
        ("7", "cuda:1", "one card, cuda:0"),
        ("", "cuda:0", "no card"),
        ("0,-1,1", "cuda:1", "one card, cuda:0"),
    ],
)
def test_a_card_beyond_the_list_is_refused_with_what_there_is(inherited, device, said):
    with pytest.raises(SettingsError, match=rf"training\.devices: {device} does not exist.*{said}"):
        only(device, {"CUDA_VISIBLE_DEVICES": inherited})


def test_without_a_number_nothing_changes():
    assert only("cuda", {"CUDA_VISIBLE_DEVICES": "2,3"}) == {}
    assert only("cpu", {"CUDA_VISIBLE_DEVICES": "2,3"}) == {}
    assert visible({}) is None


def test_xpu_keeps_its_number():
    for device in ("xpu:1", "xpu"):
        place = Place(1, device)
        assert place.environment() == {}
        assert place.settled(settings()).misc.device == device


@pytest.mark.parametrize("text", ["mps", "MPS", "mps:0"])
def test_mps_is_refused_because_dynamics_need_float64(text):
    with pytest.raises(ValueError, match="float64"):
        as_device(text)
    with pytest.raises(ValueError, match=r"(?s)training\.devices.*float64"):
        ClusterSettings(type="local", training={"devices": [text]})
    with pytest.raises(ValueError, match=r"(?s)device.*float64"):
        settings(device=text)


def test_one_card_by_two_names_is_refused():
    with pytest.raises(ValueError, match="cuda and cuda:0 are the same card"):
        ClusterSettings(type="local", training={"devices": ["cuda", "cuda:0"]})


@pytest.mark.parametrize(
    ("device", "available", "count", "inherited", "said"),
    [
        ("cpu", False, 0, None, None),
        ("cuda", False, 0, None, "torch finds no GPU here"),
        ("cuda:1", True, 2, "4,5", None),
        ("cuda:2", True, 2, "4,5", "CUDA_VISIBLE_DEVICES=4,5 shows 2 cards, cuda:0 to cuda:1"),
        ("cuda:1", True, 1, None, "torch finds 1 here"),
        ("xpu:3", True, 2, "0", "torch finds 2 here"),
        ("xpu", False, 0, None, "torch finds no xpu here"),
    ],
)
def test_a_device_that_is_not_there_is_named_with_what_is(device, available, count, inherited, said):
    environment = {} if inherited is None else {"CUDA_VISIBLE_DEVICES": inherited}
    found = missing(device, "KEY", available, count, environment)
    assert (found is None) == (said is None)
    if said:
        assert found.startswith(f"KEY: {device}")
        assert said in found


def test_a_worker_process_really_gets_it(monkeypatch):
    from aims_pax.worker_process import WorkerProcess

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"9,{MIG}")
    companion = WorkerProcess("tests.settings.test_devices:Environment", 1, Place(1, "cuda:1").environment())
    try:
        assert companion.ask("CUDA_VISIBLE_DEVICES") == MIG
    finally:
        companion.close()


class Environment:
    """Answers with a variable of its process."""

    def __call__(self, name, stop):
        return os.environ[name]
