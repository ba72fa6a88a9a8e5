"""One head and few elements of a published MACE model, proved to be the same model.

    original → a copy in double precision → one head (`head_selection`) → few elements (`element_selection`)
             → energies, forces and stress of random structures compared with the original → the wanted precision

A model with layers that are unknown here, or whose copy differs, keeps all its elements.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from ase.data import chemical_symbols

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.mace.build import doubled, elements_of
from aims_pax.models.mace.element_selection import select_elements
from aims_pax.models.mace.embedding_folding import WithFeatures, fold_embeddings, is_embedded
from aims_pax.models.mace.head_selection import heads_of, select_head
from aims_pax.models.mace.inference import Committee, TorchEvaluator
from aims_pax.models.mace.linear_selection import UnknownLayer
from aims_pax.models.mace.mace_import import MaceModel, quiet

log = logging.getLogger(__name__)

ROUNDING = 1e-9  # largest difference in double precision, relative to the largest number
SPACING = 2.0  # Å between the atoms of the structures that are compared


class DifferentModel(Exception):
    """A reduced model predicts something else than the original."""


def reduced_model(
    original: MaceModel,
    head: int,
    elements: Sequence[int],
    name: str,
    features: Mapping[str, float] | None = None,
) -> MaceModel:
    """A copy in double precision with this head alone and these elements (atomic numbers) alone.

    name: of the model, for messages. features: charge and spin of all structures, for a model that reads them (see
    `embedding_folding`). The original is not changed. Raises SettingsError for an element that it does not know, and
    for a head or an embedding that cannot be separated.
    """
    known = elements_of(original)
    unknown = sorted(set(elements) - set(known))
    if unknown:
        raise SettingsError(
            f"FOUNDATION.model: {name} does not know {_symbols(unknown)}; it knows {_symbols(known)}. "
            "Choose a model that does"
        )
    heads = ", ".join(heads_of(original))
    original = double_copy(original)
    reference = WithFeatures(original, features or {}) if is_embedded(original) else original
    try:
        one_head = _with_head(original, reference, head, features or {})
    except (UnknownLayer, DifferentModel, AttributeError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"FOUNDATION.model: {name} with the heads {heads} cannot be reduced to one head here ({error}); "
            "select one with mace_select_head and give its file"
        ) from error
    try:
        small = double_copy(one_head)
        with quiet():
            select_elements(small, elements)
        compare(reference, head, small, elements)
    except (UnknownLayer, DifferentModel, AttributeError, RuntimeError, ValueError) as error:
        log.warning("foundation model %s: all %d elements remain in it (%s)", name, len(known), error)
        return one_head
    return small


def compare(original: MaceModel, head: int, small: MaceModel, elements: Sequence[int]) -> float:
    """The largest relative difference of energies, forces and stress. Both models are in double precision.

    Raises DifferentModel if it is larger than rounding.
    """
    frames = [comparison_structure(elements, periodic) for periodic in (False, True)]
    ours, theirs = (
        Committee([model], head=k, evaluator=TorchEvaluator).evaluate(frames)
        for model, k in ((small, 0), (original, head))
    )
    worst = 0.0
    assert ours.stress is not None
    assert theirs.stress is not None
    for what, a, b in (
        ("energies", ours.energies, theirs.energies),
        ("forces", ours.forces, theirs.forces),
        ("stress", ours.stress[:, 1:], theirs.stress[:, 1:]),
    ):
        difference = float((a - b).abs().max() / (1 + b.abs().max()))
        if not difference <= ROUNDING:
            raise DifferentModel(f"without the others its {what} would differ by {difference:.1e} (relative)")
        worst = max(worst, difference)
    return worst


def comparison_structure(elements: Sequence[int], periodic: bool) -> Frame:
    """At least eight atoms on a distorted cubic lattice, with every element."""
    n = int(np.ceil(max(8, len(elements)) ** (1 / 3)))
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.resize(np.asarray(elements, int), n**3))
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = SPACING * grid + rng.uniform(-0.25, 0.25, (n**3, 3))
    cell = n * SPACING * np.eye(3) + rng.uniform(0, 0.2, (3, 3))
    return Frame(numbers, positions, cell if periodic else np.zeros((3, 3)), np.full(3, periodic))


def double_copy(model: MaceModel) -> MaceModel:
    """An independent copy in double precision; copy.deepcopy fails on MACE's empty parameters."""
    file = io.BytesIO()
    with quiet():
        torch.save(model, file)
        file.seek(0)
        copied = torch.load(file, map_location=next(model.parameters()).device, weights_only=False)
    fix_radial_basis(copied)
    copied = doubled(copied).eval()
    if getattr(copied.atomic_energies_fn, "exact", None) is not None:
        del copied.atomic_energies_fn.exact  # the stored energies are exact now
    return copied


def fix_radial_basis(model: MaceModel) -> None:
    """Turn trainable constants of the radial basis into constants.

    MACE's fine-tuning stores them as parameters, but its optimiser never changes them.
    """
    for module in model.radial_embedding.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach().clone())


def _with_head(
    original: MaceModel, reference: MaceModel, head: int, features: Mapping[str, float]
) -> MaceModel:
    """One head, without embeddings of charge and spin. reference: the original, called with these features."""
    changed = len(heads_of(original)) > 1 or is_embedded(original)
    model = double_copy(original)
    with quiet():
        if is_embedded(model):
            fold_embeddings(model, features)
        select_head(model, head)
    if changed:
        compare(reference, head, model, elements_of(original)[:8])
    return model


def _symbols(numbers: Sequence[int]) -> str:
    return " ".join(chemical_symbols[z] for z in numbers)
