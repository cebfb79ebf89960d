"""A headless Chromium, driven by its own protocol over a websocket."""

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --force-color-profile=srgb --remote-debugging-port=0"
).split()
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "Space": 32, "End": 35, "Home": 36}


class Browser:
    """A browser with a profile of its own in `folder`; leave it with `close`."""

    def __init__(self, folder):
        self.log = open(folder / "chromium.log", "w")
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        port = folder / "profile" / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not port.is_file() or not port.read_text().strip():
            assert self.process.poll() is None and time.monotonic() < deadline, "chromium does not start"
            time.sleep(0.05)
        self.port = port.read_text().split()[0]

    def page(self, address="about:blank", **how):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        found = json.load(urllib.request.urlopen(request))
        page = Page(found["webSocketDebuggerUrl"], **how)
        page.go(address)
        return page

    def close(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


class Page:
    """A page, and all that it asked for and complained of."""

    def __init__(self, socket, width=1280, height=900, dark=False):
        from websockets.sync.client import connect

        self.open = ExitStack()
        self.socket = self.open.enter_context(connect(socket, max_size=None, open_timeout=30))
        self.numbers, self.requests, self.complaints = itertools.count(1), [], []
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.do(f"{domain}.enable")
        self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    def do(self, method, **parameters):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.note(message)

    def note(self, message):
        method, about = message["method"], message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(about["args"]))

    def go(self, address):
        self.do("Page.navigate", url=address)
        self.until("document.readyState == 'complete'")

    def js(self, expression):
        """The value of an expression; a promise is waited for."""
        found = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{expression}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def until(self, expression, seconds=60):
        """The value of an expression once it is true."""
        deadline = time.monotonic() + seconds
        while not (found := self.js(expression)):
            assert time.monotonic() < deadline, f"never became true: {expression}"
            time.sleep(0.02)
        return found

    def key(self, name, text=None):
        typed = {"Enter": "\r", "Space": " "}.get(name, "") if text is None else text
        about = {"key": " " if name == "Space" else name, "code": name, "windowsVirtualKeyCode": KEYS.get(name, 0)}
        self.do("Input.dispatchKeyEvent", type="keyDown", text=typed, **about)
        self.do("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        self.do("Input.insertText", text=text)

    def middle(self, selector):
        """(x, y) of the middle of an element, brought into view."""
        return self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'nearest'}); "
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )

    def hover(self, selector):
        x, y = self.middle(selector)
        self.do("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector):
        x, y = self.middle(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, selector, file):
        """Give a file to an input of files."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def drop(self, selector, file):
        """Drag a file from outside onto an element."""
        x, y = self.middle(selector)
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.do("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def shot(self, path, whole=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))
