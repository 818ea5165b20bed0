"""The flow `pdebench-upt`: one surrogate for several problems of PDEBench, or for one that is not Burgers."""

from typing import Any

from prefect import flow

from flows.chain import name_of_this_run, train_and_evaluate


@flow(name="pdebench-upt", flow_run_name=name_of_this_run, persist_result=False)
def pdebench_upt(config: str = "configs/pdebench_2task.yaml", overrides: dict[str, Any] | None = None) -> str:
    """Train and evaluate one Universal Physics Transformer on several PDEBench problems.

    Autoencoder, latent operator, diffusion correction and its one-call student, scored on decoded fields
    of each problem against its trivial baselines. Stages that are sealed already are not done again.

    Args:
        config: Path of a configuration file, relative to the checkout.
        overrides: Values that replace those of the file, by dotted key, for example
            {"data.sampling": "difficulty_weighted"}.

    Returns:
        Path of the report.
    """
    return train_and_evaluate(config, overrides)
