"""A kind of sampler is one file: settings, schema, tables, check, plan, contract and a whole run find it there."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter

import ase.io
import numpy as np
import pytest
import yaml

from aims_pax.commands.check.config_file import checked_config_file
from aims_pax.commands.plan import plan
from aims_pax.commands.plan_text import plan_lines
from aims_pax.errors import SettingsError
from aims_pax.report.changed_settings import differing
from aims_pax.samplers import filter_kinds, kinds, sampler
from aims_pax.samplers.filters import make_filter
from aims_pax.settings.sample import read_sample
from aims_pax.settings.samplers import FILTERS, KINDS
from aims_pax.settings.schema import schema
from aims_pax.settings.tables import filter_kinds_table, sampler_kinds_table, samplers
from tests.md.potentials import LennardJones
from tests.projects import ROOT, command, write_project
from tests.samplers.contract import PROMISES, as_before, of_kind
from tests.test_docs import page
from tests.worlds import EMT, dimer

KIND = """
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from aims_pax import Sample, SamplerSettings, SamplingCost, register_sampler
from aims_pax.settings.fields import Real, Whole, key


@register_sampler("downhill")
class DownhillSettings(SamplerSettings):
    \"\"\"downhill: shaken structures that went some steps along their forces.\"\"\"

    prose: ClassVar[str] = "shaken structures after some steps along their forces"
    cost_words: ClassVar[Mapping[str, str]] = {"downhill": "{} forces of downhill"}
    example: ClassVar[Mapping[str, Any]] = {"sigma": 0.05}

    sigma: Real = key(..., "Width of the first step (Å).", unit="Å", possible="(0, 1]", plausible="[0.001, 0.3]")
    steps: Whole = key(2, "Steps of 0.01 Å/(eV/Å) along the forces.", possible="[0, 100]")

    def make(self, context):
        return Downhill(context.potential(), self.sigma, self.steps, self.label)

    def cost(self, demand):
        return SamplingCost(evaluations={"downhill": demand.made * self.steps})


class Downhill:
    def __init__(self, potential, sigma, steps, name):
        self.potential, self.sigma, self.steps, self.name = potential, sigma, steps, name

    def sample(self, systems, n, rng):
        for _ in range(n):
            for system in systems:
                frame = system.frame
                free = np.ones(frame.positions.shape) if frame.fixed is None else ~frame.fixed
                frame = frame.moved(frame.positions + free * rng.normal(0, self.sigma, free.shape))
                for _ in range(self.steps):
                    forces = self.potential.labels([frame])[0].forces
                    frame = frame.moved(frame.positions + free * np.clip(0.01 * forces, -0.05, 0.05))
                yield Sample(frame, None, {"sampler": self.name, "system": system.name})
"""


@pytest.fixture
def downhill(tmp_path, monkeypatch):
    """A file more in aims_pax/samplers/kinds/."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    (folder / "downhill.py").write_text(KIND)
    with as_before(KINDS):
        monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(folder)])
        yield
        KINDS["downhill"]  # loaded in any case, to be taken back
    sys.modules.pop("aims_pax.samplers.kinds.downhill")
    del kinds.downhill


def config(folder, *samplers, **keys):
    path = folder / "config.yaml"
    ase.io.write(folder / "pair.xyz", dimer("Cu", 2.4).to_atoms(), format="extxyz")
    written = {"path_to_geometry": str(folder / "pair.xyz"), "output": "samples.xyz", "n_per_geometry": 4}
    path.write_text(yaml.safe_dump({**written, **keys, "SAMPLERS": list(samplers)}))
    return path


