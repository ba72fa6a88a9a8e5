"""Hashes of the files that a user's callable depends on: its modules, and the files that its arguments name.

Only modules in the working folder are hashed, not installed packages. Modules are parsed, not imported. Arguments
that name output files of a calculator (a log, its folder) are ignored.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_WRITTEN = (  # arguments that name output files
    "txt log logfile log_file out outfile output label directory workdir work_dir scratch tmpdir prefix trajectory "
    "restart stdout stderr"
)
WRITTEN = frozenset(_WRITTEN.split())
MANY = 2000  # in folders with more files than this, sizes are hashed instead of contents


def contents(targets: Mapping[str, Any] | Any, folder: Path | None) -> dict[str, str]:
    """{path: hash} of the files, folders and modules that a settings value names, also inside tables and lists.

    targets: any value; strings that name existing files or folders are used, and `package.module:callable` for modules.
    """
    root = Path() if folder is None else folder
    found: dict[str, str] = {}
    for text in _texts(targets):
        module, colon, callable_ = text.partition(":")
        if colon and callable_.replace(".", "_").isidentifier():
            found |= {str(p.relative_to(root)): content_digest(p) for p in modules(module, root)}
        elif (path := _named(text, root)) is not None:
            found[text] = content_digest(path)
    return dict(sorted(found.items()))


def modules(name: str, root: Path) -> list[Path]:
    """The files in root of the module with this name and of all modules that it imports, directly or indirectly."""
    found: dict[Path, None] = {}
    waiting = [name]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not all(part.isidentifier() for part in name.split(".")):
            continue
        seen.add(name)
        parts = name.split(".")
        for n in range(1, len(parts) + 1):  # a package is imported before its modules
            path = _file(parts[:n], root)
            if path is not None and path not in found:
                found[path] = None
                package = parts[:n] if path.name == "__init__.py" else parts[: n - 1]
                waiting += _imports(path, package)
    return list(found)


def content_digest(path: Path) -> str:
    """Hash of a file, or of a folder with its contents; "unreadable: …" if it cannot be read."""
    total = hashlib.sha256()
    try:
        if path.is_file():
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:12]
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        for file_ in inside:
            said = content_digest(file_) if len(inside) <= MANY else str(file_.stat().st_size)
            total.update(f"{file_.relative_to(path)} {said}\n".encode())
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return total.hexdigest()[:12]


def _texts(value: Any) -> Iterator[str]:
    """The strings in a value that may name a file or module; objects with target, args, kwargs are calls."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if str(key).lower() not in WRITTEN:
                yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif hasattr(value, "target") and hasattr(value, "kwargs"):
        yield value.target
        yield from _texts(value.args)
        yield from _texts(value.kwargs)


def _named(text: str, root: Path) -> Path | None:
    """The existing file or folder that a text names; not the working folder or a parent of it."""
    if not text.strip() or len(text) > 1000 or "\n" in text or "\0" in text:
        return None
    try:
        path = root / Path(text).expanduser()
        if path.is_dir() and path.resolve() in (root.resolve(), *root.resolve().parents):
            return None
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name that is too long, or ~unknown_user
        return None


def _file(parts: list[str], root: Path) -> Path | None:
    base = root.joinpath(*parts)
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


def _imports(path: Path, package: list[str]) -> Iterator[str]:
    """The full names that a file imports; for `from a import b` both a and a.b, which may be a module."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*around, *([node.module] if node.module else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
