"""Builds the members of a run from one foundation model (section FOUNDATION of mace.yaml)."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from ase.data import chemical_symbols

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame, Label, LabelledFrame
from aims_pax.labelled_data import read_structures
from aims_pax.models.mace.architecture import contradictions
from aims_pax.models.mace.build import DTYPES, elements_of, read_statistics
from aims_pax.models.mace.embedding_folding import Electrons, check_electrons_of, check_features, is_embedded
from aims_pax.models.mace.energy_offsets import given_energies
from aims_pax.models.mace.ensemble import Ensemble
from aims_pax.models.mace.fast_forward import unsupported_part
from aims_pax.models.mace.fine_tuning import freeze_lower_layers, perturb_readouts
from aims_pax.models.mace.foundation import foundation_module
from aims_pax.models.mace.graphs import LabelledGraph
from aims_pax.models.mace.head_selection import chosen_head, heads_of
from aims_pax.models.mace.inference import Committee, torch_evaluator
from aims_pax.models.mace.mace_import import MaceModel, quiet
from aims_pax.models.mace.member import Beginning, Member
from aims_pax.models.mace.model_surgery import reduced_model
from aims_pax.models.mace.statistics import Statistics
from aims_pax.settings.foundation import FROZEN, NAME, READOUT, REPLAY, FoundationSettings

if TYPE_CHECKING:
    from aims_pax.settings.mace import MaceSettings

log = logging.getLogger(__name__)


def ensemble_from_foundation(
    settings: MaceSettings,
    seeds: Sequence[int],
    elements: Sequence[int],
    folder: Path | None = None,
    others: Sequence[int] = (),
    electrons: Sequence[Electrons] = (),
) -> Ensemble:
    """Members named `{name_exp}_{seed}` that begin from the model of FOUNDATION, with these elements alone.

    elements: atomic numbers of the geometries; others: of given datasets; those of `replay_data` are added. folder:
    relative paths start here. electrons: charge and spin of the geometries. Raises SettingsError, and SetupError when
    a download is needed and fails.
    """
    foundation = settings.foundation
    assert foundation is not None
    if len(set(seeds)) != len(seeds) or not seeds:
        raise SettingsError(f"every member needs a different seed, got {list(seeds)}")
    structures = replay_structures(foundation, folder)
    zs = sorted({*elements, *others, *(int(z) for frame in structures for z in frame.numbers)})
    model, name, head = _reduced(settings, zs, folder, electrons)
    begun = Beginning(
        _copied(model, settings), replace(read_statistics(model), source="the foundation model")
    )
    name_exp, given = settings.general.name_exp, given_energies(settings, sorted(elements), folder, zs)
    members = [_member(model, f"{name_exp}_{seed}", seed, begun, settings) for seed in seeds]
    ensemble = Ensemble(members, settings, given)
    _say(model, name, head, members[0], settings)
    if structures:
        replay = _replay(model, begun.statistics, structures, ensemble)
        for member in members:
            member.replay = replay
    return ensemble


def replay_structures(foundation: FoundationSettings, folder: Path | None) -> list[Frame]:
    """The structures of `replay_data`; [] for other recipes. Raises SettingsError."""
    if foundation.recipe != REPLAY or foundation.replay_data is None:
        return []
    path = Path(folder or ".") / Path(foundation.replay_data).expanduser()
    if not path.is_file():
        raise SettingsError(f"{NAME}.replay_data: {path}: no such file")
    frames = [Frame.from_atoms(atoms) for _, atoms in read_structures(path)]
    frames = [frame for frame in frames if len(frame) > 1 or frame.pbc.any()]
    if not frames:
        raise SettingsError(f"{NAME}.replay_data: {path}: no structures but isolated atoms in it")
    return frames


def _reduced(
    settings: MaceSettings, elements: Sequence[int], folder: Path | None, electrons: Sequence[Electrons]
) -> tuple[MaceModel, str, str]:
    """(the model in double precision on the CPU, its name, its head)."""
    foundation = settings.foundation
    assert foundation is not None
    original, name, own = foundation_module(foundation, "cpu", folder)
    heads = heads_of(original)
    wanted = foundation.head if foundation.head is not None or own not in heads else own
    k = chosen_head(original, wanted, name)
    if is_embedded(original):
        check_features(original, name)
        check_electrons_of(electrons, foundation.features, name)
        log.info(
            "%s reads charge and spin of structures: they are fixed to charge %g and multiplicity %d (FOUNDATION)",
            name, foundation.charge, foundation.spin,
        )  # fmt: skip
    elif (foundation.charge, foundation.spin) != (0.0, 1):
        raise SettingsError(
            f"{NAME}: charge and spin have no effect, because {name} does not read them; remove the two keys (those of "
            "structures are MISC.charge and MISC.spin of aimsPAX.yaml)"
        )
    model = reduced_model(original, k, elements, name, foundation.features)
    wrong = [
        f"ARCHITECTURE.{key}: {written} in mace.yaml, {found} in {name}"
        for key, written, found in contradictions(model, settings.architecture)
    ]
    if wrong:
        raise SettingsError(
            f"{NAME}: mace.yaml contradicts the model:\n  "
            + "\n  ".join(wrong)
            + "\nThe architecture of a trained model cannot change: delete these keys from mace.yaml"
        )
    neighbours = {round(float(i.avg_num_neighbors), 6) for i in model.interactions}
    if len(neighbours) > 1:
        raise SettingsError(
            f"{NAME}.model: {name} has a different mean number of neighbours in each layer ({neighbours}), which "
            "models in aims-PAX cannot have"
        )
    return model, name, heads[k]


def _copied(model: MaceModel, settings: MaceSettings) -> MaceModel:
    """An independent copy on the device and in the precision of the settings."""
    file = io.BytesIO()
    with quiet():
        torch.save(model, file)
        file.seek(0)
        own = torch.load(file, map_location=settings.misc.device, weights_only=False)
    return own.to(DTYPES[settings.general.default_dtype])


def _member(model: MaceModel, name: str, seed: int, begun: Beginning, settings: MaceSettings) -> Member:
    foundation = settings.foundation
    assert foundation is not None
    own = _copied(model, settings).requires_grad_(True)
    if foundation.differs_by(READOUT):
        perturb_readouts(own, seed)
    if foundation.recipe == FROZEN:
        freeze_lower_layers(own)
    member = Member(name, seed, own, settings)
    member.begun_from = begun
    return member


def _replay(
    model: MaceModel, begun: Statistics, structures: Sequence[Frame], ensemble: Ensemble
) -> list[LabelledGraph]:
    """The structures with the foundation model's own labels; energies above its atomic energies and shift."""
    member = ensemble.members[0]
    teacher = Committee([model], "cpu", evaluator=torch_evaluator)
    labels = teacher.labels(structures)
    stress = ensemble.loss.stress
    labelled = [
        LabelledFrame(frame, Label(label.energy, label.forces, label.stress if stress else None))
        for frame, label in zip(structures, labels, strict=True)
    ]
    found = []
    for graph in ensemble.graphs.of(labelled):
        energy = graph.energy - float(graph.composition @ begun.E0) - begun.shift * len(graph)
        found.append(replace(graph, energy=energy, relative=True))
    log.info(
        "recipe replay: %d structures with the labels of the foundation model, %.0f %% of each epoch",
        len(found), 100 * member.settings.foundation.replay_share,  # type: ignore[union-attr]
    )  # fmt: skip
    return found


def _say(model: MaceModel, name: str, head: str, member: Member, settings: MaceSettings) -> None:
    foundation, t = settings.foundation, settings.training
    assert foundation is not None
    elements = " ".join(chemical_symbols[z] for z in elements_of(model))
    log.info(
        "members begin from the foundation model %s, head %s: elements %s, r_max %.1f Å, %d weights, %d trained",
        name, head, elements, float(model.r_max), sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in member.weights),
    )  # fmt: skip
    log.info(
        "recipe %s: lr %g, weight_decay %g, ema_decay %g, clip_grad %s, energy_weight %g, forces_weight %g; "
        "members differ by %s", foundation.recipe, t.lr, t.weight_decay, t.ema_decay, t.clip_grad, t.energy_weight,
        t.forces_weight, " and ".join(foundation.differ_by),
    )  # fmt: skip
    if (part := unsupported_part(member.model)) is not None:
        log.info(
            "this architecture is evaluated by MACE's own modules, several times slower than others: aims-PAX has no "
            "faster form of its %s", part,
        )  # fmt: skip
