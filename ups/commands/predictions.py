"""What a run will take, in words and as a table."""

from rich.table import Column, Table

from ups.commands.tables import duration
from ups.config import Configuration
from ups.pipeline.probe import Prediction


def predictions_table(predictions: dict[str, Prediction]) -> Table:
    """A row per stage that is to be built."""
    heads = ("s/step", "predicted", "GB memory")
    table = Table("to be built", *(Column(head, justify="right") for head in heads), box=None, pad_edge=False)
    for name, prediction in predictions.items():
        step, memory = prediction.seconds_per_step, prediction.memory
        table.add_row(
            name,
            "" if step is None else f"{step:.3g}",
            duration(prediction.seconds),
            "" if memory is None else f"{memory:.2g}",
        )
    return table


def total(predictions: dict[str, Prediction], configuration: Configuration) -> str:
    """Time of all, and its cost where the configuration has the price of an hour."""
    seconds = sum(prediction.seconds for prediction in predictions.values())
    seeds, usd = configuration.seeds, configuration.resources.cost(seconds)
    each = "" if seeds == 1 else f" for each of {seeds} seeds"
    cost = "" if usd is None else f", {usd:.2f} USD"
    return f"in all {duration(seconds)}{cost}{each}; a prediction: this machine was measured for a moment"
