"""Chromium, and a page open in it, as someone with a mouse and a keyboard has it."""

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

# No network and no updates, whatever the page or the browser itself might like.
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--autoplay-policy=no-user-gesture-required", "--mute-audio", "--hide-scrollbars",
    "--window-size=1400,900",
)  # fmt: skip


def start_chromium(browser: str, driver: str, profile: Path) -> Any:
    """A selenium driver of headless Chromium that logs its console and its requests."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = browser
    for option in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(driver))


class Page:
    """A page open in Chromium, as someone with a mouse and a keyboard has it."""

    def __init__(self, driver: Any, path: Path, dark: bool = False, backend: str = "") -> None:
        self.driver = driver
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        driver.get("about:blank")
        self.log()
        driver.get(path.as_uri() + backend)
        self.wait("return document.documentElement.dataset.ready")
        self.frames(2)

    def js(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def wait(self, script: str, *values: Any, seconds: float = 15) -> Any:
        end = time.monotonic() + seconds
        while not (found := self.js(script, *values)):
            assert time.monotonic() < end, f"waited {seconds} s for: {script}"
            time.sleep(0.02)
        return found

    def frames(self, count: int) -> None:
        """Wait until so many frames were drawn."""
        self.driver.execute_async_script(
            "let [left, done] = arguments;"
            "const next = () => left-- > 0 ? requestAnimationFrame(next) : done(); next()",
            count,
        )

    def text(self, name: str) -> str:
        return str(self.js("return document.getElementById(arguments[0]).innerText", name))

    def element(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def pick(self, name: str, text: str) -> None:
        from selenium.webdriver.support.select import Select

        Select(self.element(name)).select_by_visible_text(text)
        self.frames(3)

    def type(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def place(self, x: float, y: float) -> tuple[int, int]:
        """Pixels of a point of the plot, in the window."""
        found = self.js(
            "const view = Bokeh.index.roots[0], box = view.el.getBoundingClientRect();"
            "const { x_scale, y_scale } = view.frame;"
            "return [box.x + x_scale.compute(arguments[0]), box.y + y_scale.compute(arguments[1])]",
            float(x),
            float(y),
        )
        return round(found[0]), round(found[1])

    def mouse(self, *places: tuple[int, int], press: bool = False) -> None:
        """Move to each place in turn; with `press`, the button is down from the first to the last."""
        from selenium.webdriver.common.actions.action_builder import ActionBuilder

        actions = ActionBuilder(self.driver, duration=30)
        actions.pointer_action.move_to_location(*places[0])
        if press:
            actions.pointer_action.pointer_down()
        for place in places[1:]:
            actions.pointer_action.move_to_location(*place)
        if press:
            actions.pointer_action.pointer_up()
        actions.perform()
        self.frames(2)

    def pixels(self) -> Any:
        """The plot as it is on the screen, (height, width, 3)."""
        from PIL import Image

        with Image.open(io.BytesIO(self.element("plot").screenshot_as_png)) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    def log(self) -> list[str]:
        """What the console said since the last time, beside notices."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def requests(self) -> set[str]:
        """What was asked for since the last time."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        # pictures in the stylesheets of Bokeh and of the player's controls are data within the page
        return {url for url in sent if not url.startswith(("about:blank", "data:image/"))}


def near(pixels: Any, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels - wanted).max(axis=-1) < 40).sum())
