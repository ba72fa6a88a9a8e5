"""Writes models for other programs, and evaluates the written files for comparison.

ase          MACE's .model file, for mace.calculators.MACECalculator
torchscript  the model compiled, for torch.jit.load in C++ or Python
lammps       MACE's libtorch file for `pair_style mace`, double precision as MACE's own converter makes it
mliap        LAMMPS' ML-IAP, by MACE's converter, which needs cuequivariance
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols

from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Frame, Label
from aims_pax.models.kinds import ExportedModel
from aims_pax.models.mace.build import DTYPES, doubled, elements_of, load_model, read_model
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.mace_import import MaceModel, default_dtype, quiet
from aims_pax.models.mace.precision import dtype_of, is_too_coarse, resolution
from aims_pax.record.files import replacing
from aims_pax.record.log import only_errors

USE = {
    "ase": """\
    from mace.calculators import MACECalculator
    atoms.calc = MACECalculator(model_paths="{path}", device="cpu", default_dtype="{dtype}")
or, faster and without exporting:
    atoms.calc = aims_pax.calculator("{source}")""",
    "torchscript": """\
    model = torch.jit.load("{path}")    # model(inputs of mace.data, compute_force=True)""",
    "lammps": """\
    pair_style mace no_domain_decomposition
    pair_coeff * * {quoted} {elements}""",
    "mliap": """\
    pair_style mliap unified {quoted} 0
    pair_coeff * * {elements}""",
}


def exported(source: Path, form: str, target: Path, frames: Sequence[Frame]) -> ExportedModel:
    """Write a model file in one of the formats. frames: for the comparison. Raises SetupError, OSError."""
    model, elements = load_model(source)
    model, too_coarse = precise_model(model, frames)
    write_model(model, form, target)
    symbols = " ".join(chemical_symbols[z] for z in elements)
    return ExportedModel(
        lambda: (model_labels(model, frames), exported_labels(form, target, frames)),
        USE[form].format(
            path=target, quoted=_quoted(target), source=source, dtype=dtype_of(model), elements=symbols
        ),
        too_coarse,
    )


def _quoted(path: Path) -> str:
    """The path as one word of LAMMPS, which splits at spaces, begins comments at # and variables at $."""
    text = str(path)
    if not set(text) & set(" \t#$&\"'"):
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"


def write_model(model: MaceModel, form: str, path: Path) -> None:
    """Write a model in one of the formats, atomically. Raises SetupError when MACE's converter fails, OSError."""
    with replacing(path) as part, _hushed(), default_dtype(next(model.parameters()).dtype):
        _WRITERS[form](copy.deepcopy(model), part)


def model_labels(model: MaceModel, frames: Sequence[Frame]) -> list[Label]:
    """Predictions of the model itself, in double precision, with its stored atomic energies."""
    stored = copy.deepcopy(model).double().eval()
    stored.atomic_energies_fn.exact = None
    return Committee([stored]).labels(frames)


def precise_model(model: MaceModel, frames: Sequence[Frame]) -> tuple[MaceModel, str]:
    """(model in double precision, reason for the user) if its energies require it; else (model, "")."""
    if dtype_of(model) == "float64":
        return model, ""
    largest = max(abs(label.energy) for label in model_labels(model, frames))
    if is_too_coarse([largest]):
        return doubled(model), (
            f"in double precision: energies reach {largest:,.0f} eV, which single precision resolves only to "
            f"{resolution(largest):.2g} eV; use it with float64"
        )
    return model, ""


def exported_labels(form: str, path: Path, frames: Sequence[Frame]) -> list[Label]:
    """Predictions of an exported file, loaded again, in double precision; no stress from files for LAMMPS."""
    with _hushed(), default_dtype(torch.float64):
        answer = _READERS[form](path)
        return [answer(frame) for frame in frames]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Suppress warnings and root logger messages of MACE's tools; errors are still raised as exceptions."""
    with quiet(), warnings.catch_warnings(), only_errors(""):
        warnings.simplefilter("ignore", UserWarning)
        yield


# ---------------------------------------------------------------- writing


def _write_ase(model: MaceModel, path: Path) -> None:
    torch.save(model, path)


def _write_torchscript(model: MaceModel, path: Path) -> None:
    from e3nn.util import jit

    jit.compile(model).save(str(path))


def _write_lammps(model: MaceModel, path: Path) -> None:
    from e3nn.util import jit
    from mace.calculators import LAMMPS_MACE

    with default_dtype(torch.float64):
        jit.compile(LAMMPS_MACE(model.double())).save(str(path))


def _write_mliap(model: MaceModel, path: Path) -> None:
    try:
        from mace.calculators.lammps_mliap_mace import LAMMPS_MLIAP_MACE
        from mace.cli.convert_e3nn_cueq import run

        with default_dtype(torch.float64):
            converted = run(model.double())
            converted.lammps_mliap = True
            torch.save(LAMMPS_MLIAP_MACE(converted), path)
    except OSError:
        raise
    except Exception as error:  # the converter raises many kinds of exception
        said = str(error).strip().splitlines()
        raise SetupError(
            f"MACE's ML-IAP converter cannot convert this model ({type(error).__name__}: {said[0] if said else ''}); "
            "it needs the package cuequivariance-torch; --format lammps works without it"
        ) from error


