"""Pages that the site takes from elsewhere: from the checkout's root, and from the service's OpenAPI document."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from openapidocs.mk.v3 import OpenAPIV3DocumentationHandler

from masksmith_service.app import create_app

ROOT = Path(__file__).parents[2]
FROM_ROOT = {"architecture.md": "ARCHITECTURE.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
OPENAPI, HTTP = "reference/openapi.json", "reference/http.md"
LINK = re.compile(r"(?<!!)\[([^]]*)\]\(([^)#:]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, source in FROM_ROOT.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    document = _openapi()
    files.append(File.generated(config, OPENAPI, content=json.dumps(document, indent=2)))
    files.append(File.generated(config, HTTP, content=_reference(document)))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """Replace links to files that are not in the site by the names of the files."""
    here = Path(page.file.src_uri).parent  # type: ignore[attr-defined]
    root = Path() if page.file.src_uri in FROM_ROOT else None  # type: ignore[attr-defined]

    def replace(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        inside = _in_site(target, here, root, files)
        if inside == target:
            return match[0]
        return f"[{words}]({inside}{anchor})" if inside else f"{words} (`{target}`)"

    return LINK.sub(replace, markdown)


def _in_site(target: str, here: Path, root: Path | None, files: Files) -> str | None:
    """Return the link to a target within the site, or None if the site does not have it."""
    by_root = {source: name for name, source in FROM_ROOT.items()}
    if root is not None:
        plain = target.removeprefix("docs/")
        found = by_root.get(target, plain)
        return found if files.get_file_from_path(found) else None
    path = posixpath.normpath((Path("docs") / here / target).as_posix())
    if path.startswith("docs/"):
        return target if files.get_file_from_path(path.removeprefix("docs/")) else None
    name = by_root.get(path)
    return None if name is None else "../" * len(here.parts) + name


def _openapi() -> dict[str, object]:
    return create_app().openapi()


def _reference(document: dict[str, object]) -> str:
    return str(OpenAPIV3DocumentationHandler(document).write())
