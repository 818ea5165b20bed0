"""The data of a run: every source and equation, one or several of them, and every rule that couples their keys."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.config import Configuration, load_configuration
from ups.config.data import (
    TAGGED,
    DataFile,
    EvolutionFile,
    MapFile,
    Mix,
    PublishedData,
    Rows,
)
from ups.config.load import validate
from ups.config.numbers import parse_yaml
from ups.errors import ConfigurationError
from ups.problems.equations.advection1d import GeneratedAdvection
from ups.problems.equations.burgers1d import GeneratedBurgers
from ups.problems.equations.compressible1d import GeneratedCompressible
from ups.problems.equations.darcy2d import GeneratedDarcy
from ups.problems.published import PUBLISHED

TINY_VALUES = parse_yaml(TINY.read_text())
COUNTS = {"train": 16, "validation": 4, "test": 4}
GENERATED = {"source": "generated", "trajectories": COUNTS, "resolution": 32, "solver_resolution": 64}
EVOLVING = GENERATED | {"frames": 9, "frame_interval": 0.05}
BURGERS = EVOLVING | {"nu": 0.01}
ADVECTION = EVOLVING | {"equation": "advection1d", "beta": 0.4}
DARCY = GENERATED | {"equation": "darcy2d", "beta": 1.0}
COMPRESSIBLE = EVOLVING | {"equation": "compressible1d", "eta": 0.01}
FILE = {"source": "file", "path": "rows.hdf5", "trajectories": COUNTS}
MAP_FILE = FILE | {"equation": "darcy2d"}
PUBLISHED_FILE = {"source": "pdebench", "dataset": "1D_Burgers_Sols_Nu0.01", "trajectories": COUNTS}
ROWS = {"test": [0, 4], "train": [1000, 1020]}
PUBLISHED_ROWS = {"source": "pdebench", "dataset": "2D_DarcyFlow_beta1.0_Train", "rows": ROWS}


def mix(**problems: dict[str, Any]) -> dict[str, Any]:
    return {"source": "mix", "problems": problems}


def configured(data: Any, **changes: Any) -> Configuration:
    return validate(TINY_VALUES | {"data": data} | changes, where="here")


def problem(data: Any, **changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configured(data, **changes)
    text = str(caught.value)
    assert text.startswith("here: configuration is not valid\n  ")
    return text.partition("\n  ")[2]


@pytest.mark.parametrize(
    ("data", "section", "name", "grid", "stored", "frames", "channels"),
    [
        (BURGERS, GeneratedBurgers, "burgers1d", (32,), (64,), 9, 1),
        (ADVECTION, GeneratedAdvection, "advection1d", (32,), (64,), 9, 1),
        (DARCY, GeneratedDarcy, "darcy2d", (32, 32), (64, 64), 2, 2),
        (COMPRESSIBLE, GeneratedCompressible, "compressible1d", (32,), (64,), 9, 3),
        (FILE, EvolutionFile, "burgers1d", None, None, None, 1),
        (
            FILE | {"equation": "compressible1d", "frames": 7},
            EvolutionFile,
            "compressible1d",
            None,
            None,
            7,
            3,
        ),
        (MAP_FILE, MapFile, "darcy2d", None, None, 2, 2),
        (PUBLISHED_FILE, PublishedData, "burgers1d", (256,), (1024,), 41, 1),
        (PUBLISHED_FILE | {"time_stride": 100}, PublishedData, "burgers1d", (256,), (1024,), 3, 1),
        (
            PUBLISHED_FILE | {"frames": 5, "space_stride": 1},
            PublishedData,
            "burgers1d",
            (1024,),
            (1024,),
            5,
            1,
        ),
        (PUBLISHED_ROWS, PublishedData, "darcy2d", (32, 32), (128, 128), 2, 2),
    ],
)
def test_each_source_and_equation_has_its_section_and_shape(
    data, section, name, grid, stored, frames, channels
):
    rollouts = {"training": _with_rollouts(1)} if frames == 3 else {}
    read = configured(data, **rollouts).data
    assert type(read) is section
    assert read.problem.name == name
    assert (read.kept_grid, read.stored_grid, read.kept_frames) == (grid, stored, frames)
    assert read.channels == channels
    assert set(configured(data, **rollouts).problems) == {name}


def _with_rollouts(steps: int) -> dict[str, Any]:
    training = parse_yaml(TINY.read_text())["training"]
    training["operator"]["rollout_steps"] = steps
    return training


def test_every_section_behind_a_tag_is_one_that_these_tests_read():
    read = [BURGERS, ADVECTION, DARCY, COMPRESSIBLE, FILE, MAP_FILE, PUBLISHED_FILE, mix(a=BURGERS)]
    assert {type(configured(data).data) for data in read} == set(TAGGED.values())


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # Which section is meant.
        ({}, "data.source: required key is missing; add it: one of generated, file, pdebench, mix"),
        ({"source": "generate"}, "data.source: must be one of generated, file, pdebench, mix (got 'generate')"),
        (
            GENERATED | {"equation": "burgers"},
            "data.equation: must be one of advection1d, burgers1d, compressible1d, darcy2d (got 'burgers')",
        ),
        (BURGERS | {"equation": None}, "data.equation: must be one of advection1d, "),
        (FILE | {"equation": "heat1d"}, "data.equation: must be "),
        ([BURGERS], "data: must be a section with keys (got [{"),
        # Keys of another section.
        (BURGERS | {"beta": 1.0}, "data.beta: unknown key; "),
        (ADVECTION | {"nu": 0.1}, "data.nu: unknown key; "),
        (DARCY | {"frames": 2}, "data.frames: unknown key; "),
        (COMPRESSIBLE | {"zeta": 0.1}, "data.zeta: unknown key; did you mean 'eta'?"),
        (COMPRESSIBLE | {"boundry": "outflow"}, "data.boundry: unknown key; did you mean 'boundary'?"),
        (MAP_FILE | {"time_stride": 2}, "data.time_stride: unknown key; known keys here: equation, path, seed,"),
        (PUBLISHED_FILE | {"test_first": 10}, "data.test_first: unknown key; "),
        (PUBLISHED_FILE | {"adress": "x"}, "data.adress: unknown key; did you mean 'address'?"),
        # Values.
        (COMPRESSIBLE | {"boundary": "dirichlet"}, "data.boundary: must be 'periodic' or 'outflow'"),
        (COMPRESSIBLE | {"variables": "entropy"}, "data.variables: must be 'primitive' or 'conserved'"),
        (BURGERS | {"resolution": 4}, "data.resolution: must be greater than or equal to 8 (got 4)"),
        (DARCY | {"solver_resolution": 48}, "data: solver_resolution 48 must be a multiple of resolution 32"),
        (ADVECTION | {"frames": 1}, "data.frames: must be greater than or equal to 2 (got 1)"),
        (
            EVOLVING | FILE | {"nu": 1},
            "data.resolution: unknown key; ",
        ),
        (FILE | {"path": ""}, "data.path: "),
        (FILE | {"path": "a\0b"}, "data.path: holds a NUL character"),
        (FILE | {"test_first": 3}, "data: trajectories.test 4 is above test_first 3"),
        (FILE | {"boundary": "outflow"}, "data: boundary outflow is none of burgers1d: choose one of periodic"),
        (
            FILE | {"equation": "compressible1d", "boundary": "dirichlet"},
            "data: boundary dirichlet is none of compressible1d: choose one of periodic, outflow",
        ),
        (FILE | {"variables": "conserved"}, "data: variables: burgers1d has no others than its stored ones"),
        # Published files.
        (
            PUBLISHED_FILE | {"dataset": "1D_Burgers_Nu0.01"},
            "data: dataset '1D_Burgers_Nu0.01' is not published: did you mean '1D_Burgers_Sols_Nu0.01'? `ups data",
        ),
        (PUBLISHED_FILE | {"dataset": "zzz"}, "data: dataset 'zzz' is not published: `ups data list` shows all"),
        (PUBLISHED_FILE | {"rows": ROWS}, "data: give either trajectories (numbers per split, of the whole file) or"),
        (
            {key: value for key, value in PUBLISHED_FILE.items() if key != "trajectories"},
            "data: give either trajectories",
        ),
        (
            PUBLISHED_FILE | {"trajectories": COUNTS | {"test": 1001}},
            "data: trajectories.test 1001 is above 1000, PDEBench's test set: lower it",
        ),
        (
            PUBLISHED_ROWS | {"rows": ROWS | {"train": [9990, 10_001]}},
            "data: rows end at 10001, and 2D_DarcyFlow_beta1.0_Train has 10000: lower them",
        ),
        (PUBLISHED_ROWS | {"space_stride": 3}, "data: space_stride 3 does not divide the 128 points of 2D_Darcy"),
        (PUBLISHED_FILE | {"variables": "conserved"}, "data: variables: burgers1d has no others"),
        (
            PUBLISHED_FILE | {"frames": 42},
            "data: frames 42 are more than the 41 that time_stride 5 leaves of 1D_Burgers_Sols_Nu0.01: lower frames",
        ),
        (
            PUBLISHED_FILE | {"time_stride": 3},
            "data: time_stride 3 does not divide the 200 intervals of 1D_Burgers_Sols_Nu0.01: choose another, or",
        ),
        # Rows.
        (PUBLISHED_ROWS | {"rows": {"test": [0, 4]}}, "data.rows.train: required key is missing; add it"),
        (PUBLISHED_ROWS | {"rows": ROWS | {"tests": [0, 4]}}, "data.rows.tests: unknown key; did you mean 'test'?"),
        (PUBLISHED_ROWS | {"rows": ROWS | {"test": [0, 4, 8]}}, "data.rows.test: "),
        (PUBLISHED_ROWS | {"rows": ROWS | {"test": [4, 4]}}, "data.rows: test [4, 4] is no range: write [start, stop)"),
        (PUBLISHED_ROWS | {"rows": ROWS | {"test": [-1, 4]}}, "data.rows: test [-1, 4] is no range"),
        (
            PUBLISHED_ROWS | {"rows": ROWS | {"test": [0, 1001]}},
            "data.rows: test [0, 1001] must end at 1000 or before: the first 1000 rows are PDEBench's test set",
        ),
        (
            PUBLISHED_ROWS | {"rows": ROWS | {"train": [999, 1020]}},
            "data.rows: train [999, 1020] must start at 1000 or later: the first 1000 rows are PDEBench's test",
        ),
        (PUBLISHED_ROWS | {"rows": ROWS | {"train": [0, 500]}}, "data.rows: train [0, 500] must start at 1000"),
        (
            PUBLISHED_ROWS | {"rows": ROWS | {"validation": [0, 5]}},
            "data.rows: validation [0, 5] must start at 1000 or later",
        ),
        (
            PUBLISHED_ROWS | {"rows": ROWS | {"validation": [1019, 1025]}},
            "data.rows: train [1000, 1020] and validation [1019, 1025] overlap: move one of them",
        ),
        (
            PUBLISHED_ROWS | {"rows": ROWS | {"train": [1000, 1001]}},
            "data.rows: train [1000, 1001] is too short to leave a tenth for validation: lengthen it",
        ),
        # Mixes: the same, with the name of the problem.
        ({"source": "mix"}, "data.problems: required key is missing; add it"),
        (mix(), "data.problems: "),
        (mix(a=BURGERS) | {"sampling": "random"}, "data.sampling: must be 'balanced', 'proportional' or "),
        (mix(a=BURGERS) | {"samplin": "balanced"}, "data.samplin: unknown key; did you mean 'sampling'?"),
        (mix(a=BURGERS) | {"nu": 1}, "data.nu: unknown key; known keys here: problems, sampling, source"),
        (mix(a=BURGERS | {"nuu": 1}), "data.problems.a.nuu: unknown key; did you mean 'nu'?"),
        (mix(a=BURGERS, b=DARCY | {"beta": 0}), "data.problems.b.beta: must be greater than 0 (got 0)"),
        (mix(a=5), "data.problems.a: must be a section with keys (got 5)"),
        (mix(a={"source": "web"}), "data.problems.a.source: must be one of "),
        (mix(a=GENERATED | {"equation": "x"}), "data.problems.a.equation: must be one of advection1d, burgers1d"),
        (mix(a=PUBLISHED_ROWS | {"rows": ROWS | {"test": [4, 4]}}), "data.problems.a.rows: test [4, 4] is no"),
        (mix(a=BURGERS | {"solver_resolution": 48}), "data.problems.a: solver_resolution 48 must be a"),
        ({"source": "mix", "problems": {"a b": BURGERS}}, "data.problems.a b: must be 1 to 64 letters"),
        ({"source": "mix", "problems": {"../x": BURGERS}}, "data.problems.../x: must be 1 to 64 letters"),
        # Names that are also those of sections.
        (mix(file=FILE | {"spaced": 1}), "data.problems.file.spaced: unknown key; "),
        (mix(one=BURGERS | {"nu": 0}), "data.problems.one.nu: must be greater than 0"),
        (mix(mix=BURGERS | {"nu": 0}), "data.problems.mix.nu: must be greater than 0"),
        (mix(pdebench=MAP_FILE | {"frames": 1}), "data.problems.pdebench.frames: unknown key; "),
    ],
)  # fmt: skip
def test_each_mistake_is_named(data, message):
    assert problem(data).startswith(message)


def test_a_mix_may_not_hold_a_mix():
    text = problem(mix(a=mix(b=BURGERS)))
    assert text.startswith("data.problems.a.source: must be one of generated, file, pdebench")
    assert "mix" not in text.partition("(got")[0]


def test_all_mistakes_of_a_mix_are_named_at_once():
    text = problem(mix(a=BURGERS | {"nu": 0}, b=DARCY | {"betta": 1}))
    assert [line.strip().partition(":")[0] for line in text.splitlines()] == [
        "data.problems.a.nu",
        "data.problems.b.betta",
    ]


# --- rows -----------------------------------------------------------------------------------------


@given(start=st.integers(1000, 9000), length=st.integers(2, 900))
def test_without_a_word_the_last_tenth_of_the_train_rows_validates(start, length):
    rows = Rows(test=(0, 10), train=(start, start + length))
    train, validation = rows.split_train()
    assert (train[0], validation[1]) == (start, start + length)
    assert train[1] == validation[0]
    assert validation[1] - validation[0] == -(-length // 10) >= 1
    assert train[1] > train[0]


def test_validation_rows_may_lie_on_either_side_of_the_train_rows():
    for validation in ((1020, 1025), (1500, 1600), (1000, 1010)):
        train = (1010, 1020)
        rows = Rows(test=(0, 10), train=train, validation=validation)
        assert rows.split_train() == (train, validation)


def test_counts_of_rows_are_those_of_their_ranges():
    read = configured(PUBLISHED_ROWS).data
    assert isinstance(read, PublishedData)
    assert read.counts.model_dump() == {"train": 18, "validation": 2, "test": 4}
    read = configured(PUBLISHED_ROWS | {"rows": ROWS | {"validation": [5000, 5007]}}).data
    assert read.counts.model_dump() == {"train": 20, "validation": 7, "test": 4}


# --- what couples data and models -----------------------------------------------------------------

MIXED = mix(line=BURGERS, square=DARCY)


def test_tokens_are_one_number_or_one_per_problem():
    assert configured(MIXED).tokens("square") == 8
    model = TINY_VALUES["model"] | {"latent": {"tokens": {"line": 16, "square": 4}, "dim": 4}}
    read = configured(MIXED, model=model)
    assert (read.tokens("line"), read.tokens("square")) == (16, 4)
    for tokens in ({"line": 16}, {"line": 16, "square": 4, "cube": 4}, {"burgers1d": 16, "square": 4}):
        model = TINY_VALUES["model"] | {"latent": {"tokens": tokens, "dim": 4}}
        text = problem(MIXED, model=model)
        assert text == (
            f"model.latent.tokens: names {', '.join(sorted(tokens))}, and the problems are line, square: "
            "give one number per problem"
        )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (0, "model.latent.tokens"),
        ("many", "model.latent.tokens"),
        ({"line": 0, "square": 4}, "model.latent.tokens"),
        (
            {"line": 8, "square": 5},
            "model.latent.tokens: 5 tokens do not divide the 32 grid points of square",
        ),
        ({"line": 8, "a b": 5}, "model.latent.tokens"),
        (None, "model.latent.tokens"),
        ([8, 8], "model.latent.tokens"),
    ],
)
def test_wrong_tokens_are_named(tokens, message):
    model = TINY_VALUES["model"] | {"latent": {"tokens": tokens, "dim": 4}}
    text = problem(MIXED, model=model)
    assert text.startswith(message)
    assert "constrained" not in text
    assert "function-" not in text
    assert "[int" not in text


@pytest.mark.parametrize(
    ("network", "size", "fits_a_line"),
    [
        ("encoder", {"width": 16, "heads": 2}, True),  # 8 = 2 axes * 2 pairs * 2
        ("encoder", {"width": 12, "heads": 2}, True),  # 6 channels are three pairs, and not two of each axis
        ("decoder", {"width": 30, "heads": 3}, True),
        ("operator", {"kind": "transformer", "conserve": False, "width": 36, "heads": 2}, True),
        ("operator", {"kind": "hybrid", "conserve": False, "dilations": [1], "width": 30, "heads": 3}, True),
        ("operator", {"kind": "transformer", "conserve": False, "width": 18, "heads": 1}, True),
        ("operator", {"kind": "transformer", "conserve": False, "width": 18, "heads": 2}, False),
    ],
)
def test_channels_of_a_head_come_in_pairs_for_every_axis(network, size, fits_a_line):
    model = TINY_VALUES["model"] | {network: size}
    pairs = size["width"] // size["heads"]
    if fits_a_line:
        configured(BURGERS, model=model)
    else:
        assert problem(BURGERS, model=model).startswith(f"model.{network}: width / heads = {pairs} is odd")
    if pairs % 4 == 0:
        configured(MIXED, model=model)
        return
    for data in (DARCY, MIXED):
        text = problem(data, model=model)
        if fits_a_line:
            assert text.startswith(
                f"model.{network}: width / heads = {pairs} is no multiple of 4; rotary positions share the pairs "
                "of channels among 2 axes"
            )


DILATED = {"kind": "convolution", "conserve": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "model.latent.tokens": {"line": 16, "square": 8},
                "model.operator": DILATED | {"dilations": [1, 8]},
            },
            "model.operator.dilations: 8 reaches past the 8 tokens of square per axis: keep them below 8",
        ),
        ({"model.operator": DILATED | {"dilations": [1, 7, 1]}}, None),
        (
            {"training.operator.rollout_steps": 9},
            "training.operator.rollout_steps: 9 steps need 10 frames, and a trajectory of line has 9",
        ),
        ({"training.operator.rollout_steps": 8}, None),  # the map takes its one step all the same
        (
            {"data.problems.square.trajectories": {"train": 4, "validation": 1, "test": 1}},
            "training.operator.residual_fraction: 0.125 of 4 train trajectories leaves none for the operator or none "
            "for the diffusion model: raise the train trajectories of square",
        ),
        (
            {"data.problems.square.resolution": 20, "data.problems.square.solver_resolution": 20},
            "model.latent.tokens: 8 tokens do not divide the 20 grid points of square: choose one of 1, 2, 4, 5, 10",
        ),
        ({"data.problems.square.trajectories.train": 16, "execution.processes": 4}, None),
    ],
)
def test_every_problem_of_a_mix_must_fit_the_models(tmp_path, changes, message):
    path = tmp_path / "mix.yaml"
    path.write_text(yaml.safe_dump(TINY_VALUES | {"data": MIXED}))
    if message is None:
        load_configuration(path, changes)
        return
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("grid", [(32, 24), (32,)])
def test_every_axis_must_be_divided_by_the_tokens(grid):
    read = configured(MAP_FILE)
    assert read.grid_problem("darcy2d", (32, 24), 2) is None
    assert read.grid_problem("darcy2d", None, None) is None
    assert "8 tokens do not divide the 20 grid points of darcy2d" in (
        read.grid_problem("darcy2d", (32, 20), 2) or ""
    )


# --- names, order, sampling, paths ----------------------------------------------------------------


def test_problems_are_named_and_a_single_one_is_called_by_its_equation():
    read = configured(mix(slow=ADVECTION, fast=ADVECTION | {"beta": 4.0}) | {"sampling": "proportional"})
    assert {name: data.problem.name for name, data in read.problems.items()} == {
        "slow": "advection1d",
        "fast": "advection1d",
    }
    assert read.sampling == "proportional"
    assert configured(mix(a=BURGERS)).sampling == "balanced"
    single = configured(BURGERS)
    assert (list(single.problems), single.sampling) == (["burgers1d"], "balanced")


def test_the_order_in_which_problems_are_written_does_not_matter():
    """A digest knows no order of keys, so nothing that is computed may depend on one."""
    first, second = (
        configured(mix(**problems)) for problems in ({"a": BURGERS, "b": DARCY}, {"b": DARCY, "a": BURGERS})
    )
    assert list(first.problems) == list(second.problems) == ["a", "b"]


@pytest.mark.parametrize("name", ["keys", "train", "items", "0", "a-b", "A_1", "file"])
def test_names_of_problems_are_free(name):
    assert list(configured({"source": "mix", "problems": {name: DARCY}}).problems) == [name]


def test_a_path_inside_a_mix_starts_at_the_configuration(tmp_path):
    path = tmp_path / "here" / "mix.yaml"
    path.parent.mkdir()
    absolute = tmp_path / "there.hdf5"
    data = mix(a=FILE, b=MAP_FILE | {"path": "../maps.hdf5"}, c=FILE | {"path": str(absolute)}, d=BURGERS)
    path.write_text(yaml.safe_dump(TINY_VALUES | {"data": data}))
    read = load_configuration(path)
    assert isinstance(read.data, Mix)
    paths = {name: data.path for name, data in read.data.problems.items() if isinstance(data, DataFile)}
    expected = {"a": path.parent / "rows.hdf5", "b": tmp_path / "maps.hdf5", "c": absolute}
    assert {name: Path(value) for name, value in paths.items()} == expected
    again = validate(parse_yaml(yaml.safe_dump(read.model_dump(mode="json"))), where="there")
    assert again == read


@pytest.mark.parametrize(
    "data",
    [BURGERS, ADVECTION, DARCY, COMPRESSIBLE, FILE, MAP_FILE, PUBLISHED_FILE, PUBLISHED_ROWS, MIXED],
    ids=lambda data: data.get("equation", data["source"]),
)
def test_a_written_configuration_reads_back_equal(data):
    read = configured(data)
    assert validate(parse_yaml(yaml.safe_dump(read.model_dump(mode="json"))), where="here") == read


@pytest.mark.parametrize("dataset", PUBLISHED)
def test_every_published_file_can_be_asked_for(dataset):
    read = configured(PUBLISHED_ROWS | {"dataset": dataset}).data
    assert isinstance(read, PublishedData)
    assert read.kept_grid == (PUBLISHED[dataset].resolution // 4,) * len(read.problem.axes)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mode", "ram", "loading.mode: must be 'auto', 'device', 'memory', 'stream' or 'encode' (got 'ram')"),
        ("order", "random", "loading.order: must be 'independent' or 'permutation' (got 'random')"),
        ("read_ahead", 0, "loading.read_ahead: must be greater than or equal to 1 (got 0)"),
        ("zzz", 4, "loading.zzz: unknown key; known keys here: mode, order, read_ahead"),
    ],
)
def test_mistakes_of_loading_are_named(key, value, message):
    assert problem(BURGERS, loading={key: value}).startswith(message)


ODD_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 20_000), st.floats(), st.text(max_size=12),
    st.lists(st.integers(0, 3000), max_size=3),
    st.dictionaries(st.sampled_from(["source", "a", "test", "train"]), st.integers(), max_size=2),
)  # fmt: skip
EVERYTHING = sorted(
    {key for section in TAGGED.values() for key in section.model_fields} | {"none", "problems.a"}
)


@settings(max_examples=400, deadline=None)
@given(
    base=st.sampled_from(
        [BURGERS, DARCY, COMPRESSIBLE, FILE, MAP_FILE, PUBLISHED_FILE, PUBLISHED_ROWS, MIXED]
    ),
    key=st.sampled_from(EVERYTHING),
    value=ODD_VALUES,
    mixed=st.booleans(),
)
def test_any_value_anywhere_is_accepted_or_explained(base, key, value, mixed):
    data = base | {key: value}
    text = ""
    try:
        configured(mix(a=data) if mixed else data)
    except ConfigurationError as error:
        text = str(error)
    assert len(text) < 2500
    for internal in (
        "Value error",
        "tagged",
        "constrained",
        "function-",
        "generated burgers1d",
        "data.one",
        "data.mix",
    ):
        assert internal not in text
