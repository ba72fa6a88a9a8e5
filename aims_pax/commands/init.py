"""`aims-PAX init`: writes a commented starter project. Existing files are not overwritten."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from aims_pax.commands import init_templates as t
from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import Frame
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.schema import first_line, name_of, text
from aims_pax.suggestions import nearest

KINDS = tuple(t.HEAD)
MARK = "# CHANGE"


def write_starter(kind: str, folder: Path) -> tuple[list[Path], list[str]]:
    """Write the files of a kind; returns their paths, and `file:line: key` of the values to edit.

    Raises SettingsError for an unknown kind, or with the names of all files that exist already.
    """
    if kind not in KINDS:
        near = nearest(kind, KINDS)
        hint = (
            f"; nearest: {near}"
            if near
            else f"; the folder is the second argument: aims-PAX init molecule {kind}"
        )
        raise SettingsError(f"init: expected {' | '.join(KINDS)}, got {kind!r}{hint}")
    contents = starter_files(kind)
    there = [name for name in contents if (folder / name).exists()]
    if there:
        raise SettingsError(
            f"{', '.join(there)}: already exists and is not overwritten; choose an empty folder: "
            f"aims-PAX init {kind} FOLDER"
        )
    try:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with open(folder / name, "x", encoding="utf-8") as file:
                file.write(content)
    except OSError as error:
        raise SetupError(f"cannot write {error.filename}: {error.strerror}") from error
    shown = [folder / name for name in contents if not name.startswith(".")]
    return shown, [place for name, content in contents.items() for place in _to_edit(name, content)]


def starter_files(kind: str) -> dict[str, str]:
    """{path in the folder: file content} of a kind."""
    project, mace, others = _MAKERS[kind]()
    about = {
        "aimsPAX.yaml": f"# {t.HEAD[kind]}\n# {t.NEXT}",
        "mace.yaml": "# The models. Missing keys have their default values: docs/settings.md.",
    }
    settings = {"aimsPAX.yaml": project, "mace.yaml": mace}
    return {
        **{file: f"{first_line(file)}\n{about[file]}\n\n{_aligned(body)}" for file, body in settings.items()},
        **others,
        **{name_of(file): text(file) for file in settings},
    }


def _aligned(body: str) -> str:
    """Align the comments after values in one column."""
    return re.sub(r"^( *[^#\n]*\S) {2,}# ", lambda m: f"{m[1]:39} # ", body, flags=re.MULTILINE)


def _to_edit(name: str, content: str) -> Iterator[str]:
    for number, line in enumerate(content.splitlines(), 1):
        if MARK in line:
            yield f"{name}:{number}: {line.strip().partition(':')[0]}: {line.partition(MARK + ':')[2].strip()}"


Parts = tuple[str, str, dict[str, str]]


def _with_aims(cluster: str, periodic: bool = False, many: bool = False) -> Parts:
    initial = t.INITIAL.format(
        species=t.SPECIES,
        n_points="3" if many else "10",
        n_initial="200" if many else "100",
        offline="chgnet" if periodic else "so3lr",
    )
    active = t.ACTIVE.format(
        species=t.SAME_SPECIES, n_trajectories="6" if many else "8", n_train="2000" if many else "1000",
        n_labels="2500" if many else "1200",
    )  # fmt: skip
    npt = "  # for NPT also set barostat, compressibility and pressure_au" if periodic else ""
    md = t.MD.format(npt=npt, temperature="300", timestep="1.0" if periodic else "0.5")
    geometry, about = "./geometry.in", "replace it by your structure; ASE reads many formats"
    if many:
        geometry, about = "./geometries", "a folder: each file in it is a system; replace them by yours"
    misc = t.MISC.format(geometry=geometry, about=about, control=t.CONTROL_KEY)
    mace = t.MACE.format(
        name="starter", stress="  compute_stress: True  # needed for NPT\n" if periodic else "",
        channels="64", max_L=1, correlation=3, r_max="5.0", radial="",
        loss="  loss: stress\n  stress_weight: 1000\n" if periodic else "",
    )  # fmt: skip
    control = t.CONTROL.format(more=t.PERIODIC if periodic else t.MOLECULAR)
    project = "\n".join([initial, active + (t.PER_SYSTEM if many else ""), md, cluster, misc])
    return project, mace, {"control.in": control}


def _molecule() -> Parts:
    project, mace, others = _with_aims(t.LOCAL)
    return project, mace, {**others, "geometry.in": _ethanol()}


def _crystal() -> Parts:
    from ase.build import bulk

    project, mace, others = _with_aims(t.LOCAL, periodic=True)
    silicon = Frame.from_atoms(bulk("Si", "diamond", a=5.43, cubic=True))
    return project, mace, {**others, "geometry.in": _geometry("silicon, the cubic cell", silicon)}


def _many() -> Parts:
    from ase.build import molecule

    project, mace, others = _with_aims(t.LOCAL, many=True)
    for name, formula in (("water", "H2O"), ("methanol", "CH3OH"), ("ethanol", "CH3CH2OH")):
        others[f"geometries/{name}.in"] = _geometry(name, Frame.from_atoms(molecule(formula)))
    return project, mace, others


def _cluster() -> Parts:
    project, mace, others = _with_aims(t.SLURM)
    return project, mace, {**others, "geometry.in": _ethanol()}


def _laptop() -> Parts:
    from ase.cluster import Icosahedron

    xtb = importlib.util.find_spec("tblite") is not None
    of_xtb = t.LAPTOP_SO3LR_INITIAL if BUNDLED["so3lr"].installed else t.LAPTOP_XTB_INITIAL
    project = t.LAPTOP.format(
        reference=t.LAPTOP_XTB if xtb else t.LAPTOP_EMT,
        initial=of_xtb if xtb else t.LAPTOP_EMT_INITIAL,
        timestep="0.5" if xtb else "2.0",
    )
    project, mace = _of_xtb(project)
    copper = Frame.from_atoms(Icosahedron("Cu", 2))
    geometry = _ethanol() if xtb else _geometry("a cluster of 13 copper atoms", copper)
    return project, mace, {"geometry.in": geometry}


def _of_xtb(project: str, rate: str = "  lr: 0.01\n") -> tuple[str, str]:
    """The two files of a small molecule with xTB. rate: the line of the learning rate."""
    misc = t.MISC.format(
        geometry="./geometry.in", about="replace it by your structure; ASE reads many formats", control=""
    )
    mace = t.MACE.format(
        name="starter", stress="", channels="16", max_L=1, correlation=2, r_max="4.0",
        radial="  radial_MLP: [32, 32, 32]\n", loss="",
    )  # fmt: skip
    return f"{project}\n{misc}", mace.replace("  lr: 0.01\n", rate)


def _pre_training() -> Parts:
    project, mace = _of_xtb(t.PRE_TRAINING + t.MOLECULE_ON_THIS_MACHINE, t.RATE_AFTER_PRE_TRAINING)
    return project, mace, {"geometry.in": _ethanol()}


def _delta() -> Parts:
    project, mace = _of_xtb(t.DELTA + t.MOLECULE_ON_THIS_MACHINE)
    return project, mace, {"geometry.in": _ethanol()}


def _fine_tuning() -> Parts:
    project, _ = _of_xtb(t.FINE_TUNING + t.MOLECULE_ON_THIS_MACHINE)
    others = {"make_example.py": t.FINE_TUNING_SCRIPT, "geometry.in": _ethanol()}
    return project, t.FINE_TUNING_MACE, others


_MAKERS: dict[str, Callable[[], Parts]] = {
    "molecule": _molecule, "crystal": _crystal, "many": _many, "cluster": _cluster, "laptop": _laptop,
    "fine-tuning": _fine_tuning, "pre-training": _pre_training, "delta": _delta,
}  # fmt: skip


def _ethanol() -> str:
    from ase.build import molecule

    return _geometry("ethanol", Frame.from_atoms(molecule("CH3CH2OH")))


def _geometry(about: str, frame: Frame) -> str:
    """A geometry.in."""
    from ase.data import chemical_symbols

    lines = [f"# an example, replace it by your structure: {about}"]
    if frame.periodic:
        lines += [f"lattice_vector {x:14.8f} {y:14.8f} {z:14.8f}" for x, y, z in frame.cell]
    for z, (x, y, w) in zip(frame.numbers, frame.positions, strict=True):
        lines.append(f"atom {x:14.8f} {y:14.8f} {w:14.8f} {chemical_symbols[z]}")
    return "\n".join(lines) + "\n"
