import pytest


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """Two small trained models and labelled frames of a molecule and a crystal in results/."""
    from aims_pax.dataset import write_extxyz
    from aims_pax.models.mace import Ensemble, MemberData
    from aims_pax.record.delivered_models import content, file_digest
    from tests.models.mace import tiny

    folder = tmp_path_factory.mktemp("run")
    (folder / "results").mkdir()
    ensemble = Ensemble.build(tiny.settings(compute_stress=True), [1, 2], tiny.ELEMENTS)
    data = [*tiny.ethanol(3), *tiny.copper(3)]
    ensemble.train({m: MemberData(data, data[:2]) for m in (0, 1)}, epochs=2)
    for m, member in enumerate(ensemble.members):
        ensemble.save(m, folder / "results" / f"{member.name}.model")
    write_extxyz(folder / "results" / "test.xyz", data)
    models = {p.name: {"sha256": file_digest(p)} for p in (folder / "results").glob("*.model")}
    (folder / "results" / "models.json").write_text(content(models))
    return folder
