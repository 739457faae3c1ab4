"""Job summaries as pages show them: a subset of Markdown, made into HTML that nobody can inject.

Every character of the text is escaped before a tag of ours is put around it; HTML in a summary is
shown as text. Links go to http and https alone. Linear in the text; pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from markupsafe import Markup, escape

CHARACTERS_MAX = 256 * 1024

_Taken = tuple[str, int] | None
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*)")
_RULER = re.compile(r"\s{0,3}(?:-(?:\s*-){2,}|\*(?:\s*\*){2,}|_(?:\s*_){2,})\s*")
_ITEM = re.compile(r"\s{0,12}(?:[-*+]|(\d{1,9})[.)])\s+(.*)")
_TASK = re.compile(r"\[([ xX])\]\s+(.*)")
_DASHES = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_CELL_BREAK = re.compile(r"(?<!\\)\|")
_INLINE = re.compile(
    r"`(?P<code>[^`\n]+)`"
    r"|\*\*(?P<strong>[^*\n]+)\*\*"
    r"|\*(?P<stress>[^*\s][^*\n]*)\*"
    r"|(?<!\w)_(?P<soft>[^_\n]+)_(?!\w)"
    r"|~~(?P<gone>[^~\n]+)~~"
    r"|\[(?P<label>[^\]\[\n]*)\]\((?P<url>https?://[^\s()<>\"]+)\)"
)
_TAGS = {"strong": "strong", "stress": "em", "soft": "em", "gone": "del"}


def to_html(text: str) -> Markup:
    """Return a text as HTML; a very long one is cut, and says so."""
    cut = text[:CHARACTERS_MAX]
    lines = cut.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    html = "\n".join(_blocks(lines))
    if len(text) > len(cut):
        html += f"\n<p>… and {len(text) - len(cut)} more characters</p>"
    return Markup(html)  # noqa: S704 - made of escaped text and tags of ours alone


def _blocks(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        taken = next(found for rule in _RULES if (found := rule(lines, at)) is not None)
        yield taken[0]
        at = taken[1]


def _code(lines: list[str], at: int) -> _Taken:
    fence = _FENCE.match(lines[at])
    if fence is None:
        return None
    end = at + 1
    while end < len(lines) and not lines[end].strip().startswith(fence[1]):
        end += 1
    return f"<pre><code>{escape(chr(10).join(lines[at + 1 : end]))}</code></pre>", end + 1


def _heading(lines: list[str], at: int) -> _Taken:
    found = _HEADING.fullmatch(lines[at])
    if found is None:
        return None
    # below the page's own headings: a summary is a part of a part
    level = min(6, len(found[1]) + 3)
    return f"<h{level}>{_inline(found[2].rstrip(' #'))}</h{level}>", at + 1


def _ruler(lines: list[str], at: int) -> _Taken:
    return ("<hr>", at + 1) if _RULER.fullmatch(lines[at]) else None


def _table(lines: list[str], at: int) -> _Taken:
    below = lines[at + 1] if at + 1 < len(lines) else ""
    if "|" not in lines[at] or "|" not in below or _DASHES.fullmatch(below) is None:
        return None
    head = _row(lines[at], "th")
    end = at + 2
    rows = []
    while end < len(lines) and "|" in lines[end] and lines[end].strip():
        rows.append(_row(lines[end], "td"))
        end += 1
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>", end


def _row(line: str, tag: str) -> str:
    inner = line.strip().removeprefix("|").removesuffix("|")
    cells = (cell.replace("\\|", "|").strip() for cell in _CELL_BREAK.split(inner))
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in cells)}</tr>"


def _quote(lines: list[str], at: int) -> _Taken:
    end = at
    inner = []
    while end < len(lines) and lines[end].lstrip().startswith(">"):
        inner.append(lines[end].lstrip()[1:].lstrip())
        end += 1
    return (f"<blockquote>{_lines(inner)}</blockquote>", end) if end > at else None


def _list(lines: list[str], at: int) -> _Taken:
    first = _ITEM.fullmatch(lines[at])
    if first is None:
        return None
    items = []
    end = at
    while end < len(lines) and (item := _ITEM.fullmatch(lines[end])) is not None:
        if (item[1] is None) != (first[1] is None):
            break
        task = _TASK.fullmatch(item[2])
        mark = ("☑ " if task[1] != " " else "☐ ") if task else ""
        items.append(f"<li>{mark}{_inline(task[2] if task else item[2])}</li>")
        end += 1
    tag = "ul" if first[1] is None else "ol"
    return f"<{tag}>{''.join(items)}</{tag}>", end


def _paragraph(lines: list[str], at: int) -> _Taken:
    end = at + 1
    while end < len(lines) and lines[end].strip() and not _begins_block(lines, end):
        end += 1
    return f"<p>{_lines(lines[at:end])}</p>", end


def _begins_block(lines: list[str], at: int) -> bool:
    line = lines[at]
    return any(rule.match(line) for rule in (_FENCE, _HEADING, _ITEM)) or line.startswith(">")


_RULES: tuple[Callable[[list[str], int], _Taken], ...] = (
    _code, _heading, _ruler, _table, _quote, _list, _paragraph,
)  # fmt: skip


def _lines(lines: list[str]) -> str:
    return "<br>\n".join(_inline(line.strip()) for line in lines)


def _inline(text: str) -> str:
    made: list[str] = []
    end = 0
    for found in _INLINE.finditer(text):
        made.append(str(escape(text[end : found.start()])))
        made.append(_span(found))
        end = found.end()
    made.append(str(escape(text[end:])))
    return "".join(made)


def _span(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    if kind == "url":
        url, label = escape(found["url"]), escape(found["label"] or found["url"])
        return f'<a href="{url}" rel="nofollow noopener noreferrer">{label}</a>'
    inner = escape(found[kind])
    return f"<code>{inner}</code>" if kind == "code" else f"<{_TAGS[kind]}>{inner}</{_TAGS[kind]}>"
