"""The page: complete, true to the numbers also when they are bad, escaped, and self-contained."""

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from small_run import make_records

from ups.errors import IntegrityError
from ups.metric_labels import METRICS
from ups.model_labels import MODELS
from ups.report import catalogue, page
from ups.report.results import write_value
from ups.report.run_directory import RunDirectory
from ups.report.verdict import verdict
from ups.report.writing import duration, number, percent

NRMSE_OF_OPERATOR = next(
    place
    for place, record in enumerate(make_records())
    if (record["model"], record["metric"]) == ("operator", "pdebench_nrmse")
)
MakeRun = Callable[..., Path]
Contents = dict[str, Any]


class Elements(HTMLParser):
    """All elements with their attributes, the visible text, and the cells of tables with their markup."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.strong: list[str] = []
        self._open: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)
        if "strong" in self._open and "td" in self._open:
            self.strong.append(data)

    @property
    def text(self) -> str:
        return plain(" ".join(self.texts))


def plain(text: str) -> str:
    """One ordinary space wherever there is any space."""
    return " ".join(text.split())


def change(records: list[Contents], model: str, metric: str, **values: Any) -> None:
    (record,) = [r for r in records if r["model"] == model and r["metric"] == metric]
    record.update(values)


def test_requests_nothing(make_run: MakeRun) -> None:
    content = page.html(make_run())
    parsed = Elements(content)
    addresses = [
        value
        for tag, attributes in parsed.elements
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}
    ]
    assert addresses
    assert all(address is not None and address.startswith("data:") for address in addresses)
    assert {"script", "link", "iframe", "object", "embed", "base"}.isdisjoint(
        tag for tag, _ in parsed.elements
    )
    assert not re.search(r"https?://|url\(|@import|//cdn", content)
    policies = [
        a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_embeds_every_figure(make_run: MakeRun, drawn: dict[str, bytes]) -> None:
    images = [a for tag, a in Elements(page.html(make_run())).elements if tag == "img"]
    embedded = [base64.b64decode((image["src"] or "").partition("base64,")[2]) for image in images]
    assert sorted(embedded) == sorted(drawn.values())
    assert all(image["alt"] for image in images)


def test_a_run_of_a_version_without_errors_by_lead_time_still_has_its_page(make_run: MakeRun) -> None:
    def earlier(contents: Contents) -> None:
        for record in contents["records"]:
            del record["by_lead"]

    run = make_run(earlier)
    (run / "figures" / "burgers1d" / catalogue.ERRORS_BY_LEAD).unlink()
    assert "Every metric by lead time" not in page.html(run)


def test_shows_every_value_of_every_record(make_run: MakeRun) -> None:
    run = make_run()
    parsed = Elements(page.html(run))
    kinds = {metric.name: metric.kind for metric in METRICS}
    titles = {attributes.get("title") for tag, attributes in parsed.elements if tag == "td"}
    for record in json.loads((run / "metrics.json").read_text()):
        shown = write_value(record["value"], kinds[record["metric"]])
        assert shown in parsed.texts, record
        exact = f"{record['value']:.9g}"
        if record["over_operator"] is not None:
            exact += "; 1.50 times the operator’s, 95\u202f% interval 1.25 to 1.75"
        assert exact in titles, record
    for metric in METRICS:
        assert metric.label in parsed.text
        assert metric.definition in parsed.text


def test_shows_metrics_it_does_not_know(make_run: MakeRun) -> None:
    def add(contents: Contents) -> None:
        first = contents["records"][0]
        contents["records"].append(first | {"metric": "burst_index", "value": 0.4321})

    text = Elements(page.html(make_run(add))).text
    assert "Further metrics" in text
    assert "burst index" in text
    assert "0.432" in text


def test_the_best_model_is_bold_and_trivial_ones_never_are(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        change(contents["records"], "persistence", "mass_drift", value=0.0)

    parsed = Elements(page.html(make_run(edit)))
    strong = parsed.strong
    marked = [
        attributes for tag, attributes in parsed.elements if tag == "td" and attributes.get("class") == "best"
    ]
    assert len(marked) == sum(metric.target is not None for metric in METRICS)
    assert number(0.04) in strong  # consistency, 1 call
    assert number(0.05) not in strong
    assert percent(0.91) in strong  # nearest to 90 %, not the highest
    assert percent(0.98) not in strong
    assert number(3 * 1.234e-8) in strong  # the operator: less than it have only the trivial forecasts
    assert duration(3 * 0.00321) in strong


def test_equal_best_values_are_all_bold(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        for model in ("operator", "consistency_1"):
            change(contents["records"], model, "pdebench_nrmse", value=0.01234)

    assert Elements(page.html(make_run(edit))).strong.count(number(0.01234)) == 2


def test_null_is_a_dash_and_never_best(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        change(
            contents["records"], "consistency_1", "trajectory_relative_l2", value=None, standard_error=None
        )
        change(contents["records"], "consistency_1", "error_over_operator", value=None, interval=None)
        contents["curves"]["burgers1d"]["models"]["consistency_1"]["trajectory"][1] = None

    run = make_run(edit)
    parsed = Elements(page.html(run))
    assert "–" in parsed.texts
    assert "–" not in parsed.strong
    assert number(0.05) in parsed.strong
    assert "Consistency, 1 call: its error is not finite" in parsed.text
    assert "None" not in parsed.text
    assert "nan" not in parsed.text.lower().split()


def test_the_verdict_says_better_and_calibrated(make_run: MakeRun) -> None:
    operator, diffusion, first, second = verdict(RunDirectory.read(make_run()).problems[0])
    assert operator.status == "good"
    assert (
        "24.0 times smaller than that of persistence and 12.0 times smaller than that of the spatial mean"
        in (operator.text)
    )
    assert diffusion.status == "good"
    assert re.match(
        r"Diffusion: within 2\s% of the operator \(95\s% interval [−-]16\.2\s% to \+8\.1\s%\).*calibrated.*91\.0\s%.*"
        r"Its CRPS is 0\.877 of that of past errors \(0\.728 to 0\.938\)\.",
        diffusion.text,
    )
    assert first.status == "fair"
    assert re.match(
        r"Consistency, 1 call: 20\.0\s% better than the operator \(95.*; overconfident", first.text
    )
    assert second.status == "bad"
    assert re.match(
        r"Consistency, 2 calls: 40\.0\s% worse than the operator \(95.*; underconfident", second.text
    )


def test_the_verdict_says_worse_when_it_is_worse(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        change(contents["records"], "operator", "trajectory_relative_l2", value=0.9)

    run = make_run(edit)
    (first, *_) = verdict(RunDirectory.read(run).problems[0])
    assert first.status == "bad"
    assert first.text == (
        "The operator’s error is 1.33 times smaller than that of persistence. "
        "The operator is worse than the spatial mean (1.50 times its error)."
    )
    assert 'class="card verdict bad"' in page.html(run)
    assert "worse than the spatial mean" in page.markdown(run)


def test_the_verdict_says_when_the_operator_blew_up(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        change(contents["records"], "operator", "trajectory_relative_l2", value=None, standard_error=None)
        contents["curves"]["burgers1d"]["models"]["operator"]["trajectory"] = [None] * 5

    text = Elements(page.html(make_run(edit))).text
    assert "The operator’s error is not finite: its forecasts blew up." in text


def test_what_lies_on_both_sides_of_the_operator_is_no_difference(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        change(contents["records"], "consistency_1", "error_over_operator", value=0.9, interval=[0.7, 1.1])
        change(contents["records"], "consistency_2", "error_over_operator", value=1.4, interval=[0.9, 2.1])

    findings = verdict(RunDirectory.read(make_run(edit)).problems[0])
    for finding in findings[2:]:
        assert "which shows no difference (95" in finding.text
        assert not re.search("better|worse", finding.text)


def test_the_verdict_says_what_conditioning_gains(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        of_one = [record for record in contents["records"] if record["model"] == "consistency_1"]
        for model in ("ttc", "ttc_observed"):
            contents["records"] += [record | {"model": model, "n_members": 1} for record in of_one]
        change(contents["records"], "ttc", "error_over_operator", value=0.78, interval=[0.7, 0.85])

    findings = verdict(RunDirectory.read(make_run(edit)).problems[0])
    assert len(findings) == 5
    assert findings[1].status == "good"
    assert re.match(
        r"Conditioned by physics: 22\.0\s% better than the operator \(95\s% interval", findings[1].text
    )


def test_who_was_given_readings_of_the_truth_is_never_the_best() -> None:
    assert [name for name in MODELS if name.startswith("ttc") and MODELS[name].best] == ["ttc"]


def test_everything_is_escaped(make_run: MakeRun) -> None:
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    command = shlex.join(["ups", "run", "small.yaml", "--set", f"note={evil}"])

    def edit(contents: Contents) -> None:
        contents["configuration"] |= {"name": evil, "note": evil}
        contents["environment"] |= {"command": command, "processor": evil, "libraries": {evil: evil}}
        contents["artifacts"]["operator"] |= {"reason": evil}
        for record in contents["records"]:
            record |= {"dataset": evil, "data_version": evil, "device": evil}
        contents["artifacts"]["cache_encode"]["summary"]["float16_round_trip"] = {
            "wave": {evil: {"relative_l2": 0.1, "largest": 0.2}}
        }

    run = make_run(edit)
    content = page.html(run)
    parsed = Elements(content)
    assert "script" not in {tag for tag, _ in parsed.elements}
    assert not any("onerror" in attributes for _, attributes in parsed.elements)
    assert parsed.text.count(evil) >= 8
    assert [a.get("class") for tag, a in parsed.elements if tag == "pre"] == [None]
    assert "<script" not in page.markdown(run)
    assert "<img" not in page.markdown(run)


def test_titles_tell_what_was_overridden(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        contents["environment"]["command"] = "ups run small.yaml --set seed=3 --set 'data.rows=[1, 2]'"

    run = make_run(edit)
    content = page.html(run)
    assert "<title>small, seed=3, data.rows=[1, 2] – " in content
    assert "<h1>small <small>seed=3, data.rows=[1, 2]</small></h1>" in content
    assert page.markdown(run).startswith("# small, seed=3, data.rows=\\[1, 2\\]\n")


def test_hits_and_misses_come_with_reasons_and_times(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        for place in (0, 1):
            stage = contents["plan"][place]["stage"]
            contents["plan"][place] |= {"verdict": "HIT", "reason": "sealed 2026-01-01T10:20:30+00:00"}
            contents["artifacts"][stage] |= {"hit": place == 0, "reason": contents["plan"][place]["reason"]}
        contents["artifacts"]["autoencoder"]["reason"] = "damaged: model.safetensors"

    run = make_run(edit)
    built = {stage.name: stage for stage in page.stages(RunDirectory.read(run))}
    assert built["download"].hit
    assert built["download"].reason == "sealed 2026-01-01 10:20 UTC"
    assert built["autoencoder"].reason.startswith("damaged: model.safetensors (planned as HIT: sealed")
    assert built["evaluate"].share == 100
    text = Elements(page.html(run)).text
    assert f"{plain(duration(10))} were found in the cache" in text
    assert plain(duration(270)) in text
    assert page.markdown(run).count("| HIT |") == 1
    assert page.markdown(run).count("| MISS |") == 6


def test_a_run_with_a_rate_says_what_it_cost_and_what_it_would_from_scratch(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        contents["configuration"]["resources"] = {"hourly_rate_usd": 3600}
        contents["artifacts"]["download"] |= {"hit": True, "seconds_from_scratch": 15.0}

    text = Elements(page.html(make_run(edit))).text
    assert "This run cost 270.00 USD, and from scratch it would have been 285.00 USD" in text
    assert "at 3 600.00 USD an hour" in text
    assert re.search(r"download HIT 10\.0 s 0 USD 15\.00 USD", text)
    assert re.search(r"autoencoder MISS 20\.0 s 20\.00 USD 20\.00 USD", text)


def test_without_a_rate_there_is_no_cost(make_run: MakeRun) -> None:
    assert "USD" not in Elements(page.html(make_run())).text


def verdict_row(kind: str, subject: str, metric: str, value: float | None, *, passed: bool) -> Contents:
    limits = {"at_least": None, "at_most": 0.1, "passed": passed}
    return {
        "kind": kind,
        "subject": subject,
        "metric": metric,
        "problem": None,
        "field": None,
        "value": value,
    } | limits


def test_gates_are_shown_with_their_verdicts(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        contents["configuration"]["gates"] = {"validation": [], "test": ["of the schema"]}

    run = make_run(edit)
    with pytest.raises(IntegrityError, match=r"gates\.json"):
        page.html(run)
    rows = [
        verdict_row("validation", "operator", "validation_relative_l2", 0.05, passed=True),
        verdict_row("test", "consistency_1", "mass_drift", 0.2, passed=False),
        verdict_row("test", "operator", "coverage_90", None, passed=False),
    ]
    (run / "gates.json").write_text(json.dumps(rows))
    text = Elements(page.html(run)).text
    assert "1 OF 3 GATES PASSED" in text
    assert "validation operator validation relative L2 0.0500 at most 0.1 PASSED" in text
    assert "test consistency, 1 call Mass drift 0.200 at most 0.1 FAILED" in text
    assert "test operator Coverage of the 90 % interval missing at most 0.1 FAILED" in text
    assert page.markdown(run).count("| **failed** |") == 2


def test_a_run_without_gates_says_nothing_of_them(make_run: MakeRun) -> None:
    run = make_run()
    assert "GATES" not in page.html(run)
    assert "gate" not in page.markdown(run)


def test_shows_environment_configuration_and_what_compression_costs(make_run: MakeRun) -> None:
    run = make_run()
    parsed = Elements(page.html(run))
    for expected in (
        "2 January 2026, 03:04 UTC", "c0ffee", "with uncommitted changes", "A processor", "16.0 GiB", "torch 2.13.0",
        "ups run small.yaml", number(0.00777), number(0.000222), number(0.00333), "generated, 64 cells, seed 3",
        "12 345 weights", "Zero noise", "7 frames of 32 points",
    ):  # fmt: skip
        assert plain(expected) in parsed.text, expected
    assert (run / "config.yaml").read_text() in parsed.texts


@pytest.mark.parametrize(
    "name", ["space_time.png", "final_frame.svg", "error_over_time.svg", "spectrum.svg", "calibration.svg",
             "training.svg"]
)  # fmt: skip
def test_a_missing_figure_is_an_error_that_names_it(make_run: MakeRun, name: str) -> None:
    run = make_run()
    (file,) = run.glob(f"figures/**/{name}")
    file.unlink()
    with pytest.raises(IntegrityError, match=re.escape(name)):
        page.html(run)


@pytest.mark.parametrize("name", ["config.yaml", "plan.json", "artifacts.json", "env.json", "metrics.json"])
def test_a_missing_file_is_an_error_that_names_it(make_run: MakeRun, name: str) -> None:
    run = make_run()
    (run / name).unlink()
    with pytest.raises(IntegrityError, match=re.escape(name)):
        page.html(run)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (("environment", "commit"), "commit"),
        (("artifacts", "autoencoder", "summary", "validation_relative_l2"), "validation_relative_l2"),
        (("artifacts", "cache_encode", "summary", "float16_round_trip"), "float16_round_trip"),
        (("artifacts", "operator"), "operator"),
        (("curves", "burgers1d", "boundary"), "boundary"),
        (("curves", "burgers1d"), "burgers1d"),
        (("records", 0, "problem"), "problem"),
        (("records", 0, "fields_scored"), "fields_scored"),
        (("configuration", "name"), "name"),
        (("records", NRMSE_OF_OPERATOR, "frames_skipped"), "frames_skipped"),
        (("plan", 2, "verdict"), "verdict"),
    ],
)
def test_a_missing_key_is_an_error_that_names_it(
    make_run: MakeRun, path: tuple[Any, ...], named: str
) -> None:
    def edit(contents: Contents) -> None:
        part: Any = contents
        for key in path[:-1]:
            part = part[key]
        del part[path[-1]]

    with pytest.raises(IntegrityError, match=named):
        page.html(make_run(edit))


@pytest.mark.parametrize(
    ("model", "metric"),
    [("operator", "mass_drift"), ("diffusion", "coverage_90"), ("persistence", "trajectory_relative_l2")],
)
def test_a_missing_record_is_an_error_that_names_it(make_run: MakeRun, model: str, metric: str) -> None:
    def edit(contents: Contents) -> None:
        contents["records"] = [r for r in contents["records"] if (r["model"], r["metric"]) != (model, metric)]

    with pytest.raises(IntegrityError, match=f"{metric}.*{model}"):
        page.html(make_run(edit))


def test_two_records_of_one_thing_and_unknown_models_are_errors(make_run: MakeRun) -> None:
    run = make_run()
    records = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps([*records, records[0]]))
    with pytest.raises(IntegrityError, match="two records"):
        page.html(run)
    for record in records[:9]:
        record["model"] = "oracle"
    (run / "metrics.json").write_text(json.dumps(records))
    with pytest.raises(IntegrityError):
        page.html(run)


def test_an_artifact_of_another_digest_than_planned_is_an_error(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        contents["plan"][3]["digest"] = "f" * 64

    with pytest.raises(IntegrityError, match="another digest"):
        page.html(make_run(edit))


def test_markdown_is_a_table_of_the_same_numbers(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        contents["artifacts"]["operator"]["reason"] = "a | b\n# c"

    text = page.markdown(make_run(edit))
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in tables} == {5}
    assert "# c" not in text.splitlines()
    assert f"**{number(0.04)} ±" in text
    assert percent(0.91) in text
    assert text.startswith("# small\n")


def test_the_command_writes_both_reports_and_then_its_outcome(
    finished_root: tuple[Path, Path], tmp_path: Path
) -> None:
    """The figures are drawn once for all runs with the same results, and otherwise nothing slow is imported."""
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    run, work = root / "runs" / finished_root[1].name, tmp_path / "work"
    code = (
        "import sys, runpy; sys.argv = ['ups.report', *sys.argv[1:]]\n"
        "try: runpy.run_module('ups.report', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(run), "--work", str(work)]
    figures = {path.relative_to(run): path.read_bytes() for path in (run / "figures").rglob("*.*")}
    assert len(figures) == 8

    shutil.rmtree(run / "figures")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert json.loads((work / "outcome.json").read_text()) == {"summary": {}}
    assert (run / "report.html").read_text() == page.html(run)
    assert (run / "report.md").read_text() == page.markdown(run)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]

    shutil.rmtree(root / "artifacts" / "figures")
    drawn = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "matplotlib" in drawn.stdout, drawn.stderr
    assert {path.relative_to(run): path.read_bytes() for path in (run / "figures").rglob("*.*")} == figures

    (run / "env.json").unlink()
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "env.json" in failed.stderr
    assert not (work / "outcome.json").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (0.05, "0.0500"), (0.99999, "1.00"), (1234.5, "1 230"), (-0.0123, "−0.0123"), (0.001234, "0.00123"),
        (1.5e-8, "1.50 × 10⁻⁸"), (2.5e9, "2.50 × 10⁹"), (None, "–"), (float("nan"), "–"), (float("inf"), "–"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float | None, shown: str) -> None:
    assert plain(number(value)) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (2.5e-6, "2.50 µs"),
        (0.0321, "32.1 ms"),
        (5, "5.00 s"),
        (119.6, "2 min 0 s"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations_have_fitting_units(seconds: float, shown: str) -> None:
    assert plain(duration(seconds)) == shown


def test_a_mix_has_a_section_per_problem(
    make_mixed_run: MakeRun, mixed_figures: dict[str, dict[str, bytes]]
) -> None:
    run = make_mixed_run()
    parsed = Elements(page.html(run))
    assert (
        "One model for 3 problems: burgers1d nu=0.01, compressible1d eta=0.1, darcy2d beta=1" in parsed.text
    )
    anchors = [a["href"] for tag, a in parsed.elements if tag == "a"]
    assert set(anchors) == {"#wave", "#gas", "#porous"}
    assert {a["id"] for tag, a in parsed.elements if "id" in a} == {"wave", "gas", "porous"}
    images = [a["src"] for tag, a in parsed.elements if tag == "img"]
    embedded = {base64.b64decode((source or "").partition("base64,")[2]) for source in images}
    assert all(content in embedded for drawn in mixed_figures.values() for content in drawn.values())
    assert len(images) == sum(map(len, mixed_figures.values())) + 1
    for record in json.loads((run / "metrics.json").read_text()):
        kinds = {metric.name: metric.kind for metric in METRICS}
        assert write_value(record["value"], kinds[record["metric"]]) in parsed.texts, record


def test_a_map_is_told_as_a_map(make_mixed_run: MakeRun) -> None:
    content = page.html(make_mixed_run())
    section = content[content.index('id="porous"') :]
    text = Elements(section[: section.index("How it was trained")]).text
    for expected in (
        "12.0 × smaller error than train mean", "median 0.0457", "How errors are spread", "the map from a to u at 16 × 16 points",
        "Given fields are not scored", "a few samples with little signal",
    ):  # fmt: skip
        assert expected in text, expected
    for absent in (
        "Error over time",
        "Space and time",
        "persistence",
        "Last frame, relative L2",
        "Mass drift",
    ):
        assert absent not in text, absent


def test_several_fields_have_rows_of_their_own(make_mixed_run: MakeRun) -> None:
    text = Elements(page.html(make_mixed_run())).text
    for field in ("density", "velocity", "pressure"):
        for metric in ("Trajectory relative L2", "CRPS", "PDEBench fRMSE, k = 0 to 3"):
            assert f"{metric}: {field}" in text
    assert "Fields have different units, which are never added" in text


def test_the_worst_verdict_is_the_mixs(make_mixed_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        for record in contents["records"]:
            if record["problem"] == "porous" and record["model"] == "operator" and record["field"] is None:
                record["value"] = 0.9

    content = page.html(make_mixed_run(edit))
    assert 'class="card verdict bad" aria-label="Verdicts"' in content
    assert content.count('class="card verdict good"') == 2
    assert "worse than the train mean (1.50 times its error)" in content


def test_a_mix_in_markdown_has_a_table_per_problem(make_mixed_run: MakeRun) -> None:
    text = page.markdown(make_mixed_run())
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## wave: burgers1d nu=0.01",
        "## gas: compressible1d eta=0.1",
        "## porous: darcy2d beta=1",
    ]
    assert text.count("| Trajectory relative L2 |") == 3
    assert text.count("| train mean |") == 1


def test_costs_of_compression_are_told_for_each_problem(make_mixed_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        contents["artifacts"]["autoencoder"]["summary"] |= {
            "validation_relative_l2/wave": 0.00123,
            "validation_relative_l2/gas": 0.00456,
        }
        contents["artifacts"]["cache_encode"]["summary"] = {
            "stored": True,
            "float16_round_trip": {
                "wave": {"fields/u": {"relative_l2": 0.000111, "largest": 0.1}},
                "gas": {"fields/density": {"relative_l2": 0.000222, "largest": 0.2}},
            },
            "trajectories": {"wave": {"train": 10, "test": 2}, "gas": {"train": 20, "test": 3}},
        }

    text = Elements(page.html(make_mixed_run(edit))).text
    for expected in ("Encode and decode, wave 0.00123", "Encode and decode, gas 0.00456", "Cache in float16: wave, fields/u",
                     "gas, fields/density", "35 trajectories"):  # fmt: skip
        assert expected in text, expected


def test_a_run_that_stored_no_latents_says_so(make_run: MakeRun) -> None:
    def edit(contents: Contents) -> None:
        contents["artifacts"]["cache_encode"]["summary"] = {"stored": False, "trajectories": {"wave": 24}}

    assert "latents were encoded batch by batch" in Elements(page.html(make_run(edit))).text
