"""Which setting counts for which stage: a golden table over every key of the schema, and no dead key."""

import ast
import inspect
import typing
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY
from pydantic import BaseModel

import ups
from ups.artifacts import Store
from ups.artifacts.identity import digest_of
from ups.config import load_configuration
from ups.config.schema import BurgersFile, Configuration, GeneratedBurgers, Section, Training, Transformer
from ups.pipeline.graph import GRAPH, chain_to
from ups.pipeline.plan import make_recipes

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


def of_training(name: str, stages: set[str]) -> dict[str, tuple[Any, set[str]]]:
    learning = {
        "steps": 21,
        "batch_size": 4,
        "learning_rate": 2e-3,
        "final_learning_rate": 1e-6,
        "warmup_steps": 3,
        "weight_decay": 0.0,
        "betas": [0.9, 0.99],
        "gradient_clip": 2.0,
        "ema_decay": 0.9,
    }
    reporting = {"checkpoint_every": 7, "log_every": 7, "validate_every": 7}
    rows = {f"training.{name}.{key}": (value, stages) for key, value in learning.items()}
    return rows | {f"training.{name}.{key}": (value, NONE) for key, value in reporting.items()}


SHARED: dict[str, tuple[Any, set[str]]] = {
    "name": ("other", NONE),
    "seed": (1, AUTOENCODER),
    "model.latent.tokens": (4, AUTOENCODER),
    "model.latent.dim": (2, AUTOENCODER),
    **of_transformer("encoder", AUTOENCODER),
    **of_transformer("decoder", AUTOENCODER),
    **of_transformer("operator", OPERATOR),
    **of_transformer("denoiser", DIFFUSION),
    "execution.processes": (2, AUTOENCODER),
    "execution.precision": ("bf16", AUTOENCODER),
    "execution.compile": (True, AUTOENCODER),
    **of_training("autoencoder", AUTOENCODER),
    "training.autoencoder.query_points": (16, AUTOENCODER),
    **of_training("operator", OPERATOR),
    "training.operator.rollout_steps": (3, OPERATOR),
    "training.operator.field_weight": (0.5, OPERATOR),
    "training.operator.residual_fraction": (0.25, OPERATOR),
    **of_training("diffusion", DIFFUSION),
    "training.diffusion.noise.sigma_min": (0.01, DIFFUSION),
    "training.diffusion.noise.sigma_max": (20.0, DIFFUSION),
    "training.diffusion.noise.mean_log_sigma": (-1.0, DIFFUSION),
    "training.diffusion.noise.std_log_sigma": (1.0, DIFFUSION),
    "training.diffusion.noise.rho": (5.0, DIFFUSION),
    "training.diffusion.sampler_steps": (3, EVALUATE),
    "training.diffusion.rollout_fraction": (0.25, DIFFUSION),
    "training.diffusion.rollout_steps": (3, DIFFUSION),
    **of_training("consistency", CONSISTENCY),
    "training.consistency.intervals": (8, CONSISTENCY),
    "training.consistency.second_sigma": (0.5, EVALUATE),
    "cache_encode.trajectories_per_chunk": (5, CACHE),
    "evaluation.members": (8, EVALUATE),
    "evaluation.batch_size": (32, EVALUATE),
    "evaluation.seed": (1, EVALUATE),
    "tracking.wandb": ("disabled", NONE),
    "tracking.project": ("other", NONE),
    "tracking.entity": ("other", NONE),
}
GENERATED: dict[str, tuple[Any, set[str]]] = {
    "data.nu": (0.02, ALL),
    "data.trajectories.train": (17, ALL),
    "data.trajectories.validation": (5, ALL),
    "data.trajectories.test": (5, ALL),
    "data.resolution": (16, ALL),
    "data.solver_resolution": (64, ALL),
    "data.frames": (10, ALL),
    "data.frame_interval": (0.1, ALL),
    "data.seed": (1, ALL),
    "execution.threads": (2, ALL),
    "execution.device": ("cuda", ALL),
}
FROM_FILE: dict[str, tuple[Any, set[str]]] = {
    "data.path": ("elsewhere.hdf5", NONE),
    "data.trajectories.train": (17, ALL),
    "data.trajectories.validation": (5, ALL),
    "data.trajectories.test": (5, ALL),
    "data.space_stride": (2, ALL),
    "data.time_stride": (1, ALL),
    "data.frames": (10, ALL),
    "data.test_first": (100, ALL),
    "data.seed": (1, ALL),
    # A copy does not depend on the machine.
    "execution.threads": (2, AUTOENCODER),
    "execution.device": ("cuda", AUTOENCODER),
}
CHOICES_OF_ONE = {"data.source", "data.equation"}


