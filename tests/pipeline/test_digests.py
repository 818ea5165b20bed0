"""Which setting counts for which stage: a golden table over every key of the schema, and no dead key."""

import ast
import inspect
import typing
from pathlib import Path
from typing import Any

import derived
import pytest
from command_line import TINY
from pydantic import BaseModel

import ups
from ups.artifacts import Store
from ups.artifacts.identity import code_identity, digest_of
from ups.config import load_configuration
from ups.config.data import TAGGED, Mix, PublishedData, Rows
from ups.config.model import ENCODERS, OPERATORS, SYMMETRIES, Denoiser, SymmetryUses
from ups.config.networks import Correction, OperatorSettings, Transformer
from ups.config.schema import CHANGE_NO_RESULT, STAGES, Configuration
from ups.config.stages.operator import LOSS_TERMS, LossTerms
from ups.config.training import OPTIMIZERS, SCHEDULES
from ups.pipeline.graph import chain_to
from ups.pipeline.plan import derive_parts
from ups.section import Section

EVALUATE = {"evaluate"}
CONSISTENCY = {"consistency", *EVALUATE}
DIFFUSION = {"diffusion", *CONSISTENCY}
OPERATOR = {"operator", *DIFFUSION}
CACHE = {"cache_encode", *OPERATOR}
AUTOENCODER = {"autoencoder", *CACHE}
ALL = {"download", *AUTOENCODER}
NONE: set[str] = set()


def of_transformer(name: str, stages: set[str]) -> dict[str, tuple[Any, set[str]]]:
    values = {"width": 32, "depth": 3, "heads": 4, "ratio": 3}
    return {f"model.{name}.{key}": (value, stages) for key, value in values.items()}


OF_OPERATORS: dict[str, Any] = {
    "linear_path": "trained",
    "conserve": False,
    "width": 48,
    "depth": 3,
    "heads": 2,
    "ratio": 3,
    "levels": 1,
    "dilations": [1],
    "modulated": True,
    "modes": 2,
    "padding": 4,
    "window": 4,
    "channel_separated": True,
}
"""Another value of every key that some kind of operator has."""
OF_OPTIMIZERS: dict[str, Any] = {
    "matrix_learning_rate": 0.01,
    "momentum": 0.9,
    "basis_decay": 0.9,
    "basis_every": 5,
}


def of_training(name: str, stages: set[str]) -> dict[str, tuple[Any, set[str]]]:
    learning = {
        "steps": 21,
        "batch_size": 4,
        "accumulation": 2,
        "learning_rate": 2e-3,
        "final_learning_rate": 1e-6,
        "warmup_steps": 3,
        "weight_decay": 0.0,
        "betas": [0.9, 0.99],
        "gradient_clip": 2.0,
        "early_stop": 3,
        "publish": "best",
        "ema_decay": 0.9,
    }
    learning["optimizer"] = {"kind": "muon"}
    learning["schedule"] = {"kind": "linear"}
    reporting = {"checkpoint_every": 7, "log_every": 7, "validate_every": 7}
    rows = {f"training.{name}.{key}": (value, stages) for key, value in learning.items()}
    return rows | {f"training.{name}.{key}": (value, NONE) for key, value in reporting.items()}


