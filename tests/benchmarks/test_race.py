"""The race between the operator and its peers: who is given what, and that the table says it."""

import json
from pathlib import Path

import pytest
from command_line import CONFIGS, TINY, ups
from filelock import FileLock

from ups.artifacts import Store
from ups.artifacts.collection import leftovers
from ups.artifacts.store import BusyError
from ups.benchmarks import race as races
from ups.benchmarks import stages as one_process
from ups.benchmarks.race import (
    LOCK,
    OPERATOR,
    TUNING_SHARE,
    Race,
    describe,
    measure_peers,
    training_seconds,
    variants,
)
from ups.commands.race import departures
from ups.config import load_configuration
from ups.config.peers import PEERS, as_peer
from ups.errors import ConfigurationError, NotFiniteError, PreflightError
from ups.pipeline.device import resolve
from ups.runtime.request import Request

CONFIGURATION = resolve(load_configuration(TINY))
GRIDS, PERIODIC = {"burgers1d": (32,)}, {"burgers1d"}


ON_POINTS = [name for name, peer in PEERS.items() if not peer.on_patches]


def test_a_peer_on_patches_has_the_codec_of_the_operator():
    configuration = resolve(load_configuration(CONFIGS / "burgers_demo.yaml"))
    peer = as_peer(configuration, "fno_on_patches", {"burgers1d": (128,)}, PERIODIC)
    operator = peer.model.operator
    assert (operator.kind, operator.linear_path, operator.conserve) == ("fno", "none", False)
    assert peer.symmetries("burgers1d").used("exact") == ()
    assert set(peer.symmetries("burgers1d").used("average")) == {"reflection", "shift"}
    same = {"operator": configuration.model.operator, "symmetries": configuration.model.symmetries}
    assert peer.model.model_copy(update=same) == configuration.model
    assert peer.training == configuration.training
    few = as_peer(CONFIGURATION, "fno_on_patches", GRIDS, PERIODIC).model.operator
    assert (operator.modes, few.modes) == (32, 8), "a token grid of 8 has no more"


@pytest.mark.parametrize("name", ON_POINTS)
def test_a_peer_is_the_same_run_with_another_network_on_points(name):
    peer = as_peer(CONFIGURATION, name, GRIDS, PERIODIC)
    assert (peer.tokens("burgers1d"), peer.model.latent.dim) == (32, 1)
    assert (peer.model.operator.linear_path, peer.model.operator.conserve) == ("none", False)
    assert peer.model.encoder.depth == peer.model.decoder.depth == peer.training.autoencoder.steps == 0
    for part in ("data", "execution", "evaluation", "seed"):
        assert getattr(peer, part) == getattr(CONFIGURATION, part), part
    assert peer.training.operator == CONFIGURATION.training.operator
    used = peer.symmetries("burgers1d")
    assert used.used("exact") == ()
    assert used.used("augment") == (("shift",) if name == "unet" else ())
    assert as_peer(CONFIGURATION, name, GRIDS, set()).symmetries("burgers1d").used("augment") == ()


@pytest.mark.parametrize("name", ON_POINTS)
def test_on_a_plane_a_peer_is_smaller(name):
    darcy = resolve(load_configuration(CONFIGS / "darcy.yaml"))
    on_plane = as_peer(darcy, name, {"darcy2d": (128, 128)}, set()).model.operator
    on_line = as_peer(CONFIGURATION, name, GRIDS, PERIODIC).model.operator
    assert on_plane.kind == on_line.kind
    assert on_plane.width == on_line.width // 2


def test_a_peer_that_does_not_fit_the_grid_says_so():
    with pytest.raises(ConfigurationError, match=r"the peer fno of burgers_tiny.*\n.*model.operator.modes"):
        as_peer(CONFIGURATION, "fno", {"burgers1d": (16,)}, PERIODIC)
    with pytest.raises(ConfigurationError, match=r"has 32 x 16 points.*\n.*square"):
        as_peer(CONFIGURATION, "unet", {"burgers1d": (32, 16)}, PERIODIC)


def test_a_peer_is_given_no_more_than_an_operator_that_sees_points():
    points = {"kind": "points", "points": 128, "radius": 0.25, "depth": 0}
    seeing = resolve(load_configuration(TINY, {"model.encoder": points}))
    with pytest.raises(
        ConfigurationError,
        match=r"a peer the whole grid: they would not be given the same\n  fix: compare with",
    ):
        as_peer(seeing, "fno", GRIDS, PERIODIC)


