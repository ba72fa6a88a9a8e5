"""`aims-PAX test --md`: from models or the folder of a run to the page of the MD test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.commands.md_test.reference_checks import ReferenceCheck, named_checks, planned_checks
from aims_pax.commands.md_test.run_test import MDTest, TestBudget, run_md_test, write_md_test
from aims_pax.commands.md_test.starts import (
    TestedSystem,
    starts_of_each,
    systems_of_frames,
    with_moving_atoms,
)
from aims_pax.dataset import only_known
from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelled_data import LabelKeys, read_labelled
from aims_pax.models.base import ModelPotential
from aims_pax.models.calculator import ChosenFiles, chosen_files, common_kind
from aims_pax.record.delivered_models import file_digest, recorded_models
from aims_pax.report.formatting import plural
from aims_pax.report.md_test import md_test_lines
from aims_pax.settings import Settings, read_settings
from aims_pax.settings.md import MDSettings
from aims_pax.suggestions import no_such

if TYPE_CHECKING:
    from rich.console import Console

SETS = ("training", "validation", "test")  # of results/
STARTS, MOST = 4, 64  # of each system, and trajectories in all, where --starts is not written
DATA = (".xyz", ".extxyz", ".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class MDTestOptions:
    """What the command line says. ps: of each trajectory. temperature K, timestep fs: None: of the run.

    starts: labelled frames of each system; None: STARTS, fewer with many systems.
    reference: checks against the reference, `errors,frequencies,eos`; "": none.
    """

    ps: float = 1.0
    temperature: float | None = None
    timestep: float | None = None
    starts: int | None = None
    seed: int = 0
    reference: str = ""
    output: Path | None = None
    keys: tuple[str, ...] = ("REF_energy", "REF_forces", "REF_stress", "REF_virials")
    device: str = "cpu"
    dtype: str | None = None


@dataclass(frozen=True)
class _Source:
    """What is tested. run: the folder of its run, None: unknown. delivered: the run's own models are tested."""

    files: ChosenFiles
    data: tuple[Path, ...]
    run: Path | None
    delivered: bool


def assess_in_md(
    words: Sequence[Path], asked: MDTestOptions, console: Console, settings_files: tuple[str, str]
) -> dict[str, Any]:
    """Test models, or the delivered models of a run, in MD; print the page and write `md_test.json` and figures.

    words: nothing or the folder of a run; or models, and optionally a labelled dataset. Raises SettingsError.
    """
    checks = named_checks(asked.reference) if asked.reference else ()
    _check_options(asked)
    source = _source(list(words))
    settings = _settings(source.run, settings_files)
    if checks and settings is None:
        raise SettingsError(
            "--reference: the reference is that of a run's aimsPAX.yaml, and no run was found"
        )
    files = source.files.files[: source.files.acting]
    potential = common_kind(files).load_fast(files, asked.device, asked.dtype, "auto")
    systems = systems_of_frames(
        _frames(source.data, asked.keys, potential), _md_of(settings, asked), asked.temperature
    )
    if not systems:
        raise SettingsError(f"{', '.join(map(str, source.data))}: no structures to start from")
    tested = with_moving_atoms(systems)
    if not tested:
        raise SettingsError(
            f"{', '.join(map(str, source.data))}: all atoms are fixed in all structures; MD needs atoms that can move"
        )
    budget = _budget(asked, tested)
    names = ", ".join(f.name for f in files)
    what = (
        f"{asked.ps:g} ps from {plural(budget.starts, 'labelled frame')} of {plural(len(tested), 'system')}"
    )
    _say(console, f"MD test of {names}: {what}, at T and 1.5 T")
    done = run_md_test(potential, systems, budget, {f.name: file_digest(f) for f in files})
    found = done.found
    where = asked.output or (source.run / "results" if source.run and source.delivered else Path("md_test"))
    if checks:
        assert settings is not None
        write_md_test(where, found, pictures=False)  # not lost if the reference fails
        found = found | {"reference": _compare(checks, settings, potential, systems, done, console)}
    path = write_md_test(where, found)
    for line in [
        *md_test_lines(found),
        "",
        f"results: {path}, figures beside it in {path.parent / 'md_test'}",
    ]:
        _say(console, line)
    if source.delivered and source.run is not None and asked.output is None:
        _renew_report(source.run, console)
    return found


def _budget(asked: MDTestOptions, tested: Sequence[TestedSystem]) -> TestBudget:
    """How much MD: as many starts as asked for; without a number, as many of STARTS as MOST trajectories allow."""
    n = len(tested)
    starts = asked.starts or starts_of_each(n, STARTS, MOST)
    steps = math.ceil(1000 * asked.ps / min(s.md.timestep for s in tested))
    return TestBudget(steps, starts, max(MOST, 2 * n * starts), None, asked.seed)


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


def _check_options(asked: MDTestOptions) -> None:
    """Raises SettingsError for numbers that make no sense."""
    for name, value in (("ps", asked.ps), ("temperature", asked.temperature), ("timestep", asked.timestep)):
        if value is not None and not 0 < value < math.inf:
            raise SettingsError(f"--{name}: expected a positive number, got {value:g}")
    if asked.starts is not None and asked.starts < 1:
        raise SettingsError(f"--starts: expected 1 or more, got {asked.starts}")
    if asked.output is not None and asked.output.suffix:
        raise SettingsError(f"-o: expected a folder for the MD test, got {asked.output}")


