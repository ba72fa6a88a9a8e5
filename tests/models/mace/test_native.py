import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from mace.calculators import MACECalculator

from aims_pax.errors import SettingsError
from aims_pax.frames import Frame
from aims_pax.models.batch_splitting import BatchSplitter
from aims_pax.models.mace import native
from aims_pax.models.mace.build import build_model
from aims_pax.models.mace.graphs import EdgeGraph
from aims_pax.models.mace.inference import Committee
from aims_pax.models.mace.native import Backend, NativeEvaluator, NativeMember, excerpt
from aims_pax.potential import calculate
from tests.models.mace.test_native_support import AGNOSTIC, BASE
from tests.models.mace.tiny import copper, ensemble, ethanol, settings, slab, triclinic, water

pytest.importorskip("symmetrix", reason="the extra fast is not installed")

MOLECULE, CRYSTAL = ethanol(1)[0].frame, copper(1)[0].frame
MIXED = [MOLECULE, CRYSTAL, triclinic(), slab(), water(1)[0].frame]
KNOWN = {
    "default shape": {"correlation": 3},
    "float64": {"default_dtype": "float64"},
    "scalars only": {"max_L": 0},
    "max_L 2": {"max_L": 2},
    "correlation 1": {"correlation": 1},
    "first layer without residual": {"interaction_first": f"{AGNOSTIC}InteractionBlock"},
    "density blocks": {
        "interaction_first": f"{AGNOSTIC}DensityInteractionBlock",
        "interaction": f"{AGNOSTIC}DensityResidualInteractionBlock",
    },
    "repulsion": {"pair_repulsion": True},
    "plain MACE": {"model": "MACE"},
    "other radial network": {"radial_MLP": [8, 8], "num_radial_basis": 5, "num_cutoff_basis": 6},
    "other readout": {"MLP_irreps": "4x0e+2x0e"},
}


def alone(model, mode="auto"):
    """A committee of one, with a back end of its own."""
    return Committee([model], evaluator=Backend(mode, "cpu", model).evaluator)


@pytest.fixture(scope="module")
def pair():
    """Two members that symmetrix evaluates."""
    return ensemble(**BASE)


def tensors(frames):
    positions = torch.from_numpy(np.concatenate([f.positions for f in frames]))
    return positions, torch.from_numpy(np.stack([f.cell for f in frames]))


@pytest.mark.parametrize("changes", KNOWN.values(), ids=KNOWN)
def test_native_energies_forces_and_stress_are_those_of_mace_calculator(changes):
    committee = ensemble(seeds=(1,), inference="native", **(BASE | changes)).potential()
    said = committee.evaluate(MIXED)
    assert isinstance(committee.evaluator, NativeEvaluator)
    # in float64, because MACE's own float32 is off by 2e-5 eV/Å where repulsion or density blocks are used
    calculator = MACECalculator(models=committee.evaluator.models, device="cpu", default_dtype="float64")
    parts = np.split(said.forces[0].numpy(), np.cumsum([len(f) for f in MIXED])[:-1])
    double = changes.get("default_dtype") == "float64"
    assert [member.single for member in committee.evaluator.native] == [not double]
    top = float(said.forces.abs().max())
    force, per_atom, stress = (1e-6, 1e-6, 1e-7) if double else (4e-5 * max(top, 1), 1e-5, 2e-6)
    for k, (frame, forces) in enumerate(zip(MIXED, parts, strict=True)):
        told = calculate(frame, calculator)
        np.testing.assert_allclose(forces, told.forces, rtol=0, atol=force)
        assert said.energies[0, k] == pytest.approx(told.energy, abs=per_atom * len(frame))
        if frame.periodic:
            np.testing.assert_allclose(said.stress[0, k], told.stress, rtol=0, atol=stress)
        else:
            assert torch.isnan(said.stress[0, k]).all()


@pytest.mark.parametrize("mode", ["auto", "native"])
def test_without_the_extra_the_message_names_it(mode, monkeypatch, caplog, pair):
    def missing(name):
        raise native.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(native.metadata, "version", missing)
    model = pair.members[0].model
    if mode == "native":
        with pytest.raises(SettingsError, match=r"extra 'fast' is not installed"):
            Backend(mode, "cpu", model)
        return
    with caplog.at_level(logging.INFO):
        assert not isinstance(Backend(mode, "cpu", model).evaluator([model]), NativeEvaluator)
    assert "extra 'fast' is not installed" in caplog.text


