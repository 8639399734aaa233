"""Texts of a run that would act in a page are shown as texts: no dialog opens, and nobody is asked."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from etude.records.events import Control, Finding, Generation, Note
from etude.report.write import write_report
from tests.report.runs import SCORES, attempt, evaluation, new_run
from tests.report.runs import window as steps
from tests.ui.browser.conftest import Window
from tests.ui.serving import serving

Look = Callable[..., AbstractContextManager[Window]]
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "<svg onload=alert(3)>",
    '"><iframe src="javascript:alert(4)">',
    "<a href='javascript:alert(5)' autofocus onfocus=alert(5)>a</a>",
    "![x](http://example.org/x.png) [y](javascript:alert(6))",
    "</pre></textarea></title><style>@import 'http://example.org/x.css'</style>",
    "{{constructor.constructor('alert(7)')()}}${alert(7)}",
    "<math><mtext></table><mglyph><style><img src onerror=alert(8)>",
    "<form action=http://example.org><button autofocus>b</button></form>",
]


def test_texts_that_would_act_are_shown_as_they_are(tmp_path: Path, look: Look) -> None:
    writer = new_run(tmp_path, {"records.tags": HOSTILE[:4]})
    writer.append(attempt(), *steps(1, 20), evaluation(20, 2.5), SCORES)
    for text in HOSTILE:
        writer.append(
            Finding(
                12, text, text, text, window=[8, 12], causes=[text, text], not_tested=[text], source=text
            ),
            Generation(20, text, text, {}, text[::-1], True, text),
            Control(20, "note", text, who=text),
            Note("lessons", text, text),
        )
        writer.log(text)
    writer.close("stopped")
    write_report(writer.run)
    with serving(tmp_path) as server, look(server) as window:
        window.page.on("dialog", lambda dialog: window.wrong.append(f"dialog {dialog.message}"))
        identity = writer.run.info["id"]
        for place, there in (
            ("#/runs?columns=status,name,tags", f"text={HOSTILE[0]}"),
            (f"#/run/{identity}?finding=0", f"strong:has-text('{HOSTILE[0]}')"),
            (f"#/run/{identity}/samples?prompt=1", f"pre:has-text('{HOSTILE[1]}')"),
            (f"#/run/{identity}/recipe", "text=As it was given"),
            (f"#/run/{identity}/report", "article h2"),
            (f"#/run/{identity}/log", f"pre:has-text('{HOSTILE[0]}')"),
            ("#/run/%3Cimg%20src=x%20onerror=alert(9)%3E", "[role=alert]"),
            ("#/%3Cscript%3Ealert(9)%3C/script%3E", "text=There is no page"),
        ):
            window.go(place)
            window.wait(there)
            window.rest()
            made = "document.querySelectorAll('#app script, #app iframe, #app [onerror], #app [onload], #app form[action]').length"
            assert window.page.evaluate(made) == 0, place
        window.wrong[:] = [text for text in window.wrong if "404" not in text]  # of the run that is none
