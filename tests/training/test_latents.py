"""What trainings read, of several problems at once: the same batches in every way of loading, and shared validation."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cached import dataset
from command_line import CONFIGS
from downloads import run_download, stage_request
from tiny import build, decoded_frames, encoded_frames, single_rank
from torch import Tensor

from ups.config import Configuration, load_configuration
from ups.data.batch import Batch
from ups.data.dataset import Dataset, load_datasets
from ups.data.splits import fitted_and_held_out
from ups.errors import ConfigurationError, DataError
from ups.losses.relative import relative_l2
from ups.models.autoencoder import Autoencoder
from ups.models.build import MODEL_FILE, build_model, load_codec, load_model, save_model
from ups.models.operators import LatentOperator
from ups.runtime.ranks import Ranks
from ups.stages import cache_encode
from ups.stages.autoencoder import _errors, normalisation
from ups.stages.operator import rollout_validation
from ups.training.latents import LatentProblem, open_problems, window_source
from ups.training.loop import Validation

CPU = torch.device("cpu")
OVERRIDES = {"execution.device": "cpu"}


def configured(**overrides: object) -> Configuration:
    return load_configuration(CONFIGS / "mix_tiny.yaml", OVERRIDES | overrides)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Data of four problems, an autoencoder that was never trained, and the cache of its latents."""
    folder = tmp_path_factory.mktemp("chain")
    root = folder / "artifacts"
    configuration = configured()

    run_download(folder, configuration)
    datasets = load_datasets(root / "download" / "output")
    found = {name: normalisation(name, data, configuration, CPU) for name, data in datasets.items()}
    description = {
        "kind": "autoencoder",
        "problems": {name: problem.shape.to_json() for name, problem in found.items()},
        "latent_dim": configuration.model.latent.dim,
        "encoder": configuration.model.encoder.model_dump(),
        "decoder": configuration.model.decoder.model_dump(),
        "statistics": {
            name: {"field_mean": problem.mean.tolist(), "field_deviation": problem.deviation.tolist()}
            for name, problem in found.items()
        },
    }
    torch.manual_seed(0)
    model = build_model(description)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(root / "autoencoder" / "output" / MODEL_FILE, model, description)
    cache_encode.run(stage_request(folder, "cache_encode", configuration))
    return root


def problems(root: Path, mode: str) -> dict[str, LatentProblem]:
    inputs = {name: root / name / "output" for name in ("download", "cache_encode")}
    codec, _ = load_codec(inputs["cache_encode"])
    return open_problems(inputs, configured(**{"loading.mode": mode}), codec, single_rank())


def batches(root: Path, mode: str, steps: int = 16, **overrides: object) -> Iterator[Batch]:
    configuration = configured(**({"loading.mode": mode} | overrides))
    with window_source(
        problems(root, mode), configuration, single_rank(), stage="operator", batch_size=8, length=3
    ) as (source, held):
        assert set(held.values()) == {"device" if mode == "auto" else mode}
        yield from (source.batch(step) for step in range(steps))


@pytest.mark.parametrize("order", ["independent", "permutation"])
@pytest.mark.parametrize("mode", ["auto", "memory", "stream", "encode"])
def test_every_way_of_loading_gives_the_same_batches(root, mode, order):
    seen = set()
    pairs = zip(
        batches(root, "device", **{"loading.order": order}),
        batches(root, mode, **{"loading.order": order}),
        strict=True,
    )
    for expected, batch in pairs:
        seen.add(batch.problem)
        assert batch.problem == expected.problem
        assert batch.fields is not None
        assert batch.latents is not None
        assert expected.fields is not None
        assert expected.latents is not None
        assert torch.equal(batch.fields, expected.fields)
        assert torch.equal(batch.scalars, expected.scalars)
        assert batch.known is None if expected.known is None else torch.equal(batch.known, expected.known)
        if mode == "encode":
            unit = torch.maximum(expected.latents.abs() * 2.0**-10, torch.tensor(2.0**-14))
            assert ((batch.latents.half().float() - expected.latents).abs() <= 2 * unit).all()
        else:
            assert torch.equal(batch.latents, expected.latents)
    assert seen == {"advection", "burgers", "compressible", "darcy"}


def test_windows_are_as_long_as_the_rollout_and_a_maps_has_its_two_frames(root):
    for batch in batches(root, "device"):
        assert batch.fields is not None
        assert batch.latents is not None
        assert batch.fields.shape[1] == batch.latents.shape[1] == (2 if batch.problem == "darcy" else 3)
        assert (batch.known is not None) == (batch.problem == "darcy")