SHARED: dict[str, tuple[Any, set[str]]] = {
    "name": ("other", NONE),
    "seed": (1, AUTOENCODER),
    "seeds": (3, NONE),
    "model.latent.tokens": (4, AUTOENCODER),
    "model.latent.dim": (2, AUTOENCODER),
    "model.latent.floor": (10.0, AUTOENCODER),
    "model.symmetries": ({"scaling": "augment"}, OPERATOR),
    "model.encoder": ({"width": 32}, AUTOENCODER),
    **of_transformer("decoder", AUTOENCODER),
    "model.operator": ({"kind": "linear", "conserve": False}, OPERATOR),
    "model.denoiser.width": (32, DIFFUSION),
    "model.denoiser.blocks": (2, DIFFUSION),
    "model.denoiser.dilations": ([1], DIFFUSION),
    "model.denoiser.leads_per_position": (3, DIFFUSION),
    "execution.processes": (2, AUTOENCODER),
    "execution.nodes": (2, AUTOENCODER),
    "execution.data_parallel": ("ddp", AUTOENCODER),
    "execution.precision": ("bf16", AUTOENCODER),
    "execution.compile": (True, AUTOENCODER),
    "execution.cuda_graphs": (False, NONE),
    "execution.activation_checkpointing": (1, AUTOENCODER),
    "execution.allow_layout_change": (True, NONE),
    **of_training("autoencoder", AUTOENCODER),
    **of_training("operator", OPERATOR),
    "training.operator.rollout_steps": (3, OPERATOR),
    "training.operator.curriculum": (0.5, OPERATOR),
    "training.operator.pushforward_steps": (1, OPERATOR),
    "training.operator.start_exponent": (1.0, OPERATOR),
    "training.operator.state_noise": (0.01, OPERATOR),
    "training.operator.time_steps": ([1, 2], OPERATOR),
    "training.operator.norm": ("frame", OPERATOR),
    "training.operator.loss_terms.gradient": ({"weight": 0.5}, OPERATOR),
    "training.operator.joint": ({"begin": 0.5}, OPERATOR),
    "training.operator.residual_fraction": (0.25, OPERATOR),
    **of_training("diffusion", DIFFUSION),
    "training.diffusion.noise.sigma_min": (0.01, DIFFUSION),
    "training.diffusion.noise.centre": (2.0, DIFFUSION),
    "training.diffusion.noise.std_log_sigma": (1.0, DIFFUSION),
    "training.diffusion.sampler_steps": (3, DIFFUSION),
    **of_training("consistency", CONSISTENCY),
    "training.consistency.intervals": (8, CONSISTENCY),
    "training.consistency.second_sigma": (0.5, CONSISTENCY),
    "cache_encode.trajectories_per_chunk": (5, CACHE),
    "loading.mode": ("encode", CACHE),
    "loading.order": ("permutation", AUTOENCODER),
    "loading.read_ahead": (2, NONE),
    "evaluation.members": (8, EVALUATE),
    "evaluation.batch_size": (32, EVALUATE),
    "evaluation.seed": (1, EVALUATE),
    "evaluation.small": (2, EVALUATE),
    "evaluation.pdebench_initial_steps": (0, EVALUATE),
    "evaluation.ttc": ({"members": 4}, EVALUATE),
    "tracking.wandb": ("disabled", NONE),
    "tracking.project": ("other", NONE),
    "tracking.entity": ("other", NONE),
    "resources.hourly_rate_usd": (2.0, NONE),
    "gates.validation": ([{"stage": "operator", "at_most": 0.1}], NONE),
    "gates.test": ([{"model": "operator", "metric": "mass_drift", "at_most": 0.1}], NONE),
    "hooks.finished": ("date", NONE),
    "hooks.failed": (["true"], NONE),
    "hooks.interrupted": ("date", NONE),
    "hooks.always": ("date", NONE),
    "hooks.timeout_seconds": (5.0, NONE),
    "tracking.group": ("other", NONE),
    "tracking.tags": (("one",), NONE),
    "tracking.upload": (("report",), NONE),
}
# A solver computes with these; a copy does not depend on the machine.
SOLVING: dict[str, tuple[Any, set[str]]] = {
    "execution.threads": (2, AUTOENCODER),
    "execution.device": ("cuda", ALL),
}
COPYING = {"execution.threads": (2, AUTOENCODER), "execution.device": ("cuda", AUTOENCODER)}
SPLITS = {
    "data.trajectories.train": (17, ALL),
    "data.trajectories.validation": (5, ALL),
    "data.trajectories.test": (5, {"download", "evaluate"}),
}
GENERATED = {
    **SPLITS,
    "data.resolution": (16, ALL),
    "data.solver_resolution": (64, ALL),
    "data.seed": (1, ALL),
    **SOLVING,
}
EVOLVING = GENERATED | {"data.frames": (10, ALL), "data.frame_interval": (0.1, ALL)}
STATES = {
    "data.amplitude": (2.0, ALL),
    "data.offset": (1.0, ALL),
    "evaluation.outside": ({"amplitude": 3.0}, EVALUATE),
}
FILE = {
    "data.path": ("elsewhere.hdf5", NONE),
    **SPLITS,
    "data.space_stride": (2, ALL),
    "data.test_first": (100, ALL),
    "data.seed": (1, ALL),
    **COPYING,
}
PUBLISHED = {
    "data.address": ("file:///data/{name}", NONE),
    "data.deadline_hours": (1.0, NONE),
    "data.space_stride": (2, ALL),
    "data.time_stride": (1, ALL),
    "data.frames": (10, ALL),
    "data.variables": ("conserved", ALL),
    "data.seed": (1, ALL),
    **COPYING,
}

