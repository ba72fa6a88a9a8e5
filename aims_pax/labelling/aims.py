"""FHI-aims as the reference: write geometry.in and control.in, run the launch command, read aims.out.

    {calc_dir}/{frame_id}/                   one calculation: geometry.in, control.in, aims.out, aims.err
    {calc_dir}/failed/{frame_id}.tar.gz      what is left of a failed one (the last 50)

Every keyword of the user's control.in reaches FHI-aims as it was written; what must change is listed in
`control_for`. The command runs in a session of its own that ends with this process, whatever kills it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from aims_pax.errors import (
    Crashed,
    LabelError,
    NotConverged,
    NotFinite,
    SetupError,
    Truncated,
    WrongShape,
)
from aims_pax.frames import Frame, Label
from aims_pax.labelling.sessions import Running
from aims_pax.labelling.validation import check_label

if TYPE_CHECKING:
    from ase.io.aims import AimsOutCalcChunk

    from aims_pax.settings.control import Control

log = logging.getLogger(__name__)

OUTPUT = "aims.out"
OURS = ".aims_pax.json"  # marks a folder that we made and may remove
KEPT_FAILURES = 50
LARGEST_KEPT = 20_000_000  # bytes; densities and cubes of a failed calculation are not worth the disk
GOODBYE = "Have a nice day."
UNCONVERGED = ("SELF-CONSISTENCY CYCLE DID NOT CONVERGE", "scf_solver: SCF cycle not converged")

# a label is one point: what would move the atoms leaves the input
MOVES = (
    *("relax_geometry", "relax_unit_cell", "MD_run", "MD_schedule", "MD_segment", "MD_MB_init"),
    *("MD_clean_rotations", "MD_restart", "use_pimd_wrapper"),
)
PERIODIC_ONLY = ("k_grid", "k_offset", "k_grid_density", "k_points_external", "compute_analytical_stress",
                 "compute_numerical_stress", "compute_heat_flux", "symmetry_reduced_k_grid")  # fmt: skip


@dataclass(frozen=True)
class AimsReference:
    """FHI-aims with one control.in. species_dir: one `{Z:02d}_{El}_default` file an element.

    launch: the shell command, run inside the calculation's folder. stress: asked for where it exists.
    time_limit: seconds, or None.
    """

    control: Control
    species_dir: Path
    launch: str
    calc_dir: Path
    clean_dirs: bool = True
    stress: bool = False
    time_limit: float | None = None
    quick = True  # a program of its own: threads only wait for it
    _running: Running = field(default_factory=Running, repr=False, compare=False)

    def describe(self) -> dict[str, Any]:
        """control.in, the species files, and whether stress is asked for; not where or how it runs."""
        files = sorted(self.species_dir.glob("*_default"))
        species = hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()
        keywords = [list(k) for k in self.control.keywords]
        return {"type": "aims", "control": keywords, "species": species, "stress": self.stress}

    def check(self) -> None:
        """Raise SetupError when the species folder is missing. Elements are checked with each frame."""
        if not self.species_dir.is_dir():
            raise SetupError(
                f"species_dir: {self.species_dir} is not a folder; give the species defaults of FHI-aims, "
                "like …/species_defaults/defaults_2020/light"
            )
        if not any(self.species_dir.glob("*_default")):
            raise SetupError(f"species_dir: no files like 01_H_default in {self.species_dir}")

    def label(self, frame: Frame) -> Label:
        """Raw forces and free energy. Raises LabelError, with where its files are, or SetupError."""
        control = control_for(self.control, frame, self.stress)
        species = species_text(self.species_dir, frame)
        with self._folder(frame) as folder:
            (folder / "geometry.in").write_text(geometry_text(frame))
            inputs = control.text().rstrip("\n") + "\n\n" + species
            (folder / "control.in").write_text(inputs, encoding="utf-8", errors="surrogateescape")
            redirected = _redirected_to(self.launch)
            output = folder / (redirected or OUTPUT)
            own = folder / ("launch.out" if redirected else OUTPUT)
            code = self._running.run(self.launch, folder, own, folder / "aims.err", self.time_limit)
            text = output.read_text(errors="replace") if output.is_file() else ""
            _check_end(text, code, folder, self.launch)
            label = read_label(text, frame, stress=self.stress and frame.periodic)
            check_label(frame, label)  # here, so that the files of an unusable label are kept
            return label

    def stop(self) -> None:
        """Kill what this process has running."""
        self._running.stop()

    @contextmanager
    def _folder(self, frame: Frame) -> Iterator[Path]:
        """A folder of its own for one calculation; afterwards gone, kept, or packed, as it went."""
        folder = self.calc_dir / frame.id
        for n in range(2, 1000):
            if not folder.exists():
                break
            if (folder / OURS).is_file():  # left by a run that was killed; >> aims.out would append to it
                shutil.rmtree(folder, ignore_errors=True)
                continue
            folder = self.calc_dir / f"{frame.id}-{n}"
        try:
            folder.mkdir(parents=True)
            (folder / OURS).write_text(
                json.dumps({"frame_id": frame.id, "host": socket.gethostname(), "pid": os.getpid()})
            )
            yield folder
        except LabelError as error:
            if self._running.stopping:  # killed with the run: nothing to learn from it
                shutil.rmtree(folder, ignore_errors=True)
            else:
                error.folder = _pack(folder, self.calc_dir / "failed", frame.id)
            raise
        except OSError as error:
            raise SetupError(
                f"CLUSTER.calc_dir: {self.calc_dir}: {error.strerror or error}; "
                "make it writable or free space"
            ) from error
        except BaseException:  # Ctrl-C, or what every calculation lacks
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if self.clean_dirs:
            shutil.rmtree(folder, ignore_errors=True)


def control_for(control: Control, frame: Frame, stress: bool) -> Control:
    """The control.in of one frame: the user's, with what a label and this frame need.

    Relaxation and MD leave; forces are asked for; stress where the frame is periodic; k-points only there.
    The frame's charge overrides `charge`; its multiplicity 2S+1 becomes `fixed_spin_moment` 2S.
    """
    moving = [k for k in MOVES if control.get(k) is not None]
    if moving:
        _once(f"control.in: {', '.join(moving)} ignored: a label is a single point")
    control = control.without(*moving).replaced("compute_forces", ".true.")
    if not frame.pbc.any():
        control = control.without(*PERIODIC_ONLY)
    else:
        _check_periodic(control, frame)
        if stress and frame.periodic and control.get("compute_numerical_stress") is None:
            control = control.replaced("compute_analytical_stress", ".true.")
    if frame.charge is not None:
        told = control.get("charge")
        if told is not None and float(told.split()[0]) != frame.charge:
            _once(f"control.in: charge {told} overridden by the geometry's charge {frame.charge:g}")
        if told is not None or frame.charge != 0:
            control = control.replaced("charge", repr(float(frame.charge)))
    if frame.spin is not None:
        control = _with_spin(control, frame)
    return control


def _with_spin(control: Control, frame: Frame) -> Control:
    """Multiplicity 2S+1 → fixed_spin_moment 2S; a singlet without `spin collinear` needs nothing."""
    assert frame.spin is not None
    unpaired = frame.spin - 1
    polarised = (control.get("spin") or "none").split()[0].lower() == "collinear"
    if not polarised and unpaired == 0:
        return control.without("fixed_spin_moment")
    if not polarised:
        _once("control.in: spin collinear added for geometries with unpaired electrons")
        control = control.replaced("spin", "collinear")
        if frame.moments is None and control.get("default_initial_moment") is None:
            control = control.replaced("default_initial_moment", "hund")  # aims stops without any
    told = control.get("fixed_spin_moment")
    if told is not None and float(told.split()[0]) != unpaired:
        _once(f"control.in: fixed_spin_moment {told} overridden by the geometry's multiplicity {frame.spin}")
    return control.replaced("fixed_spin_moment", repr(float(unpaired)))


def _check_periodic(control: Control, frame: Frame) -> None:
    if abs(np.linalg.det(frame.cell)) < 1e-3:
        raise SetupError(
            "FHI-aims repeats a structure in three directions or none: give a slab or wire three lattice "
            f"vectors, with vacuum ({frame.formula})"
        )
    if all(control.get(k) is None for k in ("k_grid", "k_grid_density", "k_points_external")):
        raise SetupError(f"control.in has no k_grid, but {frame.formula} is periodic: add one")


def geometry_text(frame: Frame) -> str:
    """geometry.in: lattice, atoms to the last digit, constraints, initial charges and moments."""
    from ase.data import chemical_symbols

    lines = [f"# frame {frame.id}"]
    if frame.pbc.any():
        lines += ["lattice_vector " + _vector(v) for v in frame.cell]
    for i, (z, position) in enumerate(zip(frame.numbers, frame.positions, strict=True)):
        lines.append(f"atom {_vector(position)} {chemical_symbols[z]}")
        if frame.fixed is not None and frame.fixed[i].all():
            lines.append("    constrain_relaxation .true.")
        elif frame.fixed is not None:
            lines += [f"    constrain_relaxation {'xyz'[k]}" for k in np.flatnonzero(frame.fixed[i])]
        if frame.charges is not None and frame.charges[i]:
            lines.append(f"    initial_charge {frame.charges[i]:.8f}")
        if frame.moments is not None and frame.moments[i]:
            lines.append(f"    initial_moment {frame.moments[i]:.8f}")
    return "\n".join(lines) + "\n"


def species_text(species_dir: Path, frame: Frame) -> str:
    """The species defaults of every element of a frame. Raises SetupError naming the missing ones."""
    from ase.data import chemical_symbols

    names = [f"{z:02d}_{chemical_symbols[z]}_default" for z in sorted({int(z) for z in frame.numbers})]
    missing = [name for name in names if not (species_dir / name).is_file()]
    if missing:
        raise SetupError(f"species_dir: {', '.join(missing)} missing in {species_dir}")
    return "\n".join((species_dir / name).read_text(errors="replace") for name in names)


def read_label(text: str, frame: Frame, stress: bool) -> Label:
    """The label in a finished aims.out. Raises Truncated, WrongShape or NotFinite."""
    from ase.io.aims import AimsParseError

    try:
        chunk = _last_chunk(text)
        if chunk.n_atoms != len(frame):
            raise WrongShape(f"aims.out is about {chunk.n_atoms} atoms, the frame has {len(frame)}")
        energy, forces = chunk.free_energy, chunk.forces
        tensor = chunk.stress if stress else None
    except AimsParseError as error:
        raise Truncated(f"aims.out lacks lines it should have: {error}") from error
    except (ValueError, IndexError, TypeError, AssertionError) as error:
        if "***" in text:
            raise NotFinite("aims.out holds numbers too large to be printed (***)") from error
        raise Truncated(f"aims.out is garbled: {error}") from error
    if energy is None:
        raise WrongShape("no 'Electronic free energy' in aims.out")
    if forces is None or forces.shape != (len(frame), 3):
        raise WrongShape(
            "no forces in aims.out" if forces is None else f"forces have shape {forces.shape} in aims.out"
        )
    if stress and tensor is None:
        raise WrongShape(
            "no stress in aims.out; if this functional has no analytical stress, "
            "write compute_numerical_stress .true. into control.in"
        )
    return Label(energy, forces, None if tensor is None else _full(tensor))


def _last_chunk(text: str) -> AimsOutCalcChunk:
    # ASE's own reader without its announcement of a plug-in at each call, and without its check of the end
    import io

    from ase.io import ParseError
    from ase.io.aims import get_aims_out_chunks, get_header_chunk

    lines = iter(io.StringIO(text))
    try:
        chunks = list(get_aims_out_chunks(lines, get_header_chunk(lines)))
    except ParseError as error:
        raise Truncated(f"aims.out: {error}") from error
    if not chunks:
        raise Truncated("aims.out ends with its header")
    return cast("AimsOutCalcChunk", chunks[-1])


def _check_end(text: str, code: int, folder: Path, launch: str) -> None:
    """Raise what an exit code and the end of aims.out mean, before any number is believed."""
    if code in (126, 127):
        raise SetupError(
            f"CLUSTER.launch_str: {launch!r} cannot be run: {_tail(folder) or f'exit code {code}'}"
        )
    if any(mark in text for mark in UNCONVERGED):  # also where the output still says goodbye
        raise NotConverged("the self-consistency cycle did not converge")
    if code != 0:
        raise Crashed(f"{_exit(code)}: {_tail(folder, text) or 'no output'}")
    if GOODBYE not in text[-4000:]:
        if not text.strip():
            raise Crashed(f"no output: {_tail(folder) or 'nothing on standard error either'}")
        raise Truncated(f"aims.out ends early: {_tail(folder, text)}")


def _exit(code: int) -> str:
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    if number:
        with suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit code {code}"


def _tail(folder: Path, text: str = "") -> str:
    """The last telling lines: standard error, else the output, in one line."""
    with suppress(OSError):
        text = (folder / "aims.err").read_text(errors="replace").strip() or text
    lines = [line.strip() for line in text.strip().splitlines() if line.strip(" *-=")]
    return " / ".join(lines[-3:])[-300:]


def _redirected_to(command: str) -> str | None:
    """The file a launch command sends its output to, if it does so itself.

    >>> _redirected_to("srun aims.x >> aims.out 2> err"), _redirected_to("srun aims.x 2> err")
    ('aims.out', None)
    """
    targets = re.findall(r"(?<![\d&])1?>{1,2}\s*([^\s;&|<>]+)", command)
    targets = [t for t in targets if t != "/dev/null"]
    if targets:
        return str(targets[-1]).strip("'\"")
    return OUTPUT if re.search(rf"\b{re.escape(OUTPUT)}\b", command) else None


def _pack(folder: Path, kept: Path, name: str) -> str | None:
    """Pack what is left of a failed calculation and remove its folder; only so many are kept. Says where."""
    path = kept / f"{name}.tar.gz"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        with tarfile.open(part, "w:gz") as archive:
            for file in sorted(folder.iterdir()):
                if file.is_file() and file.name != OURS and file.stat().st_size <= LARGEST_KEPT:
                    archive.add(file, f"{name}/{file.name}")
        os.replace(part, path)
        shutil.rmtree(folder, ignore_errors=True)
        ours = [p for p in kept.iterdir() if re.fullmatch(r"[0-9a-f]{20}\.tar\.gz", p.name)]
        for old in sorted(ours, key=lambda p: p.stat().st_mtime)[:-KEPT_FAILURES]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot keep the failed calculation %s: %s", folder, error)
        return str(folder) if folder.exists() else None
    return str(path)


def _vector(v: Any) -> str:
    return " ".join(f"{x:.8f}" for x in v)


def _full(stress: Any) -> Any:
    from ase.stress import voigt_6_to_full_3x3_stress

    return voigt_6_to_full_3x3_stress(stress)


_told: set[str] = set()


def _once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        log.warning(message)
