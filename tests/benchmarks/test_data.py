"""`ups bench data` says what it measures while it does; a whole run takes minutes, and so is no test."""

from command_line import start_ups


def test_every_case_is_told_while_it_is_measured(tmp_path):
    process = start_ups("bench", "data", "--threads", "1", "--seconds", "0.1", "--root", tmp_path)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "measuring 1/7: burgers1d nu=0.001\n"
        assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=60)
