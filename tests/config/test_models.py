"""Rules of model and training: each broken one is named with its field and its fix."""

from typing import Any

import pytest
import yaml
from command_line import CONFIGS, TINY, ups

from ups.config import Configuration, load_configuration
from ups.config.load import validate
from ups.config.model import OPERATORS, SYMMETRIES
from ups.config.numbers import parse_yaml
from ups.errors import ConfigurationError
from ups.problems import PROBLEMS

LINEAR_CODEC = {"model.encoder.depth": 0, "model.decoder.depth": 0}
SOLVED = {
    "source": "generated",
    "trajectories": {"train": 16, "validation": 4, "test": 4},
    "resolution": 32,
    "solver_resolution": 32,
}
EVOLVING = SOLVED | {"frames": 9, "frame_interval": 0.05}
DATA: dict[str, dict[str, Any]] = {
    "burgers": EVOLVING | {"nu": 0.01},
    "advection": EVOLVING | {"equation": "advection1d", "beta": 0.4},
    "darcy": SOLVED | {"equation": "darcy2d", "beta": 1.0},
    "periodic": EVOLVING | {"equation": "compressible1d", "eta": 0.01},
    "outflow": EVOLVING | {"equation": "compressible1d", "eta": 0.01, "boundary": "outflow"},
    "conserved": EVOLVING | {"equation": "compressible1d", "eta": 0.01, "variables": "conserved"},
}
HAVE = {
    "burgers": {"shift", "reflection", "galilean", "scaling"},
    "advection": {"shift", "offset", "scaling"},
    "darcy": {"scaling", "square"},
    "periodic": {"shift", "reflection", "galilean", "scaling"},
    "outflow": {"reflection", "scaling"},
    "conserved": {"shift", "reflection"},
}


def configured(data: str | dict[str, Any], overrides: dict[str, Any]) -> Configuration:
    chosen = DATA[data] if isinstance(data, str) else data
    return load_configuration(TINY, {"data": chosen} | LINEAR_CODEC | overrides)


