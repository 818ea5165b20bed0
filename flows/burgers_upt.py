"""The flow `burgers-upt`: from data to an evaluated, calibrated surrogate."""

from typing import Any

from prefect import flow

from flows.chain import name_of_this_run, train_and_evaluate


@flow(name="burgers-upt", flow_run_name=name_of_this_run, persist_result=False)
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
    return train_and_evaluate(config, overrides)
