"""Settings files for tests: a valid pair as text, and helpers that change one part."""

from __future__ import annotations

from pathlib import Path

import pytest

from aims_pax.errors import SettingsError
from aims_pax.settings import Settings, read_settings

PROJECT = """\
INITIAL_DATASET_GENERATION:
  n_points_per_sampling_step_idg: 2
  max_initial_epochs: 5
ACTIVE_LEARNING:
  num_trajectories: 2
  max_MD_steps: 100
MD:
  stat_ensemble: NVT
REFERENCE:
  factory: ase.calculators.emt:EMT
"""
GIVEN = PROJECT[PROJECT.index("ACTIVE") :]  # without an initial dataset
MACE = "GENERAL:\n  name_exp: tiny\n"

AIMS = """\
INITIAL_DATASET_GENERATION:
  species_dir: species
  n_points_per_sampling_step_idg: 2
  max_initial_epochs: 5
CLUSTER:
  type: local
  launch_str: aims.x
  calc_dir: calc
MD:
  stat_ensemble: NVT
"""


def write(folder: Path, project: str | bytes = PROJECT, mace: str | bytes = MACE) -> Path:
    """Both files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("aimsPAX.yaml", project), ("mace.yaml", mace)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(folder: Path, project: str | bytes = PROJECT, mace: str | bytes = MACE) -> Settings:
    return read_settings(write(folder, project, mace))


def errors(folder: Path, project: str | bytes = PROJECT, mace: str | bytes = MACE, **kwargs) -> list[str]:
    """The lines of the SettingsError these files raise."""
    with pytest.raises(SettingsError) as caught:
        read_settings(write(folder, project, mace), **kwargs)
    return str(caught.value).splitlines()


def with_key(text: str, section: str, *keys: str) -> str:
    """The text with further lines in a section (which is added at the end when it is not there)."""
    lines = "".join(f"  {key}\n" for key in keys)
    head = f"{section}:\n"
    return text.replace(head, head + lines) if head in text else text + head + lines


THREE = """\
SAMPLERS:
  - {kind: md, share: 0.5, potential: {factory: ase.calculators.emt:EMT, kwargs: {}}, temperature: 500}
  - {kind: rattle_tree, share: 0.3, temperature: 500, beta: 0.4, sigma_range: [0.05, 0.2], filters: sanity}
  - kind: phonons
    share: 0.2
    filters:
      - {kind: duplicates, by: descriptor}
      - farthest_points
"""
