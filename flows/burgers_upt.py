"""The flow `burgers-upt`: from data to an evaluated, calibrated surrogate."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from tasks.chain import autoencoder, cache_encode, consistency, diffusion, download, evaluate, operator
from tasks.publish import publish
from ups.pipeline.run import Run


def _name_of_this_run() -> str:
    """For example "burgers_demo seed=3": in a list of runs the one thing that tells them apart."""
    parameters = flow_run.get_parameters()
    overrides = (f"{key}={value}" for key, value in (parameters["overrides"] or {}).items())
    return " ".join((Path(parameters["config"]).stem, *overrides))


@flow(name="burgers-upt", flow_run_name=_name_of_this_run, persist_result=False)
def burgers_upt(config: str = "configs/burgers_demo.yaml", overrides: dict[str, Any] | None = None) -> str:
    """Train and evaluate a Universal Physics Transformer on 1D Burgers.

    Autoencoder, latent operator, diffusion correction and its one-call student, scored on decoded fields
    against persistence and the spatial mean. Stages that are sealed already are not done again.

    Args:
        config: Path of a configuration file, relative to the checkout.
        overrides: Values that replace those of the file, by dotted key, for example
            {"training.operator.learning_rate": 3e-4}.

    Returns:
        Path of the report.
    """
    run = Run.start(config, overrides)
    get_run_logger().info("run directory: %s", run.directory)
    try:
        data = download(run)
        codec = autoencoder(run, data)
        cache = cache_encode(run, data, codec)
        forecast = operator(run, cache)
        residual = diffusion(run, cache, forecast)
        student = consistency(run, cache, forecast, residual)
        table = evaluate(run, data, codec, cache, forecast, residual, student)
        return publish(run, table)
    finally:
        run.close()
