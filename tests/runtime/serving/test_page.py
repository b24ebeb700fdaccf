"""The server's page in a real browser, Chromium, driven by Playwright. `PAGE_SHOTS=DIR` keeps what it looks like."""

import os
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from robustscanner import Recognizer
from tests.convert.conftest import TINY
from tests.runtime.serving.conftest import EDGE, as_png, listening, picture, sign

CHROMIUM = which("chromium") or which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
# A file on the clipboard or under the pointer, as the browser tells a page of it.
GIVE = """([kind, bytes]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "given.png", { type: "image/png" }));
  document.dispatchEvent(kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no sandbox
        yield found
        found.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with listening() as (found, _):
        yield found


@pytest.fixture(scope="module")
def with_letters() -> Iterator[str]:
    with listening(EDGE) as (found, _):
        yield found


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    complaints: list[str] = []
    with browser.new_context(viewport=request.param, has_touch=request.param is PHONE) as context:
        found = context.new_page()
        found.on("pageerror", lambda error: complaints.append(str(error)))
        found.goto(address)
        yield found
        if place := os.environ.get("PAGE_SHOTS"):
            found.screenshot(path=Path(place) / f"{request.node.name}.png", full_page=True)
        assert complaints == []
        assert found.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"


def expected(seed: int) -> str:
    with Recognizer(TINY) as recognizer:
        return recognizer.read(picture(seed)).text


def first_text(page: Any) -> str:
    return str(page.locator("#readings .text").first.inner_text())


def test_pictures_that_are_chosen(page: Any) -> None:
    page.locator("#file").set_input_files(
        [{"name": f"{seed}.png", "mimeType": "image/png", "buffer": picture(seed)} for seed in range(2)]
    )
    sync_api.expect(page.locator("#readings .text")).to_have_count(2)
    assert set(page.locator("#readings .text").all_inner_texts()) == {expected(0), expected(1)}
    assert page.locator("#readings meter").first.evaluate("bar => 0 < bar.value && bar.value <= 1")


def test_letters_stand_below_the_picture(page: Any, with_letters: str) -> None:
    page.goto(with_letters)
    page.locator("#file").set_input_files([{"name": "exit.png", "mimeType": "image/png", "buffer": as_png(sign())}])
    sync_api.expect(page.locator(".letters span")).to_have_text(list("EXIT"))
    picture_box, *letters = (box.bounding_box() for box in (page.locator("img"), *page.locator(".letters span").all()))
    places = [(box["x"] + box["width"] / 2 - picture_box["x"]) / picture_box["width"] * 190 for box in letters]
    assert places == pytest.approx([29, 65, 92, 117], abs=14)
    assert page.locator(".letters span").first.get_attribute("title").startswith("E ")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_that_is_given(page: Any, kind: str) -> None:
    page.evaluate(GIVE, [kind, list(picture(2))])
    assert first_text(page) == expected(2)


def test_the_keyboard_chooses_pictures_and_says_what_may_be_read(page: Any) -> None:
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Tab")
        sync_api.expect(page.locator("#file")).to_be_focused()
        page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("0-9")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.type("3")
    chooser.value.set_files([{"name": "a.png", "mimeType": "image/png", "buffer": picture(0)}])
    text = first_text(page)
    assert len(text) == 3
    assert text.isdigit()


def test_what_is_wrong_stands_where_the_text_would(page: Any) -> None:
    files = page.locator("#file")
    files.set_input_files([{"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}])
    assert "not a picture" in page.locator("#readings .error").first.inner_text()
    page.locator("#pattern").fill("(")
    files.set_input_files([{"name": "b.png", "mimeType": "image/png", "buffer": picture(0)}])
    sync_api.expect(page.locator("#readings .error")).to_have_count(2)
    assert "pattern" in page.locator("#readings .error").first.inner_text()
