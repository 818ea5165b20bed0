"""Figures: what they show, and that equal data give equal bytes."""

import io
import re
import subprocess
import sys
import warnings
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image
from small_run import ERRORS, FLOW, MAP, MIX, make_curves, make_examples, make_records, make_training
from tiny import PROBLEM, build

from ups.errors import IntegrityError
from ups.evaluation.ensembles import (
    PastErrors,
    consistency_forecasters,
    diffusion_forecasters,
    dressed_forecasters,
)
from ups.evaluation.forecaster import OperatorForecasts, linear_forecasters, operator_forecaster
from ups.model_labels import MODELS
from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork
from ups.report import catalogue, curve_figures, drawing, field_figures, figures

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> set[str]:
    return {"".join(node.itertext()).strip() for node in ET.fromstring(svg).iter(f"{SVG}text")}


def test_every_vector_figure_is_xml_that_requests_nothing(drawn: dict[str, bytes]) -> None:
    vectors = [name for name in drawn if name.endswith(".svg")]
    assert len(vectors) == 7
    for name in vectors:
        root = ET.fromstring(drawn[name])
        assert root.tag == f"{SVG}svg"
        for node in root.iter():
            assert node.tag not in {f"{SVG}script", f"{SVG}image", f"{SVG}foreignObject"}
            for key, value in node.attrib.items():
                assert not key.endswith("href") or value.startswith("#"), (name, value)


def test_pictures_have_twice_the_density_and_all_figures_are_small(drawn: dict[str, bytes]) -> None:
    assert drawn["space_time.png"].startswith(b"\x89PNG")
    assert sum(map(len, drawn.values())) < 1_500_000
    assert Image.open(io.BytesIO(drawn["space_time.png"])).width > 1900


def test_lines_are_labelled_with_their_models(drawn: dict[str, bytes]) -> None:
    labels = {MODELS[name].label for name in ERRORS}
    assert labels <= texts(drawn["error_over_time.svg"])
    assert labels - {"spatial mean"} | {"truth"} <= texts(drawn["spectrum.svg"])
    assert {"diffusion", "consistency, 1 call", "consistency, 2 calls"} <= texts(drawn["calibration.svg"])
    assert labels <= texts(drawn["errors_by_lead.svg"])
    shown = " ".join(texts(drawn["final_frame.svg"]))
    assert "good: trajectory 0, rel. L2 0.0100" in shown
    assert "worst: trajectory 2, rel. L2 0.0300" in shown
    assert {"autoencoder", "operator", "L_denoise", "validation loss"} <= texts(drawn["training.svg"])


def test_a_model_has_one_colour_in_all_figures(drawn: dict[str, bytes]) -> None:
    for name in ("error_over_time.svg", "spectrum.svg", "calibration.svg"):
        content = drawn[name].decode()
        for model in ("diffusion", "consistency_1", "consistency_2"):
            assert MODELS[model].colour in content, (name, model)
    operator = MODELS["operator"].colour
    for name in ("error_over_time.svg", "spectrum.svg", "final_frame.svg", "training.svg"):
        assert operator in drawn[name].decode(), name
    colours = [model.colour for model in MODELS.values()]
    assert len(set(colours)) == len(colours)


def test_every_line_has_the_colour_that_its_label_promises() -> None:
    axes = curve_figures.error_over_time(make_curves()).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 3]
    shown = list(make_curves()["models"])
    assert [to_hex(line.get_color()) for line in lines] == [MODELS[name].colour for name in shown]
    expected = make_curves()["models"]["diffusion"]["error"]
    np.testing.assert_allclose(lines[shown.index("diffusion")].get_ydata(), expected)


def test_labels_at_line_ends_do_not_overlap() -> None:
    curves = make_curves()
    for model in curves["models"].values():
        model["error"] = model["error_10"] = model["error_90"] = [0.1] * len(model["error"])
    figure = curve_figures.error_over_time(curves)
    drawing.render(figure, "png")
    boxes = sorted(
        (
            t.get_window_extent()
            for t in figure.axes[0].texts
            if t.get_text() in {m.label for m in MODELS.values()}
        ),
        key=lambda box: box.y0,
    )
    assert len(boxes) == len(curves["models"])
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))