COUNTS = dict.fromkeys(("train", "validation", "test"), 9)
SOLVED = {"source": "generated", "trajectories": COUNTS, "resolution": 32, "solver_resolution": 32}
TRAJECTORIES = SOLVED | {"frames": 9, "frame_interval": 0.05}
READ = {"source": "file", "path": "data.hdf5", "trajectories": COUNTS}
CFD = "1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train"
BASES: dict[str, tuple[dict[str, Any], dict[str, tuple[Any, set[str]]]]] = {
    "generated burgers1d": (TRAJECTORIES | {"nu": 0.01}, EVOLVING | STATES | {"data.nu": (0.02, ALL)}),
    "generated advection1d": (
        TRAJECTORIES | {"equation": "advection1d", "beta": 0.1},
        EVOLVING | STATES | {"data.beta": (0.2, ALL), "data.scheme": ("pdebench", ALL)},
    ),
    "generated darcy2d": (
        SOLVED | {"equation": "darcy2d", "beta": 0.1},
        GENERATED | {"data.beta": (0.2, ALL)},
    ),
    "generated compressible1d": (
        TRAJECTORIES | {"equation": "compressible1d", "eta": 0.1},
        EVOLVING
        | {
            "data.eta": (0.2, ALL),
            "data.boundary": ("outflow", ALL),
            "data.variables": ("conserved", ALL),
        },
    ),
    "file": (
        READ | {"equation": "compressible1d"},
        FILE
        | {
            "data.time_stride": (1, ALL),
            "data.frames": (10, ALL),
            "data.boundary": ("outflow", ALL),
            "data.variables": ("conserved", ALL),
        },
    ),
    "file of a map": (READ | {"equation": "darcy2d"}, FILE),
    "pdebench": (
        {"source": "pdebench", "dataset": CFD, "trajectories": COUNTS},
        PUBLISHED | SPLITS | {"data.dataset": (CFD.replace("0.1", "0.01"), ALL)},
    ),
    "pdebench rows": (
        {"source": "pdebench", "dataset": CFD, "rows": {"test": [0, 9], "train": [1000, 1020]}},
        PUBLISHED
        | {
            "data.dataset": (CFD.replace("0.1", "0.01"), ALL),
            "data.rows.test": ([0, 10], {"download", "evaluate"}),
            "data.rows.train": ([1000, 1021], ALL),
            "data.rows.validation": ([1020, 1025], ALL),
        },
    ),
}
"""For each section of data: a base, and what a change of each of its keys changes."""

PROBLEMS = {"flow": BASES["generated burgers1d"][0], "map": BASES["file of a map"][0]}
CHOICES = {"data.source", "data.equation"}


@pytest.fixture
def folder(tmp_path):
    for name in ("data.hdf5", "elsewhere.hdf5"):
        (tmp_path / name).write_bytes(b"the same bytes")
    (tmp_path / "config.yaml").write_bytes(TINY.read_bytes())
    return tmp_path


def digests(folder: Path, overrides: dict[str, Any]) -> dict[str, str]:
    configuration = load_configuration(folder / "config.yaml", {"execution.device": "cpu"} | overrides)
    return derived.digests(configuration, Store(folder))


NEEDED = {"execution.data_parallel": {"execution.processes": 2}}
"""What another value of a key is for."""


def changes(folder: Path, base: dict[str, Any], key: str, value: Any) -> set[str]:
    base = base | NEEDED.get(key, {})
    before, after = digests(folder, base), digests(folder, base | {key: value})
    return {name for name in STAGES if before[name] != after[name]}


def base(tag: str) -> dict[str, Any]:
    """Overrides of the tiny configuration. Two axes need a finer head than one; 32 divides all grids."""
    return {"data": BASES[tag][0]}


