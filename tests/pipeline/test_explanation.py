"""A MISS is explained by what differs from the nearest artifact, and by the first cause upstream."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY
from sealing import write_output

from ups.artifacts import Artifact, Manifest, Store, identity
from ups.artifacts.files import write_json
from ups.artifacts.identity import digest_of
from ups.artifacts.manifest import MANIFEST
from ups.config import load_configuration
from ups.errors import IntegrityError
from ups.pipeline.explanation import (
    ABSENT,
    Explanation,
    Origin,
    differences,
    explain,
    leaves,
    present_libraries,
    read_origins,
)
from ups.pipeline.graph import GRAPH
from ups.pipeline.plan import PlannedStage, check, make_recipes

ON_CPU = {"execution.device": "cpu"}
RATE = "training.operator.learning_rate"


class Chain:
    """A store in which whole chains are sealed without being run."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def seal(
        self, overrides: dict[str, Any] | None = None, *, code: dict[str, str] | None = None, day: int = 1
    ) -> dict[str, Artifact]:
        """Seal all stages of TINY with overrides; `code`: other code identities per stage."""
        configuration = load_configuration(TINY, ON_CPU | (overrides or {}))
        built: dict[str, Artifact] = {}
        for name, recipe in make_recipes(configuration, self.store).items():
            inputs = {i: built[i] for i in GRAPH[name].inputs}
            recipe |= {"inputs": {i: artifact.digest for i, artifact in inputs.items()}}
            recipe |= {"code": (code or {}).get(name, recipe["code"])}
            digest = digest_of(recipe)
            found = self.store.find(name, digest)
            if found is None:
                write_output(self.store, name, digest)
                found = self.store.seal(name, digest, recipe=recipe, inputs=inputs, summary={}, seconds=1.0)
                manifest = replace(found.manifest, created=f"2026-11-{day:02d}T00:00:00+00:00")
                write_json(found.path / MANIFEST, manifest.to_json())
            built[name] = found
        return built

    def explain(self, overrides: dict[str, Any] | None = None, **known: Any) -> dict[str, Explanation]:
        configuration = load_configuration(TINY, ON_CPU | (overrides or {}))
        store, plan = Store(self.store.root), []
        hits: dict[str, Artifact | None] = {}
        for name, recipe in make_recipes(configuration, store).items():
            digest = digest_of(recipe)
            hits[name], reason = check(store, name, digest, {i: hits[i] for i in GRAPH[name].inputs})
            plan.append(PlannedStage(name, digest, recipe, "HIT" if hits[name] else "MISS", reason, 0))
        sealed = [Manifest.read(path / MANIFEST) for path in self.store]
        return {each.stage: each for each in explain(plan, sealed, **known)}


@pytest.fixture
def chain(tmp_path) -> Chain:
    return Chain(tmp_path)


def keys(explanation: Explanation) -> dict[str, tuple[Any, Any]]:
    return {each.key: (each.before, each.after) for each in explanation.differences}


def listed(names: list[str]) -> str:
    """With the verb that goes with them."""
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def test_nothing_there(chain):
    told = chain.explain()
    assert list(told) == list(GRAPH)
    for name, each in told.items():
        assert each.nearest is None
        assert each.sentence() == f"{name}: MISS {each.digest[:12]}: never built."


def test_a_hit(chain):
    built = chain.seal()
    for name, each in chain.explain().items():
        assert each.nearest is not None
        assert each.nearest.digest == each.digest == built[name].digest
        assert (each.differences, each.causes) == ([], [])
        assert each.sentence() == (f"{name}: HIT {each.digest[:12]}: sealed 2026-11-01T00:00:00+00:00.")


