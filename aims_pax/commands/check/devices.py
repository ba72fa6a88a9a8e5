"""Checks with torch whether the devices in the settings exist."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aims_pax.errors import SettingsError
from aims_pax.settings.devices import missing

if TYPE_CHECKING:
    from aims_pax.settings import Settings


def named_devices(settings: Settings) -> list[tuple[str, str]]:
    """(key, device) of all devices in the settings."""
    profile = settings.cluster.training
    found = [("mace.yaml: MISC.device", settings.model.device)]
    if profile is not None and profile.devices is not None:
        found += [("CLUSTER.training.devices", device) for device in profile.devices]
    return found


def check_devices(settings: Settings) -> None:
    """Raises SettingsError for the first device that is missing."""
    for key, device in named_devices(settings):
        check_device(key, device)


def check_device(key: str, device: str) -> None:
    """Raises SettingsError, naming the key, for a device that torch does not find."""
    import torch

    kind = device.partition(":")[0]
    if kind == "cpu":
        return
    known = torch.cuda if kind == "cuda" else torch.xpu
    available = bool(known.is_available())
    why = missing(device, key, available, known.device_count() if available else 0, os.environ)
    if why is not None:
        raise SettingsError(why)
