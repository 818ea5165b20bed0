"""A configuration is right, or the message names the file, the field and what to do."""

import contextlib
import math
import re

import pytest
import yaml
from command_line import CONFIGS, TINY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ups.config import load_configuration
from ups.config.load import parse_overrides, validate
from ups.config.numbers import parse_yaml
from ups.errors import ConfigurationError

TINY_VALUES = parse_yaml(TINY.read_text())


def problem(overrides: dict) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(TINY, overrides)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert text.startswith(f"{TINY} with --set {', '.join(overrides)}: configuration is not valid\n  ")
    return text.partition("\n  ")[2]


@pytest.mark.parametrize(
    "path",
    sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("known/*.yaml")]),
    ids=lambda path: path.stem,
)
def test_every_file_of_the_project_is_valid(path):
    assert load_configuration(path).name == path.stem


def test_the_small_evaluation_trains_nothing_that_the_full_one_has_trained():
    small, full = (
        load_configuration(CONFIGS / "known" / f"{name}.yaml").model_dump()
        for name in ("small_eval_burgers", "train_burgers_32dim_golden")
    )
    assert (small["evaluation"].pop("small"), small["evaluation"].pop("members")) == (16, 4)
    assert (full["evaluation"].pop("small"), full["evaluation"].pop("members")) == (None, 16)
    assert small | {"name": None} == full | {"name": None}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.nu", "0", "data.nu: must be greater than 0 (got 0)"),
        ("data.nu", "-0.01", "data.nu: must be greater than 0 (got -0.01)"),
        ("data.nu", ".nan", "data.nu: must be a finite number (got nan)"),
        ("data.nu", "1e400", "data.nu: must be a finite number (got inf)"),
        ("data.nu", "1e300", "data.nu: must be less than or equal to 1000000000 (got 1e+300)"),
        (
            "data.nu",
            "small",
            "data.nu: must be a valid number, unable to parse string as a number (got 'small')",
        ),
        ("data.nu", "yes", "data.nu: must be a number (got true)"),
        ("data.nu", "null", "data.nu: must be a valid number (got null)"),
        (
            "data.frame_interval",
            "1e9",
            "data.frame_interval: must be less than or equal to 100 (got 1000000000.0)",
        ),
        ("seed", "-1", "seed: must be greater than or equal to 0 (got -1)"),
        (
            "seed",
            "99999999999999999999",
            "seed: must be less than 9007199254740992 (got 99999999999999999999)",
        ),
        ("execution.threads", "100000", "execution.threads: must be less than or equal to 1024 (got 100000)"),
        ("training.operator.steps", "true", "training.operator.steps: must be a number (got true)"),
        (
            "training.operator.steps",
            "1.5",
            "training.operator.steps: must be a valid integer, got a number with a fractional part (got 1.5)",
        ),
        ("training.operator.betas", "[0.9, 1]", "training.operator.betas.1: must be less than 1 (got 1)"),
        ("tracking.wandb", "on", "tracking.wandb: must be 'disabled', 'offline' or 'online' (got true)"),
        ("name", "12", "name: must be text (got 12); put it in quotes"),
        ("model.encoder", "[1, 2]", "model.encoder: must be a section with keys (got [1, 2])"),
        ("training", "null", "training: must be a section with keys (got null)"),
        ("data", "5", "data: must be a section with keys (got 5)"),
        ("data.source", "web", "data.source: must be one of generated, file, pdebench, mix (got 'web')"),
        ("data.source", "null", "data.source: must be one of generated, file, pdebench, mix (got null)"),
        (
            "data.path",
            '"a\\0b"',
            "data.path: unknown key; known keys here: amplitude, equation, frame_interval, frames, ",
        ),
        # Unknown keys, at every depth.
        ("trainning", "1", "trainning: unknown key; did you mean 'training'?"),
        ("beta", "1", "beta: unknown key; known keys here: cache_encode, data,"),
        ("data.reslution", "1", "data.reslution: unknown key; did you mean 'resolution'?"),
        ("data.trajectories.tests", "1", "data.trajectories.tests: unknown key; did you mean 'test'?"),
        ("training.operator.stepz", "1", "training.operator.stepz: unknown key; did you mean 'steps'?"),
        (
            "training.diffusion.noise.sigmamin",
            "1",
            "training.diffusion.noise.sigmamin: unknown key; did you mean 'sigma_min'?",
        ),
        ("model.latent.zzz", "1", "model.latent.zzz: unknown key; known keys here: dim, floor, tokens"),
        # Rules over several keys say what to change.
        (
            "model.encoder.heads",
            "3",
            "model.encoder: heads 3 do not divide width 16: choose width = heads * an even",
        ),
        ("model.encoder", "{width: 12, heads: 4}", "model.encoder: width / heads = 3 is odd"),
        *(
            (
                "model.operator",
                f"{{kind: {kind}, width: 12, heads: 4}}",
                "model.operator: width / heads = 3 is odd",
            )
            for kind in ("transformer", "pdet_unet", "hybrid")
        ),
        (
            "model.latent.tokens",
            "7",
            "model.latent.tokens: 7 tokens do not divide the 32 grid points of burgers1d: choose one of 1, 2, 4, 8, 16, 32",
        ),
        ("data.solver_resolution", "48", "data: solver_resolution 48 must be a multiple of resolution 32"),
        ("training.operator.warmup_steps", "20", "training.operator: warmup_steps 20 must be below steps 20"),
        (
            "training.operator.final_learning_rate",
            "1",
            "training.operator: final_learning_rate 1 is above learning_rate 0.001: lower final_learning_rate",
        ),
        (
            "execution.processes",
            "3",
            "training.autoencoder.batch_size: 8 is not a multiple of execution.processes 3",
        ),
        (
            "training.operator.accumulation",
            "3",
            "training.operator.accumulation: 3 equal parts of 8 samples are impossible",
        ),
        (
            "training.operator.residual_fraction",
            "0.01",
            "training.operator.residual_fraction: 0.01 of 16 train",
        ),
        (
            "training.operator.rollout_steps",
            "9",
            "training.operator.rollout_steps: 9 steps need 10 frames, and a trajectory of burgers1d has 9: lower rollout_steps",
        ),
        (
            "model.denoiser.dilations",
            "[1, 8]",
            "model.denoiser.dilations: 8 reaches past the 8 tokens of burgers1d",
        ),
        (
            "training.operator",
            "{steps: 9, batch_size: 8, warmup_steps: 0, rollout_steps: 6, pushforward_steps: 3}",
            "training.operator.rollout_steps: 9 steps need 10 frames, and a trajectory of burgers1d has 9",
        ),
        (
            "training.consistency.second_sigma",
            "0.01",
            "training.consistency.second_sigma: 0.01 is not above sigma_min 0.05 of training.diffusion.noise",
        ),
        (
            "training.diffusion.noise.sigma_min",
            "11",
            "training.diffusion.noise: sigma_min 11 must be below centre",
        ),
    ],
)
def test_each_mistake_is_named(key, value, message):
    assert problem({key: value}).startswith(message)


