"""Displacements along the phonons of a crystal, or the vibrations of a molecule.

Displacements of atom a in cell R are sums over the modes of the sampled q-points,

    u_aR = Σ_qj (N_q m_a)^-½ σ_qj Re[ξ_qj e_a,qj exp(2πi q·R)],     σ² = E/ω²,   E = (ħω/2) coth(ħω/2kT),

with ⟨|ξ|²⟩ = 1 and ξ(−q) = ξ(q)*: one real number if q and −q are equivalent, else two independent ones for the pair.
Every mode is then one or two real vectors, and ξ is

    gaussian    normal deviates: the canonical distribution (default)
    uniform     from U(−1, 1): ⟨u²⟩ is ⅓ of the canonical one (mbe-automation's code, `random`)
    time        cos(ω t), t = 0, Δt, 2Δt, … (its document): ⟨u²⟩ is ½ of it in the long run
    scan        from −1 to 1 in equal steps

Zero modes (translations) and imaginary modes are never displaced; a warning reports the imaginary ones, and also the
modes that `small_vibrations` leaves out.

>>> from ase.build import bulk
>>> from ase.calculators.emt import EMT
>>> from aims_pax.potential import CalculatorPotential
>>> from aims_pax.samplers.force_constants import force_constants
>>> copper = Frame.from_atoms(bulk("Cu", a=3.59))
>>> constants = force_constants(copper, CalculatorPotential(EMT), least_volume(copper.cell, 5.0))
>>> chosen = modes(constants, (2, 2, 2), Window(freq_max=None))
>>> len(chosen.frame), len(chosen)
(8, 21)
>>> frames = [frame for frame, _ in trajectory(chosen, 300, 10, np.random.default_rng(0))]
>>> len({frame.id for frame in frames})
10
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import units
from numpy.typing import NDArray

from aims_pax.frames import Array, Frame
from aims_pax.sampler import SamplingError
from aims_pax.samplers.force_constants import ONE, ForceConstants
from aims_pax.samplers.supercell import Integers, copies, least_volume, repeated

log = logging.getLogger(__name__)

THZ = 1e-3 / units.fs * 2 * np.pi  # ω in ASE's units (√(eV/u)/Å) of 1 THz, 1/fs being units of 1/time
H = 4.135667696e-3  # eV/THz: Planck's constant
REST = 0.01  # THz: slower modes are translations, or imaginary if below zero
LARGEST = 0.5  # Å: a mode that displaces an atom by more (root mean square) is not harmonic
IN_SEQUENCE = ("time", "scan")  # amplitudes that follow from the number of the structure, not from chance
AMPLITUDES = ("gaussian", "uniform", *IN_SEQUENCE)
AT_ONCE = 64  # frames displaced together


@dataclass(frozen=True)
class Window:
    """Which modes move: freq_min < f < freq_max (THz, None for no upper end), or the 1-based `selected_modes` of
    every q-point, slowest first."""

    freq_min: float = 0.1
    freq_max: float | None = 8.0
    selected_modes: tuple[int, ...] | None = None

    def takes(self, frequencies: Array) -> NDArray[np.bool_]:
        """(M,) of the ascending frequencies (M,) THz of one q-point. Raises SamplingError for modes beyond M."""
        if self.selected_modes is None:
            below = np.inf if self.freq_max is None else self.freq_max
            return np.asarray((frequencies > self.freq_min) & (frequencies < below) & (frequencies > REST))
        wrong = [m for m in self.selected_modes if not 1 <= m <= len(frequencies)]
        if wrong:
            raise SamplingError(f"selected_modes: {wrong[0]}: expected 1 to {len(frequencies)}")
        return np.asarray(
            np.isin(np.arange(1, len(frequencies) + 1), self.selected_modes) & (frequencies > REST)
        )


@dataclass(frozen=True, eq=False)
class Modes:
    """K real normal coordinates of a supercell.

    frame: the supercell at rest, N atoms. frequencies: (K,) THz. vectors: (K, N, 3), orthonormal, mass-weighted.
    q: (K, 3) fractions of the reciprocal vectors. branch: (K,) 1-based, slowest first. partner: (K,) bool, the
    second coordinate of a mode of q ≠ −q. imaginary: the imaginary modes, as (q, THz).
    """

    frame: Frame
    frequencies: Array
    vectors: Array
    q: Array
    branch: Integers
    partner: NDArray[np.bool_]
    imaginary: tuple[tuple[tuple[float, ...], float], ...] = ()

    def __len__(self) -> int:
        return len(self.frequencies)

    def widths(self, temperature: float) -> Array:
        """(K,) σ in Å √u: the square root of ⟨Q²⟩ at this temperature (K)."""
        return np.sqrt(self.energies(temperature)) / (THZ * self.frequencies)

    def energies(self, temperature: float) -> Array:
        """(K,) eV: (ħω/2) coth(ħω/2kT), half of it potential."""
        half = 0.5 * H * self.frequencies
        return half / np.tanh(half / (units.kB * temperature)) if temperature > 0 else half

    def mean_square(self, temperature: float) -> Array:
        """(N,) Å²: ⟨u²⟩ of each atom, from these modes only."""
        m = self.frame.all_masses
        u2: Array = np.einsum("k,kax->a", self.widths(temperature) ** 2, self.vectors**2) / m
        return u2

    def coordinates(self) -> list[Integers]:
        """The indices of the one or two coordinates of every mode."""
        starts = np.flatnonzero(~self.partner)
        return list(np.split(np.arange(len(self)), starts[1:])) if len(self) else []


def modes(
    constants: ForceConstants,
    mesh: str | float | Sequence[int] = "gamma",
    window: Window | None = None,
    matrix: Integers | None = None,
) -> Modes:
    """The selected modes of the q-points of a mesh, in a supercell that they fit into.

    mesh: `gamma`, three whole numbers, or a radius (Å): the q-points of the least-volume supercell of that radius.
    matrix: (3, 3) the supercell that is displaced; by default that of the mesh.
    Raises SamplingError for q-points that do not fit into it.
    """
    window = window or Window()
    S = _mesh_matrix(constants, mesh)
    target = S if matrix is None else np.asarray(matrix, np.int64)
    frame, shifts = repeated(constants.frame, target)
    basis = _internal(constants.frame)
    parts: list[tuple[Any, ...]] = []
    imaginary = []
    known: list[float] = []  # THz, of all modes
    for q in _half(S):
        self_conjugate = bool(np.allclose(2 * q, np.rint(2 * q)))
        turns = np.exp(2j * np.pi * (shifts @ q))  # (c,)
        if not np.allclose(target @ q, np.rint(target @ q), atol=1e-9):
            raise SamplingError(
                f"q = ({', '.join(f'{x:g}' for x in q)}) does not fit into the supercell {target.tolist()}: its wave "
                "would not be periodic there; choose a mesh that divides the supercell"
            )
        f, e = _solved(constants.dynamical(q), basis, self_conjugate)
        known += f.tolist()
        imaginary += [(tuple(q.tolist()), float(x)) for x in f if x < -REST]
        for branch in np.flatnonzero(window.takes(f)):
            wave = (turns[:, None] * e[:, branch]).reshape(-1, 3) / np.sqrt(len(shifts))
            real = [wave.real] if self_conjugate else [np.sqrt(2) * wave.real, np.sqrt(2) * wave.imag]
            parts += [(f[branch], vector, q, branch + 1, k > 0) for k, vector in enumerate(real)]
    if imaginary:
        worst = min(imaginary, key=lambda x: x[1])
        log.warning(
            "%d imaginary modes, not sampled; the largest %.2fi THz at q = (%s): the structure is not at a minimum; "
            "relax it to smaller forces (fmax), or start from another one",
            len(imaginary),
            -worst[1],
            ", ".join(f"{x:g}" for x in worst[0]),
        )
    if not parts:
        raise SamplingError(f"{constants.frame.formula}: {_none_selected(np.array(known), bool(imaginary))}")
    f, v, q_points, b, partner = (np.array(x) for x in zip(*parts, strict=True))
    return Modes(frame, f, v, q_points, b, partner, tuple(imaginary))


def _none_selected(frequencies: Array, imaginary: bool) -> str:
    """Why no mode is selected, and what to do. frequencies: (K,) THz, of all modes."""
    real = frequencies[frequencies > REST]
    if len(real):
        what = f"no mode is selected: its vibrations are at {real.min():.3g} to {real.max():.3g} THz"
        return f"{what}; widen freq_min_THz and freq_max_THz, or change selected_modes"
    if imaginary:
        return "all its vibrations are imaginary: it is not at a minimum; relax it, or start from another structure"
    return "it has no vibrations: no atom can move, or it is one atom; give a larger structure or supercell"


def small_vibrations(modes: Modes, temperature: float) -> Modes:
    """The modes without those that alone displace an atom by more than LARGEST at this temperature (K).

    Such a motion is not harmonic: a molecule that turns in its box would be torn apart by straight displacements.
    A warning reports them. Raises SamplingError when no mode is left.
    """
    lengths = np.linalg.norm(modes.vectors, axis=2) / np.sqrt(modes.frame.all_masses)  # (K, N)
    reach = modes.widths(temperature) * lengths.max(1)
    small = np.ones(len(modes), bool)
    for mode in modes.coordinates():
        small[mode] = reach[mode].max() <= LARGEST
    if small.all():
        return modes
    count, slowest = int((~small & ~modes.partner).sum()), float(modes.frequencies[~small].min())
    what = (
        f"{modes.frame.formula}: {count} of {len(modes.coordinates())} modes are too soft to be harmonic at "
        f"{temperature:g} K: at {slowest:.2f} THz an atom would move by {reach.max():.1f} Å (does a molecule turn in "
        "its box?)"
    )
    if not small.any():
        raise SamplingError(
            f"{what}; no other mode is selected: lower the temperature, or use molecular dynamics"
        )
    log.warning("%s; they are not sampled, which molecular dynamics could do", what)
    own = ("frequencies", "vectors", "q", "branch", "partner")
    return replace(modes, **{name: getattr(modes, name)[small] for name in own})


def displacements(
    modes: Modes,
    temperature: float,
    n: int,
    rng: np.random.Generator,
    amplitudes: str = "gaussian",
    time_step: float = 100.0,
    only: Integers | None = None,
    made_before: int | None = None,
) -> Iterator[Array]:
    """n displacements (N, 3) Å. time_step: fs, for `time`. only: coordinates that move, all by default.

    made_before: number of earlier ones, which `time` and `scan` continue (`scan` by halving its steps); None: there
    will be these n only. The same `rng` gives bit-identical displacements.
    """
    if amplitudes not in AMPLITUDES:
        raise ValueError(f"amplitudes {amplitudes!r}: expected one of {', '.join(AMPLITUDES)}")
    k = np.arange(len(modes)) if only is None else only
    shape = (len(k), 3 * len(modes.frame))
    scale = np.repeat(modes.frame.all_masses, 3) ** -0.5
    B = modes.widths(temperature)[k, None] * modes.vectors[k].reshape(shape) * scale
    first = ~modes.partner[k]
    for start in range(0, n, AT_ONCE):
        frames = np.arange(start, min(start + AT_ONCE, n))
        if amplitudes == "gaussian":
            xi = rng.standard_normal((len(frames), len(k)))
        elif amplitudes == "uniform":
            xi = rng.uniform(-1, 1, (len(frames), len(k)))
        else:  # ξ(q) real: a standing wave √2·Re, the real part of the sum over q and −q
            if amplitudes == "time":
                t = time_step * (frames + (made_before or 0))  # fs
                xi = np.cos(2e-3 * np.pi * modes.frequencies[k] * t[:, None])
            else:
                xi = np.repeat(_scan(frames, n, made_before)[:, None], len(k), 1)
            xi = xi * np.where(first, np.where(_paired(modes.partner, k), np.sqrt(2), 1.0), 0.0)
        yield from (xi @ B).reshape(-1, len(modes.frame), 3)


def trajectory(
    modes: Modes,
    temperature: float,
    n_frames: int,
    rng: np.random.Generator,
    amplitudes: str = "gaussian",
    time_step: float = 100.0,
    per_mode: bool = False,
) -> Iterator[tuple[Frame, int]]:
    """Displaced structures and the number of the mode (from 1; 0 when all modes are displaced together).

    per_mode: `n_frames` of every single mode (mbe-automation's document) instead of all modes together.
    """
    groups: list[Integers | None] = list(modes.coordinates()) if per_mode else [None]
    for number, only in enumerate(groups, 1):
        for u in displacements(modes, temperature, n_frames, rng, amplitudes, time_step, only):
            yield modes.frame.moved(modes.frame.positions + u), number if per_mode else 0


def _mesh_matrix(constants: ForceConstants, mesh: Any) -> Integers:
    """(3, 3) the smallest supercell that the mesh fits into."""
    if isinstance(mesh, str):
        if mesh.lower() != "gamma":
            raise ValueError(f"mesh {mesh!r}: expected gamma, a radius (Å), or three whole numbers")
        return ONE
    if isinstance(mesh, int | float):
        return least_volume(constants.frame.cell, float(mesh), constants.frame.pbc.tolist())
    numbers = np.asarray(mesh)
    if numbers.shape != (3,) or (numbers < 1).any() or (numbers != np.rint(numbers)).any():
        raise ValueError(f"mesh {list(mesh)}: expected gamma, a radius (Å), or three whole numbers from 1")
    return np.diag(numbers.astype(np.int64))


def _half(S: Integers) -> list[Array]:
    """The q-points with integer S·q, Γ first, one of each pair ±q."""
    c = round(np.linalg.det(S))
    whole = copies(S.T) @ np.rint(c * np.linalg.inv(S.T)).astype(np.int64)  # (c, 3): c·q
    selected, seen = [], set()
    for q in sorted(tuple(x) for x in (whole % c).tolist()):
        if tuple((-x) % c for x in q) not in seen:
            selected.append(np.array(q) / c)
            seen.add(q)
    return selected


def _solved(D: NDArray[np.complex128], basis: Array, real: bool) -> tuple[Array, NDArray[Any]]:
    """(M,) THz ascending, imaginary ones negative, and (3n, M) eigenvectors within the (3n, M) basis."""
    if real and abs(D.imag).max() > 1e-6 * abs(D).max():
        raise SamplingError(
            "the dynamical matrix of a self-conjugate q-point is not real; is the supercell too small?"
        )
    values, inner = np.linalg.eigh(basis.T @ (D.real if real else D) @ basis)
    return np.sign(values) * np.sqrt(abs(values)) / THZ, basis @ inner


def _internal(frame: Frame) -> Array:
    """(3n, M) orthonormal mass-weighted directions, without fixed components and a free molecule's rigid motions."""
    if frame.fixed is not None or frame.pbc.any():
        free = np.ones((len(frame), 3), bool) if frame.fixed is None else ~frame.fixed
        return np.eye(3 * len(frame))[:, free.ravel()]
    m = frame.all_masses
    R = frame.positions - m @ frame.positions / m.sum()
    rigid = [np.broadcast_to(axis, R.shape) for axis in np.eye(3)] + [np.cross(axis, R) for axis in np.eye(3)]
    whole = np.array([(np.sqrt(m)[:, None] * u).ravel() for u in rigid]).T  # (3n, 6)
    directions, lengths, _ = np.linalg.svd(whole)
    rank = int((lengths > 1e-6 * lengths[0]).sum())  # 5 for a linear molecule
    return np.asarray(directions[:, rank:], float)


def _scan(frames: Integers, n: int, made_before: int | None) -> Array:
    """ξ of some of n frames in equal steps; after others, ever new ones: 1, −1, 0, −½, ½, −¾, −¼, ¼, ¾, …"""
    if made_before is None:
        return np.linspace(-1, 1, n)[frames] if n > 1 else np.ones(len(frames))
    k = frames + made_before
    number = np.maximum(k - 1, 1)  # from 1, without the two ends
    level = 2 ** np.floor(np.log2(number))
    between = -1 + (2 * (number - level) + 1) / level
    return np.select([k == 0, k == 1], [1.0, -1.0], between)


def _paired(partner: NDArray[np.bool_], k: Integers) -> NDArray[np.bool_]:
    """Whether each coordinate is followed by its partner."""
    return np.append(partner[1:], False)[k]
