"""Texts of a run that would act in a page are shown as texts: no dialog opens, and nobody is asked."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from etude.records.events import Control, DataUsed, Finding, Generation, Note
from etude.records.store import Run
from etude.report.write import write_report
from etude.ui.exporting import export_page
from tests.report.runs import SCORES, attempt, evaluation, new_run
from tests.report.runs import window as steps
from tests.ui.browser.conftest import Window
from tests.ui.serving import serving

Look = Callable[..., AbstractContextManager[Window]]
MADE = (
    "document.querySelectorAll('#app script, #app iframe, #app [onerror], #app [onload], "
    "#app form[action]').length"
)
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
    "<ScRiPt>alert(1)</sCrIpT>",
    "<script src=//example.org/x.js></script>",
    "<img src=//example.org/x.png>",
    "<img/src=x/onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<select autofocus onfocus=alert(1)>",
    "<marquee onstart=alert(1)>x</marquee>",
    '<iframe srcdoc="<script>parent.alert(1)</script>">',
    '<object data="javascript:alert(1)">',
    '<embed src="javascript:alert(1)">',
    "<link rel=stylesheet href=//example.org/x.css>",
    '<meta http-equiv=refresh content="0;url=//example.org">',
    "<base href=//example.org/>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    '<svg><a xlink:href="javascript:alert(1)"><text y=20>x</text></a></svg>',
    '<svg><use href="data:image/svg+xml,<svg id=x onload=alert(1)>#x"/></svg>',
    '<svg><foreignObject><iframe src="javascript:alert(1)"></iframe></foreignObject></svg>',
    "<![CDATA[<script>alert(1)</script>]]>",
    "<!--><img src=x onerror=alert(1)>-->",
    "--><script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "<template><img src=x onerror=alert(1)></template>",
    "&lt;img src=x onerror=alert(1)&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "' onmouseover='alert(1)' x='",
    '" onfocus="alert(1)" autofocus="',
    "javascript:alert(1)",
    "[click](data:text/html,<script>alert(1)</script>)",
    '![x](x "\\" onerror=alert(1) \\"")',
    "<http://example.org/auto>",
    "[x]: javascript:alert(1)",
    "`<script>alert(1)</script>`",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose texts, rows, report and chart would act in a page."""
    folder = tmp_path_factory.mktemp("hostile")
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"{text}\n" * 3}) + "\n" for text in HOSTILE))
    source = {"data.train": [{"path": str(corpus)}], "data.deduplicate": "off", "train.device": "cpu"}
    writer = new_run(folder / "runs", {"records.tags": HOSTILE[:4], "train.seq_len": 256, **source})
    counts = {"sources": [{"name": HOSTILE[1], "bytes": 12345}], "train": {"tokens": 7}}
    writer.append(attempt(), DataUsed("f" * 64, counts), *steps(1, 20), evaluation(20, 2.5), SCORES)
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
    with (writer.run.path / "report/report.md").open("a") as report:
        report.write("\n\n## Texts\n\n" + "\n\n".join(HOSTILE))
    (writer.run.path / "report/loss.svg").write_text(
        "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script>"
        "<image href='http://example.org/x.png'/></svg>"
    )
    return writer.run


def test_an_exported_page_shows_them_as_they_are_with_the_charts_that_only_draw(
    hostile: Run, look: Look, tmp_path: Path
) -> None:
    """Texts of models, rows and recipes, in the file that is mailed: it opens from a disk."""
    out = tmp_path / "out.html"
    export_page([hostile], out, "1.2.3")
    path = f"#/run/{hostile.info['id']}"
    with serving() as server, look(server) as window:
        window.page.on("dialog", lambda dialog: window.wrong.append(f"dialog {dialog.message}"))
        for place, there in (
            (f"{path}?finding=0", f"strong:has-text('{HOSTILE[0]}')"),
            (f"{path}/samples?prompt=1", f"pre:has-text('{HOSTILE[1]}')"),
            (f"{path}/data", "text=Rows are not in an exported page"),
            (f"{path}/log", f"pre:has-text('{HOSTILE[0]}')"),
            (f"{path}/report", "article img"),
        ):
            window.page.goto(f"{out.as_uri()}{place}")
            window.wait(there)
            window.rest()
            assert window.page.evaluate(MADE) == 0, place
        window.until("[...document.querySelectorAll('article img')].every((each) => each.naturalWidth > 0)")
        window.wrong[:] = [text for text in window.wrong if text != f"asked {out.as_uri()}"]


def test_texts_that_would_act_are_shown_as_they_are(hostile: Run, tmp_path: Path, look: Look) -> None:
    """Texts of models, rows and recipes: 50, logged and learnt by a run, looked at on every page."""
    folder = shutil.copytree(hostile.path, tmp_path / HOSTILE[1])
    copy = shutil.copytree(folder, tmp_path / '"><svg onload=alert(3)>')
    info = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**info, "id": HOSTILE[0]}))
    sweep = tmp_path / HOSTILE[0].replace("/", "|")
    (sweep / "runs").mkdir(parents=True)
    (sweep / "sweep.toml").write_text("name = 'x'\n")
    assert len(HOSTILE) == 50
    with serving(tmp_path) as server, look(server) as window:
        window.page.on("dialog", lambda dialog: window.wrong.append(f"dialog {dialog.message}"))
        identity = hostile.info["id"]
        ids = [row["id"] for row in server.get("/api/runs")["runs"]]
        assert len(ids) == 2 and identity in ids
        for place, there in (
            ("#/runs?columns=status,name,tags", f"tbody tr:has-text('{HOSTILE[0]}')"),
            (f"#/run/{identity}?finding=0", f"strong:has-text('{HOSTILE[0]}')"),
            (f"#/run/{identity}/samples?prompt=1", f"pre:has-text('{HOSTILE[1]}')"),
            (f"#/run/{identity}/recipe", "text=As it was given"),
            (f"#/run/{identity}/report", "article h2"),
            (f"#/run/{identity}/data", "text=Rows as they are learnt"),
            (f"#/compare?runs={','.join(ids)}", "table"),
            ("#/system", "h1"),
            (f"#/run/{identity}/log", f"pre:has-text('{HOSTILE[0]}')"),
            ("#/run/%3Cimg%20src=x%20onerror=alert(9)%3E", "[role=alert]"),
            ("#/%3Cscript%3Ealert(9)%3C/script%3E", "text=There is no page"),
        ):
            window.go(place)
            window.wait(there)
            window.rest()
            assert window.page.evaluate(MADE) == 0, place
        assert [text for text in window.wrong if "404" not in text] == []  # of the run that is none
        failed: list[str] = []
        window.page.on("requestfailed", lambda request: failed.append(f"{request.url} {request.failure}"))
        window.page.goto(f"http://127.0.0.1:{server.port}/api/runs/{identity}/report/loss.svg")
        window.page.wait_for_timeout(300)
        # The policy of the chart stopped its script, and its image before anything was sent.
        assert failed in ([], ["http://example.org/x.png csp"])
        assert not any("dialog" in text for text in window.wrong)
        window.wrong.clear()
