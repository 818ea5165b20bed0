"""The record of a training survives kills: whole lines only, and no step twice."""

import json

from ups.artifacts.files import read_records
from ups.runtime.records import Records


def test_a_resumed_record_forgets_the_steps_that_are_done_again(tmp_path):
    path = tmp_path / "logs" / "metrics.jsonl"
    records = Records(path, resume_step=0)
    for step in range(1, 8):
        records.append({"step": step, "loss": step / 3})
    records.close()
    again = Records(path, resume_step=4)
    again.append({"step": 5, "loss": 0.5})
    again.close()
    assert [record["step"] for record in read_records(path)] == [1, 2, 3, 4, 5]
    assert read_records(path)[2]["loss"] == 1.0


def test_half_a_line_is_no_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_records(path) == [{"step": 1}]
    records = Records(path, resume_step=3)
    records.append({"step": 4})
    records.close()
    assert read_records(path) == [{"step": 1}, {"step": 4}]


def test_what_is_not_finite_is_null_and_the_file_stays_json(tmp_path):
    records = Records(tmp_path / "metrics.jsonl", resume_step=0)
    records.append({"step": 1, "loss": float("nan"), "other": float("inf"), "good": 0.1})
    records.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line) == {"step": 1, "loss": None, "other": None, "good": 0.1}
