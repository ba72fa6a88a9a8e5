"""What the pages take from the program when they are built: the commands, keys of their files, files of the repository.

`<!-- commands -->` and `<!-- sampler settings -->` are replaced by what the code says of itself. A link out of docs/
leads to a copy of that file in the site. The tables of docs/settings.md are in that file: `aims_pax.settings.tables`
writes them there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "aims-PAX-initial-ds": "_initial_ds",
    "aims-PAX-al": "_al",
    "aims-PAX-recalc": "_recalc",
    "aims-PAX-atomic-energies": "_atomic_energies",
}
OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its marks filled in."""
    marks = {"sampler settings": sampler_settings, "commands": commands}
    for mark, text in ((f"<!-- {name} -->", text) for name, text in marks.items()):
        if mark in markdown:
            markdown = markdown.replace(mark, text())
    return OUTSIDE.sub(r"](repository/\1)", markdown)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """With the files outside of docs/ that pages link to."""
    from mkdocs.structure.files import File

    pages = [page for page in files.documentation_pages() if page.abs_src_path]
    wanted = {name for page in pages for name in OUTSIDE.findall(page.content_string)}
    for name in sorted(wanted):
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, f"repository/{name}", content=text))
    return files


def sampler_settings() -> str:
    """The tables of `aims-PAX sample`, `augment`, `training-set` and `diffusion train`."""
    from aims_pax.settings.tables import commands

    return commands()


def commands() -> str:
    """Every command with its arguments and options, in the order of `aims-PAX --help`, then the other programs."""
    import typer

    from aims_pax import cli

    group: Any = typer.main.get_command(cli.app)
    parts = [_section("aims-PAX", group)]
    for name, command in group.commands.items():
        if not command.hidden:
            parts.append(_section(f"aims-PAX {name}", command))
            inner = getattr(command, "commands", {})
            parts += [_section(f"aims-PAX {name} {verb}", one, "###") for verb, one in inner.items()]
    for name, function in PROGRAMS.items():
        app = typer.Typer(add_completion=False)
        app.command()(getattr(cli, function))
        parts.append(_section(name, typer.main.get_command(app)))
    parts.append("## aims-PAX-test\n\nThe same as [aims-PAX test](#aims-pax-test).\n")
    return "\n".join(parts)


def _section(name: str, command: Any, level: str = "##") -> str:
    words = [" ".join(_usage(p) for p in command.params if _is_argument(p))]
    if any(not _is_argument(p) for p in command.params):
        words.insert(0, "[OPTIONS]")
    usage = " ".join([name, *filter(None, words)])
    text = f"{level} {name}\n\n{' '.join((command.help or '').split())}\n\n```text\n{usage}\n```\n"
    rows = [_row(p) for p in command.params if p.name != "version"]
    return f"{text}\n| | what it means | default |\n|---|---|---|\n{''.join(rows)}" if rows else text


def _row(parameter: Any) -> str:
    said = " ".join((parameter.help or "").split()).replace("|", "\\|")
    if _is_argument(parameter):
        shown = f"`{_name(parameter)}`"
    else:
        shown = ", ".join(f"`{o}`" for o in sorted((o for o in parameter.opts if "_" not in o), key=len))
    return f"| {shown} | {said} | {_default(parameter)} |\n"


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.required:
        return "you must give it"
    value = parameter.default() if callable(parameter.default) else parameter.default
    return "" if value is None or value is False or value == "" else f"`{value}`"


def _usage(parameter: Any) -> str:
    name = _name(parameter) + ("..." if parameter.nargs == -1 and "..." not in _name(parameter) else "")
    return name if parameter.required else f"[{name}]"


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")