def test_another_version_and_another_device_are_refused(monkeypatch, pair):
    model = pair.members[0].model
    assert "cuda" in Backend("auto", "cuda", model).refusal
    monkeypatch.setattr(native.metadata, "version", lambda name: "0.9")
    assert "0.9" in Backend("auto", "cpu", model).refusal


def wide(**changes):
    return ensemble(
        seeds=(1,), **(BASE | {"num_channels": native.WIDE, "correlation": 2, "max_L": 0} | changes)
    )


def test_auto_leaves_wide_models_whose_weights_change_to_torch(caplog):
    with caplog.at_level(logging.INFO):
        said = wide().potential()
    assert not isinstance(said.evaluator, NativeEvaluator)
    assert f"torch, because symmetrix needs seconds to read new weights of {native.WIDE}" in caplog.text
    assert isinstance(wide(inference="native").potential().evaluator, NativeEvaluator)
    model = wide().members[0].model
    assert Backend("auto", "cpu", model).refusal is None, "weights that stay are read once"
    assert isinstance(wide(num_channels=8).potential().evaluator, NativeEvaluator)


def test_auto_reads_wide_models_that_our_torch_forward_does_not_know(monkeypatch):
    model = wide().members[0].model
    assert Backend("auto", "cpu", model, renewed=True).refusal
    monkeypatch.setattr("aims_pax.models.mace.fast_forward.unsupported_part", lambda model: "a part")
    assert Backend("auto", "cpu", model, renewed=True).refusal is None


def test_torch_is_torch_and_says_nothing(caplog, pair):
    model = pair.members[0].model
    with caplog.at_level(logging.INFO):
        assert not isinstance(Backend("torch", "cpu", model).evaluator([model]), NativeEvaluator)
    assert not caplog.records


def test_auto_is_native_and_says_so_once(caplog, pair):
    with caplog.at_level(logging.INFO):
        pair._backend = None
        pair.potential().evaluate(MIXED)
        pair.potential().evaluate(MIXED)
    assert [r.message.split(" (")[0] for r in caplog.records] == ["inference: native"]


def spoilt(change):
    """An export with one thing wrong."""

    def read(content, single=False):
        change(content)
        return right(content, single)

    right = native.read_native
    return read


def shift(content):
    content["atomic_energies"] = [e + 1e-3 for e in content["atomic_energies"]]


def neighbours(content):
    content["A1_weights"] = [[1.001 * x for x in w] for w in content["A1_weights"]]


def readout(content):
    content["readout_2_weights_2"][0] *= 1.01


def radial(content):
    content["compact_radial"]["num_spline_points"] = 16


@pytest.mark.parametrize("change", [shift, neighbours, readout, radial])
def test_a_wrong_export_is_caught_and_torch_takes_over_for_good(change, monkeypatch, caplog, pair):
    pair.potential()
    model = pair._frozen[0]
    monkeypatch.setattr(native, "read_native", spoilt(change))
    backend = Backend("auto", "cpu", model)
    with caplog.at_level(logging.INFO):
        said = Committee([model], evaluator=backend.evaluator).evaluate(MIXED)
        again = Committee([model], evaluator=backend.evaluator)
        again.evaluate(MIXED)
    assert torch.equal(said.forces, Committee([model]).evaluate(MIXED).forces)
    assert not isinstance(again.evaluator, NativeEvaluator)
    assert len(caplog.records) == 1
    assert "torch from now on, because" in caplog.text
    assert "differs from MACE's" in caplog.text
    with pytest.raises(SettingsError, match="differs from MACE's"):
        alone(model, "native").evaluate(MIXED)


@pytest.mark.parametrize("change", [shift, neighbours, readout, radial])
def test_a_wrong_export_is_caught_in_single_precision_too(change, monkeypatch, caplog, pair):
    pair.potential()
    model = pair._frozen[0]
    monkeypatch.setattr(native, "read_native", spoilt(change))
    with caplog.at_level(logging.INFO):
        backend = Backend("auto", "cpu", model, renewed=True)
        said = Committee([model], evaluator=backend.evaluator).evaluate(MIXED)
    assert torch.equal(said.forces, Committee([model]).evaluate(MIXED).forces)
    assert [r.message.split(", because")[0] for r in caplog.records] == [
        "inference: native in double precision",
        "inference: torch from now on",
    ]


def test_what_is_too_coarse_in_single_precision_is_evaluated_in_double(monkeypatch, caplog, pair):
    pair.potential()
    model = pair._frozen[0]
    monkeypatch.setattr(native, "SINGLE", (1e-9, 1e-9))
    backend = Backend("native", "cpu", model, renewed=True)
    committee = Committee([model], evaluator=backend.evaluator)
    with caplog.at_level(logging.INFO):
        said = committee.evaluate(MIXED)
    assert torch.equal(said.forces, alone(model, "native").evaluate(MIXED).forces)
    assert not committee.evaluator.native[0].single
    assert "double precision, because in single precision energy differs from MACE's by" in caplog.text