def test_a_changed_key_and_what_follows_from_it(chain):
    built = chain.seal()
    old = load_configuration(TINY).training.operator.learning_rate
    told = chain.explain({RATE: 0.5})
    assert told["cache_encode"].verdict == "HIT"
    operator, diffusion = told["operator"], told["diffusion"]
    assert keys(operator) == {"training.learning_rate": (old, 0.5)}
    assert operator.equal == list(GRAPH["operator"].inputs)
    assert operator.sentence() == (
        "operator: MISS: no artifact of this configuration, code and inputs. "
        f"Nearest artifact {built['operator'].digest[:12]} (2026-11-01) differs in "
        f"training.learning_rate: {old} -> 0.5; upstream {listed(operator.equal)} equal."
    )
    assert diffusion.differences == []
    assert diffusion.changed == ["operator"]
    assert {*diffusion.changed, *diffusion.equal} == set(GRAPH["diffusion"].inputs)
    assert [(each.stage, each.key) for each in diffusion.causes] == [("operator", "training.learning_rate")]
    assert diffusion.sentence().endswith(
        " has equal settings and code; was made of another operator; "
        f"upstream {listed(diffusion.equal)} equal. "
        f"First upstream cause: operator differs in training.learning_rate: {old} -> 0.5."
    )


def test_the_first_cause_is_the_one_furthest_upstream(chain):
    chain.seal()
    explanations = chain.explain({"data.nu": 0.02, RATE: 0.5})
    (key,) = keys(explanations["download"])
    told = explanations["consistency"]
    assert told.changed == list(GRAPH["consistency"].inputs)
    assert [(each.stage, each.key) for each in told.causes] == [
        ("download", key), ("operator", "training.learning_rate"),
    ]  # fmt: skip
    assert told.sentence().endswith(
        f"First upstream cause: download differs in {key}: 0.01 -> 0.02 (then also operator)."
    )


def test_changed_code_with_what_the_run_that_built_it_tells(chain):
    sealed = chain.seal(code={"download": "0" * 64})["download"].digest
    told = chain.explain()
    assert [each.key for each in told["download"].differences] == ["code"]
    assert (
        "differs in code (its modules, or the versions of torch, numpy and zarr)"
        in told["download"].sentence()
    )
    assert "First upstream cause: download differs in code (its modules, or" in told["autoencoder"].sentence()

    def with_origin(torch: str, *, commit: str | None = "42a3d27a09cd1111", uncommitted: bool = False) -> str:
        origin = Origin(commit, uncommitted, {"torch": torch, "numpy": "2.1"})
        known = {"origins": {sealed: origin}, "libraries": {"torch": "2.11", "numpy": "2.1"}}
        text = chain.explain(**known)["download"].sentence()
        return text.partition("differs in ")[2]

    assert with_origin("2.10") == "code (torch 2.10 -> 2.11; perhaps its modules too)."
    assert (
        with_origin("2.11") == "code (its modules: built at commit 42a3d27a09cd; library versions are equal)."
    )
    assert "42a3d27a09cd with uncommitted changes;" in with_origin("2.11", uncommitted=True)
    assert "code that is in no checkout" in with_origin("2.11", commit=None)


def test_the_nearest_has_the_fewest_differences_then_is_the_newest(chain):
    near = chain.seal({RATE: 0.25}, day=1)["operator"]
    chain.seal({RATE: 0.25, "training.operator.steps": 40}, day=9)
    assert chain.explain({RATE: 0.5})["operator"].nearest.digest == near.digest
    newer = chain.seal({RATE: 0.125}, day=5)["operator"]
    assert chain.explain({RATE: 0.5})["operator"].nearest.digest == newer.digest
    chain.seal({RATE: 0.0625}, day=3)
    assert chain.explain({RATE: 0.5})["operator"].nearest.digest == newer.digest


def test_the_same_recipe_whose_input_is_gone(chain):
    built = chain.seal()
    chain.store.remove(built["download"].path)
    told = chain.explain()
    operator = told["operator"]
    assert operator.verdict == "MISS"
    assert operator.nearest is not None
    assert operator.nearest.digest == operator.digest
    assert operator.unbuilt[0] == ("download", "never built")
    assert operator.sentence() == (
        f"operator: MISS, though {operator.digest[:12]} (2026-11-01) has this recipe: "
        f"input {GRAPH['operator'].inputs[0]} is to be built. First upstream cause: download is a MISS (never built); "
        "what is rebuilt equal counts again."
    )


def test_a_damaged_artifact_is_told_as_such(chain):
    built = chain.seal()
    (built["operator"].path / "model.bin").write_bytes(b"")
    sentence = chain.explain()["operator"].sentence()
    assert sentence.startswith("operator: MISS, though ")
    assert "has this recipe: damaged: " in sentence
    assert "model.bin has 0 bytes" in sentence


