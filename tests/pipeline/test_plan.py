"""The plan says HIT or MISS, and why, in words that tell what to do."""

from pathlib import Path

import pytest
from command_line import TINY
from sealing import FILES, sealed, sealed_parts

from ups.artifacts import Artifact, Store
from ups.artifacts.identity import digest_of
from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.config.sizes import KeptShape
from ups.errors import ConfigurationError
from ups.pipeline import plan as plan_module
from ups.pipeline.plan import derive, kept_shapes, make_plan

KEPT = {"problems": {"burgers1d": {"frames": 9, "grid": [32]}}}
CONFIGURATION = load_configuration(TINY, {"execution.device": "cpu"})


class Chain:
    """A store in which stages can be sealed without being run."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.sealed: dict[str, Artifact] = {}

    def seal(self, name: str, content: bytes = b"weights") -> Artifact:
        inputs = {i: self.sealed[i] for i in STAGES[name].inputs}
        digest = digest_of(derive(name, CONFIGURATION, inputs, self.store))
        summary = KEPT if name == "download" else {}
        files = FILES | {"model.bin": content}
        parts = sealed_parts(self.store, CONFIGURATION, content) if name == "download" else {}
        self.sealed[name] = sealed(self.store, name, digest, files, inputs, summary, parts)
        return self.sealed[name]

    def seal_all(self) -> None:
        for name in STAGES:
            self.seal(name, name.encode())

    def rebuild(self, name: str, content: bytes) -> Artifact:
        self.remove(name)
        return self.seal(name, content)

    def remove(self, name: str) -> None:
        self.store.quarantine(name, self.sealed[name].digest, reason="test")

    def plan(self) -> dict[str, tuple[str, str]]:
        return {
            stage.name: (stage.verdict, stage.reason)
            for stage in make_plan(CONFIGURATION, Store(self.store.root))
        }


@pytest.fixture
def chain(tmp_path):
    return Chain(tmp_path)


def test_a_new_root(chain):
    plan = make_plan(CONFIGURATION, chain.store)
    assert [stage.name for stage in plan] == list(STAGES)
    assert {stage.name: stage.reason for stage in plan} == {
        "download": "never built",
        "autoencoder": "after download",
        "cache_encode": "after autoencoder",
        "operator": "after cache_encode",
        "diffusion": "after operator",
        "consistency": "after diffusion",
        "evaluate": "after consistency",
    }
    assert {stage.verdict for stage in plan} == {"MISS"}
    assert [stage.name for stage in plan if stage.digest is not None] == ["download"]
    assert not chain.store.artifacts.exists(), "planning writes nothing"


def test_all_sealed(chain):
    chain.seal_all()
    plan = chain.plan()
    assert {verdict for verdict, _ in plan.values()} == {"HIT"}
    assert all(reason.startswith("sealed 20") for _, reason in plan.values())


def test_an_input_that_came_out_different_is_another_key(chain):
    chain.seal_all()
    chain.rebuild("cache_encode", b"other")
    plan = chain.plan()
    assert plan["operator"] == ("MISS", "no artifact of this configuration, code and inputs")
    assert plan["diffusion"] == ("MISS", "after operator")
    assert [name for name, (verdict, _) in plan.items() if verdict == "HIT"] == [
        "download", "autoencoder", "cache_encode",
    ]  # fmt: skip
    # Both are kept: what was made of the first is there for whoever builds that again.
    chain.rebuild("cache_encode", b"cache_encode")
    assert {verdict for verdict, _ in chain.plan().values()} == {"HIT"}


def test_an_input_that_came_out_equal_changes_nothing(chain):
    chain.seal_all()
    chain.rebuild("cache_encode", b"cache_encode")
    assert {verdict for verdict, _ in chain.plan().values()} == {"HIT"}


def test_code_of_an_input_that_makes_the_same_bytes_changes_nothing_behind_it(chain, monkeypatch):
    """Early cutoff."""
    chain.seal_all()
    real = plan_module.code_identity
    edited = {"modules": {"ups.stages.download": "edited"}, "libraries": {}}
    monkeypatch.setattr(
        plan_module,
        "code_identity",
        lambda *modules: edited if modules[0] == "ups.stages.download" else real(*modules),
    )
    assert chain.plan()["download"] == ("MISS", "no artifact of this configuration, code and inputs")
    assert chain.plan()["autoencoder"] == ("MISS", "after download")
    chain.seal("download", b"download")
    assert {verdict for verdict, _ in chain.plan().values()} == {"HIT"}


def test_an_input_that_is_gone(chain):
    chain.seal("download")
    chain.seal("autoencoder")
    chain.remove("download")
    assert chain.plan()["download"] == ("MISS", "never built")
    assert chain.plan()["autoencoder"] == ("MISS", "after download")
    chain.seal("download")
    assert chain.plan()["autoencoder"][0] == "HIT"


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


def test_a_stray_file_is_damage(chain):
    (chain.seal("download").path / ".DS_Store").write_bytes(b"")
    verdict, reason = chain.plan()["download"]
    assert verdict == "MISS"
    assert ".DS_Store does not belong" in reason


def test_unfinished_work(chain):
    for name in ("download", "autoencoder", "cache_encode"):
        chain.seal(name)
    digest = {stage.name: stage.digest for stage in make_plan(CONFIGURATION, chain.store)}["operator"]
    assert digest is not None
    checkpoints = chain.store.work("operator", digest) / "checkpoints"
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
    assert kept_shapes(configuration, None) == {"burgers1d": KeptShape(41, (256,))}
    sealed(
        store, "download", digest_of(derive("download", configuration, {}, store)),
        summary={
            "problems": {
                "burgers1d": {"frames": 6, "grid": [30], "frame_interval": 0.05, "boundary": "outflow"}
            }
        },
        parts=sealed_parts(store, configuration),
    )  # fmt: skip
    with pytest.raises(
        ConfigurationError,
        match=r"model\.latent\.tokens: 8 tokens do not divide the 30 grid points of burgers1d",
    ):
        make_plan(configuration, store)
    with pytest.raises(
        ConfigurationError,
        match=r"operator\.rollout_steps: 6 steps need 7 frames, and a trajectory of burgers1d has 6",
    ):
        make_plan(configured(**{"model.latent.tokens": 10, "training.operator.rollout_steps": 6}), store)
    with pytest.raises(
        ConfigurationError,
        match=r"denoiser\.leads_per_position: 6 leads make one position, and the longest forecast, of burgers1d, has 5",
    ):
        make_plan(configured(**{"model.latent.tokens": 10, "model.denoiser.leads_per_position": 6}), store)
    with pytest.raises(
        ConfigurationError,
        match=r"evaluation\.pdebench_initial_steps: 10 leaves none of the 6 frames of burgers1d",
    ):
        make_plan(configured(**{"model.latent.tokens": 10, "evaluation.pdebench_initial_steps": 10}), store)
    observations = {"sensors": [[0.25]], "times": [0.1, 0.3], "noise": 0.01}
    for ttc, told in (
        ({"scores": {"energy": 1}}, r"scores\.energy: 1D Burgers with outflow boundary does not have it \(it has residual\)"),
        ({"observations": observations}, r"observations\.times: 0\.3 is no frame of the forecast, .* 0\.05 up to 0\.25"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=rf"evaluation\.ttc\.{told}"):
            make_plan(configured(**{"model.latent.tokens": 10, "evaluation.ttc": ttc}), store)
    plan = make_plan(configured(**{"model.latent.tokens": 10}), store)
    assert [stage.verdict for stage in plan[:2]] == ["HIT", "MISS"]


COUNTS = {"train": 16, "validation": 4, "test": 4}
GENERATED = {"source": "generated", "trajectories": COUNTS, "resolution": 32, "solver_resolution": 64}
FILE = {"source": "file", "path": "data.hdf5", "trajectories": COUNTS}


@pytest.mark.parametrize(
    ("data", "frames", "grid"),
    [
        (GENERATED | {"nu": 0.1, "frames": 9, "frame_interval": 0.1}, 9, (32,)),
        (GENERATED | {"equation": "darcy2d", "beta": 0.1}, 2, (32, 32)),
        # Where only a file knows, it is expected to be like PDEBench's.
        (FILE, 41, (256,)),
        (FILE | {"time_stride": 10, "space_stride": 1}, 21, (1024,)),
        (FILE | {"frames": 7}, 7, (256,)),
        (FILE | {"equation": "darcy2d"}, 2, (32, 32)),
        (FILE | {"equation": "darcy2d", "space_stride": 1}, 2, (128, 128)),
        (
            {"source": "pdebench", "dataset": "2D_DarcyFlow_beta1.0_Train", "trajectories": COUNTS},
            2,
            (32, 32),
        ),
        (
            {
                "source": "pdebench",
                "dataset": "1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train",
                "trajectories": COUNTS,
            },
            21,
            (256,),
        ),
    ],
)
def test_what_is_kept_is_expected_before_it_is_known(tmp_path, data, frames, grid):
    (tmp_path / "data.hdf5").write_bytes(b"content")
    (tmp_path / "config.yaml").write_bytes(TINY.read_bytes())
    configuration = load_configuration(tmp_path / "config.yaml", {"data": data, "execution.device": "cpu"})
    assert list(kept_shapes(configuration, None).values()) == [KeptShape(frames, grid)]
    plan = make_plan(configuration, Store(tmp_path))
    assert all(stage.predicted_bytes > 0 for stage in plan)


def test_every_problem_of_a_mix_is_told_and_must_fit(tmp_path):
    (tmp_path / "data.hdf5").write_bytes(b"content")
    (tmp_path / "config.yaml").write_bytes(TINY.read_bytes())
    problems = {
        "square": FILE | {"equation": "darcy2d"},
        "line": GENERATED | {"nu": 0.1, "frames": 9, "frame_interval": 0.1},
    }
    store = Store(tmp_path)
    configuration = load_configuration(
        tmp_path / "config.yaml",
        {"data": {"source": "mix", "problems": problems}, "execution.device": "cpu"},
    )
    assert kept_shapes(configuration, None) == {"line": KeptShape(9, (32,)), "square": KeptShape(2, (32, 32))}
    digest = digest_of(derive("download", configuration, {}, store))
    told = {"line": {"frames": 9, "grid": [32]}, "square": {"frames": 2, "grid": [32, 30]}}
    artifact = sealed(store, "download", digest, summary={"problems": told})
    assert kept_shapes(configuration, artifact)["square"] == KeptShape(2, (32, 30))
    with pytest.raises(
        ConfigurationError,
        match=r"8 tokens do not divide the 30 grid points of square: choose one of 1, 2, 3",
    ):
        make_plan(configuration, store)
