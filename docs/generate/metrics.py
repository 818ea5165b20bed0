"""The page of metrics: what tables show, and the formulas behind it."""

import ast
import math
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from generate.table import literal, table
from ups.metric_labels import METRICS, Metric

FORMULAS = "ups.evaluation.metrics"


def page() -> str:
    """Metrics by group, and the formulas with their docstrings."""
    lines = [
        "# Metrics",
        "",
        "What the report, the terminal and `metrics.json` show. Errors are of decoded fields over whole rollouts, against",
        "the float32 source; the given first frame does not count, unless `evaluation.pdebench_initial_steps` says so of",
        "PDEBench's. What has a unit is given for each field; all others are averaged over fields.",
        "",
    ]
    for group, metrics in groupby(METRICS, key=lambda metric: metric.group):
        rows = [
            (f"`{metric.name}`", literal(metric.label), _best(metric), literal(metric.definition))
            for metric in metrics
        ]
        lines += [f"## {group}", "", table(("name", "label", "best", "definition"), rows)]
    lines += ["## Formulas", "", f"Shapes and formulas are the docstrings of `{FORMULAS}`.", ""]
    for signature, docstring in _functions():
        lines += [
            "```text",
            signature,
            "",
            *(f"    {line}".rstrip() for line in docstring.splitlines()),
            "```",
            "",
        ]
    return "\n".join(lines)


def _best(metric: Metric) -> str:
    if metric.target is None:
        return ""
    if metric.target == math.inf:
        return "largest"
    return f"{metric.target:.0%}" if metric.kind == "percent" else f"{metric.target:g}"


def _functions() -> list[tuple[str, str]]:
    """Public functions: read, not imported, for they bring torch along."""
    source = find_spec(FORMULAS)
    assert source is not None
    assert source.origin is not None
    found = []
    for node in ast.parse(Path(source.origin).read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            docstring = ast.get_docstring(node)
            assert docstring is not None, f"{node.name} has no docstring"
            found.append((f"{node.name}({ast.unparse(node.args)})", docstring))
    return found
