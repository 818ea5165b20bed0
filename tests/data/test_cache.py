"""A cache holds what it was given, is plain zarr, and is refused when its parts do not belong together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from cached import SHAPES, build_small_cache, codec, datasets, encoded

from ups.data.cache import GROUP, attributes_sum, open_caches
from ups.errors import DataError, IntegrityError
from ups.models.shape import ProblemShape
from ups.problems import PROBLEMS


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it; copy it before changing it."""
    return build_small_cache(tmp_path_factory.mktemp("cache"))[0]


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(artifact, tmp_path / "copy")


def all_rows(cache) -> np.ndarray:
    return np.arange(cache.trajectories)


@pytest.mark.parametrize("name", SHAPES)
def test_a_round_trip_loses_what_float16_loses(artifact, name):
    data, cache = datasets()[name], open_caches(artifact)[name]
    latents = encoded(codec(artifact), name, data).numpy()
    for exact, stored in (
        (latents, cache.latents(all_rows(cache))),
        (data.fields, cache.fields(all_rows(cache))),
    ):
        assert stored.dtype == np.float16
        error = np.abs(stored.astype(np.float64) - exact)
        # Latents were encoded in calls of another size: an order of additions, 1e-5 at most.
        assert (error <= np.maximum(2.0**-11 * np.abs(exact), 2.0**-25) + 1e-5).all()
        assert error.max() > 0
    np.testing.assert_array_equal(cache.fields(all_rows(cache)), data.fields.astype(np.float16))


@pytest.mark.parametrize("name", SHAPES)
def test_zarr_reads_the_same_without_this_library(artifact, name):
    cache = open_caches(artifact)[name]
    group = zarr.open_group(artifact / GROUP / name, mode="r")
    np.testing.assert_array_equal(np.asarray(group["latents"]), cache.latents(all_rows(cache)))
    for channel, field in enumerate(cache.names):
        array = group[field]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(np.asarray(array), cache.fields(all_rows(cache))[..., channel])
        axes = datasets()[name].problem.axes
        assert array.metadata.to_dict()["dimension_names"] == ("trajectory", "time", *axes)
    assert dict(group.attrs) == cache.attributes
    assert list(zarr.open_group(artifact / GROUP, mode="r").attrs["problems"]) == list(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_xarray_opens_it_with_its_dimensions_and_coordinates(artifact, name):
    data, cache = datasets()[name], open_caches(artifact)[name]
    opened = xarray.open_zarr(artifact / GROUP / name, consolidated=False)
    assert set(opened.data_vars) == {"latents", *data.names}
    axes = data.problem.axes
    for field in data.names:
        assert opened[field].dims == ("trajectory", "time", *axes)
    assert opened["latents"].dims == ("trajectory", "time", "token", "channel")
    assert set(opened.coords) == {"time", *axes}
    np.testing.assert_array_equal(opened["time"], data.times)
    for axis, points in zip(axes, data.coordinates, strict=True):
        np.testing.assert_array_equal(opened[axis], points)
    last = opened[data.names[0]].sel(time=data.times[-1], method="nearest").isel(trajectory=0)
    np.testing.assert_array_equal(last, cache.fields(np.array([0]))[0, -1, ..., 0])


def test_no_field_is_named_like_another_array_of_its_group():
    for problem in PROBLEMS.values():
        assert not {"latents", "time", *problem.axes} & {field.name for field in problem.fields}


@pytest.mark.parametrize("name", SHAPES)
def test_everything_about_the_trajectories_is_kept(artifact, name):
    data, cache = datasets()[name], open_caches(artifact)[name]
    assert cache.names == data.names
    assert cache.scored == data.scored
    assert cache.scalars == data.scalars
    assert ProblemShape.from_json(cache.shape) == SHAPES[name]
    np.testing.assert_array_equal(cache.known, data.known)
    for split, rows in data.splits.items():
        np.testing.assert_array_equal(cache.rows(split), rows)
    kept = cache.attributes
    assert kept["rows"] == data.rows.tolist()
    assert (kept["title"], kept["version"]) == (data.title, data.version)
    assert (kept["equation"], kept["boundary"]) == (data.problem.name, data.boundary)
    assert kept["parameters"] == data.parameters
    assert (kept["encoder"], kept["dataset"]) == ("e" * 64, "d" * 64)
    assert cache.bytes == 2 * (cache.latents(all_rows(cache)).size + data.fields.size)


def test_latents_of_the_train_split_are_standardised_by_the_statistics_of_the_codec(artifact):
    for name, cache in open_caches(artifact).items():
        statistics = codec(artifact).of(name).statistics
        for key, values in statistics.state_dict().items():
            assert cache.attributes["statistics"][key] == values.tolist()
        flat = cache.latents(cache.rows("train")).astype(np.float64).reshape(-1, 4)
        np.testing.assert_allclose(flat.mean(0), 0, atol=2e-3)
        np.testing.assert_allclose(flat.std(0), 1, atol=2e-3)


def test_unknown_fields_are_zero(artifact):
    cache = open_caches(artifact)["map"]
    first = cache.fields(all_rows(cache))[:, 0]
    assert not first[..., 1].any()
    assert first[..., 0].all()


def test_the_stage_says_how_much_float16_costs(tmp_path):
    data = datasets("flow")
    _, summary = build_small_cache(tmp_path, data)
    errors = summary["float16_round_trip"]["flow"]
    for channel, field in enumerate(data["flow"].names):
        exact = data["flow"].fields[..., channel].astype(np.float64)
        error = exact.astype(np.float16).astype(np.float64) - exact
        assert errors[field]["largest"] == pytest.approx(np.abs(error).max(), rel=1e-12)
        relative = np.linalg.norm(error) / np.linalg.norm(exact)
        assert errors[field]["relative_l2"] == pytest.approx(relative, rel=1e-9)
    assert 0 < errors["latents"]["relative_l2"] < 2.0**-11


@pytest.mark.parametrize("value", [65520.0, -1e6, np.inf, np.nan])
def test_what_float16_cannot_hold_is_an_error_that_names_the_place(tmp_path, value):
    data = datasets("flow")
    data["flow"].fields[4, 1, 3, 1] = value
    data["flow"].splits["train"] = np.array([3])  # the statistics of latents do not see it
    with pytest.raises(DataError, match=r"(?s)does not fit float16.*fix: rescale") as caught:
        build_small_cache(tmp_path, data)
    assert "flow/" in str(caught.value)
    assert "trajectories 4 to 4" in str(caught.value)


CHUNK = f"{GROUP}/flow/density/c/1/0/0"


@pytest.mark.parametrize("how", ["deleted", "empty", "truncated"])
def test_a_chunk_that_is_not_there_is_an_error_at_open_and_never_zeros(copy, how):
    path = copy / CHUNK
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else path.read_bytes()[:-5])
    with pytest.raises(IntegrityError, match=r"(?s)flow/density/c/1/0/0: .*fix: ") as caught:
        open_caches(copy)
    assert ("is missing" in str(caught.value)) == (how == "deleted")


