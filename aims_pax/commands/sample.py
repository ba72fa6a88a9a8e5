"""`aims-PAX sample`: writes structures made by samplers to a file, without a reference or models.

Structures are made in batches. After each batch the samplers' state is written to a second file. When the same command
runs again, it removes everything after the last complete batch and continues from there with the same result.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from aims_pax import seeds
from aims_pax.commands.check.devices import check_device
from aims_pax.engine.interrupts import InterruptMonitor, remaining_walltime
from aims_pax.engine.outcome import log_outcome
from aims_pax.errors import Abandoned, RestartError, SettingsError
from aims_pax.labelled_data import structure_text
from aims_pax.potentials.named import Potentials
from aims_pax.record.arrays import Torn, pack_arrays, unpack_arrays
from aims_pax.record.files import append_text, cut_torn_tail, write_bytes
from aims_pax.record.lock import Lock
from aims_pax.record.log import to_console
from aims_pax.record.provenance import changes, flat_settings, provenance_refusal
from aims_pax.sampler import Sample
from aims_pax.samplers.mixture import Mixture
from aims_pax.schedulers.usable_cores import cores
from aims_pax.settings.bundled_models import BUNDLED
from aims_pax.settings.callables import PUBLISHED_MODELS
from aims_pax.settings.content_hashes import contents
from aims_pax.settings.geometry_rules import without_pressure
from aims_pax.settings.sample import Sampling, read_sample
from aims_pax.settings.sampler_list import calls, models, samplers_as_written, samplers_in_words
from aims_pax.settings.samplers import OwnSamplerSettings, SamplerSettings
from aims_pax.stages.sampler_factory import mixture
from aims_pax.systems import System, geometry_paths, read_systems

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

CONTENTS = "contents"  # of files, in the settings of an output
BATCH = 10  # structures of each geometry between two writes


def sample(config: Path, console: Console) -> None:
    """`aims-PAX sample`: append structures to the output until it contains the requested number.

    Raises SettingsError, SamplingError, RestartError; RunInterrupted after a signal.
    """
    from aims_pax.parallel.calculator_dynamics import CalculatorDynamics  # imports torch; checks do not

    settings = read_sample(config)
    folder, keys = Path.cwd(), settings.keys
    target = folder / Path(keys.output).expanduser()
    check_sample_output(target)
    systems = read_systems(geometry_paths(keys.path_to_geometry, folder))
    if keys.device is not None:
        check_device("device", keys.device)
    lock = Lock(target.with_name(f".{target.name}.lock"))
    watch = InterruptMonitor(remaining_walltime(None), lock.heartbeat)
    with (
        to_console(console, "INFO"), log_outcome(), watch.listening(), lock.held(watch.raise_if_signalled),
        CalculatorDynamics(cores()) as dynamics,
    ):  # fmt: skip
        for warning in (*settings.warnings, *geometry_warnings(settings, systems)):
            log.warning("%s", warning)
        log.info("%s: %s", target.name, samplers_in_words(settings.samplers))
        made = mixture(
            settings.samplers,
            lambda _: settings.md,
            float(settings.md.temperature),  # type: ignore[arg-type]  # a single value: checked when the settings were read
            keys.skip_step,
            Potentials(folder, keys.device),
            watch.stop,
            dynamics=dynamics,
        )
        _fill(target, made, systems, settings, watch)


def geometry_warnings(settings: Sampling, systems: Sequence[System]) -> list[str]:
    """What of the geometries has no effect, and where NPT is not possible."""
    notes = [note for system in systems for note in system.notes]
    at_volume = without_pressure(settings.md, systems, settings.samplers)
    return [*notes, *(f"{'.'.join(map(str, place))}: {text}" for place, text in at_volume)]


def _fill(
    target: Path, made: Mixture, systems: Sequence[System], settings: Sampling, watch: InterruptMonitor
) -> None:
    """Make batches until the file contains the requested number of structures."""
    made_with, n = _made_with(settings, systems), settings.keys.n_per_geometry
    digest = _digest(settings, systems)
    done = _taken_up(target, made, digest, made_with)
    if done > n:
        log.info("%d structures of each of %d geometries exist, %d were requested", done, len(systems), n)
    else:
        log.info("%d of %d structures of each of %d geometries exist", done, n, len(systems))
    counts: Counter[str] = Counter()
    while done < n:
        watch.raise_if_stopped()
        more = min(BATCH - done % BATCH, n - done)
        rng = seeds.rng("sample", settings.keys.seed, done)
        try:
            samples = list(made.sample(systems, more, rng))
        except Abandoned:
            watch.raise_if_stopped()
            raise
        if not done:
            # marks the output as written by this command, even if it is killed now
            _write_memory(target, {}, digest, made_with, 0)
        append_text(target, "".join(_texts(samples, done)), sync=True)
        done += more
        _write_memory(target, made.state_arrays(), digest, made_with, done)
        counts.update(str(s.origin["sampler"]) for s in samples)
        log.info("%d of %d structures of each geometry", done, n)
    if counts:
        log.info("made: %s", ", ".join(f"{name} {k}" for name, k in counts.items()))


def _texts(samples: Sequence[Sample], done: int) -> Iterator[str]:
    """Extended XYZ of each sample with its origin and an id made of its geometry and number."""
    number: Counter[str] = Counter()
    for one in samples:
        atoms, system = one.frame.to_atoms(), str(one.origin["system"])
        atoms.info |= {"id": f"{system}-{done + number[system]}", **_renamed(one.origin)}
        number[system] += 1
        yield structure_text(atoms)


def _renamed(origin: Any) -> dict[str, Any]:
    """The origin; the id from a rattled tree is written as `node`, because `id` is the sample's own."""
    return {"node" if k == "id" else k: v for k, v in origin.items()}


