"""Job summaries as HTML: what is rendered, and that nothing of a text becomes a tag."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.api.markdown import CHARACTERS_MAX, to_html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Hello", "<p>Hello</p>"),
        ("one\ntwo\n\nthree", "<p>one<br>\ntwo</p>\n<p>three</p>"),
        ("# Tests #", "<h4>Tests</h4>"),
        ("###### Deep", "<h6>Deep</h6>"),
        ("- a\n* b\n1. c", "<ul><li>a</li><li>b</li></ul>\n<ol><li>c</li></ol>"),
        ("- [x] done\n- [ ] open", "<ul><li>☑ done</li><li>☐ open</li></ul>"),
        ("```py\n<b>\n```\nend", "<pre><code>&lt;b&gt;</code></pre>\n<p>end</p>"),
        ("```\nno end", "<pre><code>no end</code></pre>"),
        ("> said\n> twice", "<blockquote>said<br>\ntwice</blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p>\n<hr>\n<p>b</p>"),
        (
            "| a | b |\n|---|:-:|\n| 1 | x\\|y |",
            "<table><thead><tr><th>a</th><th>b</th></tr></thead>"
            "<tbody><tr><td>1</td><td>x|y</td></tr></tbody></table>",
        ),
        (
            "`a*b*` **b** *i* _i_ ~~d~~ snake_case_name",
            "<p><code>a*b*</code> <strong>b</strong> <em>i</em> <em>i</em> <del>d</del> "
            "snake_case_name</p>",
        ),
        (
            "[here](https://example.org/?a=1&b=2)",
            '<p><a href="https://example.org/?a=1&amp;b=2" rel="nofollow noopener noreferrer">'
            "here</a></p>",
        ),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("<script>1</script>", "<p>&lt;script&gt;1&lt;/script&gt;</p>"),
        ("", ""),
    ],
)
def test_a_summary_is_rendered(text: str, html: str) -> None:
    """Headings, lists, tables, code, quotes and emphasis, as GitHub shows them."""
    assert to_html(text) == html


_OURS = re.compile(
    r"</?(?:p|h[4-6]|ul|ol|li|pre|code|blockquote|table|thead|tbody|tr|th|td|strong|em|del|br|hr)>"
    r'|<a href="https?://[^"<>]*" rel="nofollow noopener noreferrer">|</a>'
)
_PIECES = (
    *("<", ">", '"', "'", "&", "`", "*", "**", "_", "~~", "[", "](", "http://x", 'https://y"', ")"),
    *("|", "\n", "---", "# ", "- ", "> ", "```", "<img src=x onerror=1>", "a", " "),
)


@given(st.lists(st.sampled_from(_PIECES), max_size=60).map("".join))
def test_nothing_of_a_text_becomes_a_tag(text: str) -> None:
    """Whatever a job writes, the page has no tags but the renderer's own."""
    rest = _OURS.sub("", str(to_html(text)))
    assert "<" not in rest
    assert ">" not in rest


@pytest.mark.parametrize(
    "piece", ["*", "**a", "`", "[a](http://", "_", "| ", "> ", "~~", "[", "- "]
)
def test_time_is_linear(piece: str) -> None:
    """The largest text that is shown takes a moment, whatever it repeats."""
    text = piece * (CHARACTERS_MAX // len(piece) + 1)
    started = time.perf_counter()
    to_html(text)
    assert time.perf_counter() - started < 2


def test_what_is_cut_is_said() -> None:
    """A page stays a page."""
    assert to_html("x" * (CHARACTERS_MAX + 5)).endswith("<p>… and 5 more characters</p>")
