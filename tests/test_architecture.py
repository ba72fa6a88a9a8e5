"""Imports point one way; the rooms that must be light stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "aims_pax"
LAYERS = (  # a file may import rooms of lower layers and its own room, nothing else
    {"__init__"},  # the public face
    {"cli"},
    {"commands"},
    {"stages"},
    {"engine"},
    {"parallel", "potentials"},
    {"labelling", "samplers", "report"},
    {"models", "md"},
    {"record"},
    {"core"},
    {"settings"},
    {"schedulers"},
    {"sampler", "given_data"},
    {"dataset"},
    {"systems"},
    {"labelled_data", "structure_files", "surrogate_labels"},
    {"potential", "label_limits", "charge_and_spin", "isolated_atoms", "force_units", "energy_and_forces"},
    {"fast_extxyz"},
    {"frames", "worker_process", "registry"},
    {"atoms_info", "comment_line", "fork_server", "user_code", "xyz_blocks"},
    {"processes"},
    {"errors", "suggestions"},
    {"seeds", "wire_names", "fortran", "version", "tensors"},
)
LAYER = {name: n for n, names in enumerate(LAYERS) for name in names}
ANYBODYS = "aims_pax.record.files"  # the one atomic write; it imports nothing but the errors


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        yield from names


def imported(path: Path) -> set[str]:
    """Files of the package that a file imports, wherever in it; a package stands for its __init__ where it is used."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            longer = {f"{node.module}.{a.name}" for a in node.names}
            found |= {name if name in MODULES else str(node.module) for name in longer}
    return found - {module(path)}


def test_every_room_has_a_layer():
    assert {room(path) for path in PACKAGE.rglob("*.py")} == set(LAYER)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = room(path)
    for name in imported(path) - {ANYBODYS}:
        parts = name.split(".")
        other = parts[1] if len(parts) > 1 else "__init__"
        if other != own:
            assert LAYER[other] > LAYER[own], f"{path} imports {name}"


def test_no_two_files_import_each_other():
    """Also not by way of others, also not inside functions or for types alone."""
    left = {name: imported(path) for name, path in MODULES.items()}
    while True:
        free = {name for name, needs in left.items() if not needs & left.keys()}
        if not free:
            break
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left, f"in circles, or above one: {sorted(left)}"


@pytest.mark.parametrize(
    "module",
    [
        "aims_pax.core.active_learning",
        "aims_pax.settings",
        "aims_pax.labelling.references.fhi_aims",
        "aims_pax.cli",
        "aims_pax.models.mace.kind",
    ],
)
def test_light_rooms_do_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'mace' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_parsl_mace_and_e3nn_are_imported_in_one_room_each():
    for names, home in (({"parsl"}, "labelling/executors/"), ({"mace", "e3nn"}, "models/mace/")):
        users = {
            str(p.relative_to(PACKAGE))
            for p in PACKAGE.rglob("*.py")
            if names & {n.split(".")[0] for n in imports(p)}
        }
        assert users, f"nobody imports {names}"
        assert all(user.startswith(home) for user in users), users


SCHEDULERS = re.compile(
    r"slurm|sbatch|squeue|scancel|\bsrun|\bqsub|\bqstat|grid ?engine|\bpbs|\bbjobs|\blsf", re.IGNORECASE
)
SPELLED = {  # what a user reads or writes
    "settings/cluster.py",
    "commands/init.py",
    "commands/init_templates.py",
    "labelling/references/aims_output.py",
    "labelling/references/launch_output.py",
}


def test_no_scheduler_is_named_outside_of_its_room():
    """All others ask `schedulers.registry` for the one that the settings name, or whose job they are in."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if room(path) != "schedulers" and SCHEDULERS.search(path.read_text(encoding="utf-8"))
    }
    assert users == SPELLED


def test_a_family_of_models_is_one_folder():
    """Rooms ask `models.kinds` for the kind of a run; what mace.yaml has for MACE alone they do not see."""
    allowed = ("models/mace/", "settings/")
    for path in PACKAGE.rglob("*.py"):
        where = str(path.relative_to(PACKAGE))
        family = {name for name in imports(path) if name.startswith("aims_pax.models.mace")}
        assert not family or where.startswith("models/mace/"), f"{where} imports {sorted(family)}"
        looks = {
            ast.unparse(n) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
        }
        looks = {text for text in looks if text.endswith("settings.mace")}
        assert not looks or where.startswith(allowed), f"{where}: {sorted(looks)}"


def test_files_are_replaced_and_renamed_in_one_place():
    """A rename without fsync of file and folder loses data when the machine goes down."""
    users = {
        f"{path.relative_to(PACKAGE)}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and _renames(node.func)
    }
    # a lock is moved aside to be taken by one process only: nothing is written
    assert users - {"record/lock.py"} == {"record/files.py"}


def _renames(function: ast.expr) -> bool:
    """os.replace, os.rename, os.renames, shutil.move, Path.rename; not str.replace, dataclasses.replace."""
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    return (owner == "os" and function.attr in {"replace", "rename", "renames"}) or (
        function.attr == "rename" or (owner == "shutil" and function.attr == "move")
    )