def problem(data: str | dict[str, Any], overrides: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configured(data, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).partition("configuration is not valid\n  ")[2]


# --- symmetries -----------------------------------------------------------------------------------


USES = [(data, symmetry, use) for data in DATA for symmetry in SYMMETRIES for use in ("exact", "augment")]


@pytest.mark.parametrize(("data", "symmetry", "use"), USES)
def test_a_symmetry_that_the_equation_does_not_have_is_refused(data, symmetry, use):
    overrides = {f"model.symmetries.{symmetry}": use}
    if symmetry in HAVE[data]:
        assert configured(data, overrides).symmetries(next(iter(configured(data, {}).problems))).used(
            use
        ) == (symmetry,)
        return
    text = problem(data, overrides)
    equation = PROBLEMS[DATA[data].get("equation", "burgers1d")]
    assert text.startswith(f"model.symmetries.{symmetry}: {equation.title} with ")
    assert "does not have it" in text
    assert text.endswith(": write off")
    for had in HAVE[data]:
        assert had in text


def test_off_needs_no_quotes_and_a_resolved_file_reads_back():
    read = configured("burgers", {"model.symmetries": "{shift: off, galilean: exact, scaling: augment}"})
    uses = read.symmetries("burgers1d")
    assert (uses.used("off"), uses.used("exact"), uses.used("augment")) == (
        ("shift", "reflection", "offset", "square"),
        ("galilean",),
        ("scaling",),
    )
    assert validate(parse_yaml(yaml.safe_dump(read.model_dump(mode="json"))), where="there") == read


MIX = {"source": "mix", "problems": {"line": DATA["burgers"], "map": DATA["darcy"]}}


def test_each_problem_of_a_mix_has_its_own_symmetries():
    read = configured(MIX, {"model.symmetries": {"line": {"shift": "exact"}, "map": {"square": "augment"}}})
    assert read.symmetries("line").used("exact") == ("shift",)
    assert read.symmetries("map").used("augment") == ("square",)
    alone = configured(MIX, {"model.symmetries": {"line": {"shift": "exact"}}})
    assert alone.symmetries("map").used("off") == SYMMETRIES
    for_all = configured(MIX, {"model.symmetries": {"scaling": "augment"}})
    assert for_all.symmetries("line") == for_all.symmetries("map")


@pytest.mark.parametrize(
    ("symmetries", "message"),
    [
        (
            {"lines": {"shift": "exact"}},
            "model.symmetries: names lines, and the problems are line, map: name only",
        ),
        ({"line": {"shifts": "exact"}}, "model.symmetries.line.shifts: unknown key; did you mean 'shift'?"),
        (
            {"line": {"shift": "yes"}},
            "model.symmetries.line.shift: must be 'off', 'augment', 'average' or 'exact'",
        ),
        ({"line": "exact", "map": {}}, "model.symmetries.line: must be a section with keys (got 'exact')"),
        ({"shifts": "exact"}, "model.symmetries.shifts: unknown key; did you mean 'shift'?"),
        (
            {"shift": "always"},
            "model.symmetries.shift: must be 'off', 'augment', 'average' or 'exact' (got 'always')",
        ),
        (3, "model.symmetries: must be a section with keys (got 3)"),
        ({"shift": "exact"}, "model.symmetries.shift: 2D Darcy flow with dirichlet boundary"),
    ],
)
def test_mistakes_of_symmetries_are_named_where_they_are(symmetries, message):
    assert problem(MIX, {"model.symmetries": symmetries}).startswith(message)


# --- what needs a linear codec --------------------------------------------------------------------


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_amplitude_and_conservation_need_a_linear_codec(part):
    curved = {f"model.{part}.depth": 1}
    text = problem(
        "burgers", curved | {"model.symmetries.scaling": "exact", "model.operator.conserve": False}
    )
    assert text == (
        f"model.symmetries.scaling: exact needs a linear codec, and model.{part}.depth is not 0: set it to 0, or "
        "write augment"
    )
    text = problem("burgers", curved | {"model.operator.conserve": True})
    assert text == (
        f"model.operator.conserve: needs a linear codec, and model.{part}.depth is not 0: set it to 0, or "
        "conserve: false"
    )
    configured("burgers", curved | {"model.symmetries.scaling": "augment", "model.operator.conserve": False})
    # The amplitude of a map is a parameter, and what may leave the domain is not conserved.
    configured("darcy", curved | {"model.symmetries.scaling": "exact", "model.operator.conserve": True})
    configured("outflow", curved | {"model.operator.conserve": True})


def test_exact_diffusion_is_of_an_equation_that_has_it_and_of_a_linear_codec_that_stays():
    path = {"model.operator.linear_path": "exact", "model.operator.conserve": False}
    configured("burgers", path)
    key = "model.operator.linear_path: exact"
    assert problem("burgers", path | {"model.decoder.depth": 1}) == (
        f"{key} needs a linear codec, and model.decoder.depth is not 0: set it to 0, or write none"
    )
    assert problem("burgers", path | {"training.operator.joint": {"begin": 0.5}}) == (
        f"{key} needs a codec that stays as it is, and training.operator.joint trains it: write none, or joint: null"
    )
    for kind, title in (("darcy", "2D Darcy flow"), ("outflow", "1D compressible Navier-Stokes")):
        assert problem(kind, path) == f"{key} solves diffusion, and {title} has no such term: write none"


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_correction_must_be_trained(part):
    untrained = {"training.autoencoder.steps": 0, "model.operator.conserve": False}
    configured("burgers", untrained)
    assert problem("burgers", untrained | {f"model.{part}.depth": 2}) == (
        f"training.autoencoder.steps: 0 leaves the correction of the {part} untrained: raise it, or set "
        f"model.{part}.depth: 0"
    )


@pytest.mark.parametrize("stage", ["operator", "diffusion", "consistency"])
def test_other_trainings_take_a_step(stage):
    text = problem("burgers", {f"training.{stage}.steps": 0})
    assert text.startswith(f"training.{stage}.steps: must be greater than or equal to 1 (got 0)")


# --- operators ------------------------------------------------------------------------------------


def test_kinds_have_their_own_keys():
    for kind, section in OPERATORS.items():
        read = configured("burgers", {"model.operator": {"kind": kind} | SMALL.get(kind, {})})
        assert isinstance(read.model.operator, section)
    assert (
        type(configured("burgers", {"model.operator": {"dilations": [1, 2]}}).model.operator)
        is OPERATORS["convolution"]
    )


SMALL: dict[str, dict[str, Any]] = {
    "convolution": {"dilations": [1, 2]},
    "hybrid": {"dilations": [1, 2]},
    "fno": {"modes": 4},
    "ffno": {"modes": 4},
    "unet": {"levels": 2},
}


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (
            {"kind": "fourier"},
            "model.operator.kind: must be one of convolution, ffno, fno, hybrid",
        ),
        ({"kind": "hybrid", "depht": 3}, "model.operator.depht: unknown key;"),
        (
            {"kind": "transformer", "width": 0},
            "model.operator.width: must be greater than or equal to 1 (got 0)",
        ),
        (
            {"kind": "convolution", "dilations": []},
            "model.operator.dilations: Tuple should have at least 1 item",
        ),
        (3, "model.operator: must be a section with keys (got 3)"),
        (
            {"kind": "linear", "linear_path": "none"},
            "model.operator.linear_path: must be 'frozen' or 'trained' (got 'none')",
        ),
        (
            {"kind": "convolution", "dilations": [1, 8]},
            "model.operator.dilations: 8 reaches past the 8 tokens of burgers1d per axis: keep them below 8",
        ),
        (
            {"kind": "hybrid", "dilations": [9]},
            "model.operator.dilations: 9 reaches past the 8 tokens of burgers1d per axis: keep them below 8",
        ),
        (
            {"kind": "pdet_unet", "levels": 4},
            "model.operator.levels: 8 tokens of burgers1d cannot be halved 4 times: lower levels, or choose",
        ),
        (
            {"kind": "transformer", "window": 3},
            "model.operator.window: must be a multiple of 2 (got 3)",
        ),
        (
            {"kind": "hybrid", "dilations": [1], "window": 6},
            "model.operator.window: 6 does not divide the 8 tokens of burgers1d per axis: choose one of 2, 4, 8, null",
        ),
        (
            {"kind": "pdet_unet", "levels": 2, "window": 4},
            "model.operator.window: 4 does not divide the 2 tokens of burgers1d per axis, halved 2 times: choose one of "
            "2, null",
        ),
        (
            {"kind": "transformer", "depth": 1, "window": 4},
            "model.operator: window 4 with depth 1 is never shifted, and its tokens learn of no others: raise depth, or",
        ),
        (
            {"kind": "convolution", "dilations": [1], "window": 4},
            "model.operator.window: unknown key;",
        ),
        (
            {"kind": "transformer", "channel_separated": 2},
            "model.operator.channel_separated: must be ",
        ),
        (
            {"kind": "transformer", "linear_path": "fixed"},
            "model.operator.linear_path: must be 'none', 'trained', 'frozen'",
        ),
    ],
)
def test_mistakes_of_an_operator_are_named(operator, message):
    assert problem("burgers", {"model.operator": operator}).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_steps": [2, 4]}, "training.operator: time_steps 2, 4 must be different and hold 1"),
        ({"time_steps": [1, 2, 2]}, "training.operator: time_steps 1, 2, 2 must be different"),
        ({"time_steps": []}, "training.operator: time_steps  must be different and hold 1"),
        ({"time_steps": [1, 0]}, "training.operator.time_steps.1: must be greater than or equal to 1"),
        (
            {"time_steps": [1, 400]},
            "training.operator.rollout_steps: 800 steps need 801 frames, and a trajectory of burgers1d has",
        ),
        ({"norm": "l1"}, "training.operator.norm: must be 'physical' or 'frame'"),
    ],
)
def test_mistakes_of_the_operators_training_are_named(changes, message):
    told = problem("burgers", {f"training.operator.{key}": value for key, value in changes.items()})
    assert told.startswith(message)


