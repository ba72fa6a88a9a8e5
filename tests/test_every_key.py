"""Every key that is a yes-or-no or one of several words ends a whole tiny run at each value that is not its default.

The cases are read off the settings themselves: a key or a word added there is run here. Values of different keys share
runs; the sweep marked `slow` has a run for each. What a value needs besides (a
crystal for a barostat, a control.in for FHI-aims) is in CONTEXT; what the documentation refuses here (no GPU, no
Slurm) is in REFUSED with the words of the refusal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ase.io
import pytest

from aims_pax.frames import LabelledFrame
from aims_pax.labelling.references.ase_calculator import CalculatorReference
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.fields import Section
from aims_pax.settings.schema import _choices
from aims_pax.settings.settings import MACE, PROJECT
from tests.projects import changed, command, write_project
from tests.worlds import CONTROL, EMT, crystal, launch, rattled, water, write_species

Case = tuple[str, str, Any]  # section, key, value

TINY: dict[str, Any] = {
    "INITIAL_DATASET_GENERATION": {
        "n_points_per_sampling_step_idg": 2,
        "max_initial_epochs": 2,
        "intermediate_epochs_idg": 1,
        "skip_step_initial": 2,
        "max_convergence_epochs": 1,
    },
    "ACTIVE_LEARNING": {
        "num_trajectories": 2,
        "max_MD_steps": 8,
        "skip_step_mlff": 4,
        "epochs_per_worker": 1,
        "max_convergence_epochs": 1,
        "n_test": 1,
    },
}
NATIVE = {"ARCHITECTURE": {"num_channels": 16, "max_L": 0, "max_ell": 3, "correlation": 2}}
HERE = {"training": {"workers": 0}, "dynamics": {"workers": 1}}  # no further processes that import torch
NPT = {"MD": {"stat_ensemble": "NPT", "taup": 1000.0}}
CRYSTAL = {"systems": {"copper": crystal()}, "mace": {"GENERAL": {"compute_stress": True}}}

# (section, key, value; None for any value) → what else the run needs: changes of aimsPAX.yaml, of mace.yaml, systems
CONTEXT: dict[tuple[str, str, Any], dict[str, Any]] = {
    ("INITIAL_DATASET_GENERATION", "initial_sampling", "aimd"): {
        "project": {"INITIAL_DATASET_GENERATION": {"initial_calculator": None}}
    },
    ("INITIAL_DATASET_GENERATION", "initial_sampling", "mace-mp0"): {
        "project": {"INITIAL_DATASET_GENERATION": {"initial_calculator": None}}, "foundation": True,
    },
    ("INITIAL_DATASET_GENERATION", "initial_sampling", "so3lr"): {
        "project": {"INITIAL_DATASET_GENERATION": {"initial_calculator": None}}
    },
    ("INITIAL_DATASET_GENERATION", "initial_sampling", "chgnet"): {
        "project": {"INITIAL_DATASET_GENERATION": {"initial_calculator": None}},
        "systems": {"copper": crystal()},
    },
    **{
        ("INITIAL_DATASET_GENERATION", key, None): {
            "project": {"INITIAL_DATASET_GENERATION": {"converge_initial": True}}
        }
        for key in ("final_training", "convergence_criterion")
    },
    ("ACTIVE_LEARNING", "analysis", True): {"project": {"ACTIVE_LEARNING": {"analysis_skip": 4}}},
    ("ACTIVE_LEARNING", "replay_strategy", "random_subset"): {
        "project": {"ACTIVE_LEARNING": {"train_subset_size": 20, "valid_subset_size": 20}}
    },
    ("ACTIVE_LEARNING", "threshold", "per_system"): {"systems": {"water": water(), "copper": crystal()}},
    ("ACTIVE_LEARNING", "threshold", "calibrated"): {"project": {"ACTIVE_LEARNING": {"target_error": 0.5}}},
    ("ACTIVE_LEARNING", "stop", "when_done"): {"project": {"ACTIVE_LEARNING": {"target_error": 0.5}}},
    ("CLUSTER", "executor", None): {"project": {"CLUSTER": {"max_workers": 2, **HERE}}},
    ("CLUSTER", "clean_dirs", False): {"aims": True},
    ("REFERENCE", "type", "aims"): {"aims": True},
    ("MD", "stat_ensemble", "NPT"): {"project": NPT, **CRYSTAL},
    ("MD", "barostat", None): {"project": NPT, **CRYSTAL},
    ("MISC", "inference", "native"): {"mace": NATIVE},
    ("FOUNDATION", "recipe", "frozen"): {"begin": {}},
    ("FOUNDATION", "recipe", "replay"): {"begin": {"replay_data": "others.xyz"}},
    ("GENERAL", "compute_stress", True): {"systems": {"copper": crystal()}},
    ("TRAINING", "loss", "virials"): CRYSTAL,
    ("TRAINING", "loss", "stress"): CRYSTAL,
    ("TRAINING", "loss", "huber"): CRYSTAL,
    ("TRAINING", "loss", "universal"): CRYSTAL,
    ("MISC", "error_table", "PerAtomMAEstressvirials"): CRYSTAL,
    ("MISC", "error_table", "PerAtomRMSEstressvirials"): CRYSTAL,
}  # fmt: skip

# (section, key, value) → words of the error that the documentation promises
REFUSED: dict[tuple[str, str, Any], str] = {
    ("CLUSTER", "executor", "mpi"): "executor",
    **{("CLUSTER", "type", name): "CLUSTER" for name in known_schedulers()},
    ("MISC", "enable_cueq", True): "cueq",
    # beside an initial dataset; tests/test_run_data
    (
        "REFERENCE",
        "type",
        "given",
    ): "nothing can be labelled",
    ("ARCHITECTURE", "radial_type", "chebyshev"): "no derivative",
    **({} if find_spec("featomic") else {("AUGMENTATION", "kind", "gpr"): "featomic"}),
    **{
        ("INITIAL_DATASET_GENERATION", "initial_sampling", model.name): model.missing
        for model in BUNDLED.values()
        if not model.installed
    },
}
# values that change what the others in a run would do
ALONE = [("ACTIVE_LEARNING", "converge_al", False), ("MISC", "log_level", "ERROR")]
SLOW = {("TRAINING", "compile", "always")}  # minutes of g++: its own tests compile once for all


def keys() -> Iterator[Case]:
    """(section, key, value) of every value that is not the default."""
    for name, model in [*PROJECT.items(), *MACE.items()]:
        for key, field in model.model_fields.items():
            if field.annotation is bool:
                yield name, key, not field.default
            for word in _words(model, key):
                if word != field.default:
                    yield name, key, word


def _words(model: type[Section], key: str) -> tuple[str, ...]:
    field = model.model_fields[key]
    choices = next((c for m in field.metadata if (c := _choices(m))), ())
    # of the same values
    spellings = {
        "foundational",
        "fhi_aims",
        "mtk_full",
        "mtk_isotropic",
        "csvr",
        "bussi",
    }
    return tuple(c for c in choices if c not in spellings)


def named(case: Case) -> str:
    return f"{case[0]}.{case[1]}={case[2]}"


BIASES = ({"kind": "hal"}, {"kind": "udd", "trajectories": "every other"})
BIAS = [("ACTIVE_LEARNING", "bias", bias) for bias in BIASES]
# report: off in the tests
CASES = [case for case in keys() if case not in SLOW] + [
    ("MISC", "report", True),
    *BIAS,
]


def context_of(case: Case) -> dict[str, Any]:
    """What a value needs besides."""
    section, key, value = case
    return {} if isinstance(value, dict) else CONTEXT.get(case, CONTEXT.get((section, key, None), {}))


def is_refused(case: Case) -> bool:
    return not isinstance(case[2], dict) and case in REFUSED


def together(cases: list[Case], at_most: int = 20) -> list[tuple[Case, ...]]:
    """Cases that share a run: values of different keys that need the same besides. A refused one is alone."""
    groups: list[list[Case]] = []
    for case in cases:
        home = next(
            (
                group for group in groups
                if len(group) < at_most
                and not is_refused(case) and not is_refused(group[0])
                and context_of(group[0]) == context_of(case)
                and case[:2] not in [other[:2] for other in group]
                and case not in ALONE and group[0] not in ALONE
            ),
            None,
        )  # fmt: skip
        if home is None:
            groups.append([case])
        else:
            home.append(case)
    return [tuple(group) for group in groups]


def prepare(folder: Path, cases: Sequence[Case], models: Path) -> Path:
    """A tiny project with these values and what they need."""
    context = context_of(cases[0])
    project, mace = changed(TINY, context.get("project", {})), dict(context.get("mace", {}))
    for section, key, value in cases:
        if section in MACE and key in MACE[section].model_fields:
            mace = changed(mace, {section: {key: value}})
        else:
            project = changed(project, {section: {key: value}})
    if context.get("foundation"):
        project = changed(project, {"INITIAL_DATASET_GENERATION": {"initial_foundational_size": str(models)}})
    if "begin" in context:
        mace = changed(mace, {"FOUNDATION": {"model": str(models), **context["begin"]}, "ARCHITECTURE": None})
        others = [frame.to_atoms() for frame in rattled(water(), 4, seed=3)]
        ase.io.write(folder / "others.xyz", others, format="extxyz")
    if context.get("aims"):
        project = changed(project, with_aims(folder))
    write_project(folder, project, mace, context.get("systems"))
    if context.get("aims"):
        (folder / "control.in").write_text(CONTROL)
    return folder


def with_aims(folder: Path) -> dict[str, Any]:
    """The stand-in FHI-aims as the reference."""
    species = str(write_species(folder / "species"))
    return {
        "REFERENCE": {"type": "aims", "factory": None},
        "CLUSTER": {"type": "local", "launch_str": launch("emt", redirect=" > aims.out"), "calc_dir": "calc"},
        "INITIAL_DATASET_GENERATION": {"species_dir": species},
        "ACTIVE_LEARNING": {"species_dir": species},
    }


def forked(folder: Path, *words: str, name: str = "aims-PAX") -> tuple[int, str]:
    """Exit code and output of a command."""
    result = command(*words, folder=folder, name=name, timeout=300)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run with every default: its model is a foundation model, its data are given data."""
    folder = write_project(tmp_path_factory.mktemp("finished"), TINY)
    code, output = forked(folder)
    assert code == 0, output
    return folder


