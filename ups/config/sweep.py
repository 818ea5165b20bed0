"""Sweeps: one configuration for each combination of some values of a base file.

Rejected: members stacked in one process (`batched`). Measured on two cores, nine trainings stacked take a tenth more time
than one by one at the demo's size (LOG.md, "A sweep's members stacked in one process").
"""

import difflib
import hashlib
import itertools
import json
import math
import os
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from ups.config.load import describe_problems, load_configuration, read_yaml
from ups.config.schema import STAGES, Configuration
from ups.config.sobol import MOST_DIMENSIONS, sobol
from ups.config.training import Training
from ups.errors import ConfigurationError
from ups.section import Count, Real, Section, Seed

MOST_MEMBERS = 10_000
RANGE, CHOICES = "[range]", "[choices]"  # in brackets: no level of the file, see `ups.config.load`
_TAKEN = {"name": "write name: in the sweep", "seeds": "write seeds: in the sweep"}


class Range(Section):
    """Numbers from `low` to `high`."""

    low: Real
    high: Real
    log: bool = Field(default=False, description="evenly by their logarithm")
    whole: bool = Field(default=False, description="rounded to whole numbers")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"high {self.high:g} must be above low {self.low:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} has no logarithm: write a number above 0, or log: false")
        return self

    def at(self, share: float) -> float | int:
        """The number at a share, 0 to 1, of the range."""
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        # Six digits: names stay short, and what is read back from a file is the same number.
        return round(value) if self.whole else float(f"{value:.6g}")


Choices = Annotated[list[Any], Field(min_length=1)]
Values = Annotated[
    Annotated[Range, Tag(RANGE)] | Annotated[Choices, Tag(CHOICES)],
    Discriminator(lambda given: CHOICES if isinstance(given, list) else RANGE),
]


class Samples(Section):
    """Combinations that are drawn: of each key from its range, or from its list of choices."""

    samples: Count = Field(le=MOST_MEMBERS)
    seed: Seed = Field(default=0, description="of the draws")
    keys: dict[str, Values] = Field(min_length=1)

    def drawn(self, points: Iterator[tuple[float, ...]]) -> Iterator[dict[str, Any]]:
        """Combinations at points of the unit cube."""
        for point in points:
            yield {
                key: values.at(share) if isinstance(values, Range) else values[int(share * len(values))]
                for (key, values), share in zip(self.keys.items(), point, strict=True)
            }


class Median(Section):
    """A training is ended at a validation where its lowest error so far is above the median of the others' there (Golovin et al.
    2017, "Google Vizier", section 3.2.2)."""

    begin: Count = Field(default=1, description="step before which none is ended")
    others: Count = Field(default=3, description="that must have come as far, before one is ended")


class SuccessiveHalving(Section):
    """All train to a first step; the best part of them goes on to `factor` times that step, and so on (Jamieson and Talwalkar 2016,
    arXiv:1502.07943)."""

    first: Count = Field(description="step at which most are ended; one of a validation")
    factor: Annotated[int, Field(ge=2, le=100)] = Field(
        default=3, description="one in so many goes on, so many times as far"
    )

    def steps(self, whole: int) -> list[int]:
        """At which it is decided, of trainings of so many steps."""
        found, step = [], self.first
        while step < whole:
            found.append(step)
            step *= self.factor
        return found


class Stop(Section):
    """How trainings that promise little are ended early."""

    median: Median | None = None
    successive_halving: SuccessiveHalving | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_its_name(cls, given: object) -> object:
        return {given: {}} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.median is None) == (self.successive_halving is None):
            raise ValueError("must be one of median, successive_halving")
        return self