def test_seconds_of_a_training_are_those_of_its_steps(tmp_path):
    """A record's seconds per step are those since the record before; validations have none."""
    records = [
        {"step": 1, "seconds_per_step": 2.0},
        {"step": 5, "seconds_per_step": 0.25},
        {"step": 5, "validation_relative_l2": 0.1},
        {"step": 8, "seconds_per_step": 0.5},
    ]
    write(tmp_path, records)
    assert training_seconds(tmp_path) == pytest.approx(2 + 1 + 1.5)
    assert training_seconds(tmp_path / "nothing") == 0


def write(artifact: Path, records: list[dict]) -> None:
    (artifact / "logs").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (artifact / "logs" / "metrics.jsonl").write_text(text)


BEST = "muon 0.02, rate 0.002, batch 4"


class Stages:
    """Stages that train nothing: a step takes a hundredth of a second for every sample, one variant is best."""

    def __init__(self, *, diverging: str | None = None, autoencoder_seconds: float = 0.0) -> None:
        self.diverging, self.autoencoder_seconds = diverging, autoencoder_seconds
        self.asked: list[Request] = []

    def autoencoder(self, request: Request) -> None:
        write(request.output, [{"step": 1, "seconds_per_step": self.autoencoder_seconds}])
        (request.output / "model.safetensors").write_text("")
        request.finish({})

    def cache_encode(self, request: Request) -> None:
        request.output.mkdir(parents=True, exist_ok=True)
        request.finish({})

    def operator(self, request: Request) -> None:
        self.asked.append(request)
        training = request.configuration.training.operator
        variant = describe(training.model_dump())
        if variant == self.diverging:
            raise NotFiniteError("step 3: loss nan")
        pace = 0.01 * training.batch_size
        write(
            request.output,
            [
                {"step": 1, "seconds_per_step": 9.0 if training.steps == 20 else pace},  # starting up
                {"step": training.steps, "seconds_per_step": pace},
                {"step": training.steps, "validation_relative_l2": 0.1 if variant == BEST else 0.2},
            ],
        )
        request.finish({})


