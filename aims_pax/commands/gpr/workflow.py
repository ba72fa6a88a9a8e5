"""`aims-PAX gpr train.in`: train a Gaussian process, test it, and augment the training set.

Each step runs if the file asks for it. Files and their shapes are those of ænet-gpr; besides them there is a page,
`gpr.html`, with its figures and numbers in `gpr/`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aims_pax.commands.gpr.data_checks import (
    refuse_contradictions,
    refuse_idle_points,
    refuse_untrained,
    refuse_zero_forces,
)
from aims_pax.commands.gpr.input_files import read_structures_of, without_close_ones, without_copies
from aims_pax.commands.gpr.output_files import (
    FOLDERS,
    check_other_outputs,
    check_output_folders,
    check_written_structures,
    per_structure,
    remove_earlier_results,
    unfinished_outputs,
    write_array,
    write_structures,
)
from aims_pax.commands.surrogate.observations import prior_mean
from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.engine.outcome import log_outcome
from aims_pax.errors import SettingsError, SetupError
from aims_pax.frames import LabelledFrame
from aims_pax.models.gp.coordinate_process import CoordinateOptions, CoordinateProcess
from aims_pax.models.gp.process import GaussianProcess, ProcessOptions, needs_featomic
from aims_pax.models.gp.process_file import PROCESS_SUFFIX, process_hash, save_process
from aims_pax.models.gp.soap import SoapDescriptor, require_featomic
from aims_pax.models.gp.soap_points import SoapPoints
from aims_pax.models.gp.sparse_process import ProcessPrediction
from aims_pax.models.gp.surrogate_copies import UNSURE, CopyLimits, LabelledCopies, make_copies
from aims_pax.potentials.baseline import Baseline
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console
from aims_pax.report.gpr_page import GprRecord, TestErrors, write_gpr_page
from aims_pax.settings.gpr_input import AUTO, CART, SOAP, GprSettings, read_gpr_input
from aims_pax.surrogate_labels import PROVENANCE

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

MODEL = f"model{PROCESS_SUFFIX}"
# %, structures: fewer in the intervals than by chance (1 %) in a test set of this size
TRUSTED, MANY = (
    70.0,
    10,
)
Process = GaussianProcess | CoordinateProcess


@dataclass(frozen=True)
class GprInput:
    """Settings and the structures that they name."""

    settings: GprSettings
    train: list[LabelledFrame]
    test: list[LabelledFrame]
    baseline: Baseline | None = None


def read_gpr(config: Path, folder: Path) -> GprInput:
    """Settings and structures; everything that `gpr` would refuse is refused here. Raises SettingsError, SetupError."""
    settings = read_gpr_input(config)
    check_output_folders(settings, folder)
    check_other_outputs(folder)
    train = read_structures_of(settings, "train_file")
    test = read_structures_of(settings, "test_file") if settings["test_file"] is not None else []
    for key, data in (("train_file", train), ("test_file", test)):
        refuse_zero_forces(settings, key, data)
    refuse_contradictions(settings, train, test)
    train = without_copies(train)
    if settings["filter"]:
        all_of_them = len(train)
        train = without_close_ones(train, settings["filter_threshold"])
        log.info("filter: %d of %d structures are left", len(train), all_of_them)
    refuse_untrained(settings, train, test)
    check_written_structures(settings, train, test)
    if known := {x.frame.id for x in train} & {x.frame.id for x in test}:
        log.warning(
            "test_file: %d of %d structures are also in train_file: their errors say nothing",
            len(known),
            len(test),
        )
    dense = settings["descriptor"] == CART
    if settings["descriptor"] == SOAP or (not dense and needs_featomic([x.frame for x in train])):
        require_featomic()
    if settings["descriptor"] == SOAP:
        _try_spectrum(settings, train)
        refuse_idle_points(settings, _spectrum(settings, train), train, test)
    return GprInput(settings, train, test, _baseline(settings, train))


def _try_spectrum(settings: GprSettings, data: Sequence[LabelledFrame]) -> None:
    try:
        _spectrum(settings, data).check()
    except SettingsError as error:
        raise settings.problem("soap_sigma", error.text) from error


def _baseline(settings: GprSettings, data: Sequence[LabelledFrame]) -> Baseline | None:
    """The prior mean, tried on the first structure. Raises SettingsError, SetupError."""
    if settings["baseline"] is None:
        return None
    if settings["descriptor"] == CART or settings["soap_centers"] is not None:
        raise settings.problem("baseline", "needs Descriptor auto, or soap without soap_centers")
    try:
        found = prior_mean(settings["baseline"], data[0].frame)
    except SettingsError as error:
        raise settings.problem("baseline", error.text or str(error)) from error
    return found


def gpr(config: Path, console: Console) -> None:
    """Train → Test → Augment in this folder. Raises SettingsError, SetupError; RunInterrupted after a signal."""
    folder = Path.cwd()
    lock = Lock(folder / ".gpr.lock")
    watch = InterruptMonitor(remaining_walltime(None), lock.heartbeat)
    ended = log_outcome(stopped="nothing is continued; the same command begins again")
    with to_console(console, "INFO"), ended, watch.listening(), lock.held(watch.raise_if_signalled):
        given = read_gpr(config, folder)
        for note in given.settings.notes:
            log.warning("%s", note)
        with unfinished_outputs(given.settings, folder):
            _run(given, folder, watch)


def _run(given: GprInput, folder: Path, watch: InterruptMonitor) -> None:
    settings = given.settings
    began = time.monotonic()
    process = train_process(settings, given.train, watch, given.baseline)
    _log_training(process, given, time.monotonic() - began)
    if isinstance(process, CoordinateProcess) and len(given.train) > 1:
        _compare_with_auto(process, given, watch)
    remove_earlier_results(folder)
    if settings["train_write"]:
        write_structures(settings, folder / FOLDERS["train_write"], given.train, [""] * len(given.train))
    if settings["train_model_save"]:
        save_process(process, folder / MODEL)
        baseline = process.baseline_name if isinstance(process, GaussianProcess) else ""
        needs = f"; it needs the baseline {baseline} again" if baseline else ""
        log.info("saved: %s%s", MODEL, needs)
    tested = _test(process, given, folder) if given.test else None
    copies = _augment(process, given, folder, watch) if settings["additional_write"] else None
    page = write_gpr_page(folder, _record(process, given, tested, copies))
    log.info("%s", page)


# ---------------------------------------------------------------- train


def train_process(
    settings: GprSettings,
    data: Sequence[LabelledFrame],
    watch: InterruptMonitor,
    baseline: Baseline | None = None,
) -> Process:
    """The process that `descriptor` asks for. Raises SettingsError, RunInterrupted, LabelError."""
    prior: dict[str, Any] = (
        {} if baseline is None else {"baseline": baseline, "baseline_name": baseline.described}
    )
    descriptor, centres = settings["descriptor"], settings["soap_centers"]
    check = watch.raise_if_stopped
    if descriptor == CART or (centres is not None and descriptor == SOAP):
        names = (
            "scale",
            "weight",
            "fit_scale",
            "fit_weight",
            "prior_update",
            "noise",
            "noisefactor",
            "standardization",
        )
        points = None if descriptor == CART else SoapPoints(_spectrum(settings, data), centres)
        options = CoordinateOptions(**{name: settings[name] for name in names}, points=points)
        return CoordinateProcess.fit(data, options, check)
    if descriptor == SOAP:
        d = _spectrum(settings, data)
        return GaussianProcess.fit(
            data, ProcessOptions(d.cutoff, d.n, d.l, d.width, molecules=False), check=check, **prior
        )
    return GaussianProcess.fit(data, check=check, **prior)


def _spectrum(settings: GprSettings, data: Sequence[LabelledFrame]) -> SoapDescriptor:
    elements = tuple(sorted({int(z) for x in data for z in np.unique(x.frame.numbers)}))
    return SoapDescriptor(
        elements,
        settings["soap_r_cut"],
        settings["soap_n_max"],
        settings["soap_l_max"],
        settings["soap_sigma"],
    )


def _log_training(process: Process, given: GprInput, seconds: float) -> None:
    train = given.train
    formulas = ", ".join(sorted({x.frame.formula for x in train}))
    n = len(train)
    log.info(
        "train: %s (%s), %d atoms",
        "1 structure" if n == 1 else f"{n} structures", formulas, sum(len(x.frame) for x in train),
    )  # fmt: skip
    if isinstance(process, CoordinateProcess):
        for line in process.hyperparameters(given.settings["scale"]):
            log.info("train: %s", line)
    elif process.shared is not None:
        s, d = process.shared.solution, process.shared.basis.descriptor
        log.info(
            "train: SOAP r_c %.2f Å, n %d, l %d, width %.2f Å · %d inducing environments · noise %.2f meV/Å, amplitude "
            "%.2f eV",
            d.cutoff, d.n, d.l, d.width, process.shared.basis.size, 1000 * s.noise, s.amplitude,
        )  # fmt: skip
    if given.baseline is not None:
        log.info(
            "train: prior mean %s, from which the process learns the difference", given.baseline.described
        )
    errors = process.errors
    if n == 1:
        log.warning("train: one structure has no leave-one-out error; test with others · %.1f s", seconds)
        return
    log.info(
        "train: leave-one-out MAE: energy %.2f meV, force component %.2f meV/Å · %.1f s",
        1000 * errors.energy_mae, 1000 * errors.force_mae, seconds,
    )  # fmt: skip


def _compare_with_auto(process: Process, given: GprInput, watch: InterruptMonitor) -> None:
    """One line: what the default descriptor would reach on the same data."""
    data, name = given.train, given.settings["descriptor"]
    what = f"Descriptor {name}" if name == CART else f"Descriptor {name} with soap_centers"
    if needs_featomic([x.frame for x in data]):
        try:
            require_featomic()
        except SetupError as error:
            log.warning("%s is not invariant; what auto would reach is not known: %s", what, error)
            return
    auto = GaussianProcess.fit(data, check=watch.raise_if_stopped)
    log.warning(
        "%s: leave-one-out force MAE %.1f meV/Å; Descriptor %s would reach %.1f meV/Å",
        what, 1000 * process.errors.force_mae, AUTO, 1000 * auto.errors.force_mae,
    )  # fmt: skip


# ---------------------------------------------------------------- test


def _test(process: Process, given: GprInput, folder: Path) -> TestErrors:
    began = time.monotonic()
    frames = [x.frame for x in given.test]
    said = process.predict(frames, spread=given.settings["get_variance"])
    energies = np.array([x.label.energy for x in given.test])
    forces = np.concatenate([x.label.forces for x in given.test])
    found = TestErrors(energies, forces, said)
    write_array(folder / "energy_test_reference.npy", energies)
    write_array(folder / "force_test_reference.npy", per_structure(frames, forces))
    _write_predictions(folder, "test", given.test, said)
    log.info("test: %d structures · %.2f s", len(frames), time.monotonic() - began)
    log.info("GPR energy MAE (eV): %.6f", found.energy_mae)
    log.info("GPR force MAE (eV/Ang): %.6f (norm of the error of an atom)", found.force_norm_mae)
    log.info("GPR force component MAE (eV/Ang): %.6f", found.force_mae)
    if found.coverage is not None and found.energy_coverage is not None:
        covered = (100 * found.energy_coverage, 100 * found.coverage)
        log.info(
            "in their 90 %% intervals: %.0f %% of the energies, %.0f %% of the force components", *covered
        )
        if min(covered) < TRUSTED and len(frames) >= MANY:
            log.warning("the deviations are too small: true errors are larger than they say")
    if given.settings["test_write"]:
        write_structures(given.settings, folder / FOLDERS["test_write"], given.test, [""] * len(given.test))
    return found


def _write_predictions(
    folder: Path, what: str, data: Sequence[LabelledFrame], said: ProcessPrediction
) -> None:
    frames = [x.frame for x in data]
    write_array(folder / f"energy_{what}_gpr.npy", said.energies)
    write_array(folder / f"force_{what}_gpr.npy", per_structure(frames, said.forces))
    if said.energy_sd is not None and said.force_sd is not None:
        write_array(folder / f"unc_e_{what}_gpr.npy", said.energy_sd)
        write_array(folder / f"unc_f_{what}_gpr.npy", per_structure(frames, said.force_sd))
    if len({len(f) for f in frames}) > 1:  # forces are then (ΣN, 3)
        write_array(folder / f"atoms_{what}.npy", np.array([len(f) for f in frames]))


# ---------------------------------------------------------------- augment


def _augment(process: Process, given: GprInput, folder: Path, watch: InterruptMonitor) -> LabelledCopies:
    settings = given.settings
    limits = CopyLimits(
        settings["disp_length"], settings["num_copy"], max_sd=settings["max_unc_forces"],
        separation=settings["min_separation"], seed=settings["seed"],
    )  # fmt: skip
    made = make_copies(process, _name_of(process), given.train, limits, watch.raise_if_stopped)
    remarks = [f"{PROVENANCE} = {x.origin[PROVENANCE]}" for x in made.copies]
    write_structures(settings, folder / FOLDERS["additional_write"], made.copies, remarks)
    said = ProcessPrediction(
        np.array([x.label.energy for x in made.copies]),
        np.concatenate([x.label.forces for x in made.copies]) if made.copies else np.zeros((0, 3)),
        None,
        np.array(made.energy_sd),
        np.concatenate(made.force_sd) if made.copies else np.zeros((0, 3)),
    )
    _write_predictions(folder, "additional", made.copies, said)
    refused = ", ".join(f"{reason} {n}" for reason, n in made.refused.items() if n) or "none"
    asked = len(given.train) * limits.copies
    where = f" in {FOLDERS['additional_write']}/" if made.copies else ""
    log.info("augment: %d of %d copies%s · refused: %s", len(made.copies), asked, where, refused)
    if len(made.copies) < asked / 2 and made.refused.get(UNSURE, 0) > asked / 2:
        log.warning(
            "augment: the largest deviation of a force in a copy is %.2f eV/Å in the median, the limit %.2f: lower "
            "disp_length, give more training structures, or raise max_unc_forces",
            np.median(made.largest_sd), limits.max_sd,
        )  # fmt: skip
    return made


def _name_of(process: Process) -> str:
    """A hash of the process, for the provenance of its labels."""
    if isinstance(process, GaussianProcess):
        return process_hash(process)
    digest = hashlib.sha256()
    for atoms, dense in process.groups.items():
        digest.update(repr((atoms, dense.shape, dense.mean, process.units[atoms])).encode())
        digest.update(dense.alpha.tobytes())
    return digest.hexdigest()[:12]


def _record(
    process: Process, given: GprInput, tested: TestErrors | None, copies: LabelledCopies | None
) -> GprRecord:
    return GprRecord(
        file=given.settings.file, descriptor=given.settings["descriptor"], train=given.train, test=given.test,
        loo=process.errors, tested=tested, copies=copies,
    )  # fmt: skip
