"""Who may ask, and what a browser is told to allow: around the whole application.

A page of another site that is open in the same browser reaches this machine, too: it is known by its Origin, and by
the Host under which it found us.
"""

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, RedirectResponse

COOKIE = "fastzss-token"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Guard:
    def __init__(self, app, local, token=None):
        """`local`: only names of this machine are answered to."""
        self.app, self.local, self.token = app, local, token

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def guarded(message):
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in own)]
            await send(message)

        answer = self.refusal(scope) or self.app
        await answer(scope, receive, guarded)

    def refusal(self, scope):
        """The answer to who may not ask; None for others."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.local and host_of(host) not in ("127.0.0.1", "localhost", "[::1]"):
            return error(421, "this server answers to 127.0.0.1 and localhost alone; --host opens it to others")
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != host
        if foreign or headers.get("sec-fetch-site") == "cross-site" and scope["method"] != "GET":
            return error(403, "a page of another site may not ask this server")
        if self.token is None:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and "token" in query and self.knows(query["token"][0]):
            answer = RedirectResponse("/", 303)  # the token leaves the address, where others would see it
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if (scheme.lower() == "bearer" and self.knows(given)) or self.knows(cookie(headers)):
            return None
        return error(401, "a token is needed: open the address that `fastzss serve` printed, or send "
                          "the header Authorization: Bearer TOKEN")  # fmt: skip

    def knows(self, given):
        return hmac.compare_digest(given.encode(), self.token.encode())


def cookie(headers):
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def host_of(host):
    """The name in a Host header, without the port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def error(status, sentence):
    retry = {"Retry-After": "2"} if status == 503 else {}
    return JSONResponse({"error": sentence}, status, headers=retry)
