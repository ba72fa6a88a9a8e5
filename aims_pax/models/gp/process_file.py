"""A fitted Gaussian process as arrays and JSON, without pickle: its file, and its state in snapshots.

The file is that of `record.arrays`: a checksum, a JSON header with the format and all plain values, the raw arrays.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.models.gp.coordinate_process import CoordinateProcess
from aims_pax.models.gp.dense_process import DenseProcess, DenseShape
from aims_pax.models.gp.leave_one_out import LeaveOneOutErrors, VarianceScale
from aims_pax.models.gp.linear_evidence import LinearSolution
from aims_pax.models.gp.process import GaussianProcess
from aims_pax.models.gp.soap import SoapDescriptor
from aims_pax.models.gp.soap_points import SoapPoints
from aims_pax.models.gp.sparse_basis import SparseBasis
from aims_pax.models.gp.sparse_process import SparseProcess
from aims_pax.potential import Potential
from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.record.files import write_bytes

log = logging.getLogger(__name__)

PROCESS_FORMAT = 2  # 1: without processes on coordinates
PROCESS_SUFFIX = ".gp"
COORDINATES = "coordinates"  # the kind of a CoordinateProcess
SAME_ENERGY, SAME_FORCE, SAME_SHARE = 1e-4, 1e-3, 1e-6  # eV, eV/Å, share of |E|: larger is another baseline
_SAMPLE = "baseline/"  # names of the arrays of its label
_SOLUTION = ("weights", "constants", "half", "offsets", "counts_inverse")
_NUMBERS = ("noise", "ratio", "amplitude", "evidence")
_DENSE = ("numbers", "x", "slopes", "lower", "alpha")
_ERRORS = ("energies", "forces", "energy_variances", "force_variances")

NamedArrays = dict[str, NDArray[Any]]
AnyProcess = GaussianProcess | CoordinateProcess


def save_process(process: AnyProcess, path: Path) -> None:
    """Write atomically. Raises SetupError naming the file."""
    arrays, meta = process_content(process)
    write_bytes(path, pack_arrays(arrays, meta))


def load_process(path: Path, baseline: Potential | None = None) -> GaussianProcess:
    """Read the file of a process that does not depend on the order of atoms, as members of a run must not.

    baseline: the one that it was trained with. Raises SettingsError for another file, a newer format, and a missing or
    another baseline.
    """
    process = load_any_process(path, baseline)
    if isinstance(process, CoordinateProcess):
        raise SettingsError(
            f"{path}: a process on coordinates (Descriptor cart, or soap_centers) predicts only its own atoms in their "
            "order and has no stress; GPRCalculator reads it, everything else needs Descriptor auto"
        )
    return process


def load_any_process(path: Path, baseline: Potential | None = None) -> AnyProcess:
    """Read a file of `save_process`; see `load_process`."""
    try:
        arrays, meta = unpack_arrays(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from error
    except Torn as error:
        raise SettingsError(f"{path}: not a complete file of a Gaussian process: {error}") from error
    if "process_format" not in meta:
        raise SettingsError(f"{path}: not the file of a Gaussian process")
    if meta["process_format"] > PROCESS_FORMAT:
        raise SettingsError(
            f"{path}: format {meta['process_format']} was written by a newer aims-PAX; this one reads up to "
            f"{PROCESS_FORMAT}"
        )
    if meta["baseline"] and baseline is None:
        raise SettingsError(f"{path}: was trained with the baseline {meta['baseline']}; give it too")
    if baseline is not None and not meta["baseline"]:
        raise SettingsError(f"{path}: was trained without a baseline; give none")
    if meta.get("kind") == COORDINATES:
        return _coordinate(arrays, meta)
    process = process_from_content(arrays, meta, baseline)
    _refuse_other_baseline(path, process)
    return process


def _refuse_other_baseline(path: Path, process: GaussianProcess) -> None:
    """Raises SettingsError when the baseline has another label of the stored structure than it had in training."""
    if process.baseline is None:
        return
    sample = process.baseline_sample
    if sample is None:
        log.warning(
            "%s: of an earlier version, without a label of its baseline %s: whether this is the same one is not known",
            path, process.baseline_name,
        )  # fmt: skip
        return
    (said,) = process.baseline.labels([sample.frame])
    energy = abs(said.energy - sample.label.energy)
    force = float(np.abs(said.forces - sample.label.forces).max())
    allowed = SAME_ENERGY + SAME_SHARE * abs(sample.label.energy)
    if not (energy <= allowed and force <= SAME_FORCE):  # NaN differs, too
        raise SettingsError(
            f"{path}: was trained with another baseline, {process.baseline_name}: for the training structure "
            f"{sample.frame.formula} this one differs by {energy:.3g} eV and {force:.3g} eV/Å; give the same one"
        )


def process_hash(process: AnyProcess) -> str:
    """Twelve hex digits of the SHA-256 of all that predictions depend on."""
    arrays, meta = process_content(process)
    return hashlib.sha256(pack_arrays(arrays, meta)).hexdigest()[:12]


def process_content(process: AnyProcess) -> tuple[NamedArrays, dict[str, Any]]:
    """(arrays, plain values) of everything but the baseline potential."""
    if isinstance(process, CoordinateProcess):
        return _coordinate_content(process)
    arrays: NamedArrays = {f"errors/{name}": getattr(process.errors, name) for name in _ERRORS}
    meta: dict[str, Any] = {
        "process_format": 1,
        "frames": process.frames,
        "baseline": process.baseline_name,
        "shared": None,
        "molecules": [],
    }
    if process.shared is not None:
        arrays |= _sparse_arrays(process.shared)
        meta["shared"] = _sparse_meta(process.shared)
    for k, (atoms, dense) in enumerate(process.molecules.items()):
        arrays |= {f"molecule{k}/{name}": getattr(dense, name) for name in _DENSE}
        meta["molecules"].append({"atoms": list(atoms), **_dense_meta(dense)})
    if process.baseline_sample is not None:
        arrays |= _sample_arrays(process.baseline_sample)
    return arrays, meta


def _sample_arrays(sample: LabelledFrame) -> NamedArrays:
    frame = {f"{_SAMPLE}frame/{name}": a for name, a in sample.frame.arrays().items()}
    label = {"energy": np.array(sample.label.energy), "forces": sample.label.forces}
    return frame | {f"{_SAMPLE}{name}": a for name, a in label.items()}


def _sample(arrays: Mapping[str, NDArray[Any]]) -> LabelledFrame | None:
    """The label of the baseline, or None in files of earlier versions."""
    if f"{_SAMPLE}energy" not in arrays:
        return None
    place = f"{_SAMPLE}frame/"
    frame = {name.removeprefix(place): a for name, a in arrays.items() if name.startswith(place)}
    label = Label(float(arrays[f"{_SAMPLE}energy"]), np.array(arrays[f"{_SAMPLE}forces"]))
    return LabelledFrame(Frame.from_arrays(frame), label)


def process_from_content(
    arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], baseline: Potential | None = None
) -> GaussianProcess:
    """The inverse of `process_content`."""
    shared = None if meta["shared"] is None else _sparse(arrays, meta["shared"])
    molecules = {tuple(m["atoms"]): _dense(arrays, k, m) for k, m in enumerate(meta["molecules"])}
    errors = LeaveOneOutErrors(*(np.array(arrays[f"errors/{name}"]) for name in _ERRORS))
    return GaussianProcess(
        shared, molecules, errors, int(meta["frames"]), baseline, str(meta["baseline"]), _sample(arrays)
    )


def _coordinate_content(process: CoordinateProcess) -> tuple[NamedArrays, dict[str, Any]]:
    arrays: NamedArrays = {f"errors/{name}": getattr(process.errors, name) for name in _ERRORS}
    groups = []
    for k, (atoms, dense) in enumerate(process.groups.items()):
        arrays |= {f"molecule{k}/{name}": getattr(dense, name) for name in _DENSE}
        points = dense.shape.points
        if points is not None:
            arrays[f"molecule{k}/centres"] = np.array(points.centres)
        spectrum = None if points is None else _descriptor_meta(points.descriptor)
        groups.append({"unit": process.units[atoms], "spectrum": spectrum, **_dense_meta(dense)})
    meta = {"process_format": PROCESS_FORMAT, "kind": COORDINATES, "frames": process.frames, "groups": groups}
    return arrays, meta | {"baseline": ""}


def _coordinate(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> CoordinateProcess:
    groups, units = {}, {}
    for k, one in enumerate(meta["groups"]):
        dense = _dense(arrays, k, one)
        if one["spectrum"] is not None:
            centres = tuple((float(x), float(y), float(z)) for x, y, z in arrays[f"molecule{k}/centres"])
            points = SoapPoints(_descriptor(one["spectrum"]), centres)
            dense = replace(dense, shape=replace(dense.shape, points=points))
        atoms = tuple(int(z) for z in dense.numbers)
        groups[atoms], units[atoms] = dense, float(one["unit"])
    errors = LeaveOneOutErrors(*(np.array(arrays[f"errors/{name}"]) for name in _ERRORS))
    return CoordinateProcess(groups, units, errors, int(meta["frames"]))


def _descriptor_meta(d: SoapDescriptor) -> dict[str, Any]:
    return {"elements": list(d.elements), "cutoff": d.cutoff, "n": d.n, "l": d.l, "width": d.width}


def _descriptor(d: Mapping[str, Any]) -> SoapDescriptor:
    return SoapDescriptor(tuple(d["elements"]), d["cutoff"], d["n"], d["l"], d["width"])


def _sparse_arrays(process: SparseProcess) -> NamedArrays:
    arrays: NamedArrays = {f"shared/{name}": getattr(process.solution, name) for name in _SOLUTION}
    return arrays | {f"shared/inducing/{z}": u for z, u in process.basis.inducing.items()}


def _sparse_meta(process: SparseProcess) -> dict[str, Any]:
    return {
        "descriptor": _descriptor_meta(process.basis.descriptor),
        "zeta": process.basis.zeta,
        "inducing": list(process.basis.inducing),
        **{name: getattr(process.solution, name) for name in _NUMBERS},
        **_scales(process),
    }


def _sparse(arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> SparseProcess:
    inducing = {z: np.array(arrays[f"shared/inducing/{z}"]) for z in meta["inducing"]}
    basis = SparseBasis(_descriptor(meta["descriptor"]), meta["zeta"], inducing)
    values: dict[str, Any] = {name: np.array(arrays[f"shared/{name}"]) for name in _SOLUTION}
    solution = LinearSolution(**values, **{name: meta[name] for name in _NUMBERS})
    return SparseProcess(basis, solution, *_scale_pair(meta))


def _dense_meta(process: DenseProcess) -> dict[str, Any]:
    shape = process.shape
    return {
        "shape": [shape.power, shape.scale, shape.noise, shape.energy_noise, shape.internal],
        "amplitude": process.amplitude,
        "mean": process.mean,
        "evidence": process.evidence,
        **_scales(process),
    }


def _dense(arrays: Mapping[str, NDArray[Any]], k: int, meta: Mapping[str, Any]) -> DenseProcess:
    numbers, x, slopes, lower, alpha = (np.array(arrays[f"molecule{k}/{name}"]) for name in _DENSE)
    return DenseProcess(
        numbers, DenseShape(*meta["shape"]), x, slopes, lower, alpha, meta["amplitude"], meta["mean"],
        meta["evidence"], *_scale_pair(meta),
    )  # fmt: skip


def _scales(process: SparseProcess | DenseProcess) -> dict[str, Any]:
    return {
        "energy_scale": [process.energy_scale.scale, process.energy_scale.near],
        "force_scale": [process.force_scale.scale, process.force_scale.near],
    }


def _scale_pair(meta: Mapping[str, Any]) -> tuple[VarianceScale, VarianceScale]:
    return VarianceScale(*meta["energy_scale"]), VarianceScale(*meta["force_scale"])