def test_models_that_stay_are_evaluated_in_double_precision(pair):
    pair.potential()
    model = pair._frozen[0]
    assert model.atomic_energies_fn.atomic_energies.dtype == torch.float32
    assert not NativeMember(model).single
    assert NativeMember(model, single=True).single


def test_weights_that_cannot_be_inverted_are_left_to_torch(caplog):
    model = build_model(settings(**BASE), (1, 6, 8), 0).requires_grad_(False)
    model.interactions[1].linear_up.weight.zero_()
    committee = alone(model)
    assert torch.isfinite(committee.evaluate([MOLECULE]).forces).all()
    assert "cannot be inverted" in caplog.text


def test_a_comparison_that_runs_out_of_memory_is_made_again(pair, monkeypatch):
    committee, asked, real = alone(pair.members[0].frozen_copy()), [], NativeMember.compare

    def full_once(member, graph, atoms, **how):
        asked.append(len(graph.ptr) - 1)
        if len(asked) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(member, graph, atoms, **how)

    monkeypatch.setattr(NativeMember, "compare", full_once)
    monkeypatch.setattr(committee, "room", BatchSplitter("dynamics"))
    committee.evaluate(MIXED)
    assert len(asked) == 2
    assert asked[1] < asked[0]


def test_new_weights_reach_bindings_that_already_exist(pair):
    bound = pair.potential().bind(MIXED)
    before = bound(*tensors(MIXED))
    for member in pair.members:
        member.set_weights([1.01 * w for w in member.average.shadow])
        member.shift_offsets(shift=member.statistics.shift + 0.5)
    pair.version += 1
    pair.potential()
    after = bound(*tensors(MIXED), stress=True)
    told = Committee(pair._frozen).evaluate(MIXED)
    assert not torch.allclose(before.forces, after.forces, atol=1e-4)
    torch.testing.assert_close(after.forces, told.forces, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.energies, told.energies, rtol=1e-6, atol=1e-4)


def test_equal_weights_give_bit_equal_forces_in_another_process_life(pair):
    """Export, file and evaluation depend on the weights alone, whatever was evaluated before."""
    bound = pair.potential().bind(MIXED)
    bound(*tensors(MIXED))
    here = bound(*tensors(MIXED), stress=True)
    restored = ensemble(**BASE)
    restored.restore(pair.arrays())
    restored.potential().bind([CRYSTAL])(*tensors([CRYSTAL]))
    there = restored.potential().bind(MIXED)(*tensors(MIXED), stress=True)
    assert torch.equal(here.energies, there.energies)
    assert torch.equal(here.forces, there.forces)
    assert torch.equal(here.stress[:, 1:3], there.stress[:, 1:3])


def test_lost_structures_lone_atoms_and_atoms_that_meet_do_not_hurt_the_others(pair):
    meeting = Frame([1, 1, 8], [[0, 0, 0], [0, 0, 0.8], [0, 0, 1.6]])
    frames = [MOLECULE, CRYSTAL, Frame([8], [[1, 2, 3]]), meeting, triclinic()]
    bound = pair.potential().bind(frames)
    positions, cells = tensors(frames)
    whole = bound(positions, cells, stress=True)
    lone = bound.ptr[2]
    assert not whole.forces[:, lone].any()
    broken = positions.clone()
    broken[len(MOLECULE)] = torch.inf
    broken[lone + 1] = broken[lone + 2]
    said = bound(broken, cells, stress=True)
    assert torch.isnan(said.forces[:, bound.frame_of == 1]).all()
    assert not torch.isfinite(said.forces[:, bound.frame_of == 3]).all()
    for f in (0, 2, 4):
        torch.testing.assert_close(said.forces[:, bound.frame_of == f], whole.forces[:, bound.frame_of == f])
        torch.testing.assert_close(said.energies[:, f], whole.energies[:, f])
    nothing = pair.potential().bind([Frame([8], [[1, 2, 3]])])(*tensors([Frame([8], [[1, 2, 3]])]))
    assert torch.isfinite(nothing.energies).all()
    assert not nothing.forces.any()


