"""Commands of the documents are run: the tutorial in its order, the others in the tutorial's workplace."""

import json
import re

import pytest
from documents import CHECKOUT, DOCUMENTS, TUTORIAL, blocks
from parsing import given
from rules import rule_for, shrunken
from workplace import Followed, Workplace

pytestmark = pytest.mark.timeout(1200)  # whichever test comes first follows the whole tutorial
OTHERS = [command for command in given() if command.file != str(TUTORIAL.relative_to(CHECKOUT))]


def to_run(how: str) -> list[object]:
    """Commands outside the tutorial, each once, as the tests run them."""
    found = {}
    for command in OTHERS:
        rule = rule_for(command.text)
        if rule is not None and rule.how == how:
            found.setdefault(shrunken(command.text, rule), (command.place, rule.ends_with))
    return [pytest.param(text, ends_with, id=place) for text, (place, ends_with) in found.items()]


@pytest.mark.slow
def test_the_tutorial_says_what_happens(tutorial: Followed):
    place, printed = tutorial

    def outputs(beginning: str) -> list[str]:
        return [output for text, output in printed if text.startswith(beginning)]

    first, changed = (
        re.findall(r"^(\w+) +(HIT|MISS) +(.*?)  ", plan, re.MULTILINE) for plan in outputs("ups plan")
    )
    assert {verdict for _, verdict, _ in first} == {"MISS"}
    assert [stage for stage, verdict, _ in changed if verdict == "MISS"] == ["consistency", "evaluate"]
    assert changed[-1][2] == "after consistency"
    built, again, another = outputs("ups run configs/burgers_tiny.yaml")
    assert [output.count(" cached ") for output in (built, again, another)] == [0, 7, 5]
    assert all(
        re.search(r"^report: .*/report.html$", output, re.MULTILINE) for output in (built, again, another)
    )
    assert "training.learning_rate: 0.001 -> 0.0005" in outputs("ups cache why")[0]
    assert "operator done in" in outputs("ups stage operator")[0]
    (scores,) = place.directory.glob("runs/*/scores/*.json")
    assert json.loads(scores.read_text())


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("text", "ends_with"), to_run("run"))
def test_a_command_as_it_is(tutorial: Followed, text: str, ends_with: int):
    tutorial[0].must(text, ends_with)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("text", "ends_with"), to_run("run small"))
def test_a_command_made_small(workplace: Workplace, text: str, ends_with: int):
    workplace.must(text, ends_with)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(block.text, id=f"{block.file}:{block.line}")
        for path in DOCUMENTS
        if not path.name.startswith("add-")  # tests/contributing adds these to a copy of the library
        for block in blocks(path)
        if block.language == "python"
    ],
)
def test_an_example_in_python(tutorial: Followed, text: str):
    place, _ = tutorial
    (place.directory / "example.py").write_text(text)
    place.must("python example.py")
