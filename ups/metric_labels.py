"""How metrics are shown: in the report, on the terminal, in Prefect. One entry each, in the order of the tables.

Formulas and units are in `ups/evaluation`, which does not see this file: other words are no other numbers.
"""

from dataclasses import dataclass
from typing import Literal

HEADLINE = "trajectory_relative_l2"
COVERAGE = "coverage_90"
OVER_OPERATOR, OVER_DRESSED = "error_over_operator", "crps_over_dressed"
NOMINAL = 0.90


@dataclass(frozen=True)
class Metric:
    """How one metric is shown.

    Attributes:
        group, label, definition: in the report.
        heading: of its column on the terminal and in Prefect; None: it has none there.
        kind: how the report writes values.
        optional: models may be without it: what they are compared with, or, of ensembles' metrics, single forecasts.
        target: the best value there is; the nearest to it is shown as best.
    """

    name: str
    group: str
    label: str
    definition: str
    heading: str | None = None
    kind: Literal["number", "percent", "seconds"] = "number"
    optional: Literal["ensembles", "some"] | None = None
    target: float | None = 0.0


METRICS = (
    Metric(
        HEADLINE,
        "Accuracy",
        "Trajectory relative L2",
        "‖prediction − truth‖ / ‖truth‖ over all scored frames and points of a trajectory, of each field by itself; "
        "the mean over fields, then over trajectories.",
        heading="trajectory rel. L2",
    ),
    Metric(
        f"{HEADLINE}_median",
        "Accuracy",
        "Trajectory relative L2, median",
        "The same, median over trajectories.",
        heading="median",
    ),
    Metric(
        "pdebench_nrmse",
        "Accuracy",
        "PDEBench nRMSE",
        "Root mean square error of each frame over that frame’s own root mean square, then the mean over "
        "trajectories, frames and fields. Frames that have decayed weigh as much as energetic ones.",
        heading="PDEBench nRMSE",
    ),
    Metric(
        "final_relative_l2",
        "Accuracy",
        "Last frame, relative L2",
        "The relative L2 of the last frame alone: what is left of the error at the end of the rollout.",
        heading="final rel. L2",
    ),
    Metric(
        "mass_drift",
        "Physics",
        "Mass drift",
        "Largest change of the spatial mean over time, over the root mean square of the first frame, of the worst "
        "conserved field. The true solution keeps its mean where nothing flows in or out.",
        heading="mass drift",
    ),
    Metric(
        "spectral_rmse_low",
        "Spectrum",
        "Spectral RMSE, k = 0 to 3",
        "PDEBench’s fRMSE: root mean square error of the Fourier coefficients in a band of wavenumbers k, in "
        "units of the field; of two axes in radial bins.",
    ),
    Metric("spectral_rmse_mid", "Spectrum", "Spectral RMSE, k = 4 to 11", "The same, middle band."),
    Metric("spectral_rmse_high", "Spectrum", "Spectral RMSE, k = 12 and up", "The same, high band: fronts."),
    Metric(
        "crps",
        "Uncertainty",
        "CRPS",
        "Continuous ranked probability score, fair in the number of members, in units of the field: the absolute "
        "error of a forecast that is a distribution; of a single forecast, its mean absolute error.",
        heading="CRPS",
    ),
    Metric(
        "spread_skill",
        "Uncertainty",
        "Spread over skill",
        "Root mean square deviation of the members from their mean, with the finite ensemble’s factor, over the root "
        "mean square error of that mean; both relative to the truth’s norm. Best is 1; in brackets the 95 % interval of a "
        "bootstrap over trajectories, the worst of which weigh most. Ensembles only.",
        optional="ensembles",
        target=1.0,
        heading="spread / skill",
    ),
    Metric(
        "spread_skill_median",
        "Uncertainty",
        "Spread over skill, median",
        "The same of each trajectory by itself, median over trajectories: how wide a typical ensemble is. It is 1 for a "
        "calibrated one where a trajectory errs in many independent places, and more where it errs in few.",
        optional="ensembles",
        target=None,
    ),
    Metric(
        COVERAGE,
        "Uncertainty",
        "Coverage of the 90 % interval",
        "Part of the truth inside the central 90 % of the ensemble, by ranks. Best is 90 %, no more and no less. "
        "Ensembles only.",
        kind="percent",
        optional="ensembles",
        target=NOMINAL,
        heading="coverage 90 %",
    ),
    Metric(
        OVER_OPERATOR,
        "Compared",
        "Error over the operator’s",
        "Ratio of the mean trajectory relative L2 to the operator’s on the same trajectories; in brackets the 95 % interval "
        "of a paired bootstrap over trajectories. Better or worse is what lies on one side of 1 with its whole interval.",
        optional="some",
        target=None,
        heading="error / operator's",
    ),
    Metric(
        OVER_DRESSED,
        "Compared",
        "CRPS over the dressed operator’s",
        "The same of the CRPS, to that of the operator with past errors: what learning the errors is worth.",
        optional="some",
        target=None,
        heading="CRPS / dressed",
    ),
    Metric(
        "seconds_per_trajectory",
        "Cost",
        "Time per trajectory",
        "Wall clock of the forecast: encoding, all steps of all members, decoding; with as many states at a time "
        "as the table says.",
        kind="seconds",
        heading="s / trajectory",
    ),
)

HEADINGS = {metric.name: metric.heading for metric in METRICS if metric.heading is not None}
"""Columns of tables on the terminal and in Prefect."""