# No training of the autoencoder, whose seconds would be part of the race.
LOSSLESS = [
    word
    for setting in (
        "model.encoder.depth=0",
        "model.decoder.depth=0",
        "training.autoencoder.steps=0",
        "tracking.wandb=disabled",
    )
    for word in ("--set", setting)
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the data of the tiny configuration."""
    root = tmp_path_factory.mktemp("race")
    done = ups("stage", "download", TINY, "--root", root, *LOSSLESS)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def download(root: Path) -> Path:
    (path,) = [path for path in (root / "artifacts" / "download").iterdir() if path.is_dir()]
    return path


def race(monkeypatch: pytest.MonkeyPatch, download: Path, directory: Path, stages: Stages) -> Race:
    for name in ("autoencoder", "cache_encode", "operator"):
        monkeypatch.setitem(one_process._STAGES, name, getattr(stages, name))
    return Race(CONFIGURATION, download, directory)


def test_everybody_gets_the_seconds_as_steps_and_the_best_variant(monkeypatch, download, tmp_path):
    stages = Stages()
    first, second = race(monkeypatch, download, tmp_path, stages).run("unet", 8.0, 2)
    assert first.training == second.training == BEST
    assert first.steps == second.steps == 200  # 8 s of 0.04 s
    assert first.seconds == pytest.approx(8.0)
    whole = [request.configuration for request in stages.asked if request.work.name.startswith("whole")]
    assert [configuration.seed for configuration in whole] == [0, 1]
    for request in stages.asked:
        training = request.configuration.training.operator
        if request.work.name.startswith("timing"):
            assert training.steps == 20
        elif request.work.name.startswith("tuning"):
            assert training.steps == round(TUNING_SHARE * 8 / (0.01 * training.batch_size))
        assert training.warmup_steps == training.steps // 20
        assert training.final_learning_rate == training.learning_rate / 100
    timed = [request for request in stages.asked if request.work.name.startswith("timing")]
    assert len(timed) == 4  # two optimisers, two batch sizes
    assert len(stages.asked) == 4 + len(variants(CONFIGURATION)) + 2


def test_the_operator_may_also_stay_as_it_is_and_its_autoencoder_counts(monkeypatch, download, tmp_path):
    stages = Stages(autoencoder_seconds=3.0)
    started = race(monkeypatch, download, tmp_path, stages)
    (trained,) = started.run(OPERATOR, 8.0, 1)
    assert trained.steps == 125  # 5 s are left
    assert trained.seconds == pytest.approx(8.0)
    tried = [record["training"] for record in started.tuning]
    assert tried[0] == describe(CONFIGURATION.training.operator.model_dump())
    assert len(tried) == len(set(tried))
    with pytest.raises(ConfigurationError, match="autoencoder alone takes 3 s of 2 s"):
        started.run(OPERATOR, 2.0, 1)


def test_settings_that_are_a_variant_are_tried_once(monkeypatch, download, tmp_path):
    """Also where the configuration writes a default out that the variant does not."""
    started = race(monkeypatch, download, tmp_path, Stages())
    muon = {"kind": "muon", "matrix_learning_rate": 0.02, "momentum": 0.95}
    changes = {"optimizer": muon, "learning_rate": 2e-3}
    values = {f"training.operator.{key}": value for key, value in changes.items()}
    started.configuration = resolve(load_configuration(TINY, values))
    started.run(OPERATOR, 8.0, 1)
    tried = [record["training"] for record in started.tuning]
    assert len(tried) == len(set(tried)) == len(variants(CONFIGURATION))


def test_a_variant_that_diverges_has_lost(monkeypatch, download, tmp_path):
    started = race(monkeypatch, download, tmp_path, Stages(diverging=BEST))
    (trained,) = started.run("fno", 8.0, 1)
    assert trained.training != BEST
    assert [record.get("diverged", False) for record in started.tuning].count(True) == 1


def test_an_interrupted_race_goes_on_where_it_was(monkeypatch, download, tmp_path):
    class Interrupting(Stages):
        def operator(self, request: Request) -> None:
            if request.work.name.startswith("whole"):
                raise KeyboardInterrupt
            super().operator(request)

    interrupted, rest = Interrupting(), Stages()
    with pytest.raises(KeyboardInterrupt):
        race(monkeypatch, download, tmp_path, interrupted).run("unet", 8.0, 1)
    (trained,) = race(monkeypatch, download, tmp_path, rest).run("unet", 8.0, 1)
    assert trained.steps == 200
    assert [request.work.name.partition("-")[0] for request in rest.asked] == ["whole"]


def test_variants_of_an_ablation_are_trained_by_their_own_settings(monkeypatch, download, tmp_path):
    """A larger batch is slower, and gets fewer steps for the same seconds; nothing is tuned."""
    larger = load_configuration(TINY, {"training.operator.batch_size": 16})
    stages = Stages()
    for name in ("autoencoder", "cache_encode", "operator"):
        monkeypatch.setitem(one_process._STAGES, name, getattr(stages, name))
    started = Race(CONFIGURATION, download, tmp_path, {"batch 16 / slow": larger})
    (own,) = started.run_as_configured(OPERATOR, 8.0, 1)
    first, second = started.run_as_configured("batch 16 / slow", 8.0, 2)
    assert (own.steps, first.steps, second.steps) == (100, 50, 50)
    assert first.training == describe(larger.training.operator.model_dump())
    assert not started.tuning
    assert Race(CONFIGURATION, download, tmp_path).directory != started.directory


def test_a_variant_that_diverges_is_told_and_the_others_go_on(monkeypatch, download, tmp_path):
    wild = load_configuration(TINY, {"training.operator.learning_rate": 1.0})
    stages = Stages(diverging=describe(wild.training.operator.model_dump()))
    for name in ("autoencoder", "cache_encode", "operator"):
        monkeypatch.setitem(one_process._STAGES, name, getattr(stages, name))
    monkeypatch.setattr(races, "_score", lambda entrants, *_, outside: [{"model": name} for name in entrants])
    request = {"configuration": CONFIGURATION.model_dump(mode="json"), "download": str(download), "seeds": 1}
    request |= {"directory": str(tmp_path), "seconds": 8.0, "outside": False}
    changed = [
        (name, configuration.model_dump(mode="json"))
        for name, configuration in (("wild", wild), ("tame", CONFIGURATION))
    ]
    records = races.measure_ablation(request | {"changed": changed})
    assert [record["model"] for record in records] == ["operator", "tame", "wild"]
    assert "loss nan" in records[-1]["message"]


@pytest.mark.slow
def test_an_ablation_of_a_second_on_the_command_line(root, tmp_path):
    changes = tmp_path / "changes.yaml"
    changes.write_text("several time steps: {training.operator.time_steps: [1, 2]}")
    command = ("bench", "ablation", TINY, changes, "--root", root, "--seconds", "1", *LOSSLESS)
    told = ups(*command, "--outside")
    assert told.returncode == 2
    assert "--outside: evaluation.outside is null" in told.stderr
    # A factor of 1 changes nothing, and has no table.
    beyond = "evaluation.outside={amplitude: 2.0, offset: 1.0, parameter: 1.0, trajectories: 3}"
    done = ups(*command, "--json", "--outside", "--set", beyond)
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)
    names = ["persistence", "spatial_mean", "linear", "operator", "several time steps"]
    assert [record["model"] for record in records] == 3 * names
    inside, amplitude, offset = (records[at : at + len(names)] for at in range(0, len(records), len(names)))
    assert {(record["split"], record["n_trajectories"]) for record in inside} == {("validation", 4)}
    assert {(record["split"], record["n_trajectories"]) for record in amplitude + offset} == {("outside", 3)}
    assert {record["dataset"].partition("initial states ")[2] for record in amplitude} == {"x 2 +0, nu x 1"}
    assert {record["dataset"].partition("initial states ")[2] for record in offset} == {"x 1 +1, nu x 1"}
    assert all(record["trajectory_relative_l2"] > 0 for record in records)
    changes.write_text("other data: {data.nu: 0.1}")
    done = ups("bench", "ablation", TINY, changes, "--root", root, "--seconds", "1", *LOSSLESS)
    assert done.returncode == 2
    assert "data.nu may not change" in done.stderr


def test_seconds_that_were_not_kept_to_are_told():
    """A step count that was planned in a quiet minute takes longer in a loud one."""
    kept = {"model": "unet", "planned_seconds": 40.0, "seconds": 43.0}
    assert departures([{"model": "persistence"}, kept, kept | {"seconds": 37.0}]) == []
    assert departures([kept | {"seconds": 47.0}, kept]) == ["unet 47 of 40 s"]


def test_a_race_that_runs_is_left_alone(download, tmp_path):
    """By another one of the same configuration, and by the cleaning up of the cache."""
    store = Store(tmp_path)
    place = store.artifacts / ".work"
    directory = Race(CONFIGURATION, download, place).directory
    directory.mkdir(parents=True)
    request = {"configuration": CONFIGURATION.model_dump(mode="json"), "download": str(download)}
    request |= {"directory": str(place), "seconds": 1.0, "seeds": 1, "peers": ["fno"], "finished": []}
    with FileLock(directory / LOCK):
        with pytest.raises(PreflightError, match="this race runs already"):
            measure_peers(request)
        (left,) = leftovers(store)
        with pytest.raises(BusyError), store.exclusive(left.stage, left.digest):
            pass


@pytest.mark.slow
def test_a_race_of_a_second_on_the_command_line(root):
    peer = ("--peers", "dilated_resnet")
    done = ups("bench", "peers", TINY, "--root", root, "--seconds", "1", *peer, "--json", *LOSSLESS)
    assert done.returncode == 0, done.stderr
    assert "download cached" in done.stderr
    records = json.loads(done.stdout)
    rows = {record["model"]: record for record in records if record["measure"] == "peers"}
    assert list(rows) == ["persistence", "spatial_mean", "linear", "operator", "dilated_resnet"]
    for name in ("operator", "dilated_resnet"):
        row = rows[name]
        assert row["planned_seconds"] == 1.0
        assert row["seconds"] > 0
        assert row["steps"] >= 1
        assert row["parameters"] > 1000
        assert (row["split"], row["n_trajectories"], row["train_trajectories"]) == ("test", 4, 16)
        assert row["trajectory_relative_l2"] > 0
        assert row["seconds_per_trajectory"] > 0
    tuned = [record for record in records if record["measure"] == "tuning"]
    assert {record["model"] for record in tuned} == {"operator", "dilated_resnet"}
    assert list((root / "artifacts" / ".work" / "peers").iterdir()) == []


@pytest.mark.slow
@pytest.mark.long
def test_without_seconds_the_race_is_with_the_operator_of_the_chain(root):
    """Whose artifact is found, and not trained again."""
    trained = ups("stage", "operator", TINY, "--root", root, *LOSSLESS)
    assert trained.returncode == 0, trained.stderr
    done = ups("bench", "peers", TINY, "--root", root, "--peers", "fno", *LOSSLESS)
    assert done.returncode == 0, done.stderr
    assert "operator cached" in done.stderr
    assert "operator: adamw" not in done.stderr
    for word in ("persistence", "fno", "planned", "validation split", "4 test trajectories", "1 seed"):
        assert word in " ".join(done.stdout.split()), word  # lines of the title break anywhere
    (operator,) = (line.split() for line in done.stdout.splitlines() if line.startswith("operator"))
    assert operator[-3] == "20"  # its steps, as configured
    planned, real = operator[-2:]
    (fno,) = (
        line.split() for line in done.stdout.partition("Tuning")[0].splitlines() if line.startswith("fno")
    )
    assert fno[-2] == planned == real


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--peers", "fno,lstm"), "'lstm' is none of fno, unet, dilated_resnet"),
        (("--seconds", "0"), "not a number of seconds above 0"),
        (("--seconds", "nan"), "not a number of seconds above 0"),
        (("--set", "execution.processes=2"), "a benchmark runs in one process"),
    ],
)
def test_wrong_arguments_are_told(answer, arguments, message, tmp_path):
    code, _, told = answer("bench", "peers", TINY, "--root", tmp_path, *arguments)
    assert code == 2
    assert message in told
    assert not (tmp_path / "runs").exists()