def test_a_flipped_bit_is_an_error_at_the_first_read(copy):
    content = bytearray((copy / CHUNK).read_bytes())
    content[11] ^= 1
    (copy / CHUNK).write_bytes(content)
    cache = open_caches(copy)["flow"]
    cache.fields(np.arange(4))
    with pytest.raises(IntegrityError, match="density/c/1"):
        cache.fields(np.array([4]))


@pytest.mark.parametrize("group", ["", "flow"])
def test_changed_attributes_are_refused(copy, group):
    path = copy / GROUP / group / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["encoder"] = "f" * 64
    path.write_text(json.dumps(metadata))
    with pytest.raises(IntegrityError, match="changed after they were written"):
        open_caches(copy)


def test_changed_statistics_are_refused(copy):
    path = copy / GROUP / "flow" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["statistics"]["latent_mean"][0] += 1e-6
    path.write_text(json.dumps(metadata))
    with pytest.raises(IntegrityError, match="changed after they were written"):
        open_caches(copy)


def test_the_codec_of_another_cache_is_refused(copy, tmp_path):
    """Of another encoder, and of the same encoder with other statistics."""
    others = [
        build_small_cache(tmp_path / "encoder", seed=1)[0],
        build_small_cache(tmp_path / "data", datasets(seed=1))[0],
    ]
    for other in others:
        shutil.copy(other / "codec.safetensors", copy / "codec.safetensors")
        with pytest.raises(IntegrityError, match="is not the codec that this cache was encoded by"):
            open_caches(copy)
    (copy / "codec.safetensors").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        open_caches(copy)


def test_a_problem_of_another_cache_is_refused(copy, tmp_path):
    other, _ = build_small_cache(tmp_path / "other", seed=1)
    shutil.rmtree(copy / GROUP / "flow")
    shutil.copytree(other / GROUP / "flow", copy / GROUP / "flow")
    with pytest.raises(IntegrityError, match="another codec than its neighbours"):
        open_caches(copy)


def test_an_array_that_its_group_does_not_describe_is_refused(copy):
    path = copy / GROUP / "flow" / "zarr.json"
    metadata = json.loads(path.read_text())
    attributes = metadata["attributes"]
    attributes["latent_shape"] = [2, 8]
    attributes["sum"] = attributes_sum(attributes)
    path.write_text(json.dumps(metadata))
    with pytest.raises(IntegrityError, match="its group says"):
        open_caches(copy)


def test_a_cache_of_another_version_or_none_is_refused(copy, tmp_path):
    with pytest.raises(IntegrityError, match="is missing"):
        open_caches(tmp_path)
    path = copy / GROUP / "zarr.json"
    path.write_text(path.read_text().replace("latent cache 4", "latent cache 3"))
    with pytest.raises(IntegrityError, match="no cache of this version"):
        open_caches(copy)


def test_a_cache_without_values_says_what_it_was_made_for(tmp_path):
    artifact, summary = build_small_cache(tmp_path, stored=False)
    assert not summary["stored"]
    arrays = {path.parent.name for path in artifact.rglob("zarr.json")}
    assert arrays == {GROUP, *SHAPES, "time", "x", "y"}, "coordinates, and no values"
    for name, cache in open_caches(artifact).items():
        assert not cache.stored
        assert cache.bytes == 0
        assert cache.scalars == datasets()[name].scalars
        with pytest.raises(ValueError, match=r"loading\.mode encode"):
            cache.latents(np.arange(1))
        with pytest.raises(ValueError, match=r"loading\.mode encode"):
            cache.fields(np.arange(1))
    full, _ = build_small_cache(tmp_path / "full")
    assert (full / "codec.safetensors").read_bytes() == (artifact / "codec.safetensors").read_bytes()