def test_all_mistakes_are_named_at_once():
    text = problem({"seed": -1, "data.nu": 0, "model.latent.dim": 0})
    assert [line.strip().partition(":")[0] for line in text.splitlines()] == [
        "seed",
        "data.nu",
        "model.latent.dim",
    ]


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "a/b", "-rf", "~", "", "a b", "ä", "a\n", ".", "a" * 65, "\0"]
)
def test_a_name_cannot_leave_its_directory(name):
    assert (
        problem({"name": f'"{name}"' if name != "\0" else '"\\0"'}).startswith(
            "name: must be 1 to 64 letters, digits, _ or -"
        )
        or name == "a\n"
    )  # YAML folds the line end of a quoted text into a space
    with pytest.raises(ConfigurationError, match="name: must be 1 to 64"):
        validate(TINY_VALUES | {"name": name}, where="here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; it must map keys to values\n  fix: start from a file in configs/"),
        (b"# only a comment\n", "is empty"),
        (b"- a\n- b\n", "holds a list; it must map keys to values"),
        (b"just text", "holds a str; it must map keys to values"),
        (b"\x89HDF\r\n\x1a\n\xff", "is not a text file\n  fix: start from a file in configs/"),
        (b"name: \x00", "is not valid YAML: it holds characters that text does not"),
        (
            b"data:\n\tnu: 1\n",
            "is not valid YAML: found character '\\t' that cannot start any token (line 2, column 1)",
        ),
        (b"name: a\nseed: 0\nname: b\n", "is not valid YAML: key 'name' appears twice (line 3, column 1)"),
        (b"data:\n  nu: 1\n  nu: 2\n", "is not valid YAML: key 'nu' appears twice (line 3, column 3)"),
        (b"name: [\n", "is not valid YAML: expected the node content"),
        (b"!!python/object/apply:os.system [ls]", "is not valid YAML: could not determine a constructor"),
        (b"? [a]\n: 1\n", "is not valid YAML: a key must be a word or a number (line 1, column 3)"),
        (b"seed: " + b"9" * 5000, "is not valid YAML: the number has too many digits (line 1, column 7)"),
        (
            b"a: &x 1\nb: &x 2\n",
            "is not valid YAML: found duplicate anchor 'x'; first occurrence, second occurrence",
        ),
        (b"[" * 5000, "is not valid YAML: sections are nested too deeply"),
        (b"1: 2\n", "configuration is not valid\n  name: required key is missing; add it"),
        (b"data: &a {x: *a}\n", "configuration is not valid"),
    ],
)
def test_each_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_tabs_come_with_their_fix(tmp_path):
    (tmp_path / "run.yaml").write_text("data:\n\tnu: 1\n")
    with pytest.raises(ConfigurationError, match="fix: indent with spaces, not with tabs"):
        load_configuration(tmp_path / "run.yaml")


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.yaml: no such file\n  fix: check the path"):
        load_configuration(tmp_path / "absent.yaml")
    with pytest.raises(ConfigurationError, match=f"{tmp_path}: cannot be read: Is a directory"):
        load_configuration(tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_configuration("a\0b")


@pytest.mark.parametrize("missing", ["name", "data", "model", "training"])
def test_a_missing_key_is_named(missing):
    values = {key: value for key, value in TINY_VALUES.items() if key != missing}
    with pytest.raises(ConfigurationError, match=f"\n  {missing}: required key is missing; add it$"):
        validate(values, where="here")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1e4", 1e4), ("1E+4", 1e4), ("-2e3", -2e3), ("1.", 1.0), (".5", 0.5), ("1_000", 1000),
        ("1_0.5", 10.5), (".inf", math.inf), ("-.inf", -math.inf), ("0", 0), ("-7", -7), ("+7", 7),
        # YAML 1.1 would make these 64, 90, a date and another date.
        ("0100", "0100"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("2024-13-45", "2024-13-45"),
        ("e4", "e4"), ("1e", "1e"), (".", "."), ("true", True), ("null", None), ("''", ""),
    ],
)  # fmt: skip
def test_numbers_are_those_of_yaml_1_2(text, value):
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_not_a_number_is_read_as_such():
    assert math.isnan(parse_yaml(".nan"))


