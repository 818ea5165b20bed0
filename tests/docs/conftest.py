"""Where commands of the documents are run."""

import pytest
from documents import TUTORIAL, commands
from rules import rule_for
from workplace import Followed, Workplace


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    """An empty one."""
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory) -> Followed:
    """The workplace of a reader who has followed the tutorial, as far as it needs no server, and what each command printed."""
    place = Workplace(tmp_path_factory.mktemp("tutorial"))
    printed = []
    for command in commands(TUTORIAL):
        rule = rule_for(command.text)
        if not command.inline and rule is not None and rule.how == "run" and "PREFECT" not in command.text:
            printed.append((command.text, place.must(command.text, ends_with=rule.ends_with)))
    return place, printed