@pytest.mark.parametrize("key", SHARED)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="generated"),
        pytest.param(base("file of a map"), id="file", marks=pytest.mark.slow),
    ],
)
def test_a_setting_that_all_runs_have_changes_exactly_these_stages(folder, key, data):
    value, expected = SHARED[key]
    assert changes(folder, data, key, value) == expected


def test_sections_that_change_no_result_are_those_whose_keys_all_count_for_no_stage():
    counted: dict[str, set[str]] = {}
    for key, (_, stages) in SHARED.items():
        if "." in key:
            counted.setdefault(key.partition(".")[0], set()).update(stages)
    assert {section for section, stages in counted.items() if not stages} == CHANGE_NO_RESULT


@pytest.mark.parametrize(
    ("tag", "key"), [(tag, key) for tag, (_, rows) in BASES.items() for key in rows], ids=str
)
def test_a_setting_of_the_data_changes_exactly_these_stages(folder, tag, key):
    value, expected = BASES[tag][1][key]
    assert changes(folder, base(tag), key, value) == expected


@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind, section in OPERATORS.items() for key in section.model_fields],
    ids=str,
)
def test_a_setting_of_an_operator_counts_for_it_alone(folder, kind, key):
    """Of a map, which may be told to conserve whatever its codec is: it conserves nothing."""
    chosen = {"kind": kind} | ({"dilations": [1, 2]} if "dilations" in OPERATORS[kind].model_fields else {})
    another = "linear" if kind != "linear" else "hybrid"
    before = base("file of a map") | {"model.operator": chosen}
    if key == "kind":
        assert changes(folder, before, "model.operator", {"kind": another}) == OPERATOR
    else:
        assert changes(folder, before, f"model.operator.{key}", OF_OPERATORS[key]) == OPERATOR


OF_ENCODERS: dict[str, Any] = {
    "width": 32,
    "depth": 3,
    "heads": 4,
    "ratio": 3,
    "points": 96,
    "radius": 0.2,
    "neighbours": 4,
    "smoothness": 1,
}


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, section in ENCODERS.items() for key in section.model_fields]
)
def test_every_key_of_every_encoder_counts(folder, kind, key):
    points = {"kind": "points", "points": 64, "radius": 0.25, "width": 16, "depth": 1, "heads": 2}
    chosen = {"grid": {"width": 16, "depth": 1, "heads": 2}, "points": points}[kind]
    if key == "kind":
        assert changes(folder, {}, "model.encoder", points) == AUTOENCODER
    else:
        before = {"model.encoder": chosen}
        assert changes(folder, before, f"model.encoder.{key}", OF_ENCODERS[key]) == AUTOENCODER


@pytest.mark.parametrize("stage", ["autoencoder", "operator", "diffusion", "consistency"])
@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind, section in OPTIMIZERS.items() for key in section.model_fields if key != "kind"],
    ids=str,
)
def test_a_setting_of_an_optimizer_counts_for_its_stage(folder, stage, kind, key):
    before = {f"training.{stage}.optimizer": {"kind": kind}}
    expected = SHARED[f"training.{stage}.steps"][1]
    assert changes(folder, before, f"training.{stage}.optimizer.{key}", OF_OPTIMIZERS[key]) == expected


@pytest.mark.parametrize(("use", "expected"), [("exact", AUTOENCODER), ("augment", OPERATOR), ("off", NONE)])
def test_exact_symmetries_count_for_the_codec_and_drawn_ones_for_the_operator(folder, use, expected):
    """Named for one problem or for all of them, and `off` is what a file says nothing of."""
    assert changes(folder, {}, "model.symmetries", {"galilean": use}) == expected
    one = {"model.symmetries": {"galilean": use}}
    assert changes(folder, one, "model.symmetries", {"burgers1d": {"galilean": use}}) == NONE
    changed = settings_changed(folder, {}, one)
    assert changed == {"exact": {"autoencoder"}, "augment": {"operator"}, "off": set()}[use]


