"""The site: Sphinx with MyST (Markdown) and the theme furo.

Rejected: MkDocs with Material, whose search does not work on pages opened from a disk without a plugin, and which gets no
new features any more; Zensical, its successor, which is young and cannot yet generate pages at build time.

`make docs` builds it, without a network; every warning is an error.
"""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generate import PAGES  # noqa: E402

project = "Universal Physics Stack"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["generate"]
myst_heading_anchors = 3
# Links to files of the checkout, such as configurations, are offered for download.
myst_enable_extensions = ["colon_fence", "deflist"]
smartquotes = False  # two hyphens are an option of a command, not a dash
highlight_language = "none"  # of blocks that name none
html_theme = "furo"
html_title = "UPS"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_theme_options = {"top_of_page_buttons": []}
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Write the pages that follow from the code before Sphinx looks for pages."""
    app.connect("builder-inited", _write_generated_pages)
    app.connect("source-read", _offer_pages_outside)


def _write_generated_pages(app: Sphinx) -> None:
    folder = HERE / "reference" / "generated"
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page())


def _offer_pages_outside(app: Sphinx, page: str, source: list[str]) -> None:
    """Markdown of the checkout that is no page of the site, such as its README, is offered for download: MyST takes
    every link to Markdown for one to a page."""

    def scheme(link: re.Match[str]) -> str:
        target = (HERE / page).parent / link[1]
        return f"](path:{link[1]}" if not target.resolve().is_relative_to(HERE) else link[0]

    source[0] = re.sub(r"\]\(((?:\.\./)+[\w./-]+\.md)(?:#[\w-]+)?", scheme, source[0])
