"""MISC in aimsPAX.yaml: where files are and how they are read."""

from __future__ import annotations

import math

from aims_pax.settings.cluster import Seconds
from aims_pax.settings.fields import (
    COUNT,
    Flag,
    OptionalRealOrMap,
    OptionalText,
    OptionalWhole,
    OptionalWholeOrMap,
    Section,
    Text,
    TextOrMap,
    Texts,
    Whole,
    key,
)


class MiscSettings(Section):
    """MISC: where files are and how they are read."""

    create_restart: Flag = key(
        True, "Save the state of the run, so that running the same command continues it."
    )
    dataset_dir: Text = key("./data", "Folder of the datasets.")
    log_dir: Text = key("./logs", "Folder of the logs.")
    path_to_control: TextOrMap = key(
        "./control.in",
        "FHI-aims control file; or one for each geometry, `{geometry file: control file}`, e.g. for molecules and "
        "crystals in one run.",
    )
    path_to_geometry: Texts = key(
        "./geometry.in",
        "Geometry file, folder of ASE-readable files, or list of files. For a file with several structures: `file@0`, "
        "`file@-1` (the last) or `file@:` (all).",
    )
    charge: OptionalRealOrMap = key(
        None,
        "Total charge (e) of the geometries; or one for each, `{geometry file: charge}`. `None`: from the geometry "
        "file, otherwise from `control.in` or `REFERENCE.kwargs`, otherwise neutral. Contradicting values are errors.",
        unit="e",
        possible="[-1000, 1000]",
        plausible="[-20, 20]",
    )
    spin: OptionalWholeOrMap = key(
        None,
        "Spin multiplicity 2S+1 of the geometries (1: closed shell, 2: one unpaired electron); or one for each, "
        "`{geometry file: multiplicity}`. `None`: as for `charge`.",
        possible="[1, 1000]",
        plausible="[1, 20]",
    )
    energy_key: Text = key("REF_energy", "Name of the energy (eV) in extxyz files you provide.")
    forces_key: Text = key("REF_forces", "Name of the forces (eV/Å) in extxyz files you provide.")
    stress_key: Text = key("REF_stress", "Name of the stress (eV/Å³) in extxyz files you provide.")
    virials_key: Text = key(
        "REF_virials",
        "Name of the virials (eV, −dE/dε as in GAP and MACE) in extxyz files you provide: stress = −virials/V.",
    )
    check_given_data: Whole = key(
        4,
        "Number of structures of each given file that the reference labels as a check before the file is used: a file "
        "made with another method is refused. 0: no check.",
        possible="[0, inf)",
        plausible="[0, 100]",
    )
    test_set: OptionalText = key(None, "extxyz file with labels on which the final models are tested.")
    max_walltime: Seconds = key(
        math.inf,
        "Walltime of one `aims-PAX` process, in seconds or `[D-]HH:MM:SS`. The run saves its state and stops before it "
        "ends (exit code 75); run the same command to continue. Inside a scheduler job the end of the job counts too.",
        unit="s",
        possible="(0, inf]",
    )
    report: Flag = key(
        True, "Write `report.html`, its figures and the model cards, during the run and at its end."
    )
    md_test: Whole = key(
        1000,
        "MD steps of each trajectory of the test at the end of a run that shows in the report whether the model is fit "
        "for MD (at most 16 trajectories, and at most 2 % of the time of the run or 20 s); 0: no test. `aims-PAX test "
        "--md` makes a longer one.",
        possible="[0, inf)",
        plausible="[0, 1000000]",
    )
    save_trajectories: OptionalWhole = key(
        None,
        "Write every n-th MD step of each trajectory as extxyz; `None`: do not write them.",
        possible=COUNT,
    )
