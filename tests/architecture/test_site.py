"""The rendered site: what markdown extensions were to convert is converted."""

import os
import re
import subprocess
import sys

import pytest
from support.pages import ROOT

RAW = re.compile(r"(?m)^\s*(\?\?\?\+?|!!!|===) |```|^\s*#{2,} |\]\((?!#)[\w./]+\.md")


def prose(html):
    """Text of a page's article, without code and what is commented out."""
    article = html[html.index("<article") : html.index("</article>")]
    without = re.sub(r"(?s)<(pre|code|script|svg)\b.*?</\1>|<!--.*?-->", "", article)
    return re.sub(r"<[^>]+>", "", without)


def test_raw_markup_is_recognised():
    assert RAW.search('\n??? note "Description"\n')
    assert RAW.search('=== "201 Created"')
    assert not RAW.search("a === b, and what?")


@pytest.mark.slow
def test_no_page_shows_its_markup(tmp_path):
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    pages = [path for path in tmp_path.rglob("*.html") if "<article" in path.read_text()]
    assert len(pages) > 40
    shown = {
        path.relative_to(tmp_path).as_posix(): match[0]
        for path in pages
        if (match := RAW.search(prose(path.read_text())))
    }
    assert shown == {}