def test_errors_have_one_symmetric_scale_and_fields_that_of_the_truth() -> None:
    examples = {name: values[..., 0] for name, values in make_examples().items()}
    panels = field_figures.space_time(make_curves(), make_examples()).axes[:12]
    meshes = [axes.collections[0] for axes in panels]
    truth = examples["truth"][:, 1:]
    for row in range(3):
        shown, predicted, error, spread = meshes[4 * row : 4 * row + 4]
        assert shown.get_clim() == predicted.get_clim() == (truth.min(), truth.max())
        low, high = error.get_clim()
        assert low == -high
        assert error.get_clim() == meshes[2].get_clim()
        assert spread.get_clim()[0] == 0
        np.testing.assert_array_equal(shown.get_array(), truth[row])
        np.testing.assert_array_equal(error.get_array(), examples["operator"][row] - truth[row])
    limit = np.quantile(np.abs(examples["operator"] - truth), 0.998)
    assert high == pytest.approx(limit, rel=1e-3)


def test_equal_data_give_equal_bytes(drawn: dict[str, bytes]) -> None:
    again = figures.draw_problem(make_curves(), make_examples(), make_records())
    assert again | {"training.svg": figures.draw_training(make_training())} == drawn
    assert not any(
        re.search(rb"20\d\d-\d\d-\d\d", content) for n, content in drawn.items() if n.endswith("svg")
    )


def test_a_forecast_that_blew_up_is_still_drawn() -> None:
    curves, examples = make_curves(), make_examples()
    operator = curves["models"]["operator"]
    for name in ("error", "error_10", "error_90", "spectrum"):
        values = operator[name][0] if name == "spectrum" else operator[name]
        values[2:] = [None] * len(values[2:])
    curves["examples"][2]["error"] = None
    examples["operator"][2, 3:] = np.nan
    examples["diffusion_upper"][2, 3:] = np.inf
    drawn = figures.draw_problem(curves, examples, make_records())
    assert "worst: trajectory 2, not finite" in texts(drawn["final_frame.svg"])


@pytest.mark.parametrize(
    "missing", ["times", "coordinates", "truth_spectrum", "examples", "fields", "models", "axes", "is_map"]
)
def test_what_is_missing_is_an_error_that_names_it(missing: str) -> None:
    curves = make_curves()
    del curves[missing]
    with pytest.raises(IntegrityError, match=missing):
        figures.draw_problem(curves, make_examples(), make_records())


def test_missing_curves_examples_and_records_are_errors() -> None:
    curves = make_curves()
    del curves["models"]["diffusion"]["coverage"]
    with pytest.raises(IntegrityError, match=r"models\.diffusion\.coverage"):
        curve_figures.calibration(curves)
    examples = make_examples()
    del examples["diffusion_upper"]
    with pytest.raises(IntegrityError, match="diffusion_upper"):
        figures.draw_problem(make_curves(), examples, make_records())
    with pytest.raises(IntegrityError, match="no errors by lead time"):
        curve_figures.errors_by_lead(
            make_curves(), [{**record, "by_lead": None} for record in make_records()]
        )
    with pytest.raises(IntegrityError, match="operator"):
        curve_figures.loss_curves(make_training() | {"operator": []})


