"""What mkdocs does besides: mathematics as MathML, and links that leave the folder as plain text."""

import html
import posixpath
import re
from typing import Any

from latex2mathml.converter import convert

__all__ = ["on_page_content", "on_page_markdown"]

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\.?/[^)#\s]+)(#[^)\s]*)?\)")
_MATHS = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to files of the repository outside `docs/` become the file's path."""
    folder = posixpath.dirname(page.file.src_uri)

    def plain(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, link[2]))
        return link[0] if target.startswith("docs/") else f"{link[1]} (`{target}` in the repository)"

    return _LINK.sub(plain, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """LaTeX becomes MathML, which browsers draw without a script."""

    def drawn(found: re.Match[str]) -> str:
        text = html.unescape(found[2]).strip()
        text = text.replace("\\arg\\max", "\\operatorname{argmax}").replace("\\arg \\max", "\\operatorname{argmax}")
        display = "block" if text.startswith("\\[") else "inline"
        return str(convert(text[2:-2], display=display))

    return _MATHS.sub(drawn, content)