def test_a_permutation_counts_windows_of_one_time_step():
    told = problem("burgers", {"training.operator.time_steps": [1, 2], "loading.order": "permutation"})
    assert told.startswith(
        "training.operator.time_steps: loading.order permutation counts windows of consecutive"
    )


def test_problems_of_a_mix_may_have_linear_paths_of_their_own():
    paths = {"line": "frozen", "map": "none"}
    read = configured(MIX, {"model.operator": {"kind": "ffno", "modes": 4, "linear_path": paths}})
    assert {name: read.linear_path(name) for name in read.problems} == paths
    assert problem(MIX, {"model.operator": {"kind": "ffno", "linear_path": {"line": "frozen"}}}) == (
        "model.operator.linear_path: names line, and the problems are line, map: give one value per problem"
    )
    assert problem(MIX, {"model.operator.linear_path": dict.fromkeys(paths, "alone")}) == (
        "model.operator.linear_path: alone leaves the network no problem: write model.operator: {kind: linear}"
    )
    assert problem(MIX, {"model.operator.linear_path": paths | {"map": "fixed"}}).startswith(
        "model.operator.linear_path.map: must be 'none', 'trained', 'frozen'"
    )


@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_between_walls_a_linear_path_is_a_matrix_that_must_not_be_too_large(kind):
    fine = DATA["darcy"] | {"resolution": 64, "solver_resolution": 64}
    chosen = {"model.operator": {"kind": kind, "linear_path": "frozen"}, "model.latent.tokens": 32}
    assert configured(fine, chosen | {"model.latent.dim": 4}).model.operator.linear_path == "frozen"
    assert problem(fine, chosen | {"model.latent.dim": 5}) == (
        "model.operator.linear_path: with walls it is a matrix, and 5120 rows for darcy2d are more than 4096: write "
        "none, or lower tokens or dim"
    )
    # Without walls it is one block for every displacement.
    long = DATA["burgers"] | {"resolution": 8192, "solver_resolution": 8192}
    configured(long, chosen | {"model.latent.tokens": 4096})


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            {"kind": "sgd"},
            "training.operator.optimizer.kind: must be one of adamw, adamw_8bit, muon, soap (got 'sgd')",
        ),
        (
            {},
            "training.operator.optimizer.kind: required key is missing; add it: one of adamw, adamw_8bit, muon, soap",
        ),
        (
            {"kind": "muon", "momentun": 0.9},
            "training.operator.optimizer.momentun: unknown key; did you mean 'momentum'?",
        ),
        (
            {"kind": "adamw", "momentum": 0.9},
            "training.operator.optimizer.momentum: unknown key; known keys here: kind",
        ),
        (
            {"kind": "muon", "momentum": 1.0},
            "training.operator.optimizer.momentum: must be less than 1 (got 1.0)",
        ),
        (7, "training.operator.optimizer: must be a section with keys (got 7)"),
    ],
)
def test_mistakes_of_an_optimizer_are_named(optimizer, message):
    assert problem("burgers", {"training.operator.optimizer": optimizer}).startswith(message)


