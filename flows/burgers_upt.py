"""The flow `burgers-upt`: from data to an evaluated, calibrated surrogate."""

from typing import Any

from prefect import flow

from tasks.chain import autoencoder, cache_encode, consistency, diffusion, download, evaluate, operator
from tasks.publish import publish
from ups.pipeline.run import Run


@flow(name="burgers-upt", persist_result=False)
def burgers_upt(config: str = "configs/burgers_demo.yaml", overrides: dict[str, Any] | None = None) -> str:
    """Train and evaluate a Universal Physics Transformer on 1D Burgers.

    Args:
        config: path of a configuration, relative to the working directory.
        overrides: dotted keys to values, e.g. {"training.operator.learning_rate": 3e-4}.

    Returns:
        Path of the report.
    """
    run = Run.start(config, overrides)
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
