"""Pages from templates: self-contained files in one style, with numbers as people read them."""

from pathlib import Path
from typing import Any

import jinja2

from ups.report.writing import count, dollars, duration, gibibytes, number


def render(template: str, **values: Any) -> str:
    """A page; a value that is missing is an error, and text is no markup."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "count": count,
        "duration": duration,
        "gibibytes": gibibytes,
        "dollars": dollars,
    }
    return environment.get_template(template).render(**values)
