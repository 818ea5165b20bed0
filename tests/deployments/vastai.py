#!/usr/bin/env python3
"""Stands in for the client `vastai`: what that prints and how it ends, as read in its source (1.9.1); the cloud is a file.

$VASTAI_CLOUD is JSON: {"offers": [...], "instances": [...], "calls": [...], and what goes wrong:
"gone": offers that somebody else has, "stuck": machines that stay in loading, "exits": machines whose container ends,
"dearer": machines that cost a dollar more than offered, "no_network": {"create instance": 2, ...}: calls that reach nobody,
"garbled": {"show instances": 2, ...}: calls whose answer lacks what it should have, and that print half of an error,
"lost": calls whose answer is lost, "undestroyed": number of calls to destroy that do nothing, "no_key": true}.
"""

import json
import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

CLOUD = Path(os.environ["VASTAI_CLOUD"])


def main() -> None:
    cloud: dict[str, Any] = json.loads(CLOUD.read_text())
    words = sys.argv[1:]
    assert "--raw" in words
    name = " ".join(words[:2])
    cloud["calls"].append(words)
    try:
        answer(name, words, cloud)
    finally:
        CLOUD.write_text(json.dumps(cloud))


def answer(name: str, words: list[str], cloud: dict[str, Any]) -> None:
    if cloud.get("no_network", {}).get(name, 0):
        cloud["no_network"][name] -= 1
        # requests' own error, of which the client knows nothing
        raise SystemExit("Traceback (most recent call last):\n  ...\nConnectionError: console.vast.ai")
    if cloud.get("garbled", {}).get(name, 0):
        cloud["garbled"][name] -= 1
        print('{"error": tr', file=sys.stderr)
        show([{"id": 1, "dph_total": None}])
        return
    if cloud.get("no_key"):
        refuse(401, "Invalid user key")
    options = dict(pairwise(words))
    if name == "search offers":
        query = dict(re.findall(r"([a-z_]+)<=([0-9.]+)", words[2]))
        show([offer for offer in cloud["offers"] if offer["dph_total"] <= float(query["dph_total"])])
    elif name == "create instance":
        number = int(words[2])
        offer = next((offer for offer in cloud["offers"] if offer["id"] == number), None)
        if offer is None or number in cloud.get("gone", []):
            refuse(410, f"Instance type by id {number} is not available.")
        assert "'" not in options["--env"]
        machine = offer["machine_id"]
        cloud["instances"].append(
            {
                "id": 1000 + len(cloud["calls"]),
                "machine_id": machine,
                "label": options["--label"],
                "actual_status": None,
                "status_msg": None,
                "dph_total": offer["dph_total"] + (machine in cloud.get("dearer", [])),
            }
        )
        if cloud.get("lost", {}).get(name, 0):
            cloud["lost"][name] -= 1
            raise SystemExit("Traceback (most recent call last):\n  ...\nReadTimeout: console.vast.ai")
        show({"success": True, "new_contract": cloud["instances"][-1]["id"]})
    elif name == "show instances":
        show(cloud["instances"])
        for each in cloud["instances"]:
            machine = each["machine_id"]
            if each["actual_status"] is None:
                each |= {"actual_status": "loading", "status_msg": "Pulling the image"}
            elif machine in cloud.get("exits", []):
                each |= {"actual_status": "exited", "status_msg": "the container ended"}
            elif machine not in cloud.get("stuck", []):
                each |= {"actual_status": "running", "status_msg": "success"}
    elif name == "destroy instance":
        assert "--yes" in words, "it would ask"
        if cloud.get("undestroyed", 0):
            cloud["undestroyed"] -= 1
            refuse(500, "try again")
        before = len(cloud["instances"])
        cloud["instances"] = [each for each in cloud["instances"] if each["id"] != int(words[2])]
        if len(cloud["instances"]) == before:
            refuse(404, "no such instance")
        # The client prints nothing here, with --raw too.
    else:
        raise SystemExit(f"unknown command {name}")


def show(value: Any) -> None:
    print(json.dumps(value, indent=1, sort_keys=True))


def refuse(status: int, message: str) -> None:
    """As the client: on standard error, and with exit code 0."""
    print(json.dumps({"error": True, "status_code": status, "msg": message}), file=sys.stderr)
    raise SystemExit(0)


if __name__ == "__main__":
    main()