def test_excerpts_show_every_element_and_no_more_atoms_than_wanted(pair):
    bound = pair.potential().bind([*MIXED, MOLECULE])
    edges = bound.neighbours(*tensors([*MIXED, MOLECULE]))
    graph = EdgeGraph(bound.species, edges.sender, edges.receiver, edges.vectors, bound.frame_of, bound.ptr)
    part = excerpt(graph, 96)
    assert part.ptr.tolist() == [0, 9, 13]  # ethanol, copper; the others show nothing new
    assert set(part.species.tolist()) == {0, 1, 2, 3}
    small = excerpt(graph, 4)
    assert small.ptr.diff().max() == 4
    assert small.sender.max() < len(small.species)
    assert torch.equal(
        small.frame_of, torch.repeat_interleave(torch.arange(len(small.ptr) - 1), small.ptr.diff())
    )


def test_an_export_is_json_of_plain_numbers_and_leaves_no_file(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(native.tempfile, "tempdir", str(tmp_path))
    seen, symmetrix = [], native._symmetrix()

    class Reading:
        @staticmethod
        def MACE(name):
            seen.append(json.loads(Path(name).read_bytes()))
            return symmetrix.MACE(name)

    monkeypatch.setattr(native, "_symmetrix", lambda: Reading)
    member = NativeMember(pair.members[0].model)
    member.update()
    assert seen == [json.loads(json.dumps(member._topology.export(member._reference)))]  # each digit of them
    assert not list(tmp_path.iterdir())


def test_first_weights_are_compared_with_maces_modules_and_later_ones_with_our_own(pair, monkeypatch):
    committee, by = alone(pair.members[0].frozen_copy()), []
    real = NativeMember.compare

    def compare(member, graph, atoms, *, by_modules):
        by.append(by_modules)
        ways = [real(member, graph, atoms, by_modules=way) for way in (True, False)]
        assert ways[0] == pytest.approx(ways[1], abs=1e-10)
        return ways[0]

    monkeypatch.setattr(NativeMember, "compare", compare)
    committee.evaluate(MIXED)
    model = committee.evaluator.models[0]
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    committee.evaluate(MIXED)
    assert by == [True, False]


MANY = (1, 3, 6, 7, 8, 9, 11, 14, 17, 29)


@pytest.mark.parametrize(
    "changes",
    [{}, {"interaction_first": f"{AGNOSTIC}InteractionBlock"}, {"pair_repulsion": True}],
    ids=["residual", "without residual", "repulsion"],
)
def test_of_many_elements_only_those_that_occur_are_read(changes, monkeypatch):
    model = ensemble([1], MANY, **(BASE | changes)).potential().evaluator.models[0]
    sizes, real = [], native.read_native
    monkeypatch.setattr(
        native,
        "read_native",
        lambda content, single: sizes.append(content["atomic_numbers"]) or real(content, single),
    )
    committee = alone(model, "native")
    first = [MOLECULE, water(1)[0].frame]
    for frames in (first, first, [*first, CRYSTAL], first):
        said, told = committee.evaluate(frames), Committee([model]).evaluate(frames)
        torch.testing.assert_close(said.forces, told.forces, rtol=0, atol=2e-5)
        torch.testing.assert_close(said.energies, told.energies, rtol=0, atol=1e-4)
    assert sizes == [[1, 6, 8], [1, 6, 8, 29]]


def test_new_weights_of_many_elements_are_noticed():
    model = ensemble([1], MANY, **BASE).potential().evaluator.models[0]
    committee = alone(model, "native")
    before = committee.evaluate([MOLECULE]).forces
    with torch.no_grad():
        next(model.products[0].parameters()).mul_(1.5)
    after = committee.evaluate([MOLECULE]).forces
    assert not torch.allclose(before, after, atol=1e-4)
    torch.testing.assert_close(after, Committee([model]).evaluate([MOLECULE]).forces, rtol=0, atol=2e-5)


def test_atomic_energies_that_change_alone_reach_bindings_that_already_exist():
    """Without new weights: the offsets are fitted after a visit. Once as exact values, once as the stored ones."""
    model = ensemble(**BASE).members[0].model
    frames = [f.frame for f in ethanol(2)]
    bound = alone(model, "native").bind(frames)
    before = bound(*tensors(frames)).energies
    offsets, n = model.atomic_energies_fn, len(frames[0])
    offsets.exact = [e + 1.0 for e in offsets.exact]
    np.testing.assert_allclose(bound(*tensors(frames)).energies - before, n, atol=1e-6)
    offsets.exact = None
    whole = bound(*tensors(frames)).energies
    with torch.no_grad():
        offsets.atomic_energies += 2.0
    np.testing.assert_allclose(bound(*tensors(frames)).energies - whole, 2.0 * n, atol=1e-3)
