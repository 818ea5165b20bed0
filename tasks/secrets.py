"""Credentials that the server keeps in Secret blocks, for whatever a run starts.

Rejected: references to blocks in the deployment's job variables. `prefect deploy` replaces them by the secret itself, which then
stands in the deployment for everybody to read; and a run fails where a block is missing.
"""

import os

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

VARIABLES = ("WANDB_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def block_name(variable: str) -> str:
    """For example "wandb-api-key": Prefect allows nothing but letters, digits and hyphens."""
    return variable.lower().replace("_", "-")


def take_secrets() -> None:
    """Set those of VARIABLES that this process, and so all that it starts, would not have otherwise."""
    with get_client(sync_client=True) as client:
        for variable in VARIABLES:
            if variable not in os.environ:
                try:
                    block = client.read_block_document_by_name(block_name(variable), "secret")
                except ObjectNotFound:
                    continue
                os.environ[variable] = block.data["value"]
