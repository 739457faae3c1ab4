"""Job summaries as HTML: what is rendered, and that nothing of a text becomes a tag."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.api.markdown import (
    CHARACTERS_MAX,
    MARKDOWN_CHARACTERS_MAX,
    RENDER_SECONDS_MAX,
    to_html,
)

REL = 'rel="nofollow noopener noreferrer"'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Hello", "<p>Hello</p>"),
        ("one\ntwo\n\nthree", "<p>one<br>\ntwo</p>\n<p>three</p>"),
        ("# Tests #", "<h4>Tests</h4>"),
        ("###### Deep", "<h6>Deep</h6>"),
        (
            "- [x] done\n- [ ] open",
            '<ul class="contains-task-list">\n<li class="task-list-item">☑ done</li>\n'
            '<li class="task-list-item">☐ open</li>\n</ul>',
        ),
        (
            "- a\n  - b\n\n1. c",
            "<ul>\n<li>a\n<ul>\n<li>b</li>\n</ul>\n</li>\n</ul>\n<ol>\n<li>c</li>\n</ol>",
        ),
        ("```\n<b>\n```\nend", "<pre><code>&lt;b&gt;\n</code></pre>\n<p>end</p>"),
        ("```\nno end", "<pre><code>no end</code></pre>"),
        ("> said", "<blockquote>\n<p>said</p>\n</blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p>\n<hr>\n<p>b</p>"),
        (
            "| a | b |\n|---|:-:|\n| 1 | x\\|y |",
            '<table>\n<thead>\n<tr>\n<th>a</th>\n<th class="at-center">b</th>\n</tr>\n</thead>\n'
            '<tbody>\n<tr>\n<td>1</td>\n<td class="at-center">x|y</td>\n</tr>\n</tbody>\n</table>',
        ),
        (
            "`a*b*` **b** *i* _i_ ~~d~~ snake_case_name",
            "<p><code>a*b*</code> <strong>b</strong> <em>i</em> <em>i</em> <s>d</s> "
            "snake_case_name</p>",
        ),
        ("[here](https://example.org/?a=1&b=2)",
         f'<p><a href="https://example.org/?a=1&amp;b=2" {REL}>here</a></p>'),
        ("[m](mailto:a@example.org)", f'<p><a href="mailto:a@example.org" {REL}>m</a></p>'),
        ("![chart](https://example.org/c.png)",
         f'<p><a href="https://example.org/c.png" {REL}>chart</a></p>'),
        ("[![badge](https://example.org/b.svg)](https://example.org)",
         f'<p><a href="https://example.org" {REL}>badge</a></p>'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("<script>1</script>", "<p>&lt;script&gt;1&lt;/script&gt;</p>"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_summary_is_rendered(text: str, html: str) -> None:
    """Headings, lists, tables, code, quotes and emphasis, as GitHub shows them."""
    assert to_html(text) == html


_TAGS = frozenset(
    ["p", "h4", "h5", "h6", "ul", "ol", "li", "pre", "code", "blockquote", "table", "thead",
     "tbody", "tr", "th", "td", "strong", "em", "s", "br", "hr", "a"]
)  # fmt: skip
_CLASSES = frozenset(
    ["at-left", "at-center", "at-right", "contains-task-list", "task-list-item"]
)  # fmt: skip


class _Strict(HTMLParser):
    """Fails for a tag, an attribute or an address that the renderer may not make."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, tag
        for name, value in attrs:
            self._check(tag, name, value or "")
        if tag == "a":
            assert ("rel", "nofollow noopener noreferrer") in attrs

    def _check(self, tag: str, name: str, value: str) -> None:
        if name == "href":
            scheme = value.partition(":")[0].lower()
            assert tag == "a"
            assert scheme in ("http", "https", "mailto"), value
        elif name == "class":
            assert value in _CLASSES or (tag == "code" and value.startswith("language-")), value
        elif name == "start":
            assert tag == "ol"
            assert value.isdecimal()
        else:
            assert (tag, name) in (("a", "rel"), ("a", "title")), (tag, name)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_pi(self, data: str) -> None:
        raise AssertionError(data)


def check(text: str) -> None:
    """Fail unless the HTML of a text has nothing but what the renderer may make."""
    parser = _Strict(convert_charrefs=True)
    parser.feed(str(to_html(text)))
    parser.close()


def _corpus() -> Iterator[str]:
    path = Path(__file__).with_name("markdown_xss.txt")
    for line in path.read_text(encoding="utf-8").splitlines():
        yield line.encode().decode("unicode_escape").encode("latin-1", "replace").decode("latin-1")


@pytest.mark.parametrize("text", list(_corpus()))
def test_no_text_of_the_corpus_becomes_a_tag(text: str) -> None:
    """Each alone, and inside of what a summary is made of."""
    for around in ("{}", "a {} b", "- {}", "> {}", "# {}", "| {} |\n|---|\n| x |", "**{}**"):
        check(around.format(text))


_PIECES = (
    *("<", ">", '"', "'", "&", "`", "*", "**", "_", "~~", "[", "](", "http://x", 'https://y"', ")"),
    *("|", "\n", "---", "# ", "- ", "> ", "```", "<img src=x onerror=1>", "a", " ", "![", "]: "),
    *("[a]", "- [x] ", "javascript:", "\n    ", "\\", "&#106;", "|:-:|", "\x00", "<a href="),
)


@given(st.lists(st.sampled_from(_PIECES), max_size=60).map("".join))
def test_nothing_of_a_text_becomes_a_tag(text: str) -> None:
    """Whatever a job writes, the page has no tags but the renderer's own."""
    check(text)


@pytest.mark.parametrize(
    "piece",
    ["*", "**a", "`", "[a](http://", "_", "| ", "> ", "~~", "[", "![", "[a", "- ", "- a\n",
     "|a|b|\n|-|-|\n", "a\n", "[a]: b\n", "a**b_c~~"],
)  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    """The largest that is rendered takes a moment, whatever it repeats."""
    text = piece * (CHARACTERS_MAX // len(piece) + 1)
    started = time.process_time()
    to_html(text)
    assert time.process_time() - started < RENDER_SECONDS_MAX


def test_the_rest_of_a_long_text_is_plain() -> None:
    """It is not lost, and cut only between lines."""
    line = "**word** <b>\n"
    text = line * (MARKDOWN_CHARACTERS_MAX // len(line) + 100)
    html = str(to_html(text))
    check(text)
    assert html.count("<strong>word</strong>") == MARKDOWN_CHARACTERS_MAX // len(line)
    rest = html.partition("<pre>")[2]
    assert rest.startswith("**word** &lt;b&gt;\n")
    assert html.count("word") == text.count("word")


def test_what_is_cut_is_said() -> None:
    """A page stays a page."""
    assert to_html("x" * (CHARACTERS_MAX + 5)).endswith("<p>… and 5 more characters</p>")
