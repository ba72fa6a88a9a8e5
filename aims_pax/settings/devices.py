"""Names of devices in settings. The number N in cuda:N means the N-th card that the run can see.

CUDA counts the entries of CUDA_VISIBLE_DEVICES from 0 (numbers, or ids of cards and MIG slices), and so does cuda:N.
A process that may see only one card gets that entry of the list, not the number N.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aims_pax.errors import SettingsError
from aims_pax.settings.fields import as_text

LISTS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")  # ROCm reads both


def as_device(value: Any) -> str:
    """cpu, cuda, cuda:N, xpu or xpu:N. Raises ValueError."""
    text = as_text(value).lower()
    if text.partition(":")[0] == "mps":
        raise ValueError(
            "mps cannot be used: dynamics and energies need float64, which it does not support; expected cpu"
        )
    if not re.fullmatch(r"cpu|(cuda|xpu)(:\d+)?", text):
        raise ValueError(f"expected devices like cpu, cuda or cuda:0, got {value!r}")
    return text


def visible(environment: Mapping[str, str], name: str = LISTS[0]) -> list[str] | None:
    """The cards in an environment variable, in order; None if it is not set, so that all cards are visible.

    >>> visible({"CUDA_VISIBLE_DEVICES": "2, GPU-8b6f,-1,0"})
    ['2', 'GPU-8b6f']
    """
    written = environment.get(name)
    if written is None:
        return None
    cards: list[str] = []
    for entry in (part.strip() for part in written.split(",")):
        if not entry or entry.startswith("-"):  # CUDA ends the list at the first invalid entry
            break
        cards.append(entry)
    return cards


def only(
    device: str, environment: Mapping[str, str], key: str = "CLUSTER.training.devices"
) -> dict[str, str]:
    """Environment variables for a process that shall see only this card (as its first card).

    Empty unless the device is a numbered CUDA card. Raises SettingsError if there are fewer cards.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not number:
        return {}
    lists = {name: cards for name in LISTS if (cards := visible(environment, name)) is not None}
    for name, cards in lists.items():
        if int(number) >= len(cards):
            raise SettingsError(
                f"{key}: {device} does not exist: {_seen(name, environment[name], len(cards))}"
            )
    return {name: cards[int(number)] for name, cards in lists.items()} or {LISTS[0]: number}


def _seen(name: str, written: str, n: int) -> str:
    cards = {0: "no card", 1: "one card, cuda:0"}.get(n, f"{n} cards, cuda:0 to cuda:{n - 1}")
    return f"{name}={written} shows {cards}"


def missing(device: str, key: str, available: bool, count: int, environment: Mapping[str, str]) -> str | None:
    """Why a device cannot be used, or None. available, count: reported by torch for this kind of device."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None
    if not available:
        word = "GPU" if kind == "cuda" else kind
        return f"{key}: {device}, but torch finds no {word} here; set device: cpu"
    if number and int(number) >= count:
        name = next((n for n in LISTS if n in environment), None) if kind == "cuda" else None
        seen = _seen(name, environment[name], count) if name else f"torch finds {count} here"
        return f"{key}: {device} does not exist: {seen}"
    return None
