"""A stranger finds his way by names: one meaning each, and a file for every word of the field."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "aims_pax"
PROTOCOL = {"State", "begin", "reopen", "outstanding", "step"}  # of the stages' modules in core
FILES = [
    str(p.relative_to(PACKAGE).with_suffix("")) for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"
]
FOLDERS = [str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*") if p.is_dir() and p.name != "__pycache__"]
# what a person of the field looks for → words one of which names a file (or the room) where it is
WORDS = {
    "walltime and signals": ("interrupts", "walltime", "signals"),
    "parallel training": ("parallel/training",),
    "parallel dynamics": ("parallel/dynamics",),
    "memory estimate": ("resource_estimates", "memory_estimate"),
    "disk estimate": ("resource_estimates", "disk_estimate"),
    "labelling a list": ("label_list",),
    "pause, resume, stop": ("pause_resume_stop",),
    "is this run up to date": ("run_fingerprint", "up_to_date"),
    "trial labels of check": ("trial_labels",),
    "test a model": ("test_models",),
    "end of a run": ("outcome",),
    "file-system errors": ("outcome", "files"),
    "live view": ("live_view",),
    "time left": ("time_left",),
    "restart compatibility": ("restart_compatibility",),
    "provenance": ("provenance",),
    "systematic failure": ("systematic_failure",),
    "factory of references": ("labelling/factory",),
    "journal": ("record/journal",),
    "cache of the journal": ("journal_cache",),
    "the record of a run": ("run_record",),
    "figures": ("report/figures",),
    "timeline": ("timeline",),
    "number formatting": ("formatting",),
    "validation messages": ("settings/messages",),
    "settings": ("settings/settings",),
    "settings of the reference alone": ("reference_settings",),
    "fine-tuning": ("fine_tuning",),
    "foundation models": ("foundation",),
    "EMA and SWA": ("ema_swa",),
    "families of models": ("models/kinds",),
    "serialising a model": ("serialisation",),
    "worker process": ("worker_process",),
    "event loop": ("event_loop",),
    "Slurm": ("schedulers/slurm",),
    "Grid Engine": ("schedulers/grid_engine",),
    "PBS": ("schedulers/pbs",),
    "LSF": ("schedulers/lsf",),
    "which schedulers there are": ("schedulers/registry",),
    "barostat": ("barostats",),
    "thermostat": ("thermostats",),
    "uncertainty": ("uncertainty",),
    "threshold": ("threshold",),
    "label store": ("labelling/store",),
    "quarantine": ("quarantine",),
    "lock": ("record/lock",),
    "checkpoint": ("checkpoint",),
    "replay": ("replay",),
    "compilation": ("compile_policy", "compile_cache"),
    "convergence": ("convergence",),
    "active learning": ("active_learning",),
    "acquisition": ("core/acquisition",),
    "limits that end a run": ("core/limits",),
    "initial dataset": ("initial_dataset",),
    "neighbour list": ("neighbour_list",),
    "calibration": ("calibration",),
    "conformal error bound": ("core/error_calibration",),
    "limits of labels": ("label_limits",),
    "stop rule": ("stop_rule",),
    "atomic energies": ("atomic_energies",),
    "seeds": ("seeds",),
    "acquisition window": ("core/window",),
    "stages of a run, as files tell": ("stage_snapshots",),
    "atomic write": ("record/files",),
    "charge and spin": ("charge_and_spin",),
    "geometry.in": ("geometry_in",),
    "control.in": ("control_in",),
    "aims.out": ("aims_output",),
    "symmetric contraction": ("symmetric_contraction",),
    "model card": ("model_card",),
    "phonons": ("phonons",),
    "delta-learning": ("models/delta", "delta_learning"),
    "baseline": ("potentials/baseline",),
    "ASE calculator of a model": ("models/calculator",),
    "supercell": ("supercell",),
    "diffusion": ("models/diffusion",),
    "noise schedule": ("noise_schedule",),
    "score network": ("score_network",),
}


@pytest.mark.parametrize("what", sorted(WORDS))
def test_a_word_of_the_field_finds_a_file(what):
    found = [
        path for path in [*FILES, *FOLDERS] if any(f"/{path}".endswith(f"/{word}") for word in WORDS[what])
    ]
    assert found, f"{what}: no file is called {' or '.join(WORDS[what])}"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_public_names_mean_one_thing():
    homes = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].add(str(path.relative_to(PACKAGE)))
    several = {
        name: sorted(paths) for name, paths in homes.items() if len(paths) > 1 and name not in PROTOCOL
    }
    assert not several


BANNED = {"told", "kept", "felt", "met", "meant", "mend", "mended", "dear", "wish", "wishes", "wished"}


def test_names_say_what_a_thing_is():
    """No participles that leave open what they hold: house.md bans these from names."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(tree(path)):
            name = next((getattr(node, a) for a in ("id", "attr", "name", "arg") if hasattr(node, a)), None)
            if isinstance(name, str) and BANNED & set(name.lower().split("_")):
                found.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert not found


def decides(path: Path) -> bool:
    """Whether a function of this module has a branch or a loop."""
    kinds = (ast.If, ast.IfExp, ast.For, ast.While, ast.Try, ast.comprehension, ast.BoolOp, ast.Match)
    functions = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef)]
    return any(isinstance(node, kinds) for f in functions for node in ast.walk(f))


def test_each_module_that_decides_something_has_a_test_file_of_its_name():
    tests = {p.stem.removeprefix("test_") for p in Path(__file__).parent.rglob("test_*.py")}
    modules = [p for p in PACKAGE.rglob("*.py") if p.stem not in ("__init__", "__main__")]
    assert [str(p.relative_to(PACKAGE)) for p in modules if decides(p) and p.stem not in tests] == []
