"""How metrics are shown: in the report, on the terminal, in Prefect. One entry each, in the order of the tables.

Formulas and units are in `ups/evaluation`, which does not see this file: other words are no other numbers.
"""

import math
from dataclasses import dataclass
from typing import Literal

HEADLINE = "trajectory_relative_l2"
COVERAGE = "coverage_90"
OVER_OPERATOR, OVER_DRESSED = "error_over_operator", "crps_over_dressed"
NOMINAL = 0.90
SYMMETRIES = {
    "shift": "a shift",
    "reflection": "a reflection",
    "galilean": "a Galilean boost",
    "offset": "an offset",
    "scaling": "a scaling",
    "square": "a symmetry of the square",
}


@dataclass(frozen=True)
class Metric:
    """How one metric is shown.

    Attributes:
        group, label, definition: in the report.
        heading: of its column on the terminal and in Prefect; None: it has none there.
        kind: how the report writes values.
        optional: models may be without it: what they are compared with, or, of ensembles' metrics, single forecasts.
        target: the best value there is, infinite where larger is better; the nearest to it is shown as best.
    """

    name: str
    group: str
    label: str
    definition: str
    heading: str | None = None
    kind: Literal["number", "percent", "seconds"] = "number"
    optional: Literal["ensembles", "some"] | None = None
    target: float | None = 0.0

    def distance(self, value: float) -> float:
        """How far a value is from the best, of a metric that has one."""
        assert self.target is not None
        return -value if self.target == math.inf else abs(value - self.target)


def frames_counted(skipped: int) -> str:
    """How many frames PDEBench's metrics leave out, in words."""
    if skipped == 0:
        return "the given frame counts, with its error of zero"
    return "the given frame does not count" if skipped == 1 else f"the first {skipped} frames do not count"


def _coverage(level: float) -> Metric:
    percent = f"{100 * level:.0f}"
    coarse = (
        " Sixteen members hardly tell: one that always misses still has 58 % inside."
        if level > NOMINAL
        else ""
    )
    return Metric(
        f"coverage_{percent}",
        "Uncertainty",
        f"Coverage of the {percent} % interval",
        f"Part of the truth inside the central {percent} % of the ensemble, by ranks. Best is {percent} %, no more and no less."
        f"{coarse} Ensembles only.",
        kind="percent",
        optional="ensembles",
        target=level,
        heading=f"coverage {percent} %" if level == NOMINAL else None,
    )


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
        "final_relative_l2",
        "Accuracy",
        "Last frame, relative L2",
        "The relative L2 of the last frame alone: what is left of the error at the end of the rollout.",
        heading="final rel. L2",
    ),
    Metric(
        "vrmse",
        "Accuracy",
        "VRMSE",
        "Root mean square error of each frame over the truth’s standard deviation in it, then the mean over trajectories, "
        "frames and fields: 1 is the error of the truth’s own mean.",
    ),
    Metric(
        "correlation",
        "Accuracy",
        "Correlation",
        "Pearson correlation of forecast and truth over the points of each frame, then the mean over trajectories, frames and "
        "fields. Best is 1.",
        target=1.0,
    ),
    Metric(
        "valid_time",
        "Accuracy",
        "Valid time",
        "How long the relative L2 of the frame, mean over fields, stays at 0.2 or less; mean over trajectories. Longest is "
        "best, and no longer than a trajectory.",
        target=math.inf,
    ),
    Metric(
        "correlation_time",
        "Accuracy",
        "Correlation time",
        "How long the correlation of the frame, mean over fields, stays at 0.8 or more; likewise.",
        target=math.inf,
    ),
    Metric(
        "pdebench_nrmse",
        "PDEBench",
        "PDEBench nRMSE",
        "nRMSE: root mean square error of each frame over that frame’s own root mean square, then the mean over "
        "trajectories, frames and fields. Frames that have decayed weigh as much as energetic ones.",
        heading="PDEBench nRMSE",
    ),
    Metric(
        "rmse",
        "PDEBench",
        "PDEBench RMSE",
        "Root mean square error of each frame, in units of the field; the mean over trajectories and frames.",
    ),
    Metric(
        "conserved_rmse",
        "PDEBench",
        "PDEBench cRMSE, of the total",
        "Error of each frame’s spatial mean, in units of the field: root mean square over trajectories, mean over frames.",
    ),
    Metric(
        "max_error",
        "PDEBench",
        "PDEBench maximum error",
        "Largest absolute error of each frame over all points and trajectories, in units of the field; the mean over frames. "
        "More trajectories only raise it.",
    ),
    Metric(
        "boundary_rmse",
        "PDEBench",
        "PDEBench bRMSE, at the boundary",
        "Root mean square error of each frame over the outermost points of the grid, in units of the field; the mean over "
        "trajectories and frames.",
    ),
    Metric(
        "spectral_rmse_low",
        "PDEBench",
        "PDEBench fRMSE, k = 0 to 3",
        "Root mean square error of the Fourier coefficients in a band of wavenumbers k, in units of the field: root mean square "
        "over trajectories, mean over the band and over frames; of two axes in radial bins.",
    ),
    Metric("spectral_rmse_mid", "PDEBench", "PDEBench fRMSE, k = 4 to 11", "The same, middle band."),
    Metric("spectral_rmse_high", "PDEBench", "PDEBench fRMSE, k = 12 and up", "The same, high band: fronts."),
    Metric(
        "mass_drift",
        "Physics",
        "Mass drift",
        "Largest change of the spatial mean over time, over the root mean square of the first frame, of the worst "
        "conserved field. The true solution keeps its mean where nothing flows in or out.",
        heading="mass drift",
    ),
    *(
        Metric(
            f"equivariance_{symmetry}",
            "Physics",
            f"Equivariance error, {words}",
            f"Relative L2 between two forecasts: of the initial state, and of the state under {words}, taken back; of the "
            "operator, on four trajectories. A symmetry that the model uses exactly leaves rounding alone.",
            optional="some",
        )
        for symmetry, words in SYMMETRIES.items()
    ),
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
        "calibration_error",
        "Uncertainty",
        "Calibration error (ECE)",
        "Expected calibration error of quantiles: the part of the truth below the k-th of M members, less k / (M + 1), "
        "absolute, mean over k; over all points, frames and trajectories. It is the mean distance of the reliability diagram "
        "from its diagonal. Ensembles only.",
        optional="ensembles",
    ),
    *(_coverage(level) for level in (0.5, NOMINAL, 0.95)),
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