def test_a_single_token_is_its_own_neighbour():
    """No dilation is below one."""
    single = {"model.latent.tokens": 1, "model.denoiser.dilations": [1]}
    nearest = {"kind": "convolution", "dilations": [1]}
    assert configured("burgers", single | {"model.operator": nearest}).tokens("burgers1d") == 1
    text = problem("burgers", single | {"model.operator": nearest | {"dilations": [2]}})
    assert text.startswith("model.operator.dilations: 2 reaches past the 1 tokens of burgers1d")


def test_steps_that_are_pushed_need_frames_too():
    rollout = {"training.operator.rollout_steps": 4}
    configured("burgers", rollout | {"training.operator.pushforward_steps": 4})
    text = problem("burgers", rollout | {"training.operator.pushforward_steps": 5})
    assert text.startswith(
        "training.operator.rollout_steps: 9 steps need 10 frames, and a trajectory of burgers1d has 9"
    )


def test_the_command_line_says_it_with_exit_code_2():
    done = ups("validate", CONFIGS / "burgers_tiny.yaml", "--set", "model.symmetries.square=exact")
    assert done.returncode == 2
    assert "model.symmetries.square: 1D Burgers with periodic boundary in primitive variables" in done.stderr


@pytest.mark.parametrize(
    ("operator", "tokens"),
    [
        ({"kind": "pdet_unet", "levels": 1}, 2),
        ({"kind": "transformer", "window": 4}, 4),
        ({"kind": "pdet_unet", "levels": 1, "window": 2}, 4),
    ],
    ids=str,
)
def test_shifts_within_a_token_are_no_group_for_what_puts_tokens_together(operator, tokens):
    chosen = {"model.operator": operator, "model.symmetries.shift": "average"}
    assert problem("burgers", chosen) == (
        f"model.symmetries.shift: average is over shifts within a token, and {operator['kind']} commutes with those by "
        f"{tokens} tokens: write augment or off"
    )
    configured("burgers", chosen | {"model.symmetries.shift": "augment"})


