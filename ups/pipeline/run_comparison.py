"""Two runs side by side: what their configurations and their code differ in, and what that changes in the results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ups.artifacts.files import read_json
from ups.errors import ConfigurationError
from ups.metric_labels import HEADLINE
from ups.pipeline.comparison import differences
from ups.pipeline.leaderboard import problems_of
from ups.pipeline.run_record import RunRecord
from ups.pipeline.tool_process import run_tool

_OF_CODE = ("commit", "uncommitted_changes", "processor", "cores")


def compare(first: Path, second: Path, *, on_line: Callable[[str], None]) -> dict[str, Any]:
    """Everything in which two runs differ, as JSON.

    Returns: {"runs", "configuration": {dotted key: [first, second]}, "environment": likewise, "numbers": of every problem,
        model and metric that both have {"problem", "model", "metric", "first", "second": [value, low, high], "ratio":
        second over first and its 95 % interval}, "unpaired": problems whose test trajectories are not the same}. A ratio is
        of the mean trajectory relative L2, with the interval of a paired bootstrap over trajectories; null for other
        metrics, of which no values by trajectory are kept, and where the test trajectories are not the same.

    Raises:
        ConfigurationError: a directory is no run, or nothing is left of what it was evaluated on.
        IntegrityError: a file is damaged.
    """
    runs = [RunRecord.read(path) for path in (first, second)]
    one, other = (run.configuration for run in runs)
    back = differences(other, one)
    environments = [{key: run.environment[key] for key in _OF_CODE} for run in runs]
    problems = [problems_of(run) if run.table else {} for run in runs]
    common = [name for name in problems[0] if name in problems[1]]
    paired = [name for name in common if problems[0][name]["id"] == problems[1][name]["id"]]
    ratios = _ratios(runs, paired, on_line=on_line)
    left, right = (run.results for run in runs)
    return {
        "runs": [run.name for run in runs],
        "configuration": {key: [value, back[key]] for key, value in differences(one, other).items()},
        "environment": {
            key: [environments[0][key], environments[1][key]]
            for key in differences(environments[0], environments[1])
        },
        "numbers": [
            {
                "problem": problem,
                "model": model,
                "metric": metric,
                "first": number,
                "second": right[problem][model][metric],
                "ratio": ratios.get((problem, model)) if metric == HEADLINE else None,
            }
            for problem in common
            for model, numbers in left[problem].items()
            for metric, number in numbers.items()
            if metric in right[problem].get(model, {})
        ],
        "unpaired": [name for name in common if name not in paired],
    }


def _ratios(
    runs: list[RunRecord], problems: list[str], *, on_line: Callable[[str], None]
) -> dict[tuple[str, str], list[float | None]]:
    """By problem and model, of the second run's errors to the first's, trajectory by trajectory."""
    errors = [_errors(run, problems) for run in runs]
    keys = [
        key
        for key, values in errors[0].items()
        if None not in values and None not in errors[1].get(key, [None])
    ]
    if not keys:
        return {}
    found = run_tool(
        "ups.tools.paired_ratios",
        {"pairs": [[errors[1][key], errors[0][key]] for key in keys]},
        place=runs[0].path / "logs",
        threads=1,
        on_line=on_line,
    )
    return dict(zip(keys, found, strict=True))


def _errors(run: RunRecord, problems: list[str]) -> dict[tuple[str, str], list[float | None]]:
    """Of every trajectory, from the run's evaluation; null where a forecast is not finite.

    Raises:
        ConfigurationError: the evaluation is gone.
    """
    if not problems:
        return {}
    path = run.path / run.stages["evaluate"]["path"] / "curves.json"
    try:
        curves = read_json(path)
    except FileNotFoundError:
        raise ConfigurationError(
            "its evaluation is gone, and with it the errors of single trajectories",
            where=str(path.parent.resolve()),
            fix="build it again with the run's command, which is in its env.json",
        ) from None
    return {
        (name, model): values["trajectory"]
        for name in problems
        for model, values in curves[name]["models"].items()
    }
