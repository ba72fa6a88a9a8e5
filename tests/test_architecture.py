"""Imports point one way; the rooms that must be light stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "aims_pax"
NOUNS = {
    "errors", "frames", "systems", "potential", "dataset", "labelled_data", "label_limits", "given_data", "seeds",
    "settings", "companion", "atoms_info", "comment_line", "electrons", "processes", "geometry_in", "structure_files",
    "wire_names",
}  # fmt: skip
ENGINES = {"record", "labelling", "samplers", "md", "force_field"}
MAY = {
    "cli": NOUNS | ENGINES | {"core", "procedures", "report"},
    "procedures": NOUNS | ENGINES | {"core", "report"},
    "report": NOUNS | {"core", "record"},
    "samplers": NOUNS | {"core", "md"},
    **{room: NOUNS | {"core"} for room in ENGINES - {"samplers"}},
    "core": NOUNS,
    **{noun: NOUNS for noun in NOUNS},
}
ANYBODYS = "aims_pax.record.files"  # the one atomic write; it imports nothing but the errors


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        yield from names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "aims_pax" or len(parts) < 2:
            continue
        other = parts[1]
        if other in (own, "__version__") or own == "__init__" or name.startswith(ANYBODYS):
            continue
        assert other in MAY[own], f"{path} imports {name}"


@pytest.mark.parametrize(
    "module",
    [
        "aims_pax.core.active_learning",
        "aims_pax.settings",
        "aims_pax.labelling.references.fhi_aims",
        "aims_pax.cli",
    ],
)
def test_light_rooms_do_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'mace' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_parsl_mace_and_e3nn_are_imported_in_one_place_each():
    users = {
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        if "parsl" in {n.split(".")[0] for n in imports(p)}
    }
    homes = {
        "parsl_executor",
        "slurm_executor",
        "slurm_blocks",
        "interchange",
        "pool",
    }  # executors only; nobody else knows Parsl
    assert users <= {f"labelling/{home}.py" for home in homes}
    users = {
        room(p) for p in PACKAGE.rglob("*.py") if {"mace", "e3nn"} & {n.split(".")[0] for n in imports(p)}
    }
    assert users <= {"force_field"}


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
