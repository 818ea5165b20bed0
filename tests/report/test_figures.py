"""Figures: what they show, and that equal data give equal bytes."""

import io
import re
import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from small_run import make_curves, make_examples, make_training

from ups.errors import IntegrityError
from ups.inference.forecaster import consistency_forecasters, diffusion_forecasters, operator_forecaster
from ups.report import figures
from ups.report.catalogue import MODELS

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> set[str]:
    return {"".join(node.itertext()).strip() for node in ET.fromstring(svg).iter(f"{SVG}text")}


def field() -> dict[str, np.ndarray]:
    return {name: values[..., 0] for name, values in make_examples().items()}


def test_every_vector_figure_is_xml_that_requests_nothing(drawn: dict[str, bytes]) -> None:
    vectors = [name for name in drawn if name.endswith(".svg")]
    assert len(vectors) == 5
    for name in vectors:
        root = ET.fromstring(drawn[name])
        assert root.tag == f"{SVG}svg"
        for node in root.iter():
            assert node.tag not in {f"{SVG}script", f"{SVG}image", f"{SVG}foreignObject"}
            for key, value in node.attrib.items():
                assert not key.endswith("href") or value.startswith("#"), (name, value)


def test_pictures_have_twice_the_density_and_all_figures_are_small(drawn: dict[str, bytes]) -> None:
    assert drawn["space_time_u.png"].startswith(b"\x89PNG")
    assert sum(map(len, drawn.values())) < 1_500_000
    assert Image.open(io.BytesIO(drawn["space_time_u.png"])).width > 1900


def test_lines_are_labelled_with_their_models(drawn: dict[str, bytes]) -> None:
    labels = {model.label for model in MODELS.values()}
    assert labels <= texts(drawn["error_over_time.svg"])
    assert labels - {"spatial mean"} | {"truth"} <= texts(drawn["spectrum.svg"])
    assert {"diffusion", "consistency, 1 call", "consistency, 2 calls"} <= texts(drawn["calibration.svg"])
    shown = " ".join(texts(drawn["final_frame_u.svg"]))
    assert "good: trajectory 0, rel. L2 0.0100" in shown
    assert "worst: trajectory 2, rel. L2 0.0300" in shown
    assert {"autoencoder", "operator", "L_denoise", "validation loss"} <= texts(drawn["training.svg"])


def test_a_model_has_one_colour_in_all_figures(drawn: dict[str, bytes]) -> None:
    for name in ("error_over_time.svg", "spectrum.svg", "calibration.svg"):
        content = drawn[name].decode()
        for model in ("diffusion", "consistency_1", "consistency_2"):
            assert MODELS[model].colour in content, (name, model)
    operator = MODELS["operator"].colour
    for name in ("error_over_time.svg", "spectrum.svg", "final_frame_u.svg", "training.svg"):
        assert operator in drawn[name].decode(), name
    colours = [model.colour for model in MODELS.values()]
    assert len(set(colours)) == len(colours)


def test_every_line_has_the_colour_that_its_label_promises() -> None:
    axes = figures.error_over_time(make_curves()).axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 3]
    assert [to_hex(line.get_color()) for line in lines] == [model.colour for model in MODELS.values()]
    expected = make_curves()["models"]["diffusion"]["error"]
    np.testing.assert_allclose(lines[list(MODELS).index("diffusion")].get_ydata(), expected)


def test_labels_at_line_ends_do_not_overlap() -> None:
    curves = make_curves()
    for model in curves["models"].values():
        model["error"] = model["error_10"] = model["error_90"] = [0.1] * len(model["error"])
    figure = figures.error_over_time(curves)
    figures.render(figure, "png")
    boxes = sorted(
        (
            t.get_window_extent()
            for t in figure.axes[0].texts
            if t.get_text() in {m.label for m in MODELS.values()}
        ),
        key=lambda box: box.y0,
    )
    assert len(boxes) == len(MODELS)
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))


def test_errors_have_one_symmetric_scale_and_fields_that_of_the_truth() -> None:
    examples = field()
    panels = figures.space_time(make_curves(), examples, "u").axes[:12]
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
    assert high == pytest.approx(0.03, rel=0.02)


def test_equal_data_give_equal_bytes(drawn: dict[str, bytes]) -> None:
    again = figures.draw_all(make_curves(), make_examples(), make_training())
    assert again == drawn
    assert not any(
        re.search(rb"20\d\d-\d\d-\d\d", content) for n, content in drawn.items() if n.endswith("svg")
    )


def test_a_forecast_that_blew_up_is_still_drawn() -> None:
    curves, examples = make_curves(), make_examples()
    operator = curves["models"]["operator"]
    for name in ("error", "error_10", "error_90", "spectrum"):
        operator[name][2:] = [None] * len(operator[name][2:])
    curves["examples"][2]["error"] = None
    examples["operator"][2, 3:] = np.nan
    examples["diffusion_upper"][2, 3:] = np.inf
    drawn = figures.draw_all(curves, examples, make_training())
    assert "worst: trajectory 2, not finite" in texts(drawn["final_frame_u.svg"])


@pytest.mark.parametrize("missing", ["times", "coordinates", "truth_spectrum", "examples", "names", "models"])
def test_what_is_missing_is_an_error_that_names_it(missing: str) -> None:
    curves = make_curves()
    del curves[missing]
    with pytest.raises(IntegrityError, match=missing):
        figures.draw_all(curves, make_examples(), make_training())


def test_missing_curves_examples_and_records_are_errors() -> None:
    curves = make_curves()
    del curves["models"]["diffusion"]["coverage"]
    with pytest.raises(IntegrityError, match=r"models\.diffusion\.coverage"):
        figures.calibration(curves)
    examples = make_examples()
    del examples["diffusion_upper"]
    with pytest.raises(IntegrityError, match="diffusion_upper"):
        figures.draw_all(make_curves(), examples, make_training())
    with pytest.raises(IntegrityError, match="operator"):
        figures.loss_curves(make_training() | {"operator": []})


def test_every_forecaster_has_a_label_and_a_colour() -> None:
    network = None
    levels = {"sigma_min": 0.02, "sigma_max": 10.0}
    forecasters = [
        operator_forecaster(network),  # pyright: ignore[reportArgumentType]
        *diffusion_forecasters(network, network, steps=2, rho=7.0, members=2, **levels),  # pyright: ignore[reportArgumentType]
        *consistency_forecasters(network, network, second_sigma=0.8, members=2, **levels),  # pyright: ignore[reportArgumentType]
    ]
    assert {"persistence", "spatial_mean"} | {f.name for f in forecasters} == set(MODELS)


def test_drawing_opens_nothing_global() -> None:
    code = "import ups.report.figures, sys; print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
