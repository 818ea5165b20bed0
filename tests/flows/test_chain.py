"""The order in which a flow does what it does, without a server: its tasks only say that they were called."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from flows import chain
from flows.experiment import Experiment

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


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """Names of what a flow has called."""
    names: list[str] = []

    def says(name: str, result: Any = None) -> Any:
        return lambda *_, **__: (names.append(name), result)[1]

    for name in (*STAGES, "publish", "publish_seeds", "preflight", "begin"):
        monkeypatch.setattr(chain, name, says(name, f"{name}.html"), raising=False)
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