def test_an_input_of_the_nearest_that_is_gone_leaves_the_cause_unknown(chain):
    built = chain.seal()
    chain.store.remove(built["download"].path)
    told = chain.explain({"data.nu": 0.02})["autoencoder"]
    assert told.causes == []
    assert told.gone == [f"download {built['download'].digest[:12]}"]
    assert told.sentence().endswith(
        f"Its input download {built['download'].digest[:12]} is gone, so what changed there is not known."
    )


def test_leaves_are_told_by_their_keys():
    recipe = {
        "stage": "operator",
        "settings": {
            "a": {"b": 1, "c": []},
            "rollout": [0.5, 2],
            "problems": [{"nu": 1}, {"nu": 2}],
            "e": {},
        },
        "code": {"modules": {"ups.x": "1"}, "libraries": {"torch": "2"}},
        "inputs": {"download": "f"},
    }
    assert leaves(recipe) == {
        ("settings", "a", "b"): 1,
        ("settings", "a", "c"): [],
        ("settings", "rollout"): [0.5, 2],
        ("settings", "problems", "0", "nu"): 1,
        ("settings", "problems", "1", "nu"): 2,
        ("settings", "e"): {},
        ("code", "modules", "ups.x"): "1",
        ("code", "libraries", "torch"): "2",
        ("inputs", "download"): "f",
    }


def test_new_and_gone_keys_differ_from_null_and_types_count_as_in_a_digest():
    before = {"settings": {"same": 1, "gone": 2, "null": None, "number": 1, "sum": "0" * 64}}
    after = {"settings": {"same": 1, "new": None, "null": False, "number": 1.0, "sum": "1" * 64}}
    found = {each.key: each for each in differences("operator", before, after)}
    assert set(found) == {"gone", "new", "null", "number", "sum"}
    assert digest_of({"number": 1}) != digest_of({"number": 1.0})
    assert (found["new"].before, found["gone"].after) == (ABSENT, ABSENT)
    assert {key: str(each) for key, each in found.items()} == {
        "gone": "gone: gone, was 2",
        "new": "new: new, null",
        "null": "null: null -> false",
        "number": "number: 1 -> 1.0",
        "sum": "sum: 000000000000 -> 111111111111",
    }
    assert found["new"].to_json() == {"stage": "operator", "key": "new", "after": None}


def test_a_recipe_that_keeps_sums_per_module_names_the_module():
    """Should `code_identity` be kept as a mapping one day, nothing has to change here."""
    before = {"code": {"modules": {"ups.losses": "1", "ups.stages": "2"}, "libraries": {"torch": "2.10"}}}
    after = {"code": {"modules": {"ups.losses": "9", "ups.stages": "2"}, "libraries": {"torch": "2.11"}}}
    assert [str(each) for each in differences("operator", before, after)] == [
        "code.libraries.torch: 2.10 -> 2.11", "code.modules.ups.losses: 1 -> 9",
    ]  # fmt: skip


def test_origins_are_read_of_the_runs_that_built(tmp_path):
    for run, hit, torch in (("1", False, "2.10"), ("2", True, "2.11"), ("3", False, "2.12")):
        values = {"commit": run, "uncommitted_changes": False, "libraries": {"torch": torch}}
        write_json(tmp_path / "runs" / run / "env.json", values)
        pointers = {"operator": {"digest": "a" if run != "3" else "b", "hit": hit}}
        write_json(tmp_path / "runs" / run / "artifacts.json", pointers)
    write_json(tmp_path / "runs" / "no-environment" / "artifacts.json", {})
    origins = read_origins(Store(tmp_path))
    assert {digest: origin.libraries["torch"] for digest, origin in origins.items()} == {
        "a": "2.10",
        "b": "2.12",
    }
    write_json(tmp_path / "runs" / "3" / "env.json", {})
    with pytest.raises(IntegrityError, match=r"runs/3: artifacts\.json or env\.json is damaged"):
        read_origins(Store(tmp_path))


def test_libraries_are_those_that_the_identity_counts():
    assert tuple(present_libraries()) == identity._LIBRARIES