# ---------------------------------------------------------------- what is tested, and on what


def _source(words: list[Path]) -> _Source:
    """Models, data and run from the words of the command line."""
    if len(words) == 1 and words[0].is_dir():
        return _of_folder(words[0])
    if not words:
        return _of_folder(Path())
    data: tuple[Path, ...] = (words.pop(),) if words[-1].suffix in DATA else ()
    if not words:
        raise SettingsError(
            f"{data[0]}: expected models before the dataset: aims-PAX test --md MODEL... DATA.xyz"
        )
    if data and not data[0].is_file():
        raise SettingsError(f"{data[0]}: {no_such(data[0])}")
    files = chosen_files(words)
    run = _run_of(words[0])
    found = data or (() if run is None else _sets(run / "results"))
    if not found:
        raise SettingsError(
            f"{words[0]}: no labelled structures to start from: it is not among the results of a run; give a dataset "
            "as the last argument, aims-PAX test --md MODEL... DATA.xyz"
        )
    return _Source(files, found, run, False)


def _of_folder(folder: Path) -> _Source:
    files = chosen_files(folder)
    results = folder / "results" if (folder / "results").is_dir() else folder
    data = _sets(results)
    if not data:
        raise SettingsError(
            f"{results}: no labelled structures ({', '.join(f'{s}.xyz' for s in SETS)}) to start from"
        )
    return _Source(files, data, results.absolute().parent, True)


def _run_of(model: Path) -> Path | None:
    """The folder of the run that delivered a model, if the file is still among its results."""
    for results in (model.absolute().parent, model.absolute().parent.parent):
        if str(model.absolute().relative_to(results)) in recorded_models(results):
            return results.parent
    return None


def _sets(results: Path) -> tuple[Path, ...]:
    return tuple(p for name in SETS if (p := results / f"{name}.xyz").is_file())


def _frames(paths: Sequence[Path], keys: tuple[str, ...], potential: ModelPotential) -> list[LabelledFrame]:
    """The labelled structures of all files, each once. Raises SettingsError for an element the model does not know."""
    found: dict[str, LabelledFrame] = {}
    for path in paths:
        frames = list(read_labelled(path, replace(LabelKeys(*keys), option="--{}-key")))
        found |= {f.id: f for f in only_known(frames, potential.elements, path)}
    return list(found.values())


def _settings(run: Path | None, files: tuple[str, str]) -> Settings | None:
    """The settings of the run, None where there is no run or its settings file is not there."""
    if run is None or not (run / files[0]).is_file():
        return None
    return read_settings(run, *files)


def _md_of(settings: Settings | None, asked: MDTestOptions) -> Callable[[str], MDSettings]:
    """MD settings of a system by its name. Raises SettingsError where nothing says the temperature."""
    changes = {} if asked.timestep is None else {"timestep": asked.timestep}
    if settings is None:
        if asked.temperature is None:
            raise SettingsError(
                "--temperature: at which temperature (K)? No run was found whose settings say it"
            )
        own = MDSettings(stat_ensemble="NVT").model_copy(update=changes)
        return lambda system: own

    def md(system: str) -> MDSettings:
        of = settings.md_by_system
        return (of.get(system, settings.md) if of else settings.md).model_copy(update=changes)

    return md


# ---------------------------------------------------------------- against the reference


def _compare(
    asked: Sequence[str],
    settings: Settings,
    potential: ModelPotential,
    systems: Sequence[TestedSystem],
    done: MDTest,
    console: Console,
) -> dict[str, Any]:
    """Label what the checks need, after saying how many labels that are; their results, and what they cost."""
    from aims_pax.stages.label_list import LabelRequest, label_all, open_reference

    checks = planned_checks(asked, potential, systems, done.thermal)
    wanted = {
        f.id: LabelRequest(f, f"{c.kind} of {c.system}", _named(settings, c.system))
        for c in checks
        for f in c.frames()
    }
    _say(console, _costs(checks, len(wanted)))
    with open_reference(settings, console, "md_test.log", [w.frame for w in wanted.values()]) as context:
        failed = label_all(context, list(wanted.values()))
        calls = context.labeller.calls

        def label(frame: Frame) -> Label | None:
            return context.labeller.known(frame, wanted[frame.id].system)

        results = [(c, c.result(potential, label)) for c in checks]
    found: dict[str, Any] = {"labels": len(wanted), "calculated": calls.finished, "failed": len(failed),
                             "seconds": round(calls.seconds, 3)}  # fmt: skip
    for check, result in results:
        if result is None:
            _say(
                console, f"{check.kind} of {check.system}: not done, because labels that it needs have failed"
            )
        else:
            found.setdefault(check.kind, []).append(result)
    return found


def _named(settings: Settings, system: str) -> str | None:
    """The name of a geometry for references with a control.in of their own each."""
    return system if isinstance(settings.misc.path_to_control, dict) else None


def _costs(checks: Sequence[ReferenceCheck], total: int) -> str:
    parts = [f"{c.kind.replace('_', ' ')} of {c.system} {len(c.frames())}" for c in checks]
    return (
        f"--reference needs {plural(total, 'label')} ({', '.join(parts)}); stored ones are not calculated again, and "
        "they do not count as labels of the run"
    )


def _renew_report(run: Path, console: Console) -> None:
    if (run / "report.html").is_file():
        from aims_pax.report.html_page import write_report

        _say(console, f"report: {write_report(run)}")
