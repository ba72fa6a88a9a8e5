"""A model family in one file: energies linear in inverse distances, solved exactly, with a predictive deviation.

    E = Σ_a E0(Z_a) + Σ_{a<b} Σ_k w(Z_a, Z_b, k) r_ab^{−k}

`KIND` tells its own uncertainty, so that one member is enough; members of `COMMITTEE` only disagree with each other.
"""

import io

import numpy as np

from aims_pax import seeds
from aims_pax.errors import Abandoned, SettingsError
from aims_pax.models.base import ForceFieldModel, after_training, never_stop_training
from aims_pax.models.kinds import ModelKind, member_names
from aims_pax.potential import EvaluatedPotential, Evaluation
from aims_pax.record.files import write_bytes
from aims_pax.settings.fields import Real, Section, key


class LinearSettings(Section):
    """MODEL.kwargs: of the fit."""

    ridge: Real = key(1e-6, "Weight of the regularisation.", possible="(0, 1]")


class LinearMember:
    def __init__(self, name, seed):
        self.name, self.seed, self.epochs, self.weights, self.covariance = name, seed, 0, None, None


class LinearModel(ForceFieldModel):
    fits_at_once = True
    POWERS = np.array([1, 2, 3, 4, 6])

    def __init__(self, members, elements, ridge=1e-6, has_spread=True):
        self.members, self.elements = list(members), tuple(sorted(elements))
        self.ridge, self.has_spread = ridge, has_spread

    @property
    def trained(self):
        return all(m.weights is not None for m in self.members)

    def rows(self, frame):
        """What multiplies the weights: (1 + 3 N, D), the energy's row and those of the forces."""
        if frame.pbc.any():
            raise SettingsError("MODEL.kind: the linear model knows molecules only")
        Z, N, K = len(self.elements), len(frame), len(self.POWERS)
        species = np.searchsorted(self.elements, frame.numbers)
        energy, forces = np.zeros((Z * Z, K)), np.zeros((N, 3, Z * Z, K))
        for a, b in zip(*np.triu_indices(N, 1), strict=True):
            d = frame.positions[b] - frame.positions[a]
            r, pair = np.linalg.norm(d), min(species[a], species[b]) * Z + max(species[a], species[b])
            energy[pair] += r**-self.POWERS
            slope = np.outer(d / r, self.POWERS * r ** -(self.POWERS + 1.0))
            forces[b, :, pair] += slope
            forces[a, :, pair] -= slope
        counts = np.bincount(species, minlength=Z)
        atoms = np.hstack([np.zeros((3 * N, Z)), forces.reshape(3 * N, -1)])
        return np.vstack([np.concatenate([counts, energy.ravel()]), atoms])

    def train(self, data, epochs, *, words=None, stop=never_stop_training, **_):
        fits = {}
        for m, own in data.items():  # each member sees a draw of its own, so that they can disagree
            some = seeds.rng("draw", self.members[m].seed).integers(0, len(own.train), 2 * len(own.train))
            Φ, y = [], []
            for labelled in (own.train[k] for k in some):
                if stop():
                    raise Abandoned
                Φ.append(self.rows(labelled.frame))
                y.append(np.concatenate([[labelled.label.energy], labelled.label.forces.ravel()]))
            Φ, y = np.vstack(Φ), np.concatenate(y)
            inverse = np.linalg.inv(Φ.T @ Φ + self.ridge * np.eye(Φ.shape[1]))
            weights = inverse @ (Φ.T @ y)
            fits[m] = weights, np.mean((Φ @ weights - y) ** 2) * inverse
        for m, (weights, covariance) in fits.items():
            member = self.members[m]
            member.weights, member.covariance, member.epochs = weights, covariance, member.epochs + epochs
        self.version, self.visits = self.version + 1, self.visits + 1
        looks = zip(data, self.validate(data), strict=True)
        return [after_training(look, epochs, self.members[m].epochs) for m, look in looks]

    def member_arrays(self, member):
        m = self.members[member]
        fit = {} if m.weights is None else {"weights": m.weights.copy(), "covariance": m.covariance.copy()}
        return {"epochs": np.array(m.epochs), **fit}

    def load_member(self, member, arrays):
        m = self.members[member]
        m.epochs = int(arrays["epochs"])
        m.weights, m.covariance = (
            np.array(arrays[n]) if n in arrays else None for n in ("weights", "covariance")
        )

    def save(self, member, path):
        file, m = io.BytesIO(), self.members[member]
        np.savez(
            file, elements=self.elements, own=self.has_spread, weights=m.weights, covariance=m.covariance
        )
        write_bytes(path, file.getvalue())

    def potential(self, members=None):
        chosen = self.members if members is None else [self.members[m] for m in members]

        def evaluate(frames):
            Φ = [self.rows(f) for f in frames]
            said = [[row @ m.weights for row in Φ] for m in chosen]
            energies = np.array([[s[0] for s in own] for own in said])
            forces = np.stack([np.concatenate([s[1:].reshape(-1, 3) for s in own]) for own in said])
            if not self.has_spread:
                return Evaluation(energies, forces)
            rows = np.vstack([row[1:] for row in Φ])
            variance = np.mean([np.einsum("ij,jk,ik->i", rows, m.covariance, rows) for m in chosen], axis=0)
            spread = np.sqrt(np.maximum(variance.reshape(-1, 3).mean(1), 0))
            return Evaluation(energies, forces, spread=spread)

        return EvaluatedPotential(evaluate, self.elements, len(chosen), self.has_spread)


class LinearKind(ModelKind):
    name, title, suffix, keys = "linear", "linear", ".linear.npz", LinearSettings

    def __init__(self, has_spread):
        self.has_spread = has_spread

    def build(self, settings, seeds, elements):
        members = map(LinearMember, member_names(settings, seeds), seeds)
        return LinearModel(members, elements, self.options(settings).ridge, self.has_spread)

    def load(self, paths, device, dtype):
        files = [dict(np.load(path, allow_pickle=False)) for path in paths]
        members = [LinearMember(path.name, k) for k, path in enumerate(paths)]
        for member, file in zip(members, files, strict=True):
            member.weights, member.covariance = file["weights"], file["covariance"]
        elements = tuple(int(z) for z in files[0]["elements"])
        return LinearModel(members, elements, has_spread=bool(files[0]["own"])).potential()


KIND, COMMITTEE = LinearKind(has_spread=True), LinearKind(has_spread=False)
