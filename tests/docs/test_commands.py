"""Every command of the documents is known, parses, and does what it says.

`pytest -rP tests/docs -k known` lists the commands that are only parsed, with the reasons.
"""

import pytest
from documents import DOCUMENTS, commands
from parsing import given, problem_of, programs
from rules import filled_in, rule_for, shrunken

HELP = """
Of a command that is in no class, write a rule in tests/docs/rules.py. Best one that runs it as it is ("run"); one with overrides that make it
small, if it takes minutes ("run small"); and only where neither can be one that parses it ("parse"), with the reason."""


def test_every_command_is_known_and_parses():
    problems, only_parsed = [], {}
    for command in given():
        rule = rule_for(command.text)
        if rule is None:
            problems.append(f"{command.place}: `{command.text}` is in no class")
            continue
        text = shrunken(command.text, rule)
        if rule.how != "elsewhere" and (problem := problem_of(text)):
            problems.append(f"{command.place}: `{text}`: {problem}")
        if rule.why:
            only_parsed[command.text] = f"{command.place}: {' '.join(command.text.split())}\n    {rule.why}"
    print("only parsed:", *only_parsed.values(), sep="\n")
    assert not problems, "\n".join([*problems, HELP])


def test_documents_have_commands():
    """The collection finds what a reader would type: else all of the above would hold of nothing."""
    texts = {command.text for path in DOCUMENTS for command in commands(path)}
    assert {
        "make run     # create the environment, train and evaluate on two CPU cores (six to ten minutes)"
    } <= texts
    assert "ups run CONFIG [--set a.b=c]" in texts
    assert 'ups evaluate "$(ls runs | head -n 1)" --file rows.hdf5' in texts
    assert any(text.startswith("prefect deployment run") and text.endswith("}}'") for text in texts)


@pytest.mark.parametrize(
    "text",
    [
        "ups run configs/burgers_tiny.yaml --untill operator",
        "ups stage operators configs/burgers_tiny.yaml",
        "ups run configs/burgers_tiny.yaml --set training.operator.lerning_rate=1",
        "ups run configs/burgers_small.yaml",
        "make tset",
        "prefect deployment run burgers-upt/dmeo",
        'prefect deployment run burgers-upt/demo --param \'experiment={"config": "burgers_tiny", "overrides": {"sead": 1}}\'',
        "python -m flow configs/burgers_tiny.yaml",
        "export A='open",
    ],
)
def test_a_wrong_command_is_found(text):
    assert problem_of(text)


@pytest.mark.slow
def test_prefects_own_parser_takes_its_commands():
    from prefect.cli._app import _app

    problems = []
    for command in given():
        if rule_for(command.text) is None or not command.text.startswith("prefect"):
            continue
        for words in programs(filled_in(command.text)):
            if words[0] != "prefect":
                continue
            arguments = [word for word in words[1:] if word not in {"--no-prompt", "--prompt"}]
            try:
                function, *_ = _app.parse_args(arguments, exit_on_error=False, print_error=False)
            except Exception as error:
                problems.append(f"{command.place}: {command.text}: {error}")
            else:
                if function.__name__ == "help_print":
                    problems.append(f"{command.place}: {command.text}: is no whole command")
    assert not problems, "\n".join(problems)