def failure(folder: Path, cases: Sequence[Case], finished: Path) -> str:
    """What is wrong with the run that has these values; empty if nothing is."""
    folder.mkdir()
    prepare(folder, cases, next((finished / "results").glob("*.model")))
    code, output = forked(folder)
    if "Traceback" in output:
        return output
    if is_refused(cases[0]):
        refused = code in (1, 2) and REFUSED[cases[0]] in " ".join(output.split())
        return "" if refused else f"not refused as documented: {code} {output}"
    delivered = list((folder / "results").glob("*.model"))
    return "" if code == 0 and delivered else f"{code} {output}"


@pytest.mark.parametrize("cases", together(CASES), ids=lambda cases: " ".join(map(named, cases)))
def test_every_value_of_every_key_ends_a_whole_run(cases, finished, tmp_path):
    """Several values share a run; if it fails, each has one of its own, to name the culprit."""
    wrong = failure(tmp_path / "together", cases, finished)
    if wrong and len(cases) > 1:
        alone = {named(case): failure(tmp_path / named(case), [case], finished) for case in cases}
        culprits = {name: said for name, said in alone.items() if said}
        wrong = "\n\n".join(f"{name}: {said}" for name, said in culprits.items()) or f"only together: {wrong}"
    assert not wrong, wrong


