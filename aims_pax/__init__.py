"""aims-PAX: machine-learned force fields by parallel active learning.

The names below are the public Python interface; everything else may change. They are loaded when first used, so
`import aims_pax` is fast. Units are eV, Å, eV/Å, eV/Å³, fs and K throughout.

A structure is an immutable `Frame`. Its `id` is a hash of its content:

>>> from aims_pax import Frame
>>> water = Frame([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
>>> water.formula, len(water), len(water.id)
('H2O', 3, 20)

A `System` is a starting structure with the name that logs and datasets use; `read_systems` reads systems from files
in the same way as `MISC.path_to_geometry`:

>>> import tempfile
>>> from pathlib import Path
>>> from aims_pax import System, read_systems
>>> folder = tempfile.TemporaryDirectory()
>>> here = Path(folder.name)
>>> water.to_atoms().write(here / "water.xyz")
>>> read_systems(here / "water.xyz") == (System("water", water),)
True

A `Potential` computes a `Label` for each frame: energy, forces, and stress if available. `CalculatorPotential`
makes a potential from any ASE calculator:

>>> from ase.calculators.emt import EMT
>>> from aims_pax import CalculatorPotential, Label, Potential
>>> emt = CalculatorPotential(EMT)
>>> (label,) = emt.labels([water])
>>> isinstance(emt, Potential), isinstance(label, Label), label.forces.shape
(True, True, (3, 3))

A `LabelledFrame` is a frame with its label and its origin; a `Dataset` holds them in training, validation and test
sets for each member of the ensemble. Files are extended XYZ:

>>> from aims_pax import Dataset, LabelledFrame, read_extxyz, write_extxyz
>>> one = LabelledFrame(water, label, {"source": "example"})
>>> data = Dataset()
>>> data.add(one, "train", member=0)  # True if it was new
True
>>> [labelled.id == water.id for labelled in data.train(0)], data.train(1)
([True], [])
>>> write_extxyz(here / "train.xyz", data.union("train"))
>>> [labelled.label.energy == label.energy for labelled in read_extxyz(here / "train.xyz")]
[True]

A `Sampler` makes new structures of systems, each a `Sample` (all samplers are in `aims_pax.samplers`):

>>> import numpy as np
>>> from aims_pax import Sample, Sampler
>>> from aims_pax.samplers import RattleTreeSampler
>>> cu4 = System("cu4", Frame([29] * 4, [[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [1.2, 0.7, 2.0]]))
>>> trees = RattleTreeSampler(emt, temperature=500, sigma_range=(0.05, 0.2))
>>> samples = list(trees.sample([cu4], 2, np.random.default_rng(1)))
>>> isinstance(trees, Sampler), [isinstance(s, Sample) for s in samples]
(True, [True, True])

`register_sampler` adds your own sampler to the kinds that `SAMPLERS` can name: its keys are the fields of a
`SamplerSettings`, and `SamplingCost` is its cost estimate for `aims-PAX plan` (docs/extending.md):

>>> from aims_pax import SamplerSettings, SamplingCost, register_sampler
>>> from aims_pax.samplers import sampler
>>> @register_sampler("hot_trees")
... class HotTreesSettings(SamplerSettings):
...     def make(self, context):
...         return RattleTreeSampler(context.potential(), self.label, temperature=5000)
...     def cost(self, demand):
...         return SamplingCost(evaluations={"hot_trees_at_least": demand.made})
>>> sampler("hot_trees", emt).rattling.temperature
5000

`calculator` makes an ASE calculator from model files or from the folder of a run, with the fast inference of a run and
the spread of the committee (docs/python.md):

>>> from aims_pax import SettingsError, calculator
>>> try:
...     calculator(here)
... except SettingsError as error:
...     print(str(error).partition(": ")[2].partition(" (")[0])
no models of a run in it

`read_settings` reads aimsPAX.yaml and mace.yaml of a folder; `run` does the same as the command `aims-PAX`. Errors are
subclasses of `AimsPaxError`: `SettingsError` for mistakes in input files, `SetupError` if the machine lacks something
(`Busy`: another run uses the folder), `RestartError` for a folder that cannot be continued, `LabelError` if the
reference fails for one frame. `RunInterrupted` is raised after a signal, when everything is saved:

>>> from aims_pax import AimsPaxError, Busy, LabelError, RestartError, RunInterrupted, SettingsError, SetupError
>>> from aims_pax import read_settings, run
>>> for start in (read_settings, run):
...     try:
...         start(here)
...     except SettingsError as error:
...         print(str(error).partition(" ")[0], "and so on")
aimsPAX.yaml: and so on
aimsPAX.yaml: and so on
>>> [issubclass(kind, AimsPaxError) for kind in (SettingsError, SetupError, RestartError, LabelError)]
[True, True, True, True]
>>> issubclass(Busy, SetupError), issubclass(RunInterrupted, Exception)
(True, False)
>>> folder.cleanup()
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from aims_pax.dataset import Dataset, read_extxyz, write_extxyz
    from aims_pax.errors import (
        AimsPaxError,
        Busy,
        LabelError,
        RestartError,
        RunInterrupted,
        SettingsError,
        SetupError,
    )
    from aims_pax.frames import Frame, Label, LabelledFrame
    from aims_pax.models.calculator import calculator
    from aims_pax.potential import CalculatorPotential, Potential
    from aims_pax.sampler import Sample, Sampler
    from aims_pax.settings import Settings, read_settings
    from aims_pax.settings.samplers import SamplerSettings, SamplingCost, register_sampler
    from aims_pax.systems import System, read_systems

__all__ = [
    "AimsPaxError",
    "Busy",
    "CalculatorPotential",
    "Dataset",
    "Frame",
    "Label",
    "LabelError",
    "LabelledFrame",
    "Potential",
    "RestartError",
    "RunInterrupted",
    "Sample",
    "Sampler",
    "SamplerSettings",
    "SamplingCost",
    "SettingsError",
    "SetupError",
    "System",
    "__version__",
    "calculator",
    "read_extxyz",
    "read_settings",
    "read_systems",
    "register_sampler",
    "run",
    "write_extxyz",
]

_HOMES = {  # module → the names that are loaded from it when they are first used
    "dataset": ("Dataset", "read_extxyz", "write_extxyz"),
    "errors": (
        *("AimsPaxError", "Busy", "LabelError", "RestartError"),
        *("RunInterrupted", "SettingsError", "SetupError"),
    ),
    "frames": ("Frame", "Label", "LabelledFrame"),
    "models.calculator": ("calculator",),
    "potential": ("CalculatorPotential", "Potential"),
    "sampler": ("Sample", "Sampler"),
    "settings": ("read_settings",),
    "settings.samplers": ("SamplerSettings", "SamplingCost", "register_sampler"),
    "systems": ("System", "read_systems"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def run(
    folder: Path | str = ".", *, project: Path | str = "aimsPAX.yaml", mace: Path | str = "mace.yaml"
) -> Path:
    """Start or continue the run in a folder, like the command `aims-PAX`.

    project, mace: the settings files, relative to the folder. The working directory is the folder until the run ends;
    log and live view go to standard output. Call it from the main thread, which receives the signals.

    Returns the folder `results/`. Raises AimsPaxError for errors that the command would report, and RunInterrupted
    if the run was stopped; then call it again to continue.
    """
    from contextlib import chdir

    from aims_pax.cli.run_command import run_command

    def command(settings: Settings, console: Console) -> None:
        from aims_pax.commands.run import run_all

        run_all(settings, console)

    folder = Path(folder).absolute()
    if not folder.is_dir():
        from aims_pax.errors import SettingsError

        raise SettingsError(f"{folder}: no such folder")
    with chdir(folder):
        run_command(command, Path(mace), Path(project))
    return folder / "results"
