"""What the pages under docs/ say exists: keys, files, commands, messages; their code runs, their YAML is read by the
program itself, and the site builds without a warning.
"""

import ast
import importlib.util
import io
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

import aims_pax
from aims_pax.frames import WEIGHT
from aims_pax.given_data import WEIGHTS_OF_LABELS
from aims_pax.schedulers.registry import known_schedulers
from aims_pax.settings import gpr_input
from aims_pax.settings.cluster import ClusterSettings
from aims_pax.settings.surrogate_search import SEARCHES
from aims_pax.settings.tables import BEGIN, END, renewed, tables
from aims_pax.settings.tables import commands as own_tables
from aims_pax.structure_files import geometry_in

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CLUSTER = (DOCS / "cluster.md").read_text(encoding="utf-8")


def known() -> set[str]:
    """Every key and section of the settings tables."""
    text = tables() + own_tables()
    names = set(re.findall(r"^\| (?:&nbsp;)*(?:\\\*)?([A-Za-z_]\w*) \|", text, re.MULTILINE))
    return names | set(re.findall(r"^#+ (?:\w+: )?(?:\w+ / )*(\w+)$", text, re.MULTILINE))


def inline(text: str) -> list[str]:
    """Inline code outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def keys_in(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {k for v in value.values() for k in keys_in(v)}
    return {k for v in value for k in keys_in(v)} if isinstance(value, list) else set()


def without_arguments(value: object) -> object:
    """The settings without keyword arguments of callables, which are not ours."""
    if isinstance(value, dict):
        return {k: without_arguments(v) for k, v in value.items() if k != "kwargs"}
    return [without_arguments(v) for v in value] if isinstance(value, list) else value


def yaml_blocks(text: str) -> list[dict]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_every_key_named_on_the_page_about_clusters_exists():
    named = {part for words in inline(CLUSTER) for part in re.findall(r"^(?:[A-Z_]+\.)?(\w+)(?::|$)", words)}
    keys = {word for word in named if "_" in word or word in ("type", "executor", "retries")}
    assert len(keys) > 12
    assert keys <= known(), keys - known()
    for block in yaml_blocks(CLUSTER):
        assert keys_in(block) <= known()


def test_the_cluster_sections_of_the_page_are_accepted():
    blocks = [b["CLUSTER"] for b in yaml_blocks(CLUSTER)]
    whole = [b for b in blocks if "type" in b]
    assert [b["type"] for b in whole] == ["slurm", "local", "sge"]
    assert len(blocks) == len(whole) + 1  # which cores and GPUs the driver uses: a part of any of them
    for block in blocks:
        ClusterSettings.model_validate(block if block in whole else {**whole[1], **block})


def test_the_page_about_clusters_names_every_scheduler_and_what_has_not_run_yet():
    rows = dict(re.findall(r"^\| `(\w+)` \| .*`(\w+_str)`", CLUSTER, re.MULTILINE))
    assert rows == {name: s.header_key for name, s in known_schedulers().items()}
    for name, scheduler in known_schedulers().items():
        (row,) = re.findall(rf"^\| `{name}` \| .*$", CLUSTER, re.MULTILINE)
        assert f"`{scheduler.example}`" in row
        assert ("not yet run" in row) is not scheduler.tested


def test_its_figures_follow_from_its_settings():
    from aims_pax.labelling.executors.block_request import Blocks

    section = ClusterSettings.model_validate(yaml_blocks(CLUSTER)[0]["CLUSTER"])
    drain = Blocks(section.scheduler, section.header, longest=section.job_time_limit).drain
    assert drain is not None
    assert f"{drain // 3600} h {drain % 3600 // 60} min" in CLUSTER


MESSAGES = (
    "in a row ended without any worker", " refused ", " accepts no jobs at the moment", "cannot be run",
    "it is computed again", "its worker died ", "no reference calculation has worked",
    "between this run and its workers",
)  # fmt: skip


@pytest.mark.parametrize("words", MESSAGES)
def test_its_messages_are_those_of_the_program(words):
    sources = [p.read_text() for p in (DOCS.parent / "aims_pax" / "labelling").rglob("*.py")]
    assert words in CLUSTER
    assert any(words in re.sub(r'"\n\s*f?"', "", source) for source in sources)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_a_page_links_to_exists(page):
    for target in re.findall(r"\]\(((?!http|#|mailto)[^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


# ---------------------------------------------------------------- every page

ROOT = DOCS.parent
SOURCES = sorted((ROOT / "aims_pax").rglob("*.py"))
# words with underscores that are not settings
NO_KEYS = {"free_energy", "k_grid", "fixed_spin_moment", "config_type", "aims_pax"}
NO_KEYS |= {"max_atomic_sd", "mean_atomic_sd", "top3_atomic_sd"}
NO_KEYS |= {*geometry_in.READ, *geometry_in.STATEMENT_NUMBERS, *geometry_in.REFUSED, *geometry_in.LEFT_BEHIND}
NO_KEYS |= {"needs_reference", "double_precision", "register_filter"}  # of a kind of samplers
NO_KEYS |= {"shrink_perturb"}  # a value of final_training
NO_KEYS |= {"heun_ode"}  # a way to remove noise
NO_KEYS |= {"default_initial_moment", "trajectory_0", "trajectory_1"}
NO_KEYS |= {"forces_spread", "energy_spread", "forces_comm", "energy_comm", "energy_var", "stress_var"}
NO_KEYS |= {WEIGHT, *WEIGHTS_OF_LABELS}
NO_KEYS |= {name for key in gpr_input.KEYS for name in (key, key.capitalize())}
NO_KEYS |= {name for section in SEARCHES.values() for name in section.model_fields}
NO_KEYS |= {*aims_pax.__all__, "REF_energy", "REF_forces", "REF_stress"}


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def written_by_hand(path: Path) -> str:
    """The text without the tables that the program writes into it."""
    text = path.read_text(encoding="utf-8")
    return text if BEGIN not in text else text.split(BEGIN)[0] + text.split(END)[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}[^\n]*\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_key_a_page_names_exists(path):
    text = written_by_hand(path)
    words = {
        w for code in inline(text) for w in re.findall(r"^(?:[A-Z_]+\.)?([A-Za-z]\w*_\w+)(?=$|: )", code)
    }
    tables_of = set(re.findall(r"^[A-Z_]+$", "\n".join(words), re.MULTILINE))
    assert words - tables_of - NO_KEYS <= known(), words - tables_of - NO_KEYS - known()
    for block in yaml_blocks(re.sub(r"```yaml title[^\n]*", "```yaml", text)):
        keys = keys_in(without_arguments(block))
        assert keys <= known() | {"factory", "kwargs"}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_every_command_a_page_names_exists(path):
    from aims_pax.cli.commands import GROUPS, VERBS

    text = path.read_text(encoding="utf-8")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()] + inline(text)
    for name, verb in re.findall(r"^(aims-PAX[a-z-]*)(?: ([a-z][a-z-]*))?", "\n".join(lines), re.MULTILINE):
        assert name in scripts, name
        assert not verb or name != "aims-PAX" or verb in {**VERBS, **GROUPS}, verb


def command_lines(text: str) -> set[str]:
    """Lines of blocks of shell, without comments."""
    return {line.partition("#")[0].strip() for block in blocks(text, "bash") for line in block.splitlines()}


def test_the_quickstart_has_the_commands_of_the_readme():
    readme = command_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    assert "aims-PAX check" in readme
    assert readme - {"bash setup.sh test"} <= command_lines(page("quickstart"))


def test_the_page_of_commands_describes_every_command():
    from aims_pax.cli.commands import GROUPS, VERBS

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    table = "\n".join(re.findall(r"^\| (`aims-PAX.*?) \| ", page("commands"), re.MULTILINE))
    words = set(re.findall(r"`(?:aims-PAX )?([a-z-]+|aims-PAX[a-z-]*)[ `]", table))
    assert words == {*VERBS, *GROUPS, *scripts} - {"aims-PAX-test"}
    assert "(also `aims-PAX-test`)" in page("commands")


def test_the_pages_give_the_numbers_of_the_program():
    from aims_pax.core import rules, threshold
    from aims_pax.labelling import systematic_failure
    from aims_pax.record import checkpoint, lock

    words = {1: "one", 2: "two", 5: "five", 10: "ten"}
    said = {
        "concepts": (
            f"first {threshold.WARM_UP} checks",
            f"After {words[rules.MAX_FAULTS]} such frames in a row",
        ),
        "restart": (
            f"after {words[lock.STALE_AFTER / 60]} minutes without a sign of life",
            f"the {words[checkpoint.KEEP]} newest snapshots",
        ),
        "faq": (
            f"The first {words[systematic_failure.FIRST_FAILURES]} calculations failed",
            f"from {words[rules.BELIEVED]} validation frames on, with {words[rules.BELIEVED_PER_SYSTEM]} of each",
        ),
    }
    assert set(re.findall(r"last (\d+) uncertainties", page("concepts"))) == {str(threshold.MEMORY)}
    for name, sentences in said.items():
        for sentence in sentences:
            assert sentence in " ".join(page(name).split()), sentence


# ---------------------------------------------------------------- messages that are quoted


@cache
def messages() -> list[str]:
    """Every text of the program, `…` where something is filled in."""
    found = []
    for source in SOURCES:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        parts = [v for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values]
        inside = {id(v) for v in parts}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "SettingsError"
                and len(node.args) == 2
            ):
                found.append(": ".join(map(_as_text, node.args)))
            if isinstance(node, ast.JoinedStr):
                found.append(_as_text(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                found.append(re.sub(r"%[-\d.]*[sdfg]", "…", node.value))
    return found


def _as_text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def quoted() -> list[str]:
    return [
        line
        for name in ("faq", "restart")
        for block in blocks(page(name), "text")
        for line in block.splitlines()
    ]


def said(quote: str, message: str) -> bool:
    """Whether the words between the dots stand in the message, in this order."""
    return (
        re.search(".*?".join(map(re.escape, filter(None, map(str.strip, quote.split("…"))))), message)
        is not None
    )


@pytest.mark.parametrize("quote", quoted())
def test_its_quotations_are_messages_of_the_program(quote):
    assert any(said(quote, message) for message in messages()), quote


def test_a_quotation_that_nobody_says_is_found_out():
    assert len(quoted()) > 20
    assert not any(said("the disk is rather full: …; free some", message) for message in messages())


# ---------------------------------------------------------------- what the hooks write


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_has_the_tables_of_the_code():
    inside = page("settings").split(BEGIN)[1].split(END)[0]
    assert len(re.findall(r"^\| .*$", inside, re.MULTILINE)) > 100
    assert inside.strip() == tables().strip(), "run: python -m aims_pax.settings.tables docs/settings.md"


def test_the_page_of_samplers_has_every_key_of_the_commands_with_files_of_their_own(hooks):
    written = hooks.on_page_markdown(page("samplers"))
    rows = re.findall(r"^\| .*$", own_tables(), re.MULTILINE)
    assert len(rows) > 80
    assert set(rows) <= set(written.splitlines())
    assert "<!-- sampler settings -->" not in written


def test_the_page_of_samplers_has_the_tables_of_the_code():
    written = page("samplers")
    assert renewed(written) == written, "run: python -m aims_pax.settings.tables docs/samplers.md"


def test_the_page_of_samplers_names_every_sampler_and_filter_and_its_list_is_accepted(tmp_path):
    from aims_pax.settings.samplers import FILTERS, KINDS
    from tests.settings.folders import PROJECT, read

    named = set(re.findall(r"^\| `([a-z_]+)` \|", page("samplers"), re.MULTILINE))
    assert named == {*KINDS, *FILTERS}
    (block,) = yaml_blocks(page("samplers"))
    found = read(tmp_path, PROJECT + yaml.safe_dump(block)).samplers
    assert [s.kind for s in found] == ["md", "rattle_tree", "phonons"]


def test_the_page_of_commands_has_every_command_with_every_option(hooks, monkeypatch):
    from aims_pax.cli.commands import GROUPS, VERBS
    from tests.projects import command

    monkeypatch.setenv("COLUMNS", "200")
    written = hooks.on_page_markdown(page("commands"))
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", written, re.MULTILINE | re.DOTALL))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(sections) == set(scripts) | {f"aims-PAX {verb}" for verb in {**VERBS, **GROUPS}}
    for name, words in (("aims-PAX export", ["export"]), ("aims-PAX-recalc", [])):
        told = command(*words, "--help", folder=ROOT, name=name.split()[0], timeout=60).stdout
        options = {o for o in re.findall(r"--[a-zA-Z_-]+", told) if "_" not in o and set(o) != {"-"}}
        assert len(options) > 2
        assert set(re.findall(r"`(--[\w-]+)`", sections[name])) == options - {"--help", "--version"}


def test_the_site_builds_and_loads_nothing_from_the_network(tmp_path):
    site = tmp_path / "site"
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {p.stem for p in site.glob("*.html")} >= {p.stem for p in PAGES}
    for html in site.glob("*.html"):
        text = html.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\"\s>]+)", text)
        loaded += [
            re.search(r"href=\"?([^\"\s>]+)", tag)[1]
            for tag in re.findall(r"<link\b[^>]*>", text)
            if re.search(r"rel=\"?(stylesheet|icon|preconnect|preload)", tag)
        ]
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)]
    assert "c_x" in (site / "settings.html").read_text(encoding="utf-8")
    assert (site / "repository" / "example" / "cluster" / "job.sh").is_file()


def test_every_figure_is_drawn_by_its_script(tmp_path):
    drawn = {f"make_{name}.py": f"{name}.svg" for name in ("cluster", "live", "architecture")}
    drawn["make_concepts.py"] = ""
    for script, name in drawn.items():
        target = tmp_path / name
        subprocess.run(
            [sys.executable, str(DOCS / "images" / script), str(target)], check=True, timeout=120, cwd=ROOT
        )
    assert {p.name for p in tmp_path.glob("*.svg")} == {p.name for p in (DOCS / "images").glob("*.svg")} - {
        "icon.svg"
    }
    live = (DOCS / "images/live.svg").read_text(encoding="utf-8")
    assert (tmp_path / "live.svg").read_text(encoding="utf-8") == live, (
        "draw it again: docs/images/make_live.py"
    )
    shown = "".join(p.read_text(encoding="utf-8") for p in PAGES)
    for figure in (DOCS / "images").glob("*.[sp][vn]g"):
        assert figure.name == "icon.svg" or f"](images/{figure.name})" in shown


# ---------------------------------------------------------------- the page about the code


def test_every_path_of_the_page_about_the_code_exists():
    text = page("architecture")
    paths = set(re.findall(r"`((?:[\w.*-]+/)+[\w*-]*(?:\.py)?|[\w]+\.py)`", text))
    in_a_run = (
        "data/",
        "restart/",
        "results/",
        "report/durations",
        "trajectories/",
        "analysis/",
        "losses/",
        "calc/",
    )
    named = {p for p in paths if not p.startswith(in_a_run) and p not in ("report/", "model/")}
    assert len(named) > 60
    missing = {p for p in named if not (ROOT / "aims_pax" / p).exists() and not (ROOT / p).exists()}
    assert not missing
    shapes = re.findall(r"`(\w+)` in `([\w/]+\.py)`", text)
    assert len(shapes) > 6
    for name, path in shapes:
        tree = ast.parse((ROOT / "aims_pax" / path).read_text(encoding="utf-8"))
        assert name in {n.name for n in tree.body if isinstance(n, ast.ClassDef)}, (name, path)


def test_the_picture_and_the_order_of_rooms_are_those_of_the_imports():
    from tests.test_architecture import LAYER, LAYERS, PACKAGE

    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} - {"structure_files"}
    spec = importlib.util.spec_from_file_location("make_architecture", DOCS / "images/make_architecture.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    rows = [{room for room, _ in rooms} for _, rooms in drawing.ROWS]
    assert rows[-1] == {"single files"}
    assert set().union(*rows[:-1]) == folders
    assert rows[:-1] == [layer for layer in LAYERS if layer & folders]
    order = re.search(r"`(cli →.*?)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    parts = [set(re.findall(r"\w+", part)) for part in order[1].split("→")]
    assert parts[:-1] == rows[:-1]
    assert all(LAYER[room] < LAYER["frames"] for room in folders)


# ---------------------------------------------------------------- plain words

PROSE = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "example").rglob("*.md"))]
BANNED = {  # an expression → what to say
    r"told|tell apart": "reported, distinguish",
    r"kept": "stored, remains",
    r"felt": "acting, forces",
    r"met": "found, reached",
    r"meant": "applies to, is",
    r"mend(ed)?": "correct",
    r"dear": "expensive",
    r"wish(es|ed)?": "request",
    r"go(es)? on|went on|going on": "continue",
    r"stands? for": "is, means",
    r"to be had": "available",
    r"at it": "working",
    r"all the same": "anyway",
    r"lies? beside": "is next to",
    r"worth its name|for good|a good deal": "leave out",
}
ALLOWED = {  # page → places that are not prose of the page
    "cluster": ("`kept/FRAME.METHOD.tar.gz`",),  # the name of a folder
}


def prose(path: Path) -> str:
    """The words of a page: without blocks of code, quoted messages, addresses and generated tables, in one line."""
    text = re.sub(r"```.*?```", "", written_by_hand(path), flags=re.DOTALL)
    for place in ALLOWED.get(path.stem, ()):
        assert place in text, f"no longer on the page: {place}"
        text = text.replace(place, "")
    return re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", text))


@pytest.mark.parametrize("path", PROSE, ids=lambda p: str(p.relative_to(ROOT)))
def test_it_is_said_plainly(path):
    text = prose(path)
    found = [
        f"{m[0]!r} (say: {instead}): …{text[max(0, m.start() - 50) : m.end() + 30]}…"
        for words, instead in BANNED.items()
        for m in re.finditer(rf"\b(?:{words})\b", text, re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


def texts_of_code(source: str) -> list[tuple[int, str]]:
    """(line, text) of comments, docstrings and messages; texts of a single word are data."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(t.start[0], t.string) for t in tokens if t.type == tokenize.COMMENT]
    constants = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)]
    strings = [(n.lineno, n.value) for n in constants if isinstance(n.value, str) and " " in n.value.strip()]
    return sorted(comments + strings)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(DOCS.parent)))
def test_code_says_it_plainly(path):
    words = [w for w in BANNED if w != "kept"]  # files of runs have the name
    pattern = re.compile(rf"\b(?:{'|'.join(words)})\b")
    found = [
        f"{line}: {m[0]!r} in {text[max(0, m.start() - 50) : m.end() + 30]!r}"
        for line, text in texts_of_code(path.read_text(encoding="utf-8"))
        for m in pattern.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_the_list_of_words_finds_them():
    code = "log.info(f\"it goes on: {x['wish']}\")  # the wish\n"
    assert texts_of_code(code) == [(1, "# the wish"), (1, "it goes on: ")]
    for sentence in ("the run goes on", "labels are kept", "a wish is meant for", "FRAME stands for"):
        assert any(re.search(rf"\b(?:{words})\b", sentence) for words in BANNED)