def test_only_trajectories_that_the_operator_fits_are_drawn(root):
    """Each first frame that is ever drawn belongs to a fitted row, and all of these are drawn."""
    configuration = configured()
    read, drawn = problems(root, "device"), {}
    for batch in batches(root, "device", steps=200):
        assert batch.fields is not None
        drawn.setdefault(batch.problem, []).append(batch.fields[:, -1])
    for name, problem in read.items():
        fitted, held_out = fitted_and_held_out(
            problem.rows("train"), configuration.training.operator.residual_fraction
        )
        assert not isinstance(problem.source, Dataset)
        fields = torch.from_numpy(problem.source.fields(problem.rows("train"))).float().flatten(2)
        found = set()
        for frame in torch.cat(drawn[name]).flatten(1):
            distance = (fields - frame).abs().amax(dim=2)
            assert distance.min() == 0
            found.add(problem.rows("train")[int(distance.amin(dim=1).argmin())])
        assert found == set(fitted.tolist()), name
        assert not found & set(held_out.tolist())


@pytest.mark.parametrize("mode", ["device", "encode"])
def test_latents_of_chosen_rows_are_those_of_their_fields(root, mode):
    for problem in problems(root, mode).values():
        rows = problem.rows("validation")
        latents = problem.latents(rows)
        fields = torch.from_numpy(problem.rows_fields(problem.rows("validation")))
        assert latents.shape[:2] == fields.shape[:2] == (len(rows), len(problem.known))
        known = torch.from_numpy(problem.known)
        for row in range(len(rows)):
            (exact,) = problem.codec.encode_trajectories(
                fields[row : row + 1], known, time_step=0.05, parameters=problem.source.parameters
            )
            torch.testing.assert_close(latents[row], exact, rtol=1e-2, atol=1e-2)


# --- validation -----------------------------------------------------------------------------------


def operator(root: Path) -> LatentOperator:
    codec, _ = load_codec(root / "cache_encode" / "output")
    model = build("operator", shapes=codec.shapes, scale=0.05)
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False).eval()


def share(rank: int, world: int) -> Ranks:
    return replace(single_rank(), rank=rank, world=world)


def validation(root: Path, ranks: Ranks) -> Validation:
    """As the operator's stage validates."""
    codec, _ = load_codec(root / "cache_encode" / "output")
    return rollout_validation(codec, root / "download" / "output", ranks)


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_shares_of_rollouts_make_up_the_whole_also_where_one_is_empty(root, world):
    """Four validation trajectories of each problem."""
    model = operator(root)
    with torch.no_grad():
        whole = validation(root, single_rank()).errors(model)
        shares = [validation(root, share(rank, world)).errors(model) for rank in range(world)]
    for name, errors in whole.items():
        assert len(errors) == 4
        assert torch.isfinite(errors).all()
        for rank in range(world):
            torch.testing.assert_close(shares[rank][name], errors[rank::world], rtol=1e-5, atol=1e-6)


def test_a_map_is_validated_by_one_step_from_what_is_given(root):
    read, model = problems(root, "device"), operator(root)
    problem = read["darcy"]
    with torch.no_grad():
        errors = validation(root, single_rank()).errors(model)["darcy"]
        dataset = load_datasets(root / "download" / "output", ("validation",))["darcy"]
        truth = torch.from_numpy(dataset.split("validation"))
        given = truth[:, 1].clone()
        given[..., 1] = 1e6  # what is not given is not looked at
        state = encoded_frames(problem.codec, given, torch.tensor([[True, False]]).expand(4, -1))
        scalars = torch.tensor(problem.scalars).expand(4, -1)
        forecast = decoded_frames(problem.codec, model(state, scalars, "darcy"))
        expected = relative_l2(forecast[..., 1], truth[:, 1, ..., 1].flatten(1))
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-6)


def reconstruction(root: Path, ranks: Ranks) -> dict[str, Tensor]:
    """As the autoencoder's stage validates."""
    model, _ = load_model(root / "autoencoder" / "output" / MODEL_FILE)
    assert isinstance(model, Autoencoder)
    found = {}
    for name, data in load_datasets(root / "download" / "output", ("train", "validation")).items():
        problem = normalisation(name, data, configured(), CPU)
        held_out = torch.from_numpy(data.split("validation"))[ranks.rank :: ranks.world]
        found[name] = _errors(model, name, problem, data.known, held_out)
    return found


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_shares_of_reconstructions_make_up_the_whole_also_where_one_is_empty(root, world):
    with torch.no_grad():
        whole = reconstruction(root, single_rank())
        shares = [reconstruction(root, share(rank, world)) for rank in range(world)]
    for name, errors in whole.items():
        assert len(errors) == 4
        for rank in range(world):
            torch.testing.assert_close(shares[rank][name], errors[rank::world], rtol=1e-5, atol=1e-6)


