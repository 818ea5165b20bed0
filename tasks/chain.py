"""The tasks of the chain, by name."""

from tasks.stage import StageTask

download = StageTask("download", "Trajectories in PDEBench's layout, and their splits.")
autoencoder = StageTask("autoencoder", "Train encoder and any-point decoder together.")
cache_encode = StageTask("cache_encode", "Encode all trajectories into a float16 zarr cache.")
operator = StageTask("operator", "Train the PDE transformer on cached latents.")
diffusion = StageTask("diffusion", "Train the diffusion model of the operator's residual.")
consistency = StageTask("consistency", "Distil the diffusion model into one and two calls.")
evaluate = StageTask("evaluate", "Score decoded rollouts of every model on the test split.")
