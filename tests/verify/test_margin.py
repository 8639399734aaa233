from etude.verify.margin import to_page
from tests.verify.checked import check


def test_the_page_has_the_lines_with_their_findings_and_runs_nothing_of_the_document() -> None:
    page = to_page(check("<script>alert(1)</script> 5 + 3 = 9 \x1b[31m \u202e\n\nfine: 2 + 2 = 4 &amp;"))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src 'none'" in page
    assert '<tr class="no"><td class="n">1</td>' in page
    assert "<b>contradicts</b> 9 (arithmetic)<br>5 + 3 = 8<br>would fit: 8" in page
    assert "<b>confirmed</b> 4" in page
    assert "\x1b" not in page and "\u202e" not in page


def test_long_documents_are_cut_and_it_is_said() -> None:
    assert "more lines are not shown" in to_page(check("a\n" * 20_500))
