"""HTML pages that need no network: reports, comparisons and timelines."""

from __future__ import annotations

from typing import Any


def render_page(package: str, template: str, **values: Any) -> str:
    """Return a page.

    Args:
        package: Package whose folder has the template, such as "hiera_video.eval".
        template: Name of the template's file. It extends page.html, and may import the tables of
            page_tables.html.
        values: Values of the template. Text is escaped.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader

    loaders = [PackageLoader(name, ".") for name in (package, "hiera_video.utils")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(values)