def parts(folder: Path, overrides: dict[str, Any]) -> dict[str, dict[str, str]]:
    """By problem and split, the key of its trajectories."""
    configuration = load_configuration(folder / "config.yaml", {"execution.device": "cpu"} | overrides)
    return {
        name: {split: digest_of(derivation) for split, derivation in splits.items()}
        for name, splits in derive_parts(configuration, Store(folder)).items()
    }


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, set()),
        ({"trajectories": COUNTS | {"test": 20}}, {"test"}),
        ({"trajectories": COUNTS | {"validation": 20}}, {"validation"}),
        ({"trajectories": COUNTS | {"train": 20}}, {"train"}),
        ({"resolution": 16}, set()),
        ({"nu": 0.02}, {"train", "validation", "test"}),
    ],
)
def test_runs_share_the_trajectories_that_they_have_in_common(folder, changed, expected):
    """Alone or in a mix, of any name, at any of the solver's resolutions."""
    alone = BASES["generated burgers1d"][0]
    mix = {"data": {"source": "mix", "problems": {"flow": alone | changed, "map": PROBLEMS["map"]}}}
    (one,), other = parts(folder, {"data": alone}).values(), parts(folder, mix)["flow"]
    assert {split for split in one if one[split] != other[split]} == expected


def test_without_reserved_rows_the_validation_rows_come_behind_those_for_testing(folder):
    drawn = BASES["file"][0] | {"test_first": None}
    (before,) = parts(folder, {"data": drawn}).values()
    (after,) = parts(folder, {"data": drawn | {"trajectories": COUNTS | {"test": 20}}}).values()
    assert {split for split in before if before[split] != after[split]} == {"validation", "test"}


@pytest.mark.parametrize("tag", ["file", "file of a map"])
def test_other_bytes_in_the_file_change_all_stages(folder, tag):
    before = digests(folder, base(tag))
    (folder / "data.hdf5").write_bytes(b"other bytes!!!")
    after = digests(folder, base(tag))
    assert {name for name in STAGES if before[name] != after[name]} == ALL


def test_rows_that_mean_the_same_are_the_same(folder):
    """The rule that the last tenth validates is the configuration's business; what counts is who validates."""
    data = BASES["pdebench rows"][0]
    spelled_out = {"test": [0, 9], "train": [1000, 1018], "validation": [1018, 1020]}
    assert digests(folder, {"data": data}) == digests(folder, {"data": data | {"rows": spelled_out}})


def test_a_codec_that_is_not_trained_depends_on_no_setting_of_a_training(folder):
    untrained = {
        "training.autoencoder.steps": 0,
        "model.encoder.depth": 0,
        "model.decoder.depth": 0,
    }
    assert changes(folder, untrained, "seed", 1) == OPERATOR
    assert changes(folder, untrained, "training.autoencoder.batch_size", 4) == NONE
    assert changes(folder, untrained, "model.latent.dim", 2) == AUTOENCODER
    assert changes(folder, untrained, "model.symmetries", {"shift": "exact"}) == AUTOENCODER


# --- several problems, and ways of loading --------------------------------------------------------

MIX = {"data": {"source": "mix", "problems": PROBLEMS}}
TRAININGS = {"autoencoder", "operator", "diffusion", "consistency"}


def settings_changed(folder: Path, first: dict[str, Any], second: dict[str, Any]) -> set[str]:
    """Stages whose own settings differ, whatever their inputs are."""
    derivations = []
    for overrides in (first, second):
        read = load_configuration(folder / "config.yaml", {"execution.device": "cpu"} | overrides)
        derivations.append(derived.derivations(read, Store(folder)))
    return {name for name in STAGES if derivations[0][name]["settings"] != derivations[1][name]["settings"]}


@pytest.mark.parametrize("sampling", ["proportional", "difficulty_weighted"])
def test_sampling_counts_for_trainings_only(folder, sampling):
    changed = MIX | {"data.sampling": sampling}
    assert settings_changed(folder, MIX, changed) == TRAININGS
    assert changes(folder, MIX, "data.sampling", sampling) == AUTOENCODER


def test_validations_count_where_the_weights_of_the_problems_follow_them(folder):
    following = MIX | {"data.sampling": "difficulty_weighted"}
    for stage in TRAININGS:
        key = f"training.{stage}.validate_every"
        assert changes(folder, MIX, key, 7) == NONE
        assert settings_changed(folder, following, following | {key: 7}) == {stage}


def test_ranks_count_wherever_they_are(folder):
    assert digests(folder, {"execution.nodes": 2}) == digests(folder, {"execution.processes": 2})


def test_an_order_counts_where_windows_are_drawn(folder):
    changed = {"loading.order": "permutation"}
    assert settings_changed(folder, {}, changed) == {"autoencoder", "operator"}