_WRITERS: dict[str, Callable[[MaceModel, Path], None]] = {
    "ase": _write_ase, "torchscript": _write_torchscript, "lammps": _write_lammps, "mliap": _write_mliap,
}  # fmt: skip


# ---------------------------------------------------------------- reading


def _read_ase(path: Path) -> Callable[[Frame], Label]:
    from mace.calculators import MACECalculator

    from aims_pax.potential import calculate

    calculator = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float64")
    return lambda frame: calculate(frame, calculator)


def _read_torchscript(path: Path) -> Callable[[Frame], Label]:
    model = torch.jit.load(str(path), map_location="cpu").double()
    elements = [int(z) for z in model.atomic_numbers]

    def answer(frame: Frame) -> Label:
        data = inputs(frame, elements, float(model.r_max))
        out = model(data, training=False, compute_force=True, compute_stress=frame.periodic)
        stress = out["stress"].detach().numpy() if frame.periodic else None
        return Label(float(out["energy"].detach()), out["forces"].detach().numpy(), stress)

    return answer


def _read_lammps(path: Path) -> Callable[[Frame], Label]:
    model = torch.jit.load(str(path), map_location="cpu")
    elements = [int(z) for z in model.atomic_numbers]

    def answer(frame: Frame) -> Label:
        data = inputs(frame, elements, float(model.r_max))
        out = model(data, torch.ones(len(frame), dtype=torch.float64), False)
        return Label(float(out["total_energy_local"].detach()), out["forces"].detach().numpy())

    return answer


def _read_mliap(path: Path) -> Callable[[Frame], Label]:
    return mliap_answer(torch.load(path, map_location="cpu", weights_only=False))


def mliap_answer(wrapped: Any) -> Callable[[Frame], Label]:
    """Predictions of an ML-IAP object: energies of atoms and forces of pairs, summed as in LAMMPS."""
    elements = [int(z) for z in wrapped.model.atomic_numbers]

    def answer(frame: Frame) -> Label:
        data = inputs(frame, elements, float(wrapped.model.r_max))
        sender, receiver = data["edge_index"]
        vectors = data["positions"][receiver] - data["positions"][sender] + data["shifts"]
        vectors = vectors.detach().requires_grad_(True)
        n = len(frame)
        energy, _, pairs = wrapped.model(
            {
                "vectors": vectors, "node_attrs": data["node_attrs"], "edge_index": data["edge_index"],
                "batch": data["batch"], "lammps_class": None, "natoms": (n, 0),
            }
        )  # fmt: skip
        forces = torch.zeros((n, 3), dtype=torch.float64)
        forces.index_add_(0, sender, pairs.detach())
        forces.index_add_(0, receiver, -pairs.detach())
        return Label(float(energy.detach()), forces.numpy())

    return answer


_READERS: dict[str, Callable[[Path], Callable[[Frame], Label]]] = {
    "ase": _read_ase, "torchscript": _read_torchscript, "lammps": _read_lammps, "mliap": _read_mliap,
}  # fmt: skip


def inputs(frame: Frame, elements: Sequence[int], r_max: float) -> dict[str, torch.Tensor]:
    """Inputs of MACE's forward for one structure, with ASE's neighbour list, independent of our own code."""
    from ase.neighborlist import neighbor_list

    i, j, S = neighbor_list("ijS", frame.to_atoms(), r_max)
    cell = frame.cell if frame.cell.any() else np.eye(3) * 1e3
    species = torch.tensor([list(elements).index(int(z)) for z in frame.numbers])
    n = len(frame)
    return {
        "node_attrs": torch.nn.functional.one_hot(species, len(elements)).double(),
        "positions": torch.tensor(frame.positions, requires_grad=True),
        "edge_index": torch.tensor(np.stack([i, j])),
        "shifts": torch.tensor(S @ frame.cell),
        "unit_shifts": torch.tensor(S.astype(float)),
        "cell": torch.tensor(cell),
        "batch": torch.zeros(n, dtype=torch.int64),
        "ptr": torch.tensor([0, n]),
        "head": torch.zeros(1, dtype=torch.int64),
    }


def committee_of_files(paths: Sequence[Path], device: str, dtype: str) -> Committee:
    """Several model files as one potential. Raises SettingsError when their elements or r_max differ."""
    models = [read_model(path, device, DTYPES[dtype]).eval().requires_grad_(False) for path in paths]
    kinds = {(elements_of(m), round(float(m.r_max), 6)) for m in models}
    if len(kinds) > 1:
        raise SettingsError(
            f"the models differ in elements or r_max, so they cannot form a committee: {sorted(kinds)}"
        )
    return Committee(models, device)