def test_a_number_means_the_same_in_a_file_and_in_an_override(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        TINY.read_text().replace("operator: {steps: 20", "operator: {learning_rate: 3e-4, steps: 20")
    )
    from_file = load_configuration(path)
    overridden = load_configuration(TINY, parse_overrides(["training.operator.learning_rate=3e-4"]))
    typed = load_configuration(TINY, {"training.operator.learning_rate": 3e-4})
    assert from_file == overridden == typed
    assert from_file.training.operator.learning_rate == 3e-4


@pytest.mark.parametrize("assignment", ["seed", "=3", " =3", ""])
def test_what_is_no_assignment_is_named(assignment):
    with pytest.raises(
        ConfigurationError, match=r"--set: '.*' is not an assignment\n  fix: write --set section"
    ):
        parse_overrides([assignment])


def test_overrides_may_hold_an_equals_sign_and_come_last_wins():
    assert parse_overrides(["data.path=a=b", "seed=1", "seed=2"]) == {"data.path": "a=b", "seed": "2"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed.x", "1", "--set seed.x: 'seed' is a value, not a section\n  fix: check the dotted key"),
        ("seed", "[1", "--set seed: is not valid YAML"),
    ],
)
def test_an_override_that_cannot_be_set_is_named(tmp_path, key, value, message):
    path = tmp_path / "run.yaml"
    path.write_text(TINY.read_text() + "\nseed: 0\n")
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, {key: value})
    assert str(caught.value).startswith(message)