def test_ways_of_loading_that_give_the_same_bits_do_not_count(folder):
    for mode in ("device", "memory", "stream"):
        assert changes(folder, MIX, "loading.mode", mode) == NONE
    changed = {"loading.mode": "encode"}
    assert settings_changed(folder, {}, changed) == {"cache_encode", "operator", "diffusion", "consistency"}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data.problems.flow.nu", 0.02, ALL),
        ("data.problems.map.space_stride", 2, ALL),
        ("data.problems.map.path", "elsewhere.hdf5", NONE),
        ("model.latent.tokens", {"flow": 8, "map": 4}, AUTOENCODER),
        ("execution.threads", 2, AUTOENCODER),  # trajectories that are solved here do not depend on them
    ],
)
def test_a_setting_of_one_of_several_problems_counts_like_that_of_one(folder, key, value, expected):
    assert changes(folder, MIX, key, value) == expected


def test_the_order_of_problems_does_not_count_and_their_names_do(folder):
    turned = {"data": MIX["data"] | {"problems": dict(reversed(PROBLEMS.items()))}}
    assert digests(folder, turned) == digests(folder, MIX)
    renamed = {"data": MIX["data"] | {"problems": {"stream": PROBLEMS["flow"], "map": PROBLEMS["map"]}}}
    before, after = digests(folder, MIX), digests(folder, renamed)
    assert {name for name in STAGES if before[name] != after[name]} == ALL


def test_each_file_of_a_mix_counts(folder):
    several = {"data": MIX["data"] | {"problems": {"a": BASES["file"][0], "b": PROBLEMS["map"]}}}
    two = several | {"data.problems.b.path": "elsewhere.hdf5"}
    before = digests(folder, two)
    (folder / "elsewhere.hdf5").write_bytes(b"other bytes!!!")
    assert digests(folder, two)["download"] != before["download"]


# --- no key is forgotten --------------------------------------------------------------------------


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= leaves(inner, f"{prefix}{name}.")
        elif name != "data":
            found.add(prefix + name)
    return found


def test_the_table_has_every_key_of_the_schema():
    assert set(SHARED) | set(SOLVING) | {"evaluation.outside"} == leaves(Configuration)
    assert set(OF_OPERATORS) == {key for section in OPERATORS.values() for key in section.model_fields} - {
        "kind"
    }
    assert set(OF_OPTIMIZERS) == {key for section in OPTIMIZERS.values() for key in section.model_fields} - {
        "kind"
    }
    assert {tag.removesuffix(" rows") for tag in BASES} == TAGGED.keys() - {"mix"}
    for tag, (_, rows) in BASES.items():
        section = TAGGED[tag.removesuffix(" rows")]
        expected = leaves(section, "data.") - CHOICES
        if section is PublishedData:  # either of two ways to select
            selections = {"data.rows", "data.trajectories"}
            assert selections <= expected
            expected -= selections
        found = {key for key in rows if key.startswith("data.")}
        if section is PublishedData:
            found = {key for key in found if not key.startswith(tuple(selections))}
        assert found == expected, tag
    rows_table = {key for key in BASES["pdebench rows"][1] if key.startswith("data.rows.")}
    assert rows_table == leaves(Rows, "data.rows.")
    assert leaves(Mix, "data.") == {"data.source", "data.problems", "data.sampling"}


