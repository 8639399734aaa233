"""The page of a run in a browser: it grows while records come, keeps its view, and tells what it shows."""

import contextlib
import math
import shutil
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from etude.records.events import Finding, Step
from tests.report.runs import attempt, evaluation, finished_run, new_run
from tests.report.runs import window as steps
from tests.ui.browser.conftest import Window
from tests.ui.serving import serving

Look = Callable[..., AbstractContextManager[Window]]
_LAST = "document.querySelector('[data-chart=Loss] .plot').plot?.data[0].at(-1)"


def test_a_live_run_grows_without_reload_and_a_zoom_survives(tmp_path: Path, look: Look) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *steps(1, 5))
    with serving(tmp_path) as server, look(server) as window:
        window.go(f"#/run/{writer.run.info['id']}")
        window.until(f"{_LAST} === 5")
        window.page.evaluate("window.isTheSame = true")
        writer.append(*steps(6, 10))
        window.until(f"{_LAST} === 10")
        window.until("document.querySelector('main').innerText.includes('step 10 of 40')")
        window.page.locator("[data-chart=Loss] .plot").focus()
        window.page.keyboard.press("+")
        window.until("location.hash.includes('from=')")
        scale = "(({min, max}) => [min, max])(document.querySelector('[data-chart=Loss] .plot').plot.scales.x).join()"
        window.wait("button:has-text('Whole range')")
        window.rest()
        before, address = window.page.evaluate(scale), window.page.url
        writer.append(*steps(11, 20), evaluation(20, 2.5))
        window.until("document.querySelector('main').innerText.includes('step 20 of 40')")
        assert window.page.evaluate(scale) == before and window.page.url == address
        window.page.locator("[data-chart=Loss] .plot").focus()
        window.page.keyboard.press("Escape")
        window.until(f"{_LAST} === 20")
        assert window.page.evaluate("window.isTheSame")
    writer.close("stopped")


def test_a_finding_opens_shades_its_window_and_leads_to_a_new_run(tmp_path: Path, look: Look) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *steps(1, 20))
    writer.append(Finding(12, "the loss <b>jumps</b>", "from 2 to 9", "lower the rate", window=[8, 12],
                          causes=["a rate too high"], changes={"optim.learning_rate": 1e-4}))  # fmt: skip
    writer.close("stopped")
    with serving(tmp_path) as server, look(server) as window:
        window.go(f"#/run/{writer.run.info['id']}")
        window.wait("summary:has-text('the loss <b>jumps</b>')").click()
        window.until("location.hash.includes('finding=0')")
        shown = window.text("details.finding")
        for words in (
            "from 2 to 9",
            "a rate too high",
            "lower the rate",
            "optim.learning_rate = 0.0001",
            "8 to 12",
        ):
            assert words in shown
        for axis in ("step", "tokens", "seconds", "epoch"):
            window.go(f"#/run/{writer.run.info['id']}?axis={axis}&finding=0")
            window.until(f"{_LAST} !== undefined && {_SHADES}.join() === 'false,true,false'")
        window.wait("a:has-text('New run with this change')").click()
        window.wait("text=no problem found")
        text = window.page.get_by_label("the recipe as TOML")
        found = tomllib.loads(text.input_value())
        assert (found["name"], found["optim"]["learning_rate"]) == ("small-v2", 1e-4)
        text.fill(text.input_value() + "# mine\n")
        window.page.go_back()
        window.wait("details.finding")
        window.page.go_forward()
        window.wait("button:has-text('Undo all changes')").click()  # what was typed is there again
        assert "# mine" not in text.input_value()


# Where a canvas has any colour below the upper edge of its plot: at three of 20 steps, each of the same length.
_SHADES = """[0.2, 0.5, 0.9].map((share) => {
  const { plot } = document.querySelector('[data-chart="Learning rate"] .plot'), { left, top, width } = plot.bbox;
  return plot.ctx.getImageData(left + share * width, top + 3, 1, 1).data[3] > 0;
})"""