def test_validations_have_names(root):
    assert validation(root, single_rank()).metric == "validation_relative_l2"


# --- statistics -----------------------------------------------------------------------------------


def statistics(data: Dataset, **overrides: object) -> tuple[list[float], list[float]]:
    """Mean and deviation of the fields of a problem called map, flow or waves."""
    name = {"darcy2d": "darcy", "compressible1d": "compressible", "burgers1d": "burgers"}[data.problem.name]
    found = normalisation(name, data, configured(**(PRIMITIVE | overrides)), CPU)
    return found.mean.tolist(), found.deviation.tolist()


PRIMITIVE = {
    "data.problems.compressible.variables": "primitive",
    "model.encoder.depth": 0,
    "model.decoder.depth": 0,
}


def test_statistics_are_those_of_known_values_of_the_train_split():
    data = dataset("map")
    train = data.split("train").astype(np.float64)
    mean, deviation = statistics(data)
    assert mean[0] == pytest.approx(train[..., 0].mean())
    assert deviation[0] == pytest.approx(train[..., 0].std())
    assert mean[1] == pytest.approx(train[:, 1, ..., 1].mean()), "the zeros of the first frame do not count"
    assert deviation[1] == pytest.approx(train[:, 1, ..., 1].std())
    other = dataset("map")
    for part in ("validation", "test"):
        other.fields[other.splits[part]] += 100
    assert statistics(other) == (mean, deviation)


def test_statistics_are_taken_in_the_frames_of_the_trajectories():
    data = dataset("waves", rows=40)
    data.fields[:] += np.linspace(-5, 5, 40, dtype=np.float32)[:, None, None, None]
    train = data.split("train").astype(np.float64)
    mean, deviation = statistics(data)
    assert mean[0] == pytest.approx(train.mean())
    assert deviation[0] == pytest.approx(train.std())
    assert deviation[0] > 2
    centred = train - train[:, :1].mean(axis=2, keepdims=True)
    mean, deviation = statistics(data, **{"model.symmetries": {"burgers": {"galilean": "exact"}}})
    assert mean[0] == pytest.approx(centred.mean(), abs=1e-5)
    # A frame moves by parts of a grid point, for which the highest wave number has no phase: a point is noise here.
    assert deviation[0] == pytest.approx(centred.std(), rel=0.02)
    uses = {"galilean": "exact", "scaling": "exact"}
    mean, deviation = statistics(data, **{"model.symmetries": {"burgers": uses}})
    assert mean == [0.0], "a mean would not scale"
    assert deviation[0] == pytest.approx(np.sqrt(np.square(centred).mean()), rel=0.02)


def test_statistics_of_a_map_are_relative_to_its_force():
    data = dataset("map")
    plain = statistics(data)
    scaled = statistics(data, **{"model.symmetries": {"darcy": {"scaling": "exact"}}})
    assert scaled[0] == pytest.approx([plain[0][0], plain[0][1] / 0.5])
    assert scaled[1] == pytest.approx([plain[1][0], plain[1][1] / 0.5])


def test_a_field_that_never_varies_is_refused_before_it_is_divided_by_nothing():
    data = dataset("flow")
    data.fields[data.splits["train"], ..., 1] = 0.3
    with pytest.raises(DataError, match=r"velocity is 0\.3 everywhere in the train split"):
        statistics(data)


def test_a_field_may_be_constant_in_a_part_of_the_trajectories(monkeypatch):
    """They are read in parts."""
    data = dataset("flow")
    data.fields[data.splits["train"], ..., 1] = np.arange(len(data.splits["train"]))[:, None, None]
    expected = statistics(data)
    monkeypatch.setattr("ups.stages.autoencoder._FRAMES_AT_ONCE", 1)
    assert statistics(data)[1] == pytest.approx(expected[1])


def test_a_symmetry_that_the_boundary_of_a_file_does_not_have_is_refused():
    """The configuration took the equation's usual boundary, and the file says another."""
    data = dataset("flow")
    uses = {
        "data.problems.compressible.boundary": "periodic",
        "model.symmetries": {"compressible": {"shift": "exact"}},
    }
    with pytest.raises(
        ConfigurationError,
        match=r"(?s)model\.symmetries\.shift.*outflow boundary.*write off; it has reflection",
    ):
        statistics(data, **uses)