@pytest.fixture
def folder(tmp_path):
    for name in ("data.hdf5", "elsewhere.hdf5"):
        (tmp_path / name).write_bytes(b"the same bytes")
    (tmp_path / "config.yaml").write_bytes(TINY.read_bytes())
    return tmp_path


def digests(folder: Path, overrides: dict[str, Any]) -> dict[str, str]:
    configuration = load_configuration(folder / "config.yaml", {"execution.device": "cpu"} | overrides)
    recipes = make_recipes(configuration, Store(folder))
    return {name: digest_of(recipe) for name, recipe in recipes.items()}


def changes(folder: Path, base: dict[str, Any], key: str, value: Any) -> set[str]:
    before, after = digests(folder, base), digests(folder, base | {key: value})
    return {name for name in GRAPH if before[name] != after[name]}


FILE = {
    "data": {
        "source": "file",
        "path": "data.hdf5",
        "trajectories": dict.fromkeys(("train", "validation", "test"), 9),
    }
}


@pytest.mark.parametrize(("key", "row"), [*(SHARED | GENERATED).items()], ids=str)
def test_a_setting_of_a_generated_run_changes_exactly_these_stages(folder, key, row):
    value, expected = row
    assert changes(folder, {}, key, value) == expected


@pytest.mark.parametrize(("key", "row"), [*FROM_FILE.items()], ids=str)
def test_a_setting_of_a_run_on_a_file_changes_exactly_these_stages(folder, key, row):
    value, expected = row
    assert changes(folder, FILE, key, value) == expected


def test_other_bytes_in_the_file_change_all_stages(folder):
    before = digests(folder, FILE)
    (folder / "data.hdf5").write_bytes(b"other bytes!!!")
    after = digests(folder, FILE)
    assert {name for name in GRAPH if before[name] != after[name]} == ALL


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
    assert set(SHARED | GENERATED) == (
        leaves(Configuration) | leaves(GeneratedBurgers, "data.") - CHOICES_OF_ONE
    )
    assert set(SHARED | FROM_FILE) == leaves(Configuration) | leaves(BurgersFile, "data.") - CHOICES_OF_ONE


def sections(model: type[BaseModel] = Configuration) -> set[type[BaseModel]]:
    found = {model}
    for field in model.model_fields.values():
        inner = [field.annotation, *typing.get_args(field.annotation)]
        for part in inner:
            if isinstance(part, type) and issubclass(part, Section):
                found |= sections(part)
    return found


def names_read() -> set[str]:
    """Attributes and constant keys that the library reads, outside of the schema itself."""
    read = set()
    package = Path(ups.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name == "config":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                read.add(node.slice.value)
    return read


def test_no_key_is_dead():
    """Each is read by name, but for those of sections that a constructor takes whole: they are its arguments."""
    from ups.models.decoder import AnyPointDecoder
    from ups.models.encoder import GridEncoder
    from ups.models.latent_transformer import LatentTransformer

    assert len(sections()) > 12
    read = names_read()
    dead = {
        f"{section.__name__}.{name}"
        for section in sections() - {Transformer}
        for name in section.model_fields
        if name not in read
    }
    assert dead == set()
    for network in (GridEncoder, AnyPointDecoder, LatentTransformer):
        assert set(Transformer.model_fields) <= set(inspect.signature(network).parameters)


def test_what_the_loop_is_given_it_reads():
    """The sections of trainings are handed on whole too, as `LoopSettings`."""
    from ups.training import loop

    tree = ast.parse(Path(loop.__file__).read_text())
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "settings"
    }
    assert set(loop.LoopSettings.__dataclass_fields__) <= read
    assert set(Training.model_fields) - {"batch_size"} <= set(loop.LoopSettings.__dataclass_fields__)


def test_a_chain_holds_what_a_stage_needs_in_order():
    assert chain_to("download") == ["download"]
    assert chain_to("operator") == ["download", "autoencoder", "cache_encode", "operator"]
    assert chain_to("evaluate") == list(GRAPH)
    for name, stage in GRAPH.items():
        assert set(stage.inputs) < set(chain_to(name))