@pytest.mark.parametrize(("data", "longest"), [("burgers", "burgers1d"), (MIX, "line")], ids=["alone", "mix"])
def test_leads_that_make_one_position_are_no_more_than_the_longest_forecast_has(data, longest):
    key = "model.denoiser.leads_per_position"
    configured(data, {key: 8})
    assert problem(data, {key: 9}) == (
        f"{key}: 9 leads make one position, and the longest forecast, of {longest}, has 8: write at most 8"
    )
    configured("darcy", {key: 9})  # a map has one lead, and any number is more


def test_the_members_of_an_ensemble_advance_together():
    configured("burgers", {"evaluation.members": 64})
    assert problem("burgers", {"evaluation.members": 65}) == (
        "evaluation: batch_size 64 is below the 65 members of an ensemble, which advance together: raise batch_size, or "
        "lower members"
    )


def test_outside_the_training_range_there_must_be_states_to_turn():
    assert problem("darcy", {"evaluation.outside": {"amplitude": 2.0}}) == (
        "evaluation.outside: initial states are turned into others where they were generated, of Burgers or advection, "
        "and no problem here is: write null"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"execution.cuda_graphs": True, "execution.device": "cpu"},
            "execution.cuda_graphs: true needs a GPU, and execution.device is cpu: write auto",
        ),
        (
            {"execution.cuda_graphs": True, "execution.device": "cuda", "execution.processes": 2},
            "execution.cuda_graphs: true is for one process, and this run has execution.processes 2: write auto",
        ),
        (
            {"execution.cuda_graphs": True, "execution.device": "cuda", "execution.nodes": 2},
            "execution.cuda_graphs: true is for one process, and this run has execution.processes 1 on execution.nodes 2: write",
        ),
        (
            {"execution.processes": 2, "execution.nodes": 3},
            "training.autoencoder.batch_size: 8 is not a multiple of execution.processes 2 on execution.nodes 3, and every rank",
        ),
        (
            {"execution.precision": "tf32", "execution.device": "cpu"},
            "execution.precision: tf32 is a format of GPUs, and execution.device is cpu: write fp32",
        ),
        (
            {"execution.data_parallel": "ddp"},
            "execution.data_parallel: ddp is for several processes, and execution.processes is 1: write all_reduce",
        ),
        (
            {"execution.data_parallel": "fsdp", "execution.processes": 2, "execution.compile": True},
            "execution.data_parallel: fsdp gathers weights between blocks, and execution.compile: true makes one program",
        ),
        (
            {
                "execution.data_parallel": "fsdp",
                "execution.processes": 2,
                "training.operator.joint": {},
                "model.operator.conserve": False,
            },
            "execution.data_parallel: fsdp shares out the weights that a step finds in its model, and training.operator.joint",
        ),
        (
            {"execution.cuda_graphs": "maybe"},
            "execution.cuda_graphs: must be 'auto', true or false (got 'maybe')",
        ),
        (
            {"execution.compile": "reduce-overhead"},
            "execution.compile: must be false, true, 'blocks' or 'max-autotune' (got 'reduce-overhead')",
        ),
        (
            {"execution.activation_checkpointing": "product"},
            "execution.activation_checkpointing: must be 0 to 1000, or products (got 'product')",
        ),
    ],
)
def test_what_an_execution_cannot_be(changes, message):
    assert problem("burgers", changes).startswith(message)
