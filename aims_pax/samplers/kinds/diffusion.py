"""diffusion: structures from a diffusion model of the distribution of given ones (`models.diffusion`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from aims_pax.errors import Abandoned, SettingsError
from aims_pax.sampler import Sampler, SamplingError
from aims_pax.settings.augment import OptionalReal
from aims_pax.settings.diffusion import AUTO, Names, Walls
from aims_pax.settings.fields import Flag, Kind, OptionalText, Real, Table, Whole, key, one_of
from aims_pax.settings.samplers import (
    SamplerContext,
    SamplerSettings,
    SamplingCost,
    SamplingDemand,
    register_sampler,
)
from aims_pax.systems import System

if TYPE_CHECKING:
    from aims_pax.models.diffusion.denoiser import Denoiser
    from aims_pax.models.diffusion.model_files import ModelFolder
    from aims_pax.models.diffusion.training_data import DataSummary

ReverseSampler = Annotated[str, one_of("heun", "heun_ode", "ddim", "em", "pc"), Kind("`str`")]
FOLDER = Path("logs") / "diffusion"  # of models trained here
OWN_DATA = "training_structures.xyz"  # in the folder of a model trained here


@register_sampler("diffusion")
class DiffusionSamplerSettings(SamplerSettings):
    """diffusion: structures from a diffusion model, trained before or from a file of structures."""

    prose: ClassVar[str] = (
        "new structures from a [diffusion model](diffusion.md) of the distribution of given ones; fixed atoms are the "
        "template"
    )
    cost_words: ClassVar[Mapping[str, str]] = {"diffusion_relaxation": "{} of short relaxations"}

    model: OptionalText = key(None, "Folder that `aims-PAX diffusion train` has written.")
    data: OptionalText = key(
        None, "Without `model`: file of structures to train on first, 100 or more of each system."
    )
    noisers: Names = key(AUTO, "Of a model trained here: as in `aims-PAX diffusion train`.")
    confinement: Walls = key(
        None, "Of a model trained here: lowest and highest z (Å) of atoms that are not fixed."
    )
    train_steps: Whole = key(
        5000, "Of a model trained here: training steps.", possible="[1, inf)", plausible="[500, 100000]"
    )
    seed: Whole = key(42, "Of a model trained here.", possible="[0, 4294967295]")
    allow_small: Flag = key(False, "Train on fewer than 100 structures; they are then mostly repeated.")
    property: Table = key({}, "`{name: value}`: steer towards a value of the property that the model knows.")
    guidance: Real = key(0.0, "Strength of the steering beyond the condition itself.", possible="[0, 100]")
    steps: Whole = key(40, "Noise levels of sampling.", possible="[2, 10000]", plausible="[10, 500]")
    sampler: ReverseSampler = key(
        "heun", "How the noise is removed: `heun`, `heun_ode`, `ddim`, `em` or `pc`."
    )
    relax: Whole = key(0, "Steps downhill with `potential` before the guard.", possible="[0, 1000]")
    max_force: OptionalReal = key(
        None, "Refuse structures with a larger force of `potential` (eV/Å).", possible="(0, inf)"
    )
    retries: Whole = key(5, "New attempts for a refused structure, on average.", possible="[0, 1000]")

    def problems(self, folder: Path) -> Iterator[tuple[str, str]]:
        """What files and keys together refuse."""
        if (self.model is None) == (self.data is None):
            yield "model", "give model, the folder of a trained one, or data, a file to train on; one of them"
            return
        if self.data is not None and not (folder / Path(self.data).expanduser()).is_file():
            yield "data", f"{self.data}: no such file"
        if self.model is not None and not (folder / Path(self.model).expanduser() / "hparams.yaml").is_file():
            yield "model", f"{self.model}: not a folder that aims-PAX diffusion train has written"
        if self.data is not None and self.property:
            yield "property", "needs model: one trained with conditioning"
        if self.guidance and not self.property:
            yield "guidance", "has no effect without property"
        if self.model is not None:
            set_here = {
                "noisers",
                "confinement",
                "train_steps",
                "seed",
                "allow_small",
            } & self.model_fields_set
            for name in sorted(set_here):
                yield name, "has no effect with model: it belongs to the training"

    def make(self, context: SamplerContext) -> Sampler:
        """The model from its folder; trained at the first use if there is none. Raises SettingsError."""
        from aims_pax.models.diffusion.diffusion_sampler import DiffusionSampler
        from aims_pax.models.diffusion.generation import Generating

        for name, text in self.problems(context.folder):
            raise SettingsError(f"{context.place}.{name}: {text}")
        value = None
        if self.model is not None:
            from aims_pax.models.diffusion.model_files import load_denoiser

            model, content = load_denoiser(context.folder / Path(self.model).expanduser())
            value = self._value(content, context)
            model_of = partial(_of_all, (model, content.data))
        else:
            model_of = partial(self._trained, context)

        def check() -> None:
            if context.stop():
                raise Abandoned

        needs = self.relax or self.max_force is not None
        how = Generating(
            sampler=self.sampler, steps=self.steps, value=value, guidance=self.guidance, relax=self.relax,
            max_force=self.max_force, retries=self.retries, potential=context.potential() if needs else None,
            stop=check,
        )  # fmt: skip
        return DiffusionSampler(model_of, how, self.label)

    def _value(self, content: ModelFolder, context: SamplerContext) -> float | None:
        from aims_pax.models.diffusion.generation import value_to_steer_towards

        try:
            return value_to_steer_towards(content.architecture, content.data, self.property)
        except SettingsError as error:
            text = str(error).removeprefix("property ")
            raise SettingsError(f"{context.place}.property: {text}") from error

    def _trained(self, context: SamplerContext, system: System) -> tuple[Denoiser, DataSummary]:
        """A model of this system; a training that was stopped, or is complete, is found again by its content."""
        from aims_pax.labelled_data import structure_text
        from aims_pax.models.diffusion.model_files import load_denoiser
        from aims_pax.models.diffusion.training_data import read_for_diffusion
        from aims_pax.models.diffusion.training_run import source_of, train_in_folder
        from aims_pax.record.files import write_text
        from aims_pax.settings.diffusion import DiffusionSettings

        path = context.folder / Path(str(self.data)).expanduser()
        frames = [f for f, _ in read_for_diffusion(path, None) if _same_system(f, system)]
        fixed = system.frame.fixed
        if fixed is None and any(f.fixed is not None for f in frames):
            raise SamplingError(
                f"{system.name}: {self.data} has fixed atoms and the system has none; fix the same atoms in its "
                "geometry, or remove the constraints from the file"
            )
        frames = [
            f if fixed is None else f.chosen(np.arange(len(f)), f.positions, fixed=fixed) for f in frames
        ]
        frames = [replace(f, charge=system.frame.charge, spin=system.frame.spin) for f in frames]
        if not frames:
            raise SamplingError(
                f"{system.name}: {self.data} has no structure with its {len(system.frame)} atoms in the same order, "
                "its charge and its spin"
            )
        settings = DiffusionSettings(
            noisers=self.noisers, confinement=self.confinement, seed=self.seed, allow_small=self.allow_small,
            max_steps=self.train_steps, max_time_minutes=0.0,
        )  # fmt: skip
        keys = repr(sorted(settings.model_dump().items()))
        digest = _digest(source_of(path)["digest"], system.frame.id, keys)
        folder = context.folder / FOLDER / f"{system.name}-{digest}"
        own = folder / OWN_DATA  # what `aims-PAX diffusion inspect` compares with
        try:
            write_text(own, "".join(structure_text(f.to_atoms()) for f in frames))
            train_in_folder([(f, {}) for f in frames], settings, source_of(own), folder, context.stop)
            model, content = load_denoiser(folder)
        except SettingsError as error:
            raise SamplingError(f"{system.name}: {context.place}: {error}") from error
        return model, content.data

    def cost(self, demand: SamplingDemand) -> SamplingCost:
        """Evaluations of short relaxations; training is not counted."""
        return SamplingCost(
            evaluations={"diffusion_relaxation": demand.made * self.relax} if self.relax else {}
        )


def _of_all(model: tuple[Denoiser, DataSummary], system: System) -> tuple[Denoiser, DataSummary]:
    return model


def _same_system(frame: Any, system: System) -> bool:
    own = system.frame
    alike = (frame.charge, frame.spin) == (own.charge, own.spin) or (frame.charge, frame.spin) == (None, None)
    return bool(alike and np.array_equal(frame.numbers, own.numbers) and (frame.pbc == own.pbc).all())


def _digest(*words: str) -> str:
    import hashlib

    return hashlib.sha256("\x1f".join(words).encode()).hexdigest()[:8]