def sections(annotation: Any = Configuration) -> set[type[BaseModel]]:
    """All sections that an annotation leads to, through unions, dictionaries and tags."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        inner = [sections(field.annotation) for field in annotation.model_fields.values()]
        return {annotation}.union(*inner)
    return set().union(*map(sections, typing.get_args(annotation)))


def names_read() -> set[str]:
    """Attributes and constant keys that the library reads, outside of the schema itself."""
    read = set()
    package = Path(ups.__file__).parent
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] == "config":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                read.add(node.slice.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                read |= {argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)}
    return read


def test_no_key_is_dead():
    """Each is read by name, but for those of sections that a constructor takes whole: they are its arguments."""
    from ups.kinds import module_of
    from ups.models.decoder import AnyPointDecoder
    from ups.models.encoders.grid import GridEncoder
    from ups.models.residual import SpaceTimeNetwork

    assert set(TAGGED.values()) < sections()
    assert len(sections()) > 24
    read = names_read()
    networks = {Transformer: (GridEncoder, AnyPointDecoder), Denoiser: (SpaceTimeNetwork,)}
    handed_on = {*networks, Correction, SymmetryUses, *OPERATORS.values(), *OPTIMIZERS.values(), LossTerms}
    dead = {
        f"{section.__name__}.{name}"
        for section in sections() - handed_on
        for name in section.model_fields
        if name not in read
    }
    assert dead == set()
    around = set(OperatorSettings.model_fields)
    assert around <= read
    assert set(SymmetryUses.model_fields) == set(SYMMETRIES)
    for section, built in networks.items():
        for network in built:
            assert set(section.model_fields) <= set(inspect.signature(network).parameters)
    for package, function, chosen, own in (
        ("ups.training.optimizers", "optimizer", OPTIMIZERS, {"kind"}),
        ("ups.training.schedules", "shape", SCHEDULES, {"kind"}),
        ("ups.losses.terms", "term", LOSS_TERMS, {"weight"}),
    ):
        for kind, section in chosen.items():
            taken = inspect.signature(getattr(module_of(package, kind), function)).parameters
            assert set(section.model_fields) - own <= set(taken), kind


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_network_takes_all_sizes_of_its_section(kind):
    """It is built of them, and refuses one more."""
    from tiny import LINE, PROBLEM

    from ups.models.operators import network_of

    section = OPERATORS[kind](kind=kind, **({"width": 16} if "width" in OPERATORS[kind].model_fields else {}))
    sizes = section.model_dump(exclude=set(OperatorSettings.model_fields))
    ends = {"inputs": 4, "outputs": 4, "extra_scalars": 0}
    network_of(sizes, {PROBLEM: LINE}, **ends)
    with pytest.raises(TypeError, match="unknown"):
        network_of(sizes | {"unknown": 1}, {PROBLEM: LINE}, **ends)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_takes_all_sizes_of_its_section(kind):
    from ups.kinds import module_of

    taken = inspect.signature(module_of("ups.models.encoders", kind).encoder).parameters
    assert set(ENCODERS[kind].model_fields) - {"kind"} <= set(taken)


def test_a_chain_holds_what_a_stage_needs_in_order():
    assert chain_to("download") == ["download"]
    assert chain_to("operator") == ["download", "autoencoder", "cache_encode", "operator"]
    assert chain_to("evaluate") == list(STAGES)
    for name, stage in STAGES.items():
        assert set(stage.inputs) < set(chain_to(name))


def test_a_stage_depends_on_the_kinds_that_it_uses():
    """What is found by its name is no import that could be followed."""
    chosen = {
        "training.operator.optimizer": {"kind": "muon"},
        "training.operator.loss_terms.gradient": {"weight": 0.5},
        "training.diffusion.schedule": {"kind": "linear"},
    }
    configuration = load_configuration(TINY, chosen)
    encoder, equation = {"ups.models.encoders.grid"}, {"ups.problems.equations.burgers1d"}
    network = {"ups.models.operators.transformer"} | encoder
    adamw, cosine = "ups.training.optimizers.adamw", "ups.training.schedules.cosine"
    expected = {
        "download": {"ups.tools.generation", "ups.physics.generators.burgers1d"},
        "autoencoder": encoder | {adamw, cosine},
        "cache_encode": encoder,
        "operator": network | {"ups.training.optimizers.muon", cosine, "ups.losses.terms.gradient"},
        "diffusion": network | {adamw, "ups.training.schedules.linear"},
        "consistency": network | {adamw, cosine},
        "evaluate": network,
    }
    assert {name: set(stage.modules(configuration)) for name, stage in STAGES.items()} == {
        name: modules | equation | {f"ups.stages.{name}"} for name, modules in expected.items()
    }
    # The linear path is part of every operator, and the denoiser convolves as `convolution` does.
    others = {
        f"ups.models.operators.{kind}" for kind in OPERATORS.keys() - {"linear", "convolution"}
    } - network
    for stage in STAGES.values():
        modules = code_identity(*stage.modules(configuration))["modules"].keys()
        assert not modules & others, stage.name
        assert {name for name in modules if name.startswith("ups.problems.equations.")} == equation
