"""`ups bench peers|ablation CONFIG`: the operator and its peers, or its variants, trained for the same seconds."""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from ups.commands.arguments import add_configuration, add_root, count
from ups.commands.measured_run import in_one_process, measured, run_until
from ups.commands.tables import print_progress, show
from ups.config import Configuration
from ups.config.ablation import load_variants
from ups.config.load import parse_overrides
from ups.config.peers import PEERS
from ups.errors import ConfigurationError
from ups.metric_labels import HEADINGS
from ups.pipeline.device import resolve

TOLERANCE = 0.1
_STEPS_AND_SECONDS = ("parameters", "training", "steps", "planned s", "real s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train the operator of CONFIG and its peers on the same trajectories for the same seconds, one after the other, "
        "and score all on full rollouts of the test split. Nothing else should be running. A race that was interrupted "
        "goes on where it was."
    )
    add_configuration(parser)
    parser.add_argument(
        "--peers",
        type=peer_names,
        default=list(PEERS),
        metavar="NAMES",
        help=f"some of {','.join(PEERS)} (default: all)",
    )
    parser.add_argument(
        "--seconds",
        type=positive_seconds,
        help="of training for everybody, after a tuning that takes about as long again. Default: what the operator of "
        "CONFIG took, as the chain trains it",
    )
    parser.add_argument("--seeds", type=count, default=1, help="trainings of everybody (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)


def add_ablation_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train the operator of CONFIG, and again with each of the changes of a file, on the same trajectories for the same "
        "seconds, one after the other and each by its own settings; score all on full rollouts of the validation "
        "split. Nothing else should be running. An ablation that was interrupted goes on where it was."
    )
    add_configuration(parser)
    parser.add_argument(
        "changes",
        metavar="CHANGES",
        type=Path,
        help="YAML file {name: {dotted key: value}}, e.g. configs/ablations/burgers_demo.yaml",
    )
    parser.add_argument("--seconds", type=positive_seconds, required=True, help="of training for everybody")
    parser.add_argument(
        "--outside",
        action="store_true",
        help="score outside the training range too: validation trajectories with each change of evaluation.outside by itself",
    )
    parser.add_argument("--seeds", type=count, default=1, help="trainings of everybody (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)


def execute_ablation(options: argparse.Namespace) -> None:
    """Bring the data of the run to a sealed artifact, train all variants, and print what each change costs."""
    configuration = in_one_process(options)
    if options.outside and configuration.evaluation.outside is None:
        raise ConfigurationError(
            "evaluation.outside is null, and does not say what changes",
            where="--outside",
            fix="set it, for example --set 'evaluation.outside={amplitude: 2, offset: 1, parameter: 0.5}'",
        )
    overrides = parse_overrides(options.assignments)
    variants = load_variants(options.config, options.changes, overrides)
    # A list: requests are written with sorted keys, and the table is in the order of the file.
    changed = [(name, resolve(variant).model_dump(mode="json")) for name, variant in variants.items()]
    run = run_until(options, "download", {})
    records = measured(
        options,
        run.configuration,
        {
            "subject": "ablation",
            "download": str(run.built["download"].artifact.path),
            "changed": changed,
            "seconds": options.seconds,
            "seeds": options.seeds,
            "outside": options.outside,
        },
    )
    _tell_departures(records)
    if options.json:
        print(json.dumps(records, indent=2))
        return
    for record in records:
        if record["measure"] == "diverged":
            print_progress(f"{record['model']} diverged: {record['message']}")
    scored = [record for record in records if record["measure"] == "peers"]
    for table in dict.fromkeys(_scored_on(record) for record in scored):
        rows = [record for record in scored if _scored_on(record) == table]
        show(
            _race_table(rows, configuration, f"{options.seconds:.3g} s of training each, by its own settings")
        )
        print()


def execute(options: argparse.Namespace) -> None:
    """Bring the data of the run (and its operator) to sealed artifacts, race, and print who came where."""
    configuration = in_one_process(options)
    if options.seconds is None:
        seeds = range(configuration.seed, configuration.seed + options.seeds)
        runs = [run_until(options, "operator", {"seed": seed}) for seed in seeds]
    else:
        runs = [run_until(options, "download", {})]
    configuration = runs[0].configuration
    records = measured(
        options,
        configuration,
        {
            "subject": "peers",
            "download": str(runs[0].built["download"].artifact.path),
            "peers": options.peers,
            "seconds": options.seconds,
            "seeds": options.seeds,
            "finished": [
                {name: str(built.artifact.path) for name, built in run.built.items()} for run in runs
            ],
        },
    )
    _tell_departures(records)
    if options.json:
        print(json.dumps(records, indent=2))
        return
    raced = [record for record in records if record["measure"] == "peers"]
    tuned = [record for record in records if record["measure"] == "tuning"]
    for problem in dict.fromkeys(record["problem"] for record in raced):
        rows = [record for record in raced if record["problem"] == problem]
        show(_race_table(rows, configuration, _own_seconds(rows, options.seconds)))
        print()
    show(_tuning_table(tuned))


def _scored_on(record: dict[str, Any]) -> tuple[str, str]:
    """Problem and title of the trajectories; outside the training range, the title says what was changed."""
    return record["problem"], record["dataset"]


def _tell_departures(records: list[dict[str, Any]]) -> None:
    unequal = departures(records)
    if unequal:
        print_progress(
            f"not a fair race: trainings took more than {TOLERANCE:.0%} more or less than their seconds, for something "
            f"else was running ({', '.join(unequal)}); repeat it on a quiet machine"
        )


def _own_seconds(records: list[dict[str, Any]], seconds: float | None) -> str:
    """How long everybody was trained, and by which settings."""
    if seconds is not None:
        return f"{seconds:.3g} s of training each, the operator's autoencoder included; all tuned on the validation split"
    operator = next(record for record in records if record["model"] == "operator")
    return (
        f"{operator['planned_seconds']:.3g} s of training each, as many as the operator took, which was trained by "
        "its configuration; peers tuned on the validation split"
    )


def departures(records: list[dict[str, Any]]) -> list[str]:
    """Trainings, the tuning's too, whose real seconds were not the planned ones: "fno 27 of 40 s"."""
    return list(
        dict.fromkeys(
            f"{record['model']} {record['seconds']:.3g} of {record['planned_seconds']:.3g} s"
            for record in records
            if "seconds" in record
            and abs(record["seconds"] - record["planned_seconds"]) > TOLERANCE * record["planned_seconds"]
        )
    )


def _race_table(records: list[dict[str, Any]], configuration: Configuration, trained: str) -> Table:
    """A row per entrant: means over seeds, with their deviation where there are several."""
    first, seeds = records[0], len({record.get("seed") for record in records} - {None})
    metrics = [name for name in HEADINGS if name in first]
    title = (
        f"{first['dataset']} ({first['problem']}, data {first['data_version']}): {first['n_trajectories']} "
        f"{first['split']} trajectories, {first['frames'] - 1} steps rolled out from the given first frame, which is not "
        f"scored, at {' x '.join(map(str, first['resolution']))} points of the float32 source\n"
        f"{first['train_trajectories']} train trajectories less the diffusion model's "
        f"{configuration.training.operator.residual_fraction:.3g}; loss: relative L2 over {first['rollout_steps']} "
        f"steps; averaged weights, cosine schedule; peers are networks on points\n{trained}; {seeds} seed(s); "
        f"{first['device']}, {first['threads']} thread(s), {first['batch']} trajectories at once"
    )
    table = Table(
        Column("model", no_wrap=True),
        *(Column(HEADINGS[name], no_wrap=True, justify="right") for name in metrics),
        Column("error / operator's", no_wrap=True, justify="right"),
        *(Column(name, no_wrap=True) for name in _STEPS_AND_SECONDS),
        title=Text(title),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for model in dict.fromkeys(record["model"] for record in records):
        rows = [record for record in records if record["model"] == model]
        table.add_row(
            model,
            *(_mean([row[metric] for row in rows]) for metric in metrics),
            _interval([row["over_operator"] for row in rows]),
            *(_joined([row.get(name) for row in rows]) for name in _SHOWN),
        )
    return table


def _tuning_table(records: list[dict[str, Any]]) -> Table:
    table = Table(
        Column("model", no_wrap=True),
        Column("training", no_wrap=True),
        Column("steps", justify="right"),
        Column("planned s", justify="right"),
        Column("real s", justify="right"),
        Column("validation rel. L2", justify="right"),
        title=Text("Tuning: what everybody could choose from, on the validation split, with the first seed"),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for record in records:
        error = "diverged" if record.get("diverged") else _number(record["validation_relative_l2"])
        table.add_row(
            record["model"],
            record["training"],
            *(_number(record.get(name)) for name in ("steps", "planned_seconds", "seconds")),
            error,
        )
    return table


_SHOWN = ("parameters", "training", "steps", "planned_seconds", "seconds")


def _mean(values: list[float | None]) -> str:
    """Mean over seeds and, of several, their deviation."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return "not finite"
    mean = statistics.fmean(numbers)
    return f"{mean:.3g}" + (f" ± {statistics.stdev(numbers):.1g}" if len(numbers) > 1 else "")


def _interval(ratios: list[dict[str, Any] | None]) -> str:
    """Of several seeds the mean ratio, and the widest of their intervals over trajectories."""
    present = [ratio for ratio in ratios if ratio is not None and ratio["value"] is not None]
    if not present or len(present) < len(ratios):
        return ""
    mean = f"{statistics.fmean(ratio['value'] for ratio in present):.3g}"
    intervals = [ratio["interval"] for ratio in present if ratio["interval"] is not None]
    if not intervals:
        return mean
    return f"{mean} [{min(low for low, _ in intervals):.3g}, {max(high for _, high in intervals):.3g}]"


def _joined(values: list[Any]) -> str:
    """What seeds have in common, or the mean of what they have not."""
    if any(value is None for value in values):
        return ""
    return _number(values[0] if len(set(values)) == 1 else statistics.fmean(values))


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def peer_names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PEERS)}")
    return list(dict.fromkeys(names))
