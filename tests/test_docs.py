"""What the pages under docs/ say exists: keys, files, commands; their YAML is read by the program itself."""

import re
from pathlib import Path

import pytest
import yaml

from aims_pax.settings.cluster import ClusterSettings
from aims_pax.settings.tables import tables

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
CLUSTER = (DOCS / "cluster.md").read_text(encoding="utf-8")


def known() -> set[str]:
    """Every key and section of the settings tables."""
    names = set(re.findall(r"^\| (?:&nbsp;)*(?:\\\*)?([A-Za-z_]\w*) \|", tables(), re.MULTILINE))
    return names | set(re.findall(r"^#+ (?:\w+ / )*(\w+)$", tables(), re.MULTILINE))


def inline(text: str) -> list[str]:
    """Inline code outside of blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def keys_in(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {k for v in value.values() for k in keys_in(v)}
    return {k for v in value for k in keys_in(v)} if isinstance(value, list) else set()


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
    blocks = yaml_blocks(CLUSTER)
    assert [b["CLUSTER"]["type"] for b in blocks] == ["slurm", "local"]
    for block in blocks:
        ClusterSettings.model_validate(block["CLUSTER"])


def test_its_figures_follow_from_its_settings():
    from aims_pax.labelling.blocks import Blocks

    section = ClusterSettings.model_validate(yaml_blocks(CLUSTER)[0]["CLUSTER"])
    drain = Blocks(section.slurm_str or "", longest=section.job_time_limit).drain
    assert drain is not None
    assert f"{drain // 3600} h {drain % 3600 // 60} min" in CLUSTER


MESSAGES = (
    "in a row ended without any worker", "Slurm refused ", "Slurm takes no jobs at the moment", "cannot be run",
    "it is computed again", "its worker died ", "no reference calculation has worked",
    "between this run and its workers",
)  # fmt: skip


@pytest.mark.parametrize("words", MESSAGES)
def test_its_messages_are_those_of_the_program(words):
    sources = [p.read_text() for p in (DOCS.parent / "aims_pax" / "labelling").glob("*.py")]
    assert words in CLUSTER
    assert any(words in re.sub(r'"\n\s*f?"', "", source) for source in sources)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_a_page_links_to_exists(page):
    for target in re.findall(r"\]\(((?!http|#|mailto)[^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
