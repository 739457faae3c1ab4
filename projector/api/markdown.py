"""Job summaries as pages show them: GitHub's Markdown without HTML, by markdown-it-py.

HTML in a summary is shown as text. Links go to http, https and mailto alone; images are links,
since a page loads nothing from elsewhere. Pure, but not quick: the first `MARKDOWN_CHARACTERS_MAX`
are rendered (in less than `RENDER_SECONDS_MAX`, whatever they are), what follows is shown as plain
text.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape
from mdit_py_plugins.tasklists import tasklists_plugin

CHARACTERS_MAX = 256 * 1024
MARKDOWN_CHARACTERS_MAX = 48 * 1024
#: What a text may take at most: `tests/unit/projector/test_markdown.py` holds the worst ones to it.
RENDER_SECONDS_MAX = 2
#: More opening brackets in one text than this, and links in it are shown as they are written: the
#: search for their ends is quadratic in CommonMark's own algorithm.
BRACKETS_MAX = 4_000
#: A summary is a part of a part: its first heading stands below the page's own three.
_HEADINGS_BELOW = 3
_REL = "nofollow noopener noreferrer"
_LINK = re.compile(r"(?:https?|mailto):[^\x00-\x20\x7f]*", re.IGNORECASE)


def _is_allowed(url: str) -> bool:
    return _LINK.fullmatch(url) is not None


class _Renderer(RendererHTML):
    """HTML with links that lead nowhere by themselves, and no images."""

    def link_open(
        self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]
    ) -> str:
        """Tell the browser and search engines that the link is a stranger's."""
        tokens[idx].attrSet("rel", _REL)
        return str(self.renderToken(tokens, idx, options, env))

    def image(
        self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]
    ) -> str:
        """Show an image as a link to it."""
        token = tokens[idx]
        url = str(token.attrGet("src") or "")
        label = self.renderInlineAsText(token.children or [], options, env) or url
        if sum(before.nesting for before in tokens[:idx] if before.type.startswith("link_")):
            return str(escape(label))  # a badge: the link around it is the one that counts
        return f'<a href="{escape(url)}" rel="{_REL}">{escape(label)}</a>'

    def heading_open(
        self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]
    ) -> str:
        """Put headings below those of the page."""
        tokens[idx].tag = _below(tokens[idx].tag)
        return str(self.renderToken(tokens, idx, options, env))

    def heading_close(
        self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]
    ) -> str:
        """End it by the same name."""
        return self.heading_open(tokens, idx, options, env)


def _below(tag: str) -> str:
    return f"h{min(6, int(tag[1]) + _HEADINGS_BELOW)}"


def _fit(state: Any) -> None:
    """Make what the page can show: marks instead of boxes, classes instead of styles.

    A page has no form without a meaning, and its policy allows no style in the text.
    """
    for token in state.tokens:
        align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
        if align in ("left", "center", "right"):
            token.attrSet("class", f"at-{align}")
        for child in token.children or ():
            if child.type == "html_inline" and "task-list-item-checkbox" in child.content:
                child.type, mark = "text", "☑" if "checked" in child.content else "☐"
                child.content = mark


@lru_cache(maxsize=2)
def _parser(*, links: bool) -> MarkdownIt:
    options = {"html": False, "breaks": True, "linkify": False, "maxNesting": 20, "xhtmlOut": False}
    parser = MarkdownIt("commonmark", options, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"]).use(tasklists_plugin)
    parser.core.ruler.push("fit", _fit)
    parser.validateLink = _is_allowed  # type: ignore[method-assign]
    if not links:
        parser.disable(["link", "image", "reference"])
    return parser


# a few at most: of a very long text the HTML takes over a megabyte
@lru_cache(maxsize=8)
def to_html(text: str) -> Markup:
    """Return a text as HTML; of a very long one the rest is plain, or cut, and says so."""
    shown, plain = text[:MARKDOWN_CHARACTERS_MAX], text[MARKDOWN_CHARACTERS_MAX:CHARACTERS_MAX]
    if plain:
        # not in the middle of a line
        at = shown.rfind("\n") + 1 or len(shown)
        shown, plain = shown[:at], shown[at:] + plain
    html = str(_parser(links=shown.count("[") <= BRACKETS_MAX).render(shown)).rstrip("\n")
    if plain:
        html += f"\n<p>The rest is shown as it was written:</p>\n<pre>{escape(plain)}</pre>"
    if len(text) > CHARACTERS_MAX:
        html += f"\n<p>… and {len(text) - CHARACTERS_MAX} more characters</p>"
    return Markup(html)  # noqa: S704 - escaped by the renderer, which takes no HTML
