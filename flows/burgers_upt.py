"""The flow `burgers-upt`: from data to an evaluated, calibrated surrogate."""

from prefect import flow

from flows.chain import OF_A_FLOW, name_of_this_run, train_and_evaluate
from flows.experiment import Experiment


@flow(name="burgers-upt", flow_run_name=name_of_this_run, **OF_A_FLOW)
def burgers_upt(experiment: Experiment) -> str:
    """Train and evaluate a Universal Physics Transformer on 1D Burgers.

    Autoencoder, latent operator, diffusion correction and its one-call student, scored on decoded fields
    against persistence and the spatial mean. Stages that are sealed already are not done again.

    Args:
        experiment: A configuration file, and values that replace those of the file.

    Returns:
        Path of the report.
    """
    return train_and_evaluate(experiment)