@pytest.mark.usefixtures("downhill")
def test_it_is_a_kind_like_the_others_and_its_keys_are_checked(tmp_path):
    assert list(KINDS) == ["md", "aimd", "rattle_tree", "phonons", "diffusion", "gpr", "downhill"]
    (one,) = read_sample(config(tmp_path, {"kind": "downhill", "sigma": 0.1})).samplers
    assert (one.sigma, one.steps, one.label) == (0.1, 2, "downhill")
    for keys, said in (
        ({}, "SAMPLERS.0.sigma: mandatory. Width of the first step"),
        ({"sigma": 0.1, "stepps": 1}, "SAMPLERS.0.stepps: unknown key; nearest: steps"),
        ({"sigma": 2}, "SAMPLERS.0.sigma: 2 Å is not possible"),
        ({"kind": "downhil", "sigma": 1}, "SAMPLERS.0.kind: 'downhil' is not a sampler; nearest: downhill"),
        ({"kind": "md", "sigma": 3}, "SAMPLERS.0.sigma: unknown key here; it is a key of gpr and downhill"),
    ):
        with pytest.raises(SettingsError, match=re.escape(said)):
            read_sample(config(tmp_path, {"kind": "downhill", **keys}))
    odd = read_sample(config(tmp_path, {"kind": "downhill", "sigma": 0.5})).warnings
    assert "SAMPLERS.0.sigma: 0.5 Å is outside the usual 0.001 … 0.3" in "".join(odd)


@pytest.mark.usefixtures("downhill")
def test_it_is_in_the_schema_the_tables_and_what_a_report_lists_as_changed():
    entries = schema("aimsPAX.yaml")["properties"]["SAMPLERS"]["items"]["anyOf"]
    (mine,) = [e for e in entries if e["properties"]["kind"] == {"enum": ["downhill"]}]
    assert mine["properties"]["sigma"] == {
        "description": "Width of the first step (Å). Possible: more than 0 and at most 1 Å.",
        "type": "number",
        "exclusiveMinimum": 0.0,
        "maximum": 1.0,
    }
    assert "sigma" in mine["required"]
    assert "#### kind: downhill\n\nShaken structures that went some steps along their forces." in samplers()
    assert "| \\*sigma | `float` | — | Width of the first step (Å). |" in samplers()
    assert "| `downhill` | shaken structures after some steps along their forces |" in sampler_kinds_table()
    written = {"aimsPAX.SAMPLERS.0.kind": "downhill", "aimsPAX.SAMPLERS.0.steps": "5"}
    assert ("SAMPLERS.0.steps", "5", "2") in differing(written)


@pytest.mark.usefixtures("downhill")
def test_plan_says_what_it_costs(tmp_path):
    samplers = [{"kind": "downhill", "sigma": 0.1, "steps": 3, "potential": {"factory": EMT["factory"]}}]
    first = {"initial_sampling": None, "initial_calculator": None}
    ahead = plan(write_project(tmp_path, {"SAMPLERS": samplers, "INITIAL_DATASET_GENERATION": first}))
    labels = ahead["initial"]["reference_calls"]
    assert ahead["initial"]["evaluations"] == {"downhill": [3 * n for n in labels]}
    assert ahead["initial"]["MD_steps"] == [0, 0]
    assert f"  evaluations      {3 * labels[0]} forces of downhill" in plan_lines(ahead)
    assert "initial dataset (downhill 100 %)" in plan_lines(ahead)


@pytest.mark.usefixtures("downhill")
@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: p.__name__)
def test_it_passes_the_contract_of_samplers(promise):
    assert type(of_kind("downhill")).__name__ == "Downhill"
    promise(lambda: of_kind("downhill"))


@pytest.mark.usefixtures("downhill")
def test_check_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    potential = {"factory": EMT["factory"]}
    found = checked_config_file(config(tmp_path, {"kind": "downhill", "sigma": 0.1, "potential": potential}))
    assert "kind: downhill" in found.text
    with pytest.raises(SettingsError, match=r"SAMPLERS\.0\.potential"):
        checked_config_file(config(tmp_path, {"kind": "downhill", "sigma": 0.1, "potential": "smal"}))


FILTER = """
from aims_pax.settings.fields import Whole, key
from aims_pax.settings.samplers import FilterKeys, register_filter


@register_filter("every_other")
class EveryOtherSettings(FilterKeys):
    \"\"\"every_other: one of several, as they come.\"\"\"

    of: Whole = key(2, "Structures of which the first passes.", possible="[1, 1000]")

    def make(self, context):
        return lambda samples: iter(list(samples)[:: self.of])

    def needed(self, n):
        return n * self.of
"""


