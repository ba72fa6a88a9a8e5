"""Working folders whose reference is the stand-in aims.x, in blocks of a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aims_pax.frames import Frame
from tests import worlds
from tests.batch.sites import Site
from tests.projects import changed, write_project


def cluster(site: Site, launch: str, **changes: Any) -> dict[str, Any]:
    """A CLUSTER section: one block of one node, two calculations at a time."""
    section: dict[str, Any] = {
        "type": site.name,
        "project_name": "test",
        "parsl_options": {
            "nodes_per_block": 1,
            "init_blocks": 1,
            "min_blocks": 0,
            "max_blocks": 2,
            "label": "dft",
            "jobs_per_block": 2,
        },
        f"{site.name}_str": f"#!/bin/bash\n{site.header}",
        "worker_str": "export PREPARED=1\n",
        "launch_str": f"{site.launch} {launch} >> aims.out".lstrip(),
        "calc_dir": "calc",
        "job_time_limit": 60,
    }
    return changed(section, changes)


def write_aims_project(
    folder: Path,
    site: Site,
    launch: str,
    changes: Mapping[str, Any] | None = None,
    mace: Mapping[str, Any] | None = None,
    systems: Mapping[str, Frame] | None = None,
    control: str = worlds.CONTROL_PERIODIC,
    **section: Any,
) -> Path:
    """tests.projects' run with FHI-aims on a scheduler for a reference."""
    aims = {
        "REFERENCE": None,
        "CLUSTER": None,
        "INITIAL_DATASET_GENERATION": {"species_dir": "species"},
        "ACTIVE_LEARNING": {"species_dir": "species"},
    }
    base = changed(aims, changes or {})
    base["REFERENCE"] = {"type": "aims", **(base["REFERENCE"] or {})} if base.get("REFERENCE") else None
    write_project(folder, base, mace, systems)
    import yaml

    path = folder / "aimsPAX.yaml"
    project = yaml.safe_load(path.read_text())
    project["CLUSTER"] = cluster(site, launch, **section)
    path.write_text(yaml.safe_dump(project, sort_keys=False))
    (folder / "control.in").write_text(control)
    worlds.write_species(folder / "species")
    return folder