def test_overrides_change_neither_their_caller_nor_other_sections(tmp_path):
    """An anchor stands for one mapping in several places; a mapping given by a caller stays the caller's."""
    path = tmp_path / "run.yaml"
    text = TINY.read_text().replace("  encoder: {", "  encoder: &size {")
    path.write_text(re.sub(r"  decoder: \{.*\}", "  decoder: *size", text))
    given_by_caller = {"model.encoder": {"width": 16}, "model.encoder.width": 32}
    configuration = load_configuration(path, given_by_caller)
    assert (configuration.model.encoder.width, configuration.model.decoder.width) == (32, 16)
    assert given_by_caller["model.encoder"] == {"width": 16}


def test_relative_data_paths_start_at_the_configuration(tmp_path):
    path = tmp_path / "run.yaml"
    data = {
        "source": "file",
        "path": "rows.hdf5",
        "trajectories": dict.fromkeys(("train", "validation", "test"), 9),
    }
    path.write_text(yaml.safe_dump(TINY_VALUES | {"data": data}))
    configuration = load_configuration(path)
    assert configuration.data.source == "file"
    assert configuration.data.path == str(tmp_path / "rows.hdf5")


def test_test_rows_fit_into_the_reserved_ones(tmp_path):
    data = {
        "source": "file",
        "path": "x",
        "trajectories": {"train": 9, "validation": 9, "test": 9},
        "test_first": 8,
    }
    with pytest.raises(ConfigurationError, match=r"data: trajectories\.test 9 is above test_first 8"):
        validate(TINY_VALUES | {"data": data}, where="here")
    validate(TINY_VALUES | {"data": data | {"test_first": None}}, where="here")


def test_a_written_configuration_reads_back_equal():
    configuration = load_configuration(TINY)
    text = yaml.safe_dump(configuration.model_dump(mode="json"))
    assert validate(parse_yaml(text), where="here") == configuration


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
KEYS = st.sampled_from(
    sorted(
        f"{section}.{key}" if section else key
        for section, keys in {
            "": ["name", "seed", "data", "model", "training", "execution", "tracking", "none"],
            "data": ["nu", "source", "equation", "frames", "trajectories", "resolution", "none"],
            "model": ["latent", "encoder", "encoder.heads", "latent.tokens", "none.none"],
            "training": ["operator", "operator.steps", "operator.betas", "diffusion.noise", "none"],
            "execution": ["device", "threads", "compile"],
        }.items()
        for key in keys
    )
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(key=KEYS, value=ODD_VALUES)
def test_any_value_anywhere_is_accepted_or_explained(key, value):
    text = ""
    try:
        load_configuration(TINY, {key: value})
    except ConfigurationError as error:
        text = str(error)
    assert len(text) < 2000
    assert "Value error" not in text
    assert "generated." not in text


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_as_yaml(text):
    with contextlib.suppress(yaml.YAMLError):
        parse_yaml(text)
