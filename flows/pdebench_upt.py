"""The flow `pdebench-upt`: one surrogate for several problems of PDEBench, or for one that is not Burgers."""

from prefect import flow

from flows.chain import OF_A_FLOW, name_of_this_run, train_and_evaluate
from flows.experiment import Experiment


@flow(name="pdebench-upt", flow_run_name=name_of_this_run, **OF_A_FLOW)
def pdebench_upt(experiment: Experiment) -> str:
    """Train and evaluate one Universal Physics Transformer on several PDEBench problems.

    Autoencoder, latent operator, diffusion correction and its one-call student, scored on decoded fields
    of each problem against its trivial baselines. Stages that are sealed already are not done again.

    Args:
        experiment: A configuration file, and values that replace those of the file.

    Returns:
        Path of the report.
    """
    return train_and_evaluate(experiment)
