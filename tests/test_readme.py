"""The README fits two screens, and what it says is true: files, commands, examples, how to cite."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_fits_two_screens_and_shows_a_report():
    assert len(README.splitlines()) <= 100
    assert README.index("](docs/images/report.png)") < README.index("## Five minutes")


def test_installing_running_and_testing_are_two_commands():
    for line in ("bash setup.sh demo", "bash setup.sh test"):
        assert re.search(rf"^{line}\b", README, re.MULTILINE)
    modes = re.search(r"usage: bash setup.sh \[(\w+)\|(\w+)\]", (ROOT / "setup.sh").read_text())
    assert modes is not None
    assert modes.groups() == ("demo", "test")


def test_its_commands_are_installed():
    import tomllib

    from aims_pax.cli.commands import VERBS

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    shell = "".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)) + "\n".join(
        re.findall(r"`([^`\n]+)`", README)
    )
    named = re.findall(r"^(aims-PAX[a-z-]*)(?: ([a-z][a-z-]*))?", shell, re.MULTILINE)
    assert len(named) > 4
    for command, verb in named:
        assert command in scripts
        assert not verb or verb in VERBS, verb


def test_every_file_it_links_to_exists():
    for target in re.findall(r"\]\(((?!http|#)[^)]+)\)", README.replace("\n", " ")):
        assert (ROOT / target).exists(), target


def test_it_cites_the_paper_as_the_citation_file_and_the_page_do():
    (entry,) = re.findall(r"@article\{.*?\n\}\n", README, re.DOTALL)
    assert entry in (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    fields = dict(re.findall(r"^  (\w+) = \{(.*?)\}", entry, re.MULTILINE))
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    assert fields["title"] == cited["title"]
    assert fields["doi"] == cited["doi"] == "10.1021/acs.jcim.5c02682"
    assert [fields[k] for k in ("journal", "volume", "pages", "year")] == [
        str(cited[k]) for k in ("journal", "volume", "start", "year")
    ]
    authors = [f"{a['family-names']}, {a['given-names']}" for a in cited["authors"]]
    assert fields["author"] == " and ".join(authors)


def test_every_example_is_accepted_by_check():
    from aims_pax.commands.check.project import check_as_yaml
    from aims_pax.errors import SettingsError

    for folder in (ROOT / "example").iterdir():
        if not (folder / "aimsPAX.yaml").exists():
            continue
        try:
            check_as_yaml(folder)
        except SettingsError as error:  # only the user's own FHI-aims is missing
            lines = str(error).splitlines()
            if not all("species_dir" in line and "no such folder" in line for line in lines):
                raise
