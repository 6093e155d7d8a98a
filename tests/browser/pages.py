"""The dashboard's pages in a real browser: opened, filtered, followed live, looked at by axe-core, and photographed.

``make test-browser`` runs this; it wants Debian's ``chromium`` and leaves screenshots in .cache/browser/screenshots.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import shoal
from shoal.util.placement_group import placement_group

CACHE = Path(__file__).parents[2] / ".cache" / "browser"
SCREENSHOTS = CACHE / "screenshots"
AXE = CACHE / "package" / "axe.min.js"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATHS = (
    "",
    *(f"view/{each}" for each in ("jobs", "tasks", "actors", "nodes", "workers", "objects", "placement_groups")),
    "view/timeline",
    "view/charts",
    "view/graph",
    "view/errors",
    "view/configuration",
)


@shoal.remote
class Counter:
    def add(self, number: int) -> int:
        return number + 1

    def fail(self) -> None:
        raise ValueError("on purpose")


@shoal.remote
def square(number: int) -> int:
    return number * number


@pytest.fixture(scope="module")
def dashboard() -> Iterator[Any]:
    """A cluster on which something has happened."""
    with shoal.init(num_cpus=4, include_dashboard=True, log_to_driver=False) as context:
        counter = Counter.options(name="the counter").remote()
        group = placement_group([{"CPU": 1}], name="reserved")
        kept = shoal.put(bytes(2_000_000))
        shoal.get([group.ready(), counter.add.remote(1), *(square.remote(n) for n in range(500))])
        with pytest.raises(ValueError, match="on purpose"):
            shoal.get(counter.fail.remote())
        yield context
        del kept


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, dashboard: Any) -> Iterator[Page]:
    """Logged in; whatever its console says of errors fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://{dashboard.dashboard_url}/")
    page.get_by_label("Token").fill(Path(dashboard["session_dir"], "auth_token").read_text().strip())
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    yield page
    context.close()
    assert not problems


def url(dashboard: Any, path: str) -> str:
    return f"http://{dashboard.dashboard_url}/{path}"


def drawn(page: Page) -> None:
    """Waits until what is drawn by scripts has its data."""
    expect(page.locator("[aria-busy=true]")).to_have_count(0, timeout=30_000)


def faults(page: Page) -> list[str]:
    """What axe-core calls serious or critical."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_page(page: Page, dashboard: Any, path: str, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(url(dashboard, path))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    drawn(page)
    page.screenshot(path=SCREENSHOTS / f"{path.rpartition('/')[2] or 'overview'}-{scheme}.png", full_page=False)
    assert faults(page) == []


def test_from_a_list_to_a_thing_and_back(page: Page, dashboard: Any) -> None:
    page.goto(url(dashboard, "view/actors"))
    page.get_by_label("class name").fill("Counter")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("1 of ")).to_be_visible()
    page.locator("tbody a").first.click()
    expect(page.get_by_text("the counter")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "actor.png", full_page=True)
    assert faults(page) == []


def test_it_follows_what_happens(page: Page, dashboard: Any) -> None:
    page.goto(url(dashboard, "view/actors?class_name=Late"))
    expect(page.get_by_text("0 of ")).to_be_visible()

    @shoal.remote
    class Late:
        def here(self) -> None:
            return

    late = Late.remote()
    shoal.get(late.here.remote())
    expect(page.get_by_text("1 of ")).to_be_visible(timeout=30_000)


def test_the_timeline_by_mouse_and_keyboard(page: Page, dashboard: Any) -> None:
    page.goto(url(dashboard, "view/timeline"))
    expect(page.get_by_role("button", name="Show all")).to_be_visible()
    drawn(page)
    canvas = page.locator("canvas")
    canvas.focus()
    said = page.locator("#timeline-said")
    expect(said).to_be_empty()
    page.keyboard.press("ArrowDown")
    expect(said).to_contain_text("UTC:")
    for key in ("+", "+", "PageDown", "ArrowLeft", "-", "Home"):
        page.keyboard.press(key)
    page.screenshot(path=SCREENSHOTS / "timeline.png")
    assert faults(page) == []
    where = canvas.bounding_box()
    assert where is not None
    page.mouse.move(where["x"] + 400, where["y"] + 40)
    page.mouse.wheel(0, -300)
    expect(said).to_contain_text("UTC:")
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_charts_are_drawn_and_read_by_keys(page: Page, dashboard: Any) -> None:
    page.goto(url(dashboard, "view/charts"))
    expect(page.locator(".charts figure")).to_have_count(6, timeout=30_000)
    expect(page.locator(".charts .line").first).to_be_attached(timeout=30_000)
    chart = page.get_by_role("img", name="Memory")
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".charts .said").nth(1)).to_contain_text("min ago")
    page.screenshot(path=SCREENSHOTS / "charts.png")
    assert faults(page) == []


def test_on_a_phone(browser: Browser, page: Page, dashboard: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("", "view/tasks", "view/nodes", "view/timeline", "view/charts"):
        page.goto(url(dashboard, path))
        drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"/{path} is wider than the screen"
        page.screenshot(path=SCREENSHOTS / f"{path.rpartition('/')[2] or 'overview'}-phone.png")