def test_every_case_is_in_one_run():
    groups = together(CASES)
    assert sorted(map(str, (case for group in groups for case in group))) == sorted(map(str, CASES))
    assert all(len({case[:2] for case in group}) == len(group) for group in groups)
    assert len(groups) < len(CASES) / 2


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: named(case))
def test_every_value_of_every_key_ends_a_run_of_its_own(case, finished, tmp_path):
    wrong = failure(tmp_path / "run", [case], finished)
    assert not wrong, wrong


COMMANDS = {  # stage → command and its words
    "initial dataset": ("aims-PAX-initial-ds", ()),
    "active learning": ("aims-PAX-al", ()),
    "recalculation": ("aims-PAX-recalc", ("given.xyz", "-o", "again.xyz")),
    "atomic energies": ("aims-PAX-atomic-energies", ()),
    "check --try": ("aims-PAX", ("check", "--try")),
}
LOCAL = ("auto", "inline", "threads", "htex")
# FHI-aims: folders, files, processes
PAIRS = [("calculator", executor) for executor in LOCAL] + [("aims", "htex")]


# Parsl's processes take seconds to start: the suite has one stage through them with each reference
MATRIX = [(stage, *pair) for stage in COMMANDS for pair in PAIRS]
OFTEN = {("active learning", "aims", "htex"), ("check --try", "calculator", "htex")}


@pytest.mark.parametrize(
    ("stage", "reference", "executor"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] if case[2] == "htex" and case not in OFTEN else [])
        for case in MATRIX
    ],
)
def test_every_stage_ends_with_every_executor(stage, executor, reference, tmp_path, finished):
    given = [LabelledFrame(f, CalculatorReference(EMT["factory"], {}).label(f)) for f in rattled(water(), 6)]
    changes = changed(TINY, {"CLUSTER": {"executor": executor, "max_workers": 2, **HERE}})
    if stage == "active learning":
        changes = changed(
            changes,
            {
                "ACTIVE_LEARNING": {"initial_train_dataset": "given.xyz", "converge_al": False},
            },
        )
    if reference == "aims":
        changes = changed(changes, with_aims(tmp_path))
        changes["CLUSTER"]["executor"] = executor
    if stage == "active learning":
        changes["INITIAL_DATASET_GENERATION"] = None
    write_project(tmp_path, changes)
    if reference == "aims":
        (tmp_path / "control.in").write_text(CONTROL)
    ase.io.write(tmp_path / "given.xyz", [g.to_atoms() for g in given], format="extxyz")
    name, words = COMMANDS[stage]
    code, output = forked(tmp_path, *words, name=name)
    assert "Traceback" not in output, output
    assert code == 0, output
