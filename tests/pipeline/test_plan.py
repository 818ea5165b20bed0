"""The plan says HIT or MISS, and why, in words that tell what to do."""

from pathlib import Path

import pytest
from command_line import TINY
from sealing import FILES, sealed

from ups.artifacts import Artifact, Store
from ups.artifacts.identity import digest_of
from ups.config import load_configuration
from ups.errors import ConfigurationError
from ups.pipeline.graph import GRAPH
from ups.pipeline.plan import kept_shape, make_plan, make_recipes

SHAPE = {"frames": 9, "resolution": 32}
CONFIGURATION = load_configuration(TINY, {"execution.device": "cpu"})


class Chain:
    """A store in which stages can be sealed without being run."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.recipes = make_recipes(CONFIGURATION, self.store)
        self.digests = {name: digest_of(recipe) for name, recipe in self.recipes.items()}

    def seal(self, name: str, content: bytes = b"weights") -> Artifact:
        inputs = {i: self.store.find(i, self.digests[i]) for i in GRAPH[name].inputs}
        summary = SHAPE if name == "download" else {}
        return sealed(self.store, name, self.digests[name], FILES | {"model.bin": content}, inputs, summary)

    def rebuild(self, name: str, content: bytes) -> Artifact:
        self.store.quarantine(name, self.digests[name], reason="test")
        return self.seal(name, content)

    def plan(self) -> dict[str, tuple[str, str]]:
        return {
            stage.name: (stage.verdict, stage.reason)
            for stage in make_plan(CONFIGURATION, Store(self.store.root))
        }


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path)


def test_a_new_root(chain):
    assert set(chain.plan().values()) == {("MISS", "never built")}
    assert list(chain.plan()) == list(GRAPH)
    assert not chain.store.artifacts.exists(), "planning writes nothing"


def test_all_sealed(chain):
    for name in GRAPH:
        chain.seal(name)
    plan = chain.plan()
    assert {verdict for verdict, _ in plan.values()} == {"HIT"}
    assert all(reason.startswith("sealed 20") for _, reason in plan.values())


def test_an_input_that_came_out_different_makes_dependants_miss(chain):
    for name in GRAPH:
        chain.seal(name)
    chain.rebuild("cache_encode", b"other")
    plan = chain.plan()
    changed = ("MISS", "input cache_encode was rebuilt and came out different")
    assert plan["operator"] == changed
    assert plan["diffusion"][0] == "MISS"
    assert [name for name, (verdict, _) in plan.items() if verdict == "HIT"] == [
        "download", "autoencoder", "cache_encode",
    ]  # fmt: skip


def test_an_input_that_came_out_equal_changes_nothing(chain):
    for name in GRAPH:
        chain.seal(name)
    chain.rebuild("cache_encode", b"weights")
    assert {verdict for verdict, _ in chain.plan().values()} == {"HIT"}


def test_an_input_that_is_gone(chain):
    for name in ("download", "autoencoder"):
        chain.seal(name)
    chain.store.quarantine("download", chain.digests["download"], reason="test")
    assert chain.plan()["download"] == ("MISS", "never built")
    assert chain.plan()["autoencoder"] == ("MISS", "input download is to be built")


def test_another_configurations_artifact(chain):
    sealed(chain.store, "download", "f" * 64)
    assert chain.plan()["download"] == ("MISS", "no artifact of this configuration, code and inputs")


def test_damage(chain):
    artifact = chain.seal("download")
    (artifact.path / "model.bin").write_bytes(b"bad")
    verdict, reason = chain.plan()["download"]
    assert verdict == "MISS"
    assert reason.startswith("damaged: ")
    assert "model.bin has 3 bytes, sealed with 7" in reason


def test_unfinished_work(chain):
    checkpoints = chain.store.work("operator", chain.digests["operator"]) / "checkpoints"
    checkpoints.mkdir(parents=True)
    assert chain.plan()["operator"] == ("MISS", "never built")
    (checkpoints / "step-00000005-0.safetensors").write_bytes(b"")
    assert chain.plan()["operator"] == ("MISS", "unfinished: resumes from a checkpoint")


def test_models_that_do_not_fit_sealed_data_are_refused_by_the_plan(tmp_path):
    """The grid of a file is known when it was read once; another model must not find out after its training."""
    (tmp_path / "data.hdf5").write_bytes(b"content")
    (tmp_path / "config.yaml").write_bytes(TINY.read_bytes())
    data = {
        "source": "file",
        "path": "data.hdf5",
        "trajectories": dict.fromkeys(("train", "validation", "test"), 9),
    }
    store = Store(tmp_path)

    def configured(**overrides):
        return load_configuration(
            tmp_path / "config.yaml", {"data": data, "execution.device": "cpu"} | overrides
        )

    configuration = configured()
    assert kept_shape(configuration, None) == (41, 256)
    sealed(
        store, "download", digest_of(make_recipes(configuration, store)["download"]),
        summary={"frames": 6, "resolution": 30},
    )  # fmt: skip
    with pytest.raises(
        ConfigurationError, match=r"model\.latent\.tokens: 8 tokens do not divide the 30 grid points"
    ):
        make_plan(configuration, store)
    with pytest.raises(
        ConfigurationError, match=r"diffusion\.rollout_steps: 5 steps need 7 frames, and a trajectory has 6"
    ):
        make_plan(configured(**{"model.latent.tokens": 10, "training.diffusion.rollout_steps": 5}), store)
    plan = make_plan(configured(**{"model.latent.tokens": 10}), store)
    assert [stage.verdict for stage in plan[:2]] == ["HIT", "MISS"]
