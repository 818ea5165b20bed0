"""The models of a result table: what they are called, and how they look in every figure, table and sentence.

By the names that the records have; `ups/evaluation` does not see this file: other words are no other numbers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """How one model is shown.

    Attributes:
        label: for people; the records' `model` is for programs.
        colour: of Okabe and Ito (2008), distinct with every common colour blindness.
        dashes: matplotlib's line style, so that prints in grey can be read as well.
        trivial: needs no training; never the best of a table.
        control: no forecast that anybody would use, or one that was given what the others were not; never the best of a table.
    """

    label: str
    colour: str
    dashes: str = "-"
    trivial: bool = False
    control: bool = False

    @property
    def best(self) -> bool:
        """May be the best of a table."""
        return not (self.trivial or self.control)


MODELS: dict[str, Model] = {
    "persistence": Model("persistence", "#777777", ":", trivial=True),
    "spatial_mean": Model("spatial mean", "#a5a5a5", "--", trivial=True),
    "train_mean": Model("train mean", "#8d8d8d", "-.", trivial=True),
    "linear": Model("linear map", "#56b4e9", "-."),
    "operator": Model("operator", "#0072b2"),
    "operator_dressed": Model("operator with past errors", "#6a51a3", "--"),
    "operator_dressed_scaled": Model("operator with scaled past errors", "#9e9ac8", "--"),
    "diffusion": Model("diffusion", "#d55e00"),
    "diffusion_zero_noise": Model("diffusion, zero noise", "#e69f00", "--"),
    "diffusion_mean": Model("diffusion, mean", "#8c510a", ":"),
    "consistency_1": Model("consistency, 1 call", "#009e73"),
    "consistency_2": Model("consistency, 2 calls", "#cc79a7"),
    "ttc": Model("conditioned by physics", "#882255"),
    "ttc_random": Model("random choice", "#b0a990", ":", control=True),
    "ttc_oracle": Model("choice by true error", "#b59f00", ":", control=True),
    "ttc_observed": Model("conditioned and observed", "#117733", "-.", control=True),
}
