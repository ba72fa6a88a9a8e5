"""The last part of `aims-PAX check`: one label of a cheap reference, the programs and the device, and the verdict."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aims_pax.errors import LabelError, SettingsError
from aims_pax.labelling.calculator import CalculatorReference
from aims_pax.report.words import counted
from aims_pax.systems import System, read_systems

if TYPE_CHECKING:
    from aims_pax.settings import Settings

SMALL = 30  # atoms up to which a quick calculator is tried unasked: milliseconds
SHELL = set(";&|$<>`")  # a launch command that the shell has to read is not looked into


@dataclass(frozen=True)
class Verdict:
    """What `check` says at its end."""

    text: str
    warnings: tuple[str, ...] = ()


def verdict(settings: Settings, wanted: bool = False) -> Verdict:
    """Try what can be tried in no time, or with `wanted` all that can be tried here.

    Raises SettingsError when the reference cannot label the smallest geometry, or the device is not there.
    """
    written = settings.misc.path_to_geometry
    paths = [settings.path(p) for p in ([written] if isinstance(written, str) else written)]
    smallest = min(read_systems(paths if len(paths) > 1 else paths[0]), key=lambda s: len(s.frame))
    said, warnings = [], [*_programs(settings), *_device(settings, wanted)]
    calculators = _calculators(settings)
    for place, reference in calculators.items():
        if wanted or (reference.quick and len(smallest.frame) <= SMALL):
            said.append(f"{place} labelled {smallest.name} in {_label(place, reference, smallest):.2g} s")
    if settings.reference.type == "aims":
        said.append("FHI-aims was not started")
    elif "REFERENCE" not in " ".join(said):
        said.append("the reference was not tried (aims-PAX check --try lets it label one structure)")
    n = len(settings.warnings) + len(warnings)
    head = (
        "everything is in order"
        if n == 0
        else f"nothing stands in the way of a run, {counted(n, 'warning')} above"
    )
    return Verdict("; ".join([head, *said]), tuple(warnings))


def _calculators(settings: Settings) -> dict[str, CalculatorReference]:
    """The reference and the potential of the first structures, where they are calculators, by their section."""
    found, scratch = {}, settings.path(settings.misc.log_dir) / "check"
    reference, initial = settings.reference, settings.initial_dataset
    if reference.type == "calculator" and reference.factory is not None:
        found["REFERENCE"] = (reference.factory, reference.kwargs)
    if initial is not None and initial.initial_sampling == "calculator" and not settings.samplers:
        own = initial.initial_calculator
        if own is not None:
            found["INITIAL_DATASET_GENERATION.initial_calculator"] = (own.factory, own.kwargs)
    return {
        place: CalculatorReference(factory, dict(kwargs), settings.folder, scratch)
        for place, (factory, kwargs) in found.items()
    }


def _label(place: str, reference: CalculatorReference, system: System) -> float:
    """Label one structure; returns how many seconds that took. Raises SettingsError when it fails."""
    began = time.monotonic()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            reference.label(system.frame)
    except LabelError as error:
        raise SettingsError(
            f"{place}: {reference.factory} cannot label {system.name} ({system.frame.formula}): {error.reason}"
        ) from error
    return time.monotonic() - began


def _programs(settings: Settings) -> Sequence[str]:
    """What CLUSTER.launch_str starts and this machine does not have; a node of a cluster may have it."""
    launch = settings.cluster.launch_str
    if (
        settings.reference.type != "aims"
        or settings.cluster.type == "slurm"
        or launch is None
        or SHELL & set(launch)
    ):
        return ()
    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise SettingsError(f"CLUSTER.launch_str: {launch!r}: {error}") from error
    programs = [w for k, w in enumerate(words) if k == 0 or "/" in w or w.endswith(".x")]
    missing = [w for w in programs if "=" not in w and shutil.which(os.path.expanduser(w)) is None]
    return [f"CLUSTER.launch_str: {w} is not there or cannot be executed on this machine" for w in missing]


def _device(settings: Settings, wanted: bool) -> Sequence[str]:
    """Whether the GPU the settings name is there: by its device files, or by torch when that is wanted."""
    device = settings.mace.misc.device
    if not device.startswith("cuda"):
        return ()
    if wanted:
        import torch

        if not torch.cuda.is_available():
            raise SettingsError(
                f"mace.yaml: MISC.device: {device}, but torch finds no GPU here; write device: cpu"
            )
        return ()
    if Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or Path("/dev/dxg").exists():
        return ()
    return [
        f"mace.yaml: MISC.device: {device}, but this machine shows no GPU; the run has to be started where one is"
    ]
