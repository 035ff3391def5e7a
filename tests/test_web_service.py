"""The web service of the examples in a real browser: what a person sees, and what leaving the page does."""

import importlib.util
import pathlib
import shutil
import sys
import threading

import pytest

import allm_actors as allm
from allm_actors.providers import OpenAI
from allm_actors.testing import FakeServer

ROOT = pathlib.Path(__file__).parent.parent
WAIT = 20  # seconds, for what takes milliseconds when nothing is wrong


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("web_service", ROOT / "examples" / "33_web_service.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


@pytest.fixture
def provider(example):
    with FakeServer(default=example.model) as server:
        yield server


@pytest.fixture
def address(example, provider):
    """Where the service is; it ends with the test."""
    from werkzeug.serving import make_server

    app = example.create_app(allm.Engine(adapter=OpenAI(base_url=provider.base_url), model="any"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def browser(tmp_path):
    """Chromium without a window."""
    program, driver = (
        shutil.which("chromium") or shutil.which("chromium-browser"),
        shutil.which("chromedriver"),
    )
    if program is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed: the page is not seen in a real browser")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={tmp_path}"):
        options.add_argument(f"--{flag}")
    made = webdriver.Chrome(options, webdriver.ChromeService(driver))
    made.set_page_load_timeout(WAIT)
    yield made
    made.quit()


def wait_for_text(browser, element, text):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.wait import WebDriverWait

    there = expected_conditions.text_to_be_present_in_element((By.ID, element), text)
    WebDriverWait(browser, WAIT, poll_frequency=0.05).until(there)


def test_a_person_asks_and_reads_the_answer(browser, address):
    from selenium.webdriver.common.by import By

    browser.get(address)
    browser.find_element(By.NAME, "q").send_keys("links")
    browser.find_element(By.TAG_NAME, "button").click()

    wait_for_text(browser, "state", "done")
    assert browser.find_element(By.ID, "answer").text == "Links tell you."


@pytest.mark.parametrize("leave", ["goes to another page", "closes the tab"])
def test_leaving_the_page_halts_the_model(browser, address, provider, leave):
    browser.get(f"{address}/?q=wait")
    wait_for_text(browser, "answer", "Well")
    (request,) = provider.requests
    assert request.disconnected_at is None

    if leave == "closes the tab":
        browser.switch_to.new_window("tab")
        browser.switch_to.window(browser.window_handles[0])
        browser.close()
    else:
        browser.get("about:blank")

    assert request.wait_disconnected(WAIT)
