"""What a flow calls, in which order and with what, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from flows import chain
from flows.experiment import Experiment
from tasks import preflight as preflight_module
from ups.config import load_configuration
from ups.pipeline.device import resolve
from ups.pipeline.probe import Prediction
from ups.pipeline.readiness.preflight import Preflight

STAGES = ("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency", "evaluate")


class Started:
    """A run in whose configuration both kinds of gates are."""

    directory = Path("a run")
    settings: ClassVar[dict[str, Any]] = {}
    configuration = SimpleNamespace(gates=SimpleNamespace(validation=["one"], test=["one"]))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def hold(self, pointer: str) -> str:
        return pointer


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """Names of what a flow has called."""
    names: list[str] = []

    def says(name: str, result: Any = None) -> Any:
        return lambda *_, **__: (names.append(name), result)[1]

    for name in (*STAGES, "publish", "publish_seeds", "preflight"):
        monkeypatch.setattr(chain, name, says(name, f"{name}.html"))
    monkeypatch.setattr(chain, "begin", says("begin"))
    monkeypatch.setattr(chain, "judge", lambda _run, kind, _behind: names.append(f"{kind} gates"))
    monkeypatch.setattr(chain, "run_up_to", lambda stage, _run: names.append(f"up to {stage}"))
    monkeypatch.setattr(chain.Run, "start", lambda *_, **__: Started())
    monkeypatch.setattr(chain, "get_run_logger", lambda: SimpleNamespace(info=lambda *_: None))
    monkeypatch.setattr(chain, "finish_hooks", lambda *_, **__: nullcontext(lambda _: None))
    return names


@pytest.mark.parametrize("until", [None, "evaluate"])
def test_a_run_to_the_last_stage_is_judged_and_published_whether_it_is_named_or_not(called, until):
    chain._one_seed(Experiment(config="burgers_tiny", until=until), lambda _: None)
    assert called == [*STAGES[:-1], "validation gates", "evaluate", "publish", "test gates"]


def test_a_run_to_an_earlier_stage_has_neither_gates_nor_results(called):
    reported = chain._one_seed(Experiment(config="burgers_tiny", until="operator"), lambda _: None)
    assert called == ["up to operator"]
    assert reported == "a run"


def test_the_preflight_looks_at_what_the_run_will_do(called, monkeypatch):
    """Up to which stage, what is built again, and all seeds: they are in its prediction of the cost."""
    asked: list[Any] = []
    monkeypatch.setattr(chain, "preflight", lambda *arguments: asked.extend(arguments))
    overrides = {"seeds": 2}
    chain.train_and_evaluate(
        Experiment(config="burgers_tiny", overrides=overrides, until="operator", rebuild=["operator"])
    )
    assert asked == ["configs/burgers_tiny.yaml", overrides, "quick", "operator", ["operator"], None]
    assert called == ["begin", "up to operator", "up to operator"]


def test_the_cost_of_a_dry_preflight_is_of_all_seeds(monkeypatch):
    shown: dict[str, Any] = {}
    looked: dict[str, Any] = {}
    predictions = {"operator": Prediction("operator", 3600.0, None, None)}
    config = load_configuration("configs/burgers_tiny.yaml")

    def look(_config: str, overrides: dict[str, Any], _root: Path, **asked: Any) -> Preflight:
        looked.update(overrides, **asked)
        return Preflight(resolve(config), [], [])

    monkeypatch.setattr(preflight_module, "look", look)
    monkeypatch.setattr(preflight_module, "try_stages", lambda *_, **__: predictions)
    monkeypatch.setattr(preflight_module, "create_table_artifact", lambda **artifact: shown.update(artifact))
    monkeypatch.setattr(preflight_module, "get_run_logger", lambda: SimpleNamespace(info=lambda *_: None))
    overrides = {"seeds": 3, "resources.hourly_rate_usd": 2, "execution.device": "cpu"}
    arguments = ("configs/burgers_tiny.yaml", overrides, "dry", "operator", ["operator"])
    preflight_module.preflight.fn(*arguments, "2026-01-02T03:04:05+00:00")
    assert (looked["seeds"], looked["until"], looked["rebuild"]) == (1, "operator", ["operator"])
    assert looked["asked"].year == 2026
    assert "2.00 USD for each of 3 seeds" in shown["description"]


def test_hooks_are_there_before_the_server_is_asked(called, monkeypatch):
    """Whose failure is one that they are for."""

    @contextmanager
    def hooks(*_: Any, **__: Any) -> Iterator[Any]:
        called.append("hooks")
        try:
            yield lambda _: None
        except ConnectionError:
            called.append("hooks are told")
            raise

    def begin() -> None:
        raise ConnectionError

    monkeypatch.setattr(chain, "finish_hooks", hooks)
    monkeypatch.setattr(chain, "begin", begin)
    with pytest.raises(ConnectionError):
        chain.train_and_evaluate(Experiment(config="burgers_tiny"))
    assert called == ["hooks", "hooks are told"]
