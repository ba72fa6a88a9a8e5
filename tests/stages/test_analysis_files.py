"""The files of `analysis/`, and the table of them."""

from types import SimpleNamespace

import numpy as np

from aims_pax.core.work import RecordError
from aims_pax.frames import Label
from aims_pax.record.files import write_bytes
from aims_pax.stages.analysis_files import collect_analysis, write_analysis


def test_each_comparison_is_a_file_and_a_line_of_the_table_in_the_order_of_the_steps(tmp_path):
    folder = SimpleNamespace(analysis=tmp_path, write_bytes=write_bytes)
    forces = np.array([[[1.0, 0, 0], [0, 0, 0]], [[3.0, 0, 0], [0, 0, 0]]])  # two members, two atoms
    prediction = {"predicted_forces": forces, "atomic_sd": np.array([0.5, 0.1])}
    label = Label(-7.0, np.array([[1.0, 0, 0], [0, 0, 0.4]]))
    for step in (200, 40):
        write_analysis(folder, RecordError("a", 1, step, threshold=0.25, n_train=30), prediction, label)
    with np.load(tmp_path / "trajectory_001" / "step_000000040.npz") as stored:
        assert stored["true_energy"] == -7.0
        np.testing.assert_array_equal(stored["predicted_forces"], forces)
    collect_analysis(tmp_path)
    header, *rows = (tmp_path / "analysis.csv").read_text().splitlines()
    assert header == "trajectory,step,n_train,threshold,max_atomic_sd,force_mae,max_force_error"
    mean = (1 + 0.4) / 6  # of the components of the mean of the members
    assert rows == [f"1,{step},30,0.25,0.5,{mean:.8g},1" for step in (40, 200)]