def test_every_forecaster_has_a_label_and_a_colour() -> None:
    operator: LatentOperator = build("operator")  # pyright: ignore[reportAssignmentType]
    network: ResidualNetwork = build("diffusion")  # pyright: ignore[reportAssignmentType]
    sampler = {"sigma_min": 0.05, "centre": 3.0}
    made: Codec = build("codec")  # pyright: ignore[reportAssignmentType]
    forecasts, past = OperatorForecasts(operator, made.of(PROBLEM)), PastErrors(*torch.zeros(2, 1, 3, 8, 4))
    forecasters = [
        *linear_forecasters(operator, PROBLEM),
        operator_forecaster(forecasts),
        *dressed_forecasters(forecasts, network, past, members=2),
        *diffusion_forecasters(forecasts, network, steps=2, members=2, **sampler),
        *consistency_forecasters(forecasts, network, sigma_min=0.05, second_sigma=3.0, members=2),
    ]
    assert len(forecasters) == 9
    assert {"persistence", "spatial_mean", "train_mean"} | {f.name for f in forecasters} <= set(MODELS)


def test_every_metric_with_a_lead_time_has_a_panel_and_with_a_unit_one_for_each_field() -> None:
    records = make_records(FLOW)
    figure = curve_figures.errors_by_lead(make_curves(FLOW), records)
    panels = [axes for axes in figure.axes if axes.axison]
    titles = [axes.get_title(loc="left") for axes in panels]
    with_lead = {(record["metric"], record["field"]) for record in records if record["by_lead"] is not None}
    assert len(titles) == len(set(titles)) == len(with_lead)
    assert {"1 − correlation", "VRMSE", "Mass drift"} <= set(titles)
    assert {f"PDEBench RMSE: {field}" for field in FLOW.fields} <= set(titles)
    # A metric with a unit begins a row, so that a field has its column.
    column = {axes.get_title(loc="left"): axes.get_subplotspec().colspan.start for axes in panels}
    assert [column[f"CRPS: {field}"] for field in FLOW.fields] == [0, 1, 2]
    # Each line is its record's.
    (shown,) = (axes for axes in panels if axes.get_title(loc="left") == "PDEBench RMSE: velocity")
    expected = {
        MODELS[record["model"]].label: record["by_lead"]
        for record in records
        if (record["metric"], record["field"]) == ("rmse", "velocity")
    }
    assert {line.get_label(): list(line.get_ydata()) for line in shown.get_lines()} == expected  # pyright: ignore


def test_the_reliability_diagram_shows_how_much_of_the_truth_lies_below_each_member() -> None:
    curves = make_curves()
    curves["models"]["diffusion"]["ranks"] = [40, 20, 20, 10, 10]
    diagram, distance = curve_figures.reliability(curves).axes
    below = next(line for line in diagram.get_lines() if line.get_color() == MODELS["diffusion"].colour)
    assert list(below.get_xdata()) == pytest.approx([0.2, 0.4, 0.6, 0.8])  # pyright: ignore
    assert list(below.get_ydata()) == pytest.approx([0.4, 0.6, 0.8, 0.9])  # pyright: ignore
    apart = next(line for line in distance.get_lines() if line.get_color() == MODELS["diffusion"].colour)
    assert list(apart.get_ydata()) == pytest.approx([0.2, 0.2, 0.2, 0.1])  # pyright: ignore
    assert any(
        "diffusion: 0.17" in text.get_text() or "diffusion: 0.18" in text.get_text()
        for text in distance.texts
    )


@pytest.mark.slow
def test_a_problem_has_the_figures_of_its_kind() -> None:
    drawn_mix = {
        name: figures.draw_problem(make_curves(small), make_examples(small), make_records(small))
        for name, small in MIX.items()
    }
    curves = {
        "error_over_time.svg",
        "errors_by_lead.svg",
        "spectrum.svg",
        "calibration.svg",
        "reliability.svg",
    }
    line = {"space_time.png", "final_frame.svg"} | curves
    assert set(drawn_mix["wave"]) == set(drawn_mix["gas"]) == line
    assert set(drawn_mix["porous"]) == {
        "images.png",
        "error_histogram.svg",
        "spectrum.svg",
        "calibration.svg",
        "reliability.svg",
    }
    for name, small in (("gas", FLOW), ("porous", MAP)):
        of = {"is_map": small.is_map, "by_lead": not small.is_map}
        assert list(drawn_mix[name]) == catalogue.figures_of(len(small.grid), **of)
    assert sum(len(content) for drawn in drawn_mix.values() for content in drawn.values()) < 2_000_000


