"""The help of a verb as text for a terminal."""

from __future__ import annotations

from pydamon.cli import verbs
from pydamon.cli.help.layout import folded, listed
from pydamon.cli.help.page import Page


def shown(page: Page, width: int) -> str:
    """All that the page says, in lines of at most ``width`` columns."""
    parts = [folded(f"Usage: {page.usage}", "", "  ", width)]
    parts += [folded(paragraph, "  ", "  ", width) for paragraph in page.about]
    if page.below:
        parts.append(f"Below it:\n{listed(page.below, width)}")
    parts += [f"{title}:\n{listed(rows, width)}" for title, rows in page.groups]
    parts.append(verbs.examples(page.examples, width))
    return "\n\n".join(parts) + "\n"