class Sweep(Section):
    """What a sweep's file holds."""

    base: str = Field(
        min_length=1, description="configuration file; a relative path starts at the sweep's own file"
    )
    overrides: dict[str, Any] = Field(default={}, description="of every member: dotted key to value")
    grid: dict[str, Choices] | None = Field(
        default=None, min_length=1, description="every combination of the values of each dotted key"
    )
    random: Samples | None = Field(
        default=None, description="independent draws, beside the grid if there is one"
    )
    sobol: Samples | None = Field(
        default=None, description="draws that fill the ranges evenly (Sobol's sequence)"
    )
    cases: dict[str, dict[str, Any]] | None = Field(
        default=None,
        min_length=1,
        description="combinations that are listed, by name: dotted key to value; beside the grid if there is one",
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        description="of a member, made from its resolved values, as rate{training.operator.learning_rate}; null: from all "
        "keys that vary",
    )
    seeds: Count = Field(
        default=1, le=100, description="trainings of each configuration: seed, seed + 1, ... of the base"
    )
    rank_by: Literal["autoencoder", "operator"] = Field(
        default="operator",
        # Rejected: the losses of diffusion and consistency are in units of each member's own residual, and do not compare.
        # Rejected: what evaluate finds; the test split would choose what is reported on it.
        description="training whose error on decoded fields of the validation split ranks the members",
    )
    until: str | None = Field(
        default=None, description="last stage of every member; null: the one that ranks"
    )
    finalists: Annotated[int, Field(ge=0, le=MOST_MEMBERS)] = Field(
        default=0,
        description="best configurations, of which the whole chain runs, evaluation on the test split too",
    )
    stop: Stop | None = None
    at_once: Count | None = Field(
        default=None, description="flow runs of members that are started at the same time; null: all"
    )

    @property
    def last(self) -> str:
        """Stage that every member ends with."""
        return self.until or self.rank_by

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.grid is None and self.random is None and self.sobol is None and self.cases is None:
            raise ValueError("nothing varies: add grid, random, sobol or cases")
        if sum(part is not None for part in (self.random, self.sobol, self.cases)) > 1:
            raise ValueError("random, sobol and cases each say which combinations there are: keep one")
        if self.sobol is not None and len(self.sobol.keys) > MOST_DIMENSIONS:
            raise ValueError(
                f"sobol.keys: {len(self.sobol.keys)} are more than {MOST_DIMENSIONS} dimensions: use random, or fewer keys"
            )
        order = list(STAGES)
        allowed = order[order.index(self.rank_by) : order.index("evaluate")]
        if self.last not in allowed:
            fix = ", which reads the test split: set finalists" if self.until == "evaluate" else ""
            raise ValueError(f"until: must be one of {', '.join(allowed)} (got {self.until!r}{fix})")
        given: list[str] = [*self.overrides, *(key for part in self._varied() for key in part)]
        for key in given:
            if given.count(key) > 1:
                raise ValueError(f"{key} is given twice, in overrides, grid, random or sobol: keep one")
            if key in _TAKEN or (key == "seed" and self.seeds > 1 and key not in self.overrides):
                raise ValueError(
                    f"{key} is not for members: {_TAKEN.get(key, 'write seeds: 1, or leave it out')}"
                )
        return self

    def _varied(self) -> list[Mapping[str, Any]]:
        drawn = (part.keys for part in (self.random, self.sobol) if part is not None)
        listed = dict.fromkeys(key for case in (self.cases or {}).values() for key in case)
        return [*([] if self.grid is None else [self.grid]), *drawn, listed]

    @property
    def keys(self) -> list[str]:
        """That vary, in the order of the file."""
        return [key for part in self._varied() for key in part]

    def combinations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name of the case, empty where there is none, and values of keys that vary, of each configuration."""
        grid = self.grid or {}
        draws: list[dict[str, Any]] = [{}]
        if self.random is not None:
            source, count = random.Random(self.random.seed), len(self.random.keys)
            points = (tuple(source.random() for _ in range(count)) for _ in range(self.random.samples))
            draws = list(self.random.drawn(points))
        elif self.sobol is not None:
            draws = list(self.sobol.drawn(sobol(len(self.sobol.keys), self.sobol.samples, self.sobol.seed)))
        named = self.cases or {"": {}}
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            for case, listed in named.items():
                for drawn in draws:
                    yield case, chosen | listed | drawn


@dataclass(frozen=True)
class Member:
    """One training of a sweep.

    Attributes:
        name: of this training; that of its configuration, and the seed where there are several.
        configuration_name: which trainings share that differ in their seeds alone.
        config, overrides: what `load_configuration` makes `configuration` of.
        varied: resolved values of the keys that vary.
        configuration: valid, `auto` not resolved.
    """

    name: str
    configuration_name: str
    config: str
    overrides: dict[str, Any]
    varied: dict[str, Any]
    configuration: Configuration


def load_sweep(path: Path | str) -> tuple[Sweep, list[Member]]:
    """A sweep's file, and all its members, every one of them valid.

    Raises:
        ConfigurationError: names the file, the field or member, and the fix.
    """
    path = Path(path)
    values = read_yaml(path)
    try:
        sweep = Sweep.model_validate(values)
    except ValidationError as error:
        problems = describe_problems(error, root=Sweep)
        raise ConfigurationError("\n  ".join(["sweep is not valid", *problems]), where=str(path)) from None
    members = _members(sweep, path)
    _require_different(members, sweep, path)
    if sweep.stop is not None and sweep.stop.successive_halving is not None:
        _require_steps(members, sweep.rank_by, sweep.stop.successive_halving, path)
    return sweep, members


def _members(sweep: Sweep, path: Path) -> list[Member]:
    size = math.prod(len(values) for values in (sweep.grid or {}).values()) * len(sweep.cases or [1])
    size *= next((part.samples for part in (sweep.random, sweep.sobol) if part is not None), 1) * sweep.seeds
    if size > MOST_MEMBERS:
        raise ConfigurationError(
            f"{size} members are more than {MOST_MEMBERS}", where=str(path), fix="vary fewer keys or values"
        )
    config = os.path.normpath(path.parent / sweep.base)
    template = sweep.name or _usual_name(sweep)
    members = []
    for case, combination in sweep.combinations():
        overrides = {**sweep.overrides, **combination, "seeds": 1}
        where = f"{path}: {', '.join(filter(None, [case, _in_words(combination)]))}"
        configuration = _loaded(config, overrides, where)
        resolved = configuration.model_dump(mode="json")
        varied = {key: _value(resolved, key) for key in sweep.keys}
        name = _name(template, case, resolved, path)
        for number in range(sweep.seeds):
            own, full_name = configuration, name
            if sweep.seeds > 1:
                overrides = {**overrides, "seed": configuration.seed + number}
                own, full_name = _loaded(config, overrides, where), f"{name} seed={overrides['seed']}"
            members.append(Member(full_name, name, config, overrides, varied, own))
    return members


def _loaded(config: str, overrides: dict[str, Any], where: str) -> Configuration:
    try:
        return load_configuration(config, overrides)
    except ConfigurationError as error:
        raise ConfigurationError(str(error), where=where) from None


def _usual_name(sweep: Sweep) -> str:
    """A template of all keys but those of cases, each by as few of its last words as tell it from the others."""
    keys = [key for part in sweep._varied()[:-1] for key in part]

    def short(key: str) -> str:
        words = key.split(".")
        for count in range(1, len(words)):
            last = words[-count:]
            if sum(other.split(".")[-count:] == last for other in keys) == 1:
                return ".".join(last)
        return key

    return " ".join([*(["{case}"] if sweep.cases else []), *(f"{short(key)}={{{key}}}" for key in keys)])


def _name(template: str, case: str, resolved: Mapping[str, Any], path: Path) -> str:
    def replaced(found: re.Match[str]) -> str:
        if found[1] == "case" and case:
            return case
        value = _value(resolved, found[1])
        if value is _ABSENT:
            raise ConfigurationError(
                f"{{{found[1]}}} is no key of the configurations of this sweep; {_near(resolved, found[1])}",
                where=f"{path}: name",
            )
        return value_text(value)

    return re.sub(r"{([^{}]*)}", replaced, template)


_ABSENT = "–"
"""A value that a configuration does not have, for it chose another kind."""


def _value(resolved: Mapping[str, Any], key: str) -> Any:
    """What a dotted key has in a configuration."""
    found: Any = resolved
    for word in key.split("."):
        if not isinstance(found, Mapping) or word not in found:
            return _ABSENT
        found = found[word]
    return found


def _near(resolved: Mapping[str, Any], key: str) -> str:
    """What was meant by a key that does not exist."""
    found: Any = resolved
    words = key.split(".")
    while words and isinstance(found, Mapping) and words[0] in found:
        found = found[words.pop(0)]
    known = list(found) if isinstance(found, Mapping) else []
    close = difflib.get_close_matches(words[0], known, n=1) if words else []
    return f"did you mean {close[0]!r}?" if close else f"known there: {', '.join(sorted(known)) or 'nothing'}"


def value_text(value: Any) -> str:
    """A value in a name."""
    if isinstance(value, Mapping):
        return (
            str(value["kind"])
            if "kind" in value
            else ",".join(f"{k}:{value_text(v)}" for k, v in value.items())
        )
    if isinstance(value, list):
        return ",".join(map(value_text, value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_words(combination: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value_text(value)}" for key, value in combination.items())


def trained_by(configuration: Configuration, last: str) -> dict[str, str]:
    """By stage up to one, what tells the artifacts of two configurations apart, as far as files by their paths can."""
    found: dict[str, str] = {}
    for name, stage in STAGES.items():
        if all(i in found for i in stage.inputs):
            counted = [stage.settings(configuration, str), *(found[i] for i in stage.inputs)]
            found[name] = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()
        if name == last:
            break
    return found


def _require_different(members: list[Member], sweep: Sweep, path: Path) -> None:
    names: dict[str, Member] = {}
    keys: dict[str, Member] = {}
    for member in members:
        if other := names.get(member.name):
            raise ConfigurationError(
                f"{member.name!r} names two members: {_in_words(other.varied)}; {_in_words(member.varied)}",
                where=f"{path}: name",
                fix="write all keys that vary into the name, or leave it out; and no value twice",
            )
        key = trained_by(member.configuration, sweep.last)[sweep.last]
        if other := keys.get(key):
            raise ConfigurationError(
                f"{other.name!r} and {member.name!r} are the same work up to {sweep.last}, and would have one key",
                where=f"{path}: {', '.join(sweep.keys)}",
                fix="vary what counts for these stages (another seed: seeds), or set until to a stage that reads it",
            )
        names[member.name], keys[key] = member, member


def _require_steps(members: list[Member], stage: str, rule: SuccessiveHalving, path: Path) -> None:
    """Members can be compared where all of them validate."""
    where = f"{path}: stop.successive_halving.first"
    settings: list[Training] = [STAGES[stage].own(member.configuration) for member in members]
    whole = min(own.steps for own in settings)
    if rule.first >= whole:
        raise ConfigurationError(
            f"{rule.first} is not below training.{stage}.steps {whole}",
            where=where,
            fix="lower it, or leave stop out",
        )
    every = math.lcm(*(own.validate_every for own in settings))
    if rule.first % every:
        raise ConfigurationError(
            f"there is no validation at step {rule.first}: training.{stage}.validate_every is {every}",
            where=where,
            fix=f"write a multiple of {every}, or lower validate_every",
        )
