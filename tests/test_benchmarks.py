"""The scripts in benchmarks/ call the package as it is now: names exist, and so do keywords."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
MISSING = object()


def imported(tree: ast.AST) -> dict:
    """{name: object} of everything that a script imports from the package, also inside functions."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("aims_pax"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                try:
                    found = getattr(module, alias.name, MISSING)
                    found = (
                        importlib.import_module(f"{node.module}.{alias.name}") if found is MISSING else found
                    )
                except ImportError:
                    found = MISSING
                names[alias.asname or alias.name] = found
    return names


def resolved(node: ast.expr, names: dict):
    """The object of a dotted name that begins with an imported one; None if it cannot be known."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        if inspect.ismodule(owner) or inspect.isclass(owner):
            return getattr(owner, node.attr, MISSING)
    return None


def faults(tree: ast.AST, names: dict):
    yield from (f"{name} does not exist" for name, found in names.items() if found is MISSING)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and resolved(node, names) is MISSING:
            yield f"line {node.lineno}: {ast.unparse(node)} does not exist"
        if not isinstance(node, ast.Call):
            continue
        target = resolved(node.func, names)
        if target in (None, MISSING) or not str(getattr(target, "__module__", "")).startswith("aims_pax"):
            continue
        parameters = inspect.signature(target).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            continue
        for keyword in node.keywords:
            if keyword.arg is not None and keyword.arg not in parameters:
                yield f"line {node.lineno}: {ast.unparse(node.func)}() has no argument {keyword.arg}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_a_benchmark_calls_what_there_is(path):
    tree = ast.parse(path.read_text())
    assert list(faults(tree, imported(tree))) == []


def test_a_wrong_name_or_keyword_is_found():
    text = """
def later():
    from aims_pax.md import propagate, nowhere
    propagate.advance(s, p, 5, md, drivers=None)
    propagate.advanced(s)
"""
    tree = ast.parse(text)
    assert [fault.rpartition(": ")[2] for fault in faults(tree, imported(tree))] == [
        "nowhere does not exist",
        "propagate.advance() has no argument drivers",
        "propagate.advanced does not exist",
    ]
