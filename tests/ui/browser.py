"""A Chromium without a window, driven by selenium; nothing in it calls home."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDE, PHONE = (1280, 900), (390, 844)
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--force-prefers-reduced-motion", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required", "--no-proxy-server",
)  # fmt: skip


def missing() -> str:
    """Say what is missing to drive a browser, or nothing."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install chromium chromium-driver)"
    return ""


@contextmanager
def browser(profile: Path, *, size: tuple[int, int] = WIDE, camera: Path | None = None) -> Iterator[Any]:
    """Yield a driver with a fresh profile; ``camera`` is a .mjpeg file that plays as the webcam."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    if camera is not None:
        options.add_argument(f"--use-file-for-fake-video-capture={camera}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    # A window cannot be narrower than 500 px; a phone is emulated.
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500},
    )
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The app in a browser, in the words of somebody who uses it."""

    def __init__(self, driver: Any, url: str, *, dark: bool = False) -> None:
        self.driver = driver
        self.url = url
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                          {"name": "prefers-reduced-motion", "value": "reduce"}]},
        )  # fmt: skip

    def open(self, *, agree: bool = True) -> Page:
        self.driver.get(self.url)
        self.see(".vl-header")
        if agree:
            self.wait(lambda: self.js("return document.querySelector('.vl-notice')?.open"))
            self.click("[data-vl=agree]")
        return self

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def all(self, css: str) -> list[Any]:
        from selenium.webdriver.common.by import By

        return list(self.driver.find_elements(By.CSS_SELECTOR, css))

    def shown(self, css: str) -> list[Any]:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            return [one for one in self.all(css) if one.is_displayed()]
        except StaleElementReferenceException:
            return []

    def wait(self, ready: Any, *, seconds: float = 60, what: str = "") -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = ready()
            if found:
                return found
            time.sleep(0.1)
        body = self.js("return document.body.innerText")[:1500]
        raise AssertionError(f"not seen in {seconds} s: {what or ready}; the page says: {body}")

    def see(self, css: str, *, seconds: float = 60) -> Any:
        return self.wait(lambda: self.shown(css), seconds=seconds, what=css)[0]

    def read(self, css: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.innerText ?? ''", css))

    def read_until(self, css: str, text: str, *, seconds: float = 60) -> str:
        self.wait(lambda: text.casefold() in self.read(css).casefold(), seconds=seconds, what=f"{text!r} in {css}")
        return self.read(css)

    def click(self, css: str) -> None:
        one = self.see(css)
        self.js("arguments[0].scrollIntoView({block: 'center'})", one)
        one.click()

    def tab(self, name: str) -> None:
        find = (
            "return [...document.querySelectorAll('button[role=tab]')]"
            ".find(b => b.innerText.trim() === arguments[0] && b.offsetParent)"
        )
        if not self.js(find, name):
            self.click(".overflow-menu button")
            find = (
                "return [...document.querySelectorAll('.overflow-dropdown button')]"
                ".find(b => b.innerText.trim() === arguments[0])"
            )
        self.wait(lambda: self.js(find, name), what=f"tab {name}")
        self.js("arguments[0].click()", self.js(find, name))

    def example(self, tab: str, key: str) -> None:
        """Open the app and take the example of a tab."""
        self.open()
        self.tab(tab)
        self.click(f"#vl-{key}-example")

    def type(self, css: str, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        field = self.see(css)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    def press(self, key: str) -> None:
        """Press a key as the keyboard does: it goes to whatever has the focus, seen or not."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def upload(self, css: str, path: Path) -> None:
        self.wait(lambda: self.all(css), what=css)[0].send_keys(str(path))

    def addresses(self) -> list[str]:
        """Every address asked for since the last call, from the network log."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def picture(self, path: Path, *, height: int | None = None) -> Path:
        """Save the page from its top, ``height`` CSS pixels of it or all."""
        import base64

        time.sleep(0.6)
        width = self.js("return window.innerWidth")
        tall = height or self.js("return document.documentElement.scrollHeight")
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot",
            {"format": "png", "captureBeyondViewport": True,
             "clip": {"x": 0, "y": 0, "width": width, "height": tall, "scale": 1}},
        )  # fmt: skip
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
