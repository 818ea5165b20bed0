"""The numbers of a small made-up run: five trajectories of seven frames and 32 points."""

from typing import Any

import numpy as np

POINTS, STEPS, TRAJECTORIES, MEMBERS = 32, 6, 5, 4
ENSEMBLES = ("diffusion", "consistency_1", "consistency_2")
ERRORS = {
    "persistence": 1.2,
    "spatial_mean": 0.6,
    "operator": 0.05,
    "diffusion": 0.0505,
    "diffusion_zero_noise": 0.061,
    "consistency_1": 0.04,
    "consistency_2": 0.07,
}
COVERAGE = {"diffusion": 0.91, "consistency_1": 0.7, "consistency_2": 0.98}
STAGES = ("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency", "evaluate")


def make_curves() -> dict[str, Any]:
    wavenumber = np.arange(POINTS // 2 + 1)
    growth = np.linspace(0.5, 1.5, STEPS)
    models = {}
    for name, error in ERRORS.items():
        flat = name == "spatial_mean"
        models[name] = {
            "error": (error * growth).tolist(),
            "error_10": (0.3 * error * growth).tolist(),
            "error_90": (2 * error * growth).tolist(),
            "spectrum": np.where(
                flat & (wavenumber > 0), 0, np.exp(-0.5 * wavenumber) * (1 + error)
            ).tolist(),
            "trajectory": (error * np.linspace(0.8, 1.2, TRAJECTORIES)).tolist(),
            "members": MEMBERS if name in ENSEMBLES else 1,
        }
        if name in ENSEMBLES:
            models[name] |= {"coverage": [COVERAGE[name]] * STEPS, "ranks": [50, 30, 30, 30, 50]}
    return {
        "truth_spectrum": np.exp(-0.5 * wavenumber).tolist(),
        "models": models,
        "times": np.linspace(0, 0.3, STEPS + 1).tolist(),
        "coordinates": ((np.arange(POINTS) + 0.5) / POINTS)[:, None].tolist(),
        "examples": [
            {"label": label, "trajectory": index, "error": 0.01 * (index + 1)}
            for index, label in enumerate(("good", "median", "worst"))
        ],
        "names": ["u"],
    }


def make_examples() -> dict[str, np.ndarray]:
    x = (np.arange(POINTS) + 0.5) / POINTS
    t = np.linspace(0, 0.3, STEPS + 1)[:, None]
    truth = np.stack([np.sin(2 * np.pi * (x - k * t)) for k in range(3)])[..., None].astype(np.float32)
    operator = truth[:, 1:] + (0.02 * np.cos(2 * np.pi * x) + 0.01)[:, None].astype(np.float32)
    return {
        "truth": truth,
        "operator": operator,
        "diffusion": operator + 0.01,
        "diffusion_deviation": np.full_like(operator, 0.03),
        "diffusion_lower": operator - 0.04,
        "diffusion_upper": operator + 0.06,
    }


def make_training() -> dict[str, list[dict[str, Any]]]:
    def records(term: str, score: str) -> list[dict[str, Any]]:
        steps = [{"step": s, "steps": 40, "loss": 1 / s, term: 0.5 / s} for s in (1, 10, 20, 30, 40)]
        return [*steps, {"step": 20, "steps": 40, score: 0.3}, {"step": 40, "steps": 40, score: None}]

    return {
        "autoencoder": records("L_reconstruction", "validation_relative_l2"),
        "operator": records("L_forward", "validation_relative_l2"),
        "diffusion": records("L_denoise", "validation_loss"),
        "consistency": records("L_consistency", "validation_loss"),
    }


def make_records() -> list[dict[str, Any]]:
    table = []
    for place, (model, error) in enumerate(ERRORS.items()):
        values = {
            "trajectory_relative_l2": (error, 0.0123 * error),
            "trajectory_relative_l2_median": (0.913 * error, None),
            "pdebench_nrmse": (1.17 * error, 0.02 * error),
            "final_relative_l2": (1.41 * error, 0.02 * error),
            "mass_drift": (1.234e-8 * (place + 1), 0.0),
            "spectral_rmse_low": (0.11 * error, None),
            "spectral_rmse_mid": (0.012 * error, None),
            "spectral_rmse_high": (0.0013 * error, None),
            "seconds_per_trajectory": (0.00321 * (place + 1), None),
        }
        if model in ENSEMBLES:
            values |= {"crps": (0.31 * error, 0.001), "coverage_90": (COVERAGE[model], 0.004)}
        for metric, (value, standard_error) in values.items():
            table.append(
                {
                    "model": model,
                    "dataset": "burgers1d nu=0.01",
                    "data_version": "generated, 64 cells, seed 3",
                    "split": "test",
                    "metric": metric,
                    "value": value,
                    "standard_error": standard_error,
                    "unit": "1",
                    "n_trajectories": TRAJECTORIES,
                    "frames": STEPS + 1,
                    "frames_skipped": 1,
                    "resolution": [POINTS],
                    "seed": 7,
                    "n_members": MEMBERS if model in ENSEMBLES else 1,
                    "calls_per_step": place,
                    "device": "cpu",
                    "threads": 2,
                    "batch": 64,
                }
            )
    return table