def meshes_of(figure, rows: int, columns: int):
    return [
        [figure.axes[columns * row + column].collections[0] for column in range(columns)]
        for row in range(rows)
    ]


def test_images_show_what_is_given_beside_the_forecast_the_right_way_round() -> None:
    examples, curves = make_examples(MAP), make_curves(MAP)
    for row, meshes in enumerate(meshes_of(field_figures.images(curves, examples), 3, 5)):
        given, truth, operator, error, _ = (np.asarray(mesh.get_array()).reshape(16, 16) for mesh in meshes)
        values = {name: field[row, -1].reshape(16, 16, 2) for name, field in examples.items()}
        # columns of a picture run along x, the first axis of the arrays
        np.testing.assert_array_equal(given, values["truth"][..., 0].T)
        np.testing.assert_array_equal(truth, values["truth"][..., 1].T)
        np.testing.assert_array_equal(operator, values["operator"][..., 1].T)
        np.testing.assert_array_equal(error, (values["operator"] - values["truth"])[..., 1].T)
        assert meshes[1].get_clim() == meshes[2].get_clim() != meshes[0].get_clim()
        assert meshes[3].get_clim()[0] == -meshes[3].get_clim()[1]


def test_several_fields_have_rows_and_scales_of_their_own() -> None:
    examples, curves = make_examples(FLOW), make_curves(FLOW)
    figure = field_figures.space_time(curves, examples)
    limits = []
    for channel, meshes in enumerate(meshes_of(figure, 3, 4)):
        truth = examples["truth"][1, 1:, :, channel]  # the median example
        np.testing.assert_array_equal(meshes[0].get_array(), truth)
        assert meshes[0].get_clim() == meshes[1].get_clim() == (truth.min(), truth.max())
        limits.append(meshes[2].get_clim()[1])
    assert limits[0] < limits[1] < limits[2]
    assert [axes.get_title(loc="left") for axes in field_figures.final_frame(curves, examples).axes] == [
        "density",
        "velocity",
        "pressure",
    ]


def test_the_histogram_tells_mean_and_median_of_every_model() -> None:
    curves = make_curves(MAP)
    curves["models"]["operator"]["trajectory"] = [0.01, 0.02, 0.03, 0.04, 0.4]
    figure = curve_figures.error_histogram(curves)
    rows = dict(zip(curves["models"], figure.axes, strict=True))
    assert rows["operator"].texts[0].get_text() == "mean 0.100\nmedian 0.0300"
    assert sorted(line.get_xdata()[0] for line in rows["operator"].lines) == pytest.approx([0.03, 0.1])
    counted = [sum(patch.get_height() for patch in axes.patches[:48]) for axes in figure.axes]
    assert counted == [5] * len(curves["models"])  # no sample is left out


def test_a_histogram_of_forecasts_that_blew_up_or_are_exact_is_still_drawn() -> None:
    curves = make_curves(MAP)
    curves["models"]["operator"]["trajectory"] = [None] * 5
    curves["models"]["diffusion"]["trajectory"] = [0.0] * 5
    assert "mean –" in " ".join(texts(drawing.render(curve_figures.error_histogram(curves), "svg")))


def test_training_of_a_mix_shows_each_problem() -> None:
    shown = texts(figures.draw_training(make_training(("wave", "gas"))))
    assert {"wave", "gas", "validation relative L2", "validation relative L2 of"} <= shown


def test_drawing_opens_nothing_global() -> None:
    code = "import ups.report.figures, sys; print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_stage_with_nothing_to_train_says_so() -> None:
    records = make_training()
    records["autoencoder"] = [{"step": 0, "steps": 0, "validation_relative_l2": 1e-7}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = texts(figures.draw_training(records))
    assert "autoencoder: nothing to train" in shown
    assert "operator" in shown
