"""The stages of the chain as tasks: the settings of the run and pointers to what it reads in, a pointer out."""

from tasks.stage import Settings, build, stage
from ups.pipeline.run import Pointer


@stage("download")
def download(run: Settings) -> Pointer:
    """Trajectories in PDEBench's layout, and their splits."""
    return build("download", run)


@stage("autoencoder")
def autoencoder(run: Settings, data: Pointer) -> Pointer:
    """Train encoder and any-point decoder together."""
    return build("autoencoder", run, data)


@stage("cache_encode")
def cache_encode(run: Settings, data: Pointer, codec: Pointer) -> Pointer:
    """Encode all trajectories into a float16 zarr cache."""
    return build("cache_encode", run, data, codec)


@stage("operator")
def operator(run: Settings, data: Pointer, cache: Pointer) -> Pointer:
    """Train the latent operator on cached latents."""
    return build("operator", run, data, cache)


@stage("diffusion")
def diffusion(run: Settings, data: Pointer, cache: Pointer, forecast: Pointer) -> Pointer:
    """Train the diffusion model of the operator's residual."""
    return build("diffusion", run, data, cache, forecast)


@stage("consistency")
def consistency(
    run: Settings, data: Pointer, cache: Pointer, forecast: Pointer, residual: Pointer
) -> Pointer:
    """Distil the diffusion model into one and two calls."""
    return build("consistency", run, data, cache, forecast, residual)


@stage("evaluate")
def evaluate(
    run: Settings,
    data: Pointer,
    codec: Pointer,
    cache: Pointer,
    forecast: Pointer,
    residual: Pointer,
    student: Pointer,
) -> Pointer:
    """Score decoded rollouts of every model on the test split."""
    return build("evaluate", run, data, codec, cache, forecast, residual, student)
