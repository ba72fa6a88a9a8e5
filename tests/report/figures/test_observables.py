from dataclasses import replace

import numpy as np

from aims_pax.report.figures import observables
from aims_pax.report.run_record import Observables


def test_a_temperature_ramp_is_drawn_and_no_error(run):
    ramp = replace(run, settings={**run.settings, "aimsPAX.MD.temperature": "[200.0, 500.0]"})
    seen = Observables(
        0, *(np.array(v) for v in ([5.0, 10, 15], [210.0, 300, 480], [-1.0] * 3, [1.0] * 3, [9.0] * 3))
    )
    (temperature, *_) = observables.observables_figure(replace(ramp, observables=(seen,)))
    assert temperature.name == "temperature"
    assert observables._targets(ramp) == [200.0, 500.0]
    assert observables._targets(run) == [500.0]
