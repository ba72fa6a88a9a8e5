"""Imports point one way; the rooms that must be light stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "aims_pax"
NOUNS = {"errors", "frames", "systems", "potential", "dataset", "seeds", "settings", "companion"}
NOUNS |= {"atoms_info", "comment_line", "electrons", "processes", "geometry_in", "structure_files"}
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
        if other in (own, "__version__") or own == "__init__":
            continue
        assert other in MAY[own], f"{path} imports {name}"


@pytest.mark.parametrize(
    "module", ["aims_pax.core.explore", "aims_pax.settings", "aims_pax.labelling.aims", "aims_pax.cli"]
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
