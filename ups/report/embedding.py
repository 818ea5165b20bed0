"""Pictures inside a page."""

import base64

_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def as_address(content: bytes, kind: str) -> str:
    """A picture as an address that holds it. kind: svg or png."""
    return f"data:{_MEDIA_TYPES[kind]};base64,{base64.b64encode(content).decode()}"
