"""A MISS is explained by what differs from the artifact that somebody means, or from the nearest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY
from sealing import FILES, sealed, sealed_parts

from ups.artifacts import Artifact, Manifest, Store
from ups.artifacts.files import write_json
from ups.artifacts.identity import digest_of
from ups.artifacts.manifest import MANIFEST
from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.errors import IntegrityError
from ups.pipeline import plan as plan_module
from ups.pipeline.explanation import ABSENT, Explanation, differences, explain, leaves, newest_digests
from ups.pipeline.plan import derive, make_plan

RATE = "training.operator.learning_rate"


def configured(overrides: dict[str, Any] | None = None):
    return load_configuration(TINY, {"execution.device": "cpu"} | (overrides or {}))


class Chain:
    """A store in which whole chains are sealed without being run; what an artifact holds is its settings."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def seal(self, overrides: dict[str, Any] | None = None, *, day: int = 1) -> dict[str, Artifact]:
        built: dict[str, Artifact] = {}
        for name, stage in STAGES.items():
            inputs = {i: built[i] for i in stage.inputs}
            derivation = derive(name, configured(overrides), inputs, self.store)
            digest = digest_of(derivation)
            found = self.store.find(name, digest)
            if found is None:
                files = FILES | {"settings": digest.encode()}
                summary = {"problems": {"burgers1d": {"frames": 9, "grid": [32]}}}
                parts = sealed_parts(self.store, configured(overrides)) if name == "download" else {}
                found = sealed(self.store, name, digest, files, inputs, summary, parts, derivation)
                manifest = replace(found.manifest, created=f"2026-11-{day:02d}T00:00:00+00:00")
                write_json(found.path / MANIFEST, manifest.to_json())
                found = Artifact(found.path, manifest)
            built[name] = found
        return built

    def explain(
        self, overrides: dict[str, Any] | None = None, newest: dict[str, str] | None = None
    ) -> dict[str, Explanation]:
        sealed = [Manifest.read(path / MANIFEST) for path in self.store]
        plan = make_plan(configured(overrides), Store(self.store.root))
        return {each.stage: each for each in explain(plan, sealed, newest=newest or {})}


@pytest.fixture
def chain(tmp_path) -> Chain:
    return Chain(tmp_path)


def told(explanation: Explanation) -> str:
    return "\n".join(explanation.lines())


def test_nothing_there(chain):
    first, *others = chain.explain().values()
    assert told(first) == f"download: MISS {first.digest[:12]}: never built"
    assert {told(each).partition(": MISS: ")[2] for each in others} == {
        f"after {stage.inputs[-1]}" for stage in STAGES.values() if stage.inputs
    }


def test_a_hit(chain):
    built = chain.seal()
    for name, each in chain.explain().items():
        assert (each.compared, each.differences) == (None, [])
        assert told(each) == f"{name}: HIT {built[name].digest[:12]}: sealed 2026-11-01T00:00:00+00:00"


def test_a_changed_key_and_what_follows_from_it(chain):
    built = chain.seal()
    old = configured().training.operator.learning_rate
    explained = chain.explain({RATE: 0.5})
    assert explained["cache_encode"].verdict == "HIT"
    assert told(explained["operator"]) == (
        f"operator: MISS {explained['operator'].digest[:12]}: no artifact of this configuration, code and inputs\n"
        f"  {built['operator'].digest[:12]} of 2026-11-01 differs in\n    training.learning_rate: {old} -> 0.5"
    )
    assert told(explained["diffusion"]) == "diffusion: MISS: after operator"


def test_an_input_of_other_content(chain):
    """A trained operator of another rate is another input of those behind it."""
    chain.seal()
    for name in ("diffusion", "consistency", "evaluate"):
        for path in list(chain.store):
            if path.parent.name == name:
                chain.store.remove(path)
    before = chain.seal()["operator"].manifest.content
    after = chain.seal({RATE: 0.5})["operator"].manifest.content
    for path in list(chain.store):
        if path.parent.name == "diffusion":
            manifest = Manifest.read(path / MANIFEST)
            if manifest.derivation["inputs"]["operator"] == after:
                chain.store.remove(path)
    diffusion = chain.explain({RATE: 0.5})["diffusion"]
    assert [str(each) for each in diffusion.differences] == [
        f"inputs.operator: {before[:12]} -> {after[:12]}"
    ]


def test_changed_code_is_told_by_its_modules(chain, monkeypatch):
    chain.seal()
    real = plan_module.code_identity

    def other(*modules: str):
        code = real(*modules)
        changed = dict.fromkeys(list(code["modules"])[:9], "0")
        return code | {
            "modules": code["modules"] | changed,
            "libraries": code["libraries"] | {"torch": "9.9"},
        }

    monkeypatch.setattr(plan_module, "code_identity", other)
    *_, modules, library = chain.explain()["download"].lines()
    assert modules.startswith("    code of ups")
    assert modules.endswith(" and 5 more")
    assert library.startswith("    code.libraries.torch: ")
    assert library.endswith(" -> 9.9")


def test_the_nearest_has_the_fewest_differences_then_is_the_newest(chain):
    near = chain.seal({RATE: 0.25}, day=1)["operator"]
    far = chain.seal({RATE: 0.25, "training.operator.steps": 60}, day=9)["operator"]
    assert chain.explain({RATE: 0.5})["operator"].compared.digest == near.digest
    newer = chain.seal({RATE: 0.125}, day=5)["operator"]
    assert chain.explain({RATE: 0.5})["operator"].compared.digest == newer.digest
    chain.seal({RATE: 0.0625}, day=3)
    assert chain.explain({RATE: 0.5})["operator"].compared.digest == newer.digest
    # What the newest run of this configuration has is meant, however near others are.
    explained = chain.explain({RATE: 0.5}, {"operator": far.digest})["operator"]
    assert explained.compared.digest == far.digest
    assert {each.key for each in explained.differences} == {"training.learning_rate", "training.steps"}


def test_a_damaged_artifact_is_told_as_such(chain):
    built = chain.seal()
    (built["operator"].path / "model.bin").write_bytes(b"")
    explained = chain.explain()
    assert explained["operator"].compared is None
    assert "MISS" in told(explained["operator"])
    assert "damaged: " in told(explained["operator"])
    assert "model.bin has 0 bytes" in told(explained["operator"])
    assert told(explained["diffusion"]) == "diffusion: MISS: after operator"


def test_leaves_are_told_by_their_keys():
    derivation = {
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
    assert leaves(derivation) == {
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
    found = {each.key: each for each in differences(before, after)}
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
    assert found["new"].to_json() == {"key": "new", "after": None}


def test_the_newest_run_of_a_configuration_that_reached_a_stage(tmp_path):
    runs = tmp_path / "runs"
    for run, digests in {
        "20260101T000000Z-demo-00000000": {"download": "a", "operator": "b"},
        "20260102T000000Z-demo-11111111": {"download": "c"},
        "20260103T000000Z-demo-long-22222222": {"download": "d"},
        "20260103T000000Z-long-demo-22222222": {"download": "d"},
    }.items():
        pointers = {stage: {"digest": digest} for stage, digest in digests.items()}
        write_json(runs / run / "artifacts.json", pointers)
    assert newest_digests(runs, "demo") == {"download": "c", "operator": "b"}
    assert newest_digests(runs, "absent") == {}
    write_json(runs / "20260104T000000Z-demo-33333333" / "artifacts.json", [])
    with pytest.raises(IntegrityError, match=r"demo-33333333/artifacts\.json: holds no pointers"):
        newest_digests(runs, "demo")