# ---------------------------------------------------------------- continuing


def _memory(target: Path) -> Path:
    return target.with_name(f".{target.name}.memory.npy")


def _taken_up(target: Path, made: Mixture, digest: str, made_with: Mapping[str, str]) -> int:
    """Restore the state of the mixture; returns the number of structures of each geometry in the file.

    Raises RestartError for a file that was not written by this command or was made with other settings.
    """
    size = target.stat().st_size if target.exists() else 0
    if not _memory(target).exists():
        if size:
            raise RestartError(
                f"{target}: not written by this command, or {_memory(target).name} was removed; name another output, "
                "or remove this file"
            )
        return 0
    if not target.exists():
        return 0  # the user has removed the structures to start again
    try:
        arrays, meta = unpack_arrays(_memory(target).read_bytes())
    except Torn as error:
        raise RestartError(
            f"{_memory(target)}: {error}; remove it and {target.name} to start again"
        ) from error
    before = meta.get("made_with", made_with)
    if meta["digest"] != digest or any(
        before[key] != made_with.get(key) for key in before if key.startswith(CONTENTS)
    ):
        differing = changes(before, made_with)
        unknown = ["samplers, geometries or seed: changed"]  # older versions did not store the settings
        raise RestartError(
            provenance_refusal(
                str(target), differing or unknown, f"name another output, or remove {target.name}"
            )
        )
    if size < meta["size"]:
        raise RestartError(
            f"{target}: is shorter than when it was written; restore it, or remove it to start again"
        )
    if size > meta["size"]:
        log.info(
            "%s: removed everything after the last complete batch; the incomplete batch is made again",
            target.name,
        )
        cut_torn_tail(target, meta["size"])
    if meta["made"]:
        made.load_state_arrays(arrays)
    return int(meta["made"])


def _write_memory(
    target: Path, arrays: Mapping[str, NDArray[Any]], digest: str, made_with: Mapping[str, str], done: int
) -> None:
    path, size = _memory(target), target.stat().st_size if done else 0
    meta = {"digest": digest, "made_with": dict(made_with), "made": done, "size": size}
    write_bytes(path, pack_arrays(dict(arrays), meta))


def _made_with(settings: Sampling, systems: Sequence[System]) -> dict[str, str]:
    """The settings of `_digest`, key by key, for error messages."""
    keys = settings.keys
    return flat_settings(
        {
            "seed": keys.seed,
            "skip_step": keys.skip_step,
            "MD": dict(settings.md),
            "SAMPLERS": samplers_as_written(settings.samplers),
            "geometry": {s.name: f"structure {s.frame.id}" for s in systems},
            CONTENTS: _contents(settings.samplers, Path.cwd()),
        }
    )


def _contents(samplers: Sequence[SamplerSettings], folder: Path) -> dict[str, str]:
    """{file: hash} of the user's modules, models and data that samplers name."""
    named: list[Any] = [call for _, call in calls(samplers)]
    named += [name for _, name in models(samplers) if name not in (*PUBLISHED_MODELS, *BUNDLED)]
    named += [getattr(one, key, None) for one in samplers for key in ("data", "model")]
    named += [(one.kind, one.kwargs) for one in samplers if isinstance(one, OwnSamplerSettings)]
    return contents(named, folder)


def _digest(settings: Sampling, systems: Sequence[System]) -> str:
    """Hash of all settings that determine the structures, except their number."""
    said = [
        samplers_as_written(settings.samplers),
        {k: v for k, v in settings.md},
        settings.keys.seed,
        settings.keys.skip_step,
        [(s.name, s.frame.id) for s in systems],
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()


def check_sample_output(target: Path) -> None:
    """Raises SettingsError for an output that cannot be written."""
    if target.suffix not in {".xyz", ".extxyz"}:
        raise SettingsError(f"output: {target.name}: expected a name that ends in .xyz or .extxyz")
    if target.is_dir() or not target.parent.is_dir():
        raise SettingsError(f"output: {target}: cannot be written there; give a file in an existing folder")
