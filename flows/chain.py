"""The method, as every flow of this project follows it."""

from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.runtime import flow_run

from tasks.chain import autoencoder, cache_encode, consistency, diffusion, download, evaluate, operator
from tasks.publish import publish, publish_seeds
from ups.pipeline.run import Run, overrides_by_seed


def name_of_this_run() -> str:
    """For example "burgers_demo seed=3": in a list of runs the one thing that tells them apart."""
    parameters = flow_run.get_parameters()
    overrides = (f"{key}={value}" for key, value in (parameters["overrides"] or {}).items())
    return " ".join((Path(parameters["config"]).stem, *overrides))


def train_and_evaluate(config: str, overrides: dict[str, Any] | None) -> str:
    """Autoencoder, latent operator, diffusion correction and its one-call student, scored on decoded fields.

    Args:
        config: Path of a configuration file, relative to the checkout.
        overrides: Values that replace those of the file, by dotted key.

    Returns:
        Path of the report, of the last seed where the configuration asks for several.
    """
    finished = [_one_seed(config, chosen) for chosen in overrides_by_seed(config, overrides)]
    name, reports = finished[0][0], [report for _, report in finished]
    if len(reports) > 1:
        publish_seeds(name, reports)
    return reports[-1]


def _one_seed(config: str, overrides: dict[str, Any]) -> tuple[str, str]:
    """The chain once; the configuration's name and the path of its report."""
    run = Run.start(config, overrides)
    get_run_logger().info("run directory: %s", run.directory)
    try:
        data = download(run)
        codec = autoencoder(run, data)
        cache = cache_encode(run, data, codec)
        forecast = operator(run, data, cache)
        residual = diffusion(run, data, cache, forecast)
        student = consistency(run, data, cache, forecast, residual)
        table = evaluate(run, data, codec, cache, forecast, residual, student)
        return run.configuration.name, publish(run, table)
    finally:
        run.close()
