"""All figures of an evaluation, as the bytes of SVG and PNG files."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from ups.report import catalogue
from ups.report.conditioning_figure import conditioning
from ups.report.curve_figures import (
    Records,
    calibration,
    error_histogram,
    error_over_time,
    errors_by_lead,
    loss_curves,
    reliability,
    spectrum,
)
from ups.report.drawing import Curves, render, styled
from ups.report.field_figures import Examples, final_frame, images, space_time


@styled
def draw_problem(curves: Curves, examples: Examples, records: Records) -> dict[str, bytes]:
    """Every figure of one problem, by file name (`catalogue.figures_of`).

    Args:
        curves: what an evaluation's curves.json holds of the problem.
        examples: its example trajectories.
        records: of the problem, of metrics.json.

    Raises:
        IntegrityError: something that a figure shows is missing.
    """
    made: dict[str, Figure] = {}
    axes = len(catalogue.entry(curves, "axes", where="curves.json"))
    is_map = catalogue.entry(curves, "is_map", where="curves.json")
    by_lead, conditioned = catalogue.has_lead_times(records), "conditioning" in curves
    for name in catalogue.figures_of(axes, is_map=is_map, by_lead=by_lead, conditioned=conditioned):
        match name:
            case catalogue.SPACE_TIME:
                made[name] = space_time(curves, examples)
            case catalogue.FINAL_FRAME:
                made[name] = final_frame(curves, examples)
            case catalogue.IMAGES:
                made[name] = images(curves, examples)
            case catalogue.ERROR_OVER_TIME:
                made[name] = error_over_time(curves)
            case catalogue.ERRORS_BY_LEAD:
                made[name] = errors_by_lead(curves, records)
            case catalogue.ERROR_HISTOGRAM:
                made[name] = error_histogram(curves)
            case catalogue.SPECTRUM:
                made[name] = spectrum(curves)
            case catalogue.CALIBRATION:
                made[name] = calibration(curves)
            case catalogue.RELIABILITY:
                made[name] = reliability(curves)
            case catalogue.CONDITIONING:
                made[name] = conditioning(curves)
            case _:
                raise ValueError(f"no function draws {name}")
    return {name: render(figure, name.rpartition(".")[2]) for name, figure in made.items()}


@styled
def draw_training(training: Mapping[str, Records]) -> bytes:
    """The loss curves of a run (`catalogue.TRAINING`), from the records of each training stage.

    Raises:
        IntegrityError: a stage has no records.
    """
    return render(loss_curves(training), catalogue.TRAINING.rpartition(".")[2])
