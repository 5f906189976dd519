"""The page in a real browser: open, drag, delete, dream, drop a picture, save, reload, at two widths."""

import json
import shutil
import threading

import pytest
import torch

from analysis.studio.desk import Desk
from analysis.studio.server import address, serve
from analysis.studio.views import png

driver = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright: python -m pip install playwright"
)
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
LONG = 60_000
"""Milliseconds to wait on a machine that is busy."""
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture
def page(monkeypatch):
    """The studio of a shipped run, in a browser that remembers its complaints."""
    monkeypatch.setattr("analysis.studio.desk.IMAGES", 3)
    desk = Desk(["gsgn-shapes2d"])
    server = serve(desk.answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with driver.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
            shown = browser.new_page(viewport={"width": 1200, "height": 900})
            shown.set_default_timeout(LONG)
            said, asked = [], []
            shown.on("console", lambda message: said.append(message.text))
            shown.on("pageerror", lambda error: said.append(str(error)))
            shown.on("request", lambda request: asked.append(request.url))
            shown.goto(address(server))
            yield shown, desk
            browser.close()
            assert not said, said
            here = (address(server), "data:", "blob:")
            assert all(url.startswith(here) for url in asked), asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def changed(page):
    """Wait until the program has drawn another picture, while something is done."""
    source = "document.querySelector('.middle .stage img').src"
    before = page.evaluate(source)
    return lambda: page.wait_for_function(f"before => {source} !== before", arg=before)


def drag(page, box, by):
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for share in (0.3, 0.6, 1.0):
        page.mouse.move(x + share * by[0], y + share * by[1])
    page.mouse.up()


def settled(page):
    """Wait until no question is open."""
    page.wait_for_selector(".studio[aria-busy=false]")


def test_a_visitor_does_what_the_page_offers(page, tmp_path):
    page, desk = page
    page.wait_for_selector(".gallery img")
    page.wait_for_selector(".bounds")
    bench = desk.here.bench
    page.click("[aria-label='image 2']")
    page.wait_for_selector(".gallery .chosen[aria-label='image 2']")
    settled(page)

    slot = bench.hand.selection.slot
    before = bench.seen.scene.objects.centre[0, slot]
    seen = changed(page)
    drag(page, page.locator("polygon.chosen").bounding_box(), (40, 30))
    seen()
    settled(page)
    side = page.locator(".middle .stage").bounding_box()["width"]
    slot = bench.hand.selection.slot
    shift = bench.seen.scene.objects.centre[0, slot] - before
    assert torch.allclose(shift, 2 * torch.tensor([40.0, 30.0]) / side, atol=0.03)
    assert len(bench.past) == 2 and page.get_attribute("#change", "class") == "worse"

    number = int(bench.seen.scene.objects.present.sum())
    seen = changed(page)
    page.keyboard.press("Delete")
    seen()
    assert int(bench.seen.scene.objects.present.sum()) == number - 1
    seen = changed(page)
    page.keyboard.press("Control+z")
    seen()
    assert int(bench.seen.scene.objects.present.sum()) == number

    page.fill("input[aria-label='objects']", "3")
    page.keyboard.press("Tab")
    seen = changed(page)
    page.click("#dream")
    seen()
    assert int(bench.seen.scene.objects.present.sum()) == 3 and bench.image is None

    file = tmp_path / "red.png"
    file.write_bytes(png(torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1).expand(3, 40, 30)))
    seen = changed(page)
    page.set_input_files("input[type=file]", file)
    seen()
    assert torch.allclose(bench.image.mean((0, 2, 3)), torch.tensor([1.0, 0.0, 0.0]), atol=1e-3)
    settled(page)

    saved = []
    page.on("download", lambda download: saved.append(download))
    page.click("#save")
    page.wait_for_selector("text=Saved")
    while len(saved) < 2:
        page.wait_for_timeout(50)
    names = {download.suggested_filename: download.path() for download in saved}
    content = json.loads(names["gsgn-shapes2d-scene.json"].read_text())
    assert content["run"] == "gsgn-shapes2d" and content["latents"]
    assert names["gsgn-shapes2d-scene.png"].read_bytes()[:4] == b"\x89PNG"

    picture = page.get_attribute(".middle .stage img", "src")
    page.reload()
    page.wait_for_selector(".gallery img")
    assert page.get_attribute(".middle .stage img", "src") == picture
    settled(page)


def test_it_fits_a_telephone_and_says_mistakes(page):
    page, _ = page
    page.wait_for_selector(".gallery img")
    page.wait_for_selector(".bounds")
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("v")
    page.wait_for_selector(".note.wrong")
    assert page.text_content(".note") == "Nothing was copied yet: select a node and copy it."
    page.keyboard.press("?")
    assert page.is_visible("dialog")
    page.keyboard.press("Escape")
    settled(page)
