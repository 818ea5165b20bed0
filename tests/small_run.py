"""The numbers of small made-up runs: five trajectories each of a wave, a gas flow and a map on a square."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ups.metric_labels import SYMMETRIES

TRAJECTORIES, MEMBERS = 5, 4
ENSEMBLES = ("diffusion", "consistency_1", "consistency_2")
TRAINED = {
    "operator": 0.05,
    "diffusion": 0.0505,
    "diffusion_zero_noise": 0.061,
    "consistency_1": 0.04,
    "consistency_2": 0.07,
}
ERRORS = {"persistence": 1.2, "spatial_mean": 0.6} | TRAINED
COVERAGE = {"diffusion": 0.91, "consistency_1": 0.7, "consistency_2": 0.98}
STAGES = ("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency", "evaluate")


@dataclass(frozen=True)
class Small:
    """One made-up problem."""

    dataset: str
    grid: tuple[int, ...]
    fields: tuple[str, ...]
    units: tuple[str, ...]
    given: tuple[str, ...] = ()
    steps: int = 6
    is_map: bool = False
    boundary: str = "periodic"

    @property
    def scored(self) -> list[int]:
        return [place for place, name in enumerate(self.fields) if name not in self.given]

    @property
    def errors(self) -> dict[str, float]:
        return {"train_mean": 0.6} | TRAINED if self.is_map else ERRORS

    @property
    def bins(self) -> int:
        return self.grid[0] // 2 + (len(self.grid) == 1)


WAVE = Small("burgers1d nu=0.01", (32,), ("u",), ("length/time",))
FLOW = Small(
    "compressible1d eta=0.1",
    (32,),
    ("density", "velocity", "pressure"),
    ("mass/length", "length/time", "mass length/time^2"),
)
MAP = Small(
    "darcy2d beta=1",
    (16, 16),
    ("a", "u"),
    ("length^2/time", "1"),
    given=("a",),
    steps=1,
    is_map=True,
    boundary="dirichlet",
)
MIX = {"wave": WAVE, "gas": FLOW, "porous": MAP}


def make_curves(small: Small = WAVE) -> dict[str, Any]:
    """What curves.json holds of one problem."""
    wavenumber = np.arange(small.bins)
    growth = np.linspace(0.5, 1.5, small.steps)
    models = {}
    for name, error in small.errors.items():
        flat = name == "spatial_mean"
        spectrum = np.where(flat & (wavenumber > 0), 0, np.exp(-0.5 * wavenumber) * (1 + error)).tolist()
        models[name] = {
            "error": (error * growth).tolist(),
            "error_10": (0.3 * error * growth).tolist(),
            "error_90": (2 * error * growth).tolist(),
            "spectrum": [spectrum for _ in small.scored],
            "trajectory": (error * np.linspace(0.8, 1.2, TRAJECTORIES)).tolist(),
            "members": MEMBERS if name in ENSEMBLES else 1,
        }
        if name in ENSEMBLES:
            models[name] |= {"coverage": [COVERAGE[name]] * small.steps, "ranks": [50, 30, 30, 30, 50]}
    return {
        "title": small.dataset,
        "is_map": small.is_map,
        "boundary": small.boundary,
        "fields": [
            {"name": name, "unit": unit, "given": name in small.given}
            for name, unit in zip(small.fields, small.units, strict=True)
        ],
        "axes": ["x", "y"][: len(small.grid)],
        "coordinates": [((np.arange(points) + 0.5) / points).tolist() for points in small.grid],
        "times": np.linspace(0, 0.3, small.steps + 1).tolist(),
        "truth_spectrum": [np.exp(-0.5 * wavenumber).tolist() for _ in small.scored],
        "models": models,
        "examples": [
            {"label": label, "trajectory": index, "error": 0.01 * (index + 1)}
            for index, label in enumerate(("good", "median", "worst"))
        ],
    }


def make_examples(small: Small = WAVE) -> dict[str, np.ndarray]:
    """Example trajectories of one problem."""
    axes = [(np.arange(points) + 0.5) / points for points in small.grid]
    place = sum(
        weight * axis for weight, axis in zip((1, 2), np.meshgrid(*axes, indexing="ij"), strict=False)
    )
    x = np.asarray(place).flatten()[:, None] + 0.1 * np.arange(len(small.fields))
    t = np.linspace(0, 0.3, small.steps + 1)[:, None, None]
    truth = np.stack([np.sin(2 * np.pi * (x - k * t) + k) for k in range(3)]).astype(np.float32)
    truth *= 10.0 ** np.arange(len(small.fields))  # of different size, as different units are
    operator = truth[:, 1:] * 1.02 + 0.01
    return {
        "truth": truth,
        "operator": operator,
        "diffusion": operator + 0.01,
        "diffusion_deviation": np.full_like(operator, 0.03),
        "diffusion_lower": operator - 0.04,
        "diffusion_upper": operator + 0.06,
    }


def make_training(problems: tuple[str, ...] = ()) -> dict[str, list[dict[str, Any]]]:
    """Training records; with the validation score of each of several problems."""

    def records(term: str, score: str) -> list[dict[str, Any]]:
        steps = [{"step": s, "steps": 40, "loss": 1 / s, term: 0.5 / s} for s in (1, 10, 20, 30, 40)]
        each = {f"{score}/{problem}": 0.1 * (place + 1) for place, problem in enumerate(problems)}
        return [
            *steps,
            {"step": 20, "steps": 40, score: 0.3} | each,
            {"step": 40, "steps": 40, score: None} | each,
        ]

    return {
        "autoencoder": records("L_reconstruction", "validation_relative_l2"),
        "operator": records("L_forward", "validation_relative_l2"),
        "diffusion": records("L_denoise", "validation_loss"),
        "consistency": records("L_consistency", "validation_loss"),
    }


def by_lead(small: Small, metric: str, value: float) -> list[float] | None:
    """Some metrics have it, of a problem that has time."""
    without = {"final_relative_l2", "valid_time", "seconds_per_trajectory", "spread_skill_median"}
    if small.is_map or metric in without or metric.startswith("trajectory") or "_over_" in metric:
        return None
    return [value * factor for factor in np.linspace(0.5, 1.5, small.steps)]


def make_records(small: Small = WAVE, problem: str = "burgers1d") -> list[dict[str, Any]]:
    """The records of metrics.json of one problem."""
    scored = [(small.fields[place], small.units[place]) for place in small.scored]
    table = []
    for place, (model, error) in enumerate(small.errors.items()):
        values: list[tuple[str, str | None, float, float | None, str]] = [
            ("trajectory_relative_l2", None, error, 0.0123 * error, "1"),
            ("trajectory_relative_l2_median", None, 0.913 * error, None, "1"),
            ("pdebench_nrmse", None, 1.17 * error, 0.02 * error, "1"),
            ("vrmse", None, 1.3 * error, 0.02 * error, "1"),
            ("correlation", None, 1 - 0.5 * error**2, 0.001, "1"),
            ("seconds_per_trajectory", None, 0.00321 * (place + 1), None, "s"),
        ]
        if not small.is_map:
            values.append(("final_relative_l2", None, 1.41 * error, 0.02 * error, "1"))
            values.append(("mass_drift", None, 1.234e-8 * (place + 1), 0.0, "1"))
            values.append(("valid_time", None, 0.3 / (1 + error), 0.01, "time"))
            values.append(("correlation_time", None, 0.31 / (1 + error), 0.01, "time"))
            if model == "operator":
                values += [(f"equivariance_{symmetry}", None, 0.0177, None, "1") for symmetry in SYMMETRIES]
        if model in ENSEMBLES:
            for level, factor in ((50, 0.55), (90, 1.0), (95, 1.01)):
                values.append((f"coverage_{level}", None, factor * COVERAGE[model], 0.004, "1"))
            values.append(("spread_skill", None, 1.1 * COVERAGE[model], None, "1"))
            values.append(("spread_skill_median", None, 1.05 * COVERAGE[model], None, "1"))
            values.append(("calibration_error", None, abs(0.9 - COVERAGE[model]), None, "1"))
        for number, (field, unit) in enumerate(scored):
            own, factor = (None, 1.0) if len(scored) == 1 else (field, 0.5 + 0.5 * number)
            if own is not None:
                values.append(("trajectory_relative_l2", own, factor * error, 0.0123 * error, "1"))
            for band, size in (("low", 0.11), ("mid", 0.012), ("high", 0.0013)):
                values.append((f"spectral_rmse_{band}", own, size * factor * error, None, unit))
            values.append(("rmse", own, 0.7 * factor * error, 0.01 * error, unit))
            for name, size in (("conserved", 0.07), ("boundary", 0.71)):
                values.append((f"{name}_rmse", own, size * factor * error, None, unit))
            values.append(("max_error", own, 3.3 * factor * error, None, unit))
            sharper = 0.31 if model in ENSEMBLES else 0.62
            values.append(("crps", own, sharper * factor * error, 0.001, unit))
            if model in ENSEMBLES:
                values.append(("crps_over_dressed", own, 0.877, None, "1"))
        if model != "operator":
            values.append(("error_over_operator", None, error / small.errors["operator"], None, "1"))
        table += [
            {
                "problem": problem,
                "model": model,
                "dataset": small.dataset,
                "data_version": "generated, 64 cells, seed 3",
                "split": "test",
                "metric": metric,
                "field": field,
                "value": value,
                "standard_error": standard_error,
                "over_operator": [1.5, 1.25, 1.75] if metric == "rmse" and model != "operator" else None,
                "by_lead": by_lead(small, metric, value),
                "interval": [0.83 * value, 1.07 * value] if "_over_" in metric else None,
                "unit": unit,
                "n_trajectories": TRAJECTORIES,
                "frames": small.steps + 1,
                "frames_skipped": 1,
                "resolution": list(small.grid),
                "fields_scored": [name for name, _ in scored],
                "seed": 7,
                "n_members": MEMBERS if model in ENSEMBLES else 1,
                "calls_per_step": place,
                "calls_per_member": 2 * place if model in ENSEMBLES else 0,
                "device": "cpu",
                "threads": 2,
                "batch": 64,
            }
            for metric, field, value, standard_error, unit in values
        ]
    return table