def test_a_filter_is_one_file_too(tmp_path, monkeypatch):
    (tmp_path / "every_other.py").write_text(FILTER)
    written = {"kind": "md", "filters": [{"kind": "every_other", "of": 3}]}
    with as_before(FILTERS):
        monkeypatch.setattr(filter_kinds, "__path__", [*filter_kinds.__path__, str(tmp_path)])
        (one,) = read_sample(config(tmp_path, written)).samplers
        assert (one.filters[0].settings.of, one.filters[0].settings.needed(4)) == (3, 12)
        assert list(make_filter("every_other", of=3)(range(7))) == [0, 3, 6]
        assert "| `every_other` | One of several, as they come. |" in filter_kinds_table()
        written["filters"][0]["off"] = 3
        with pytest.raises(SettingsError, match=r"SAMPLERS\.0\.filters\.0\.off: unknown key; nearest: of"):
            read_sample(config(tmp_path, written))
        monkeypatch.undo()
    sys.modules.pop("aims_pax.samplers.filter_kinds.every_other")
    del filter_kinds.every_other


# ---------------------------------------------------------------- of a package outside ours


@pytest.fixture
def installed(tmp_path):
    """Environments in which a package with the module `shaken` of the page `extending` is installed."""
    (code,) = re.findall(r"```python title=\"shaken\.py\"\n(.*?)```", page("extending"), re.DOTALL)
    tables = re.findall(r"```toml title=\"pyproject\.toml\"\n(.*?)```", page("extending"), re.DOTALL)
    (points,) = [table for table in tables if "aims_pax.samplers" in table]
    group, line = (
        points.split("\n")[:2] if not points.startswith(" ") else map(str.strip, points.split("\n")[:2])
    )
    assert group == '[project.entry-points."aims_pax.samplers"]'
    site = tmp_path / "site"
    info = site / "shaken_structures-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shaken.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shaken-structures\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aims_pax.samplers]\n" + line.replace('"', "") + "\n")
    return {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}, site


def test_an_installed_package_brings_a_kind_and_a_whole_run_of_sample_makes_its_structures(
    tmp_path, installed
):
    environment, _ = installed
    md = {"kind": "md", "potential": {"factory": EMT["factory"]}, "skip_step": 2}
    mine = {"kind": "shaken", "share": 0.75, "sigma": 0.08, "filters": ["sanity"]}
    config(tmp_path, mine, md)
    done = command("sample", "config.yaml", folder=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shaken 75 %, md 25 %" in done.stdout
    made = ase.io.read(tmp_path / "samples.xyz", index=":")
    assert Counter(a.info["sampler"] for a in made) == {"shaken": 3, "md": 1}
    moved = np.array([a.positions for a in made if a.info["sampler"] == "shaken"])
    assert 0.02 < np.std(moved - dimer("Cu", 2.4).positions) < 0.2
    config(tmp_path, {"kind": "shaken", "sigmma": 0.1})
    done = command("sample", "config.yaml", folder=tmp_path, env=environment, timeout=120)
    assert done.returncode == 2
    assert "SAMPLERS.0.sigmma: unknown key; nearest: sigma" in done.stderr


def test_one_that_cannot_be_loaded_is_an_error_only_for_who_names_it(tmp_path, installed):
    environment, site = installed
    (site / "shaken.py").write_text("import no_such_library\n")
    config(tmp_path, {"kind": "shaken"})
    done = command("sample", "config.yaml", folder=tmp_path, env=environment, timeout=120)
    assert done.returncode == 2
    assert (
        "SAMPLERS.0.kind: the sampler 'shaken' of the package shaken-structures cannot be loaded: "
        "ModuleNotFoundError: No module named 'no_such_library'"
    ) in " ".join(done.stderr.split())
    config(tmp_path, {"kind": "md", "potential": {"factory": EMT["factory"]}, "skip_step": 2})
    done = command("sample", "config.yaml", folder=tmp_path, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_program_registers_one_by_running_its_module(tmp_path, monkeypatch):
    (tmp_path / "my_downhill.py").write_text(KIND)
    monkeypatch.syspath_prepend(str(tmp_path))
    with as_before(KINDS):
        import my_downhill

        assert isinstance(sampler("downhill", LennardJones(), sigma=0.2), my_downhill.Downhill)
    sys.modules.pop("my_downhill")
    assert "downhill" not in KINDS
