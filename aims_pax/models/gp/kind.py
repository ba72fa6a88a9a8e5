"""`MODEL: gp`: Gaussian processes as models of a run, for small systems and quick studies.

Imports nothing heavy: the kind is also asked for its settings by `check` and `plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aims_pax.errors import SettingsError
from aims_pax.models.base import ForceFieldModel, ModelPotential
from aims_pax.models.kinds import ModelKind, member_names
from aims_pax.settings.fields import OptionalReal, OptionalWhole, Section, Whole, key

if TYPE_CHECKING:
    from aims_pax.settings import Settings


class GPSettings(Section):
    """MODEL.kwargs of `gp`; what is None follows from the distances between neighbours."""

    cutoff: OptionalReal = key(None, "Cutoff of SOAP.", unit="Å", possible="(1, 20]", plausible="[3, 8]")
    n: OptionalWhole = key(None, "Radial functions of SOAP.", possible="[1, 20]")
    l: OptionalWhole = key(None, "Largest angular momentum of SOAP.", possible="[0, 12]")  # noqa: E741
    width: OptionalReal = key(None, "Width of the Gaussian of an atom.", unit="Å", possible="(0, 3]")
    zeta: Whole = key(2, "Power of the kernel.", possible="[1, 8]")
    inducing: Whole = key(600, "Largest number of inducing environments.", possible="[1, 20000]")


class GPKind(ModelKind):
    """Exact fits of all data; see `models.gp.process`."""

    name, title, suffix = "gp", "Gaussian process", ".gp"
    packages = ("featomic",)
    keys = GPSettings
    has_spread = True
    fits_at_once = True
    has_stress = True

    def build(self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]) -> ForceFieldModel:
        from aims_pax.models.gp.gp_model import GPMember, GPModel
        from aims_pax.models.gp.process import ProcessOptions

        self._try_spectrum(settings, elements)
        members = [
            GPMember(name, seed) for name, seed in zip(member_names(settings, seeds), seeds, strict=True)
        ]
        written: dict[str, Any] = self.options(settings).model_dump()
        return GPModel(members, elements, ProcessOptions(**written))

    def trial_members(
        self, settings: Settings, seeds: Sequence[int], elements: Sequence[int]
    ) -> ForceFieldModel | None:
        """None: they begin untrained; without featomic, or with MODEL.kwargs that no spectrum can have, `check` fails
        here as the run would."""
        self._try_spectrum(settings, elements)
        return None

    def _try_spectrum(self, settings: Settings, elements: Sequence[int]) -> None:
        """Raises SettingsError for a width that is too small for any cutoff that may be chosen, SetupError."""
        from aims_pax.models.gp.process import SMALLEST_CUTOFF, WIDEST
        from aims_pax.models.gp.soap import SoapDescriptor, require_featomic

        require_featomic()
        written = self.options(settings)
        cutoff, width = written.cutoff or SMALLEST_CUTOFF, written.width or WIDEST
        try:
            SoapDescriptor(tuple(sorted(elements)), cutoff, written.n or 1, written.l or 0, width).check()
        except SettingsError as error:
            raise SettingsError(f"MODEL.kwargs: {error}") from error

    def load(self, paths: Sequence[Path], device: str, dtype: str) -> ModelPotential:
        from aims_pax.models.gp.gp_model import MemberPotential
        from aims_pax.models.gp.process_file import load_process

        processes = [load_process(Path(path)) for path in paths]
        elements = sorted({z for p in processes for z in p.elements})
        return MemberPotential(lambda: processes, elements, len(processes))

    def cutoff(self, settings: Settings) -> float | None:
        written: float | None = self.options(settings).cutoff
        return written


KIND = GPKind()