def test_a_chart_is_read_by_keyboard_as_words_as_table_and_as_csv(tmp_path: Path, look: Look) -> None:
    run = finished_run(tmp_path)
    with serving(tmp_path) as server, look(server) as window:
        window.go(f"#/run/{run.info['id']}")
        window.until(f"{_LAST} === 40")
        caption = window.text("[data-chart=Loss] figcaption")
        assert "Training loss 2.100 at step 40" in caption and "lowest 2.500 at step 20" in caption
        plot = window.page.locator("[data-chart=Loss] .plot")
        plot.focus()
        window.page.keyboard.press("Home")
        window.page.keyboard.press("ArrowRight")
        assert str(plot.get_attribute("aria-valuetext")).startswith("step 2: training loss 4.000")
        other = "document.querySelector('[data-chart=\"Learning rate\"] .at').textContent"
        assert window.page.evaluate(other) == "step 2"  # one cursor for all charts
        window.page.get_by_role("button", name="Loss as table").click()
        assert "step 40" in window.text("[data-chart=Loss] .points tbody tr")
        with window.page.expect_download() as found:
            window.page.get_by_role("link", name="Loss as CSV").click()
        assert len(Path(found.value.path()).read_text().splitlines()) > 40
        legend = window.page.get_by_role("button", name="training loss")
        legend.click()
        assert legend.get_attribute("aria-pressed") == "false"
        window.page.reload()  # the address holds what is hidden, for all charts
        window.until("document.querySelector('[data-chart=Loss] .plot').plot?.data.length === 2")
        assert "hide=train%2Floss" in window.page.url


def test_all_charts_have_the_range_of_the_run_and_a_removed_run_says_so(tmp_path: Path, look: Look) -> None:
    run = finished_run(tmp_path)
    with serving(tmp_path) as server, look(server) as window:
        window.go(f"#/run/{run.info['id']}")
        ranges = "[...document.querySelectorAll('.plot')].filter((box) => box.plot).map(({ plot }) => [plot.scales.x.min, plot.scales.x.max].join()).join(' ')"
        window.until(
            f"{ranges}.split(' ').length > 2 && {ranges}.split(' ').every((range) => range === '1,40')"
        )
        shutil.rmtree(run.path)
        window.wait("text=the folder of this run was removed")
        window.wait("h1 + .state:has-text('removed')")
        assert window.page.locator(".actions button").count() == 0
        window.wrong.clear()  # what is gone is answered with 404


def test_the_page_says_that_the_server_is_gone_and_goes_on_with_the_next(tmp_path: Path, look: Look) -> None:
    writer = new_run(tmp_path)
    writer.append(attempt(), *steps(1, 5))
    with contextlib.ExitStack() as opened:
        with serving(tmp_path) as server:
            window = opened.enter_context(look(server))
            window.go(f"#/run/{writer.run.info['id']}?axis=epoch")
            window.wait("text=step 5 of 40")
        window.wait("text=the page is not connected")
        window.wait("text=the server does not answer")
        writer.append(*steps(6, 10))
        server = opened.enter_context(serving(tmp_path, port=window.port))
        other = window.page.context.new_page()
        other.goto(server.address.link)  # the next server has a link of its own
        other.close()
        window.until("!document.querySelector('main').innerText.includes('not connected')")
        window.until("document.querySelector('main').innerText.includes('step 10 of 40')")
        assert window.page.url.endswith("?axis=epoch")
        window.page.goto("about:blank")
        window.wrong[:] = [
            text for text in window.wrong if "Failed to load resource" not in text and "about:" not in text
        ]
    writer.close("stopped")


def test_what_a_scale_cannot_place_is_said_and_a_point_between_gaps_is_a_dot(
    tmp_path: Path, look: Look
) -> None:
    writer = new_run(tmp_path)
    found = [each for each in steps(1, 700) if isinstance(each, Step)]
    writer.append(attempt(steps=700))
    writer.append(
        *(
            each._replace(loss=math.nan if each.step % 2 else -1.0, grad_norm=0.0 if each.step < 10 else 1.0)
            for each in found
        )
    )
    writer.append(*(Finding(3, f"finding {number}", "e", "a", window=[3, 3]) for number in range(30)))
    writer.close("stopped")
    with serving(tmp_path) as server, look(server) as window:
        window.go(f"#/run/{writer.run.info['id']}?log=1")
        window.until(
            "document.querySelector('[data-chart=Loss] .caption').innerText.includes('350 values not finite')"
        )
        assert "Drawn on a linear scale, as no value is above 0." in window.text("[data-chart=Loss] .caption")
        dots = "plot.series.at(-1).points.filter(plot, plot.series.length - 1, false)"
        assert (
            window.page.evaluate(
                f"(() => {{ const {{plot}} = document.querySelector('[data-chart=Loss] .plot'); return {dots}.length; }})()"
            )
            == 350
        )
        assert window.page.locator("details.finding").count() == 5
        assert "step 3" in window.text("details.finding") and "steps" not in window.text("details.finding")
        window.wait("button:has-text('Show all 30 findings')").click()
        window.until("document.querySelectorAll('details.finding').length === 30")
        window.page.locator("[data-chart='Gradient norm']").scroll_into_view_if_needed()
        window.until(
            "document.querySelector('[data-chart=\"Gradient norm\"] .caption').innerText.includes('9 points at or below 0')"
        )
