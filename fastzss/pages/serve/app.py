"""Addresses -> answers.  Errors are JSON: {"error": a sentence}."""

import logging
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fastzss.base.errors import UserError
from fastzss.pages.serve import examples
from fastzss.pages.serve.answers import Answers
from fastzss.pages.serve.guard import Guard, error
from fastzss.pages.serve.looks import Looks
from fastzss.pages.serve.turns import Turns
from fastzss.pages.serve.uploads import Refused, choice, fields, number, text, words

log = logging.getLogger("fastzss")

HERE = Path(__file__).parent
FILES = {  # address -> (file, its type): read once, when the server starts
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/view.js": ("view.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/openapi.json": ("openapi.json", "application/json"),
}
FORMS = ("json", "mask", "overlay")
LONGEST = 2048  # pixels of a view
COMMON = ("image", "look")


def application(model, config, run):
    """The Starlette application of a model; `run`: what the page calls it."""
    api = Api(model, config, run)
    post = {
        "/api/look": api.look,
        "/api/segment": api.segment,
        "/api/name": api.name,
        "/api/heat": api.heat,
    }
    routes = [
        *(Route(path, file(*what)) for path, what in FILES.items()),
        *(Route(path, answered(ask), methods=["POST"]) for path, ask in post.items()),
        Route("/api/about", api.about),
        Route("/examples/{number:int}.png", example),
    ]
    guard = Middleware(Guard, local=config.local, token=config.token)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={HTTPException: unknown})
    app.state.turns, app.state.looks = api.turns, api.looks
    return app


class Api:
    def __init__(self, model, config, run):
        self.model, self.config, self.run = model, config, run
        self.looks = Looks(config.memory)
        self.turns = Turns(config.parallel, config.waiting, config.megabytes)
        self.answers = Answers(model, self.looks, config.megapixels)

    async def about(self, request):
        limits = {key: getattr(self.config, key) for key in ("megabytes", "megapixels", "words")}
        named = self.model.bank is not None
        return JSONResponse({"run": self.run, "names": named, "limits": limits, "examples": examples.examples()})

    async def look(self, request):
        given = await self.form(request, *COMMON)
        return await self.work(request, self.answers.looked, *picture(given))

    async def segment(self, request):
        given = await self.form(request, *COMMON, "classes", "threshold", "opacity", "view", "answer")
        asked = words(text(given, "classes"), self.config.words)
        threshold = number(given, "threshold", 0.0, 1.0, 0.0)
        shown = opacity(given), view(given), choice(given, "answer", FORMS)
        return await self.work(request, self.answers.segment, *picture(given), asked, threshold, *shown)

    async def name(self, request):
        given = await self.form(request, *COMMON, "view", "answer", "opacity")
        form = choice(given, "answer", FORMS)
        return await self.work(request, self.answers.name, *picture(given), view(given), form, opacity(given))

    async def heat(self, request):
        given = await self.form(request, "look", "class", "view")
        asked = words(text(given, "class"), 1)
        return await self.work(request, self.answers.heat, text(given, "look"), asked, view(given) or 512)

    async def form(self, request, *known):
        return fields(request.state.body, request.headers.get("content-type"), known)

    async def work(self, request, *what):
        return await self.turns.work(request, *what)


def answered(ask):
    """An endpoint: a place in the queue, the body, and what `ask` gives as JSON or as a PNG."""
    api = ask.__self__

    async def endpoint(request):
        try:
            async with api.turns.place(), api.turns.body(request) as body:
                request.state.body = body
                found = await ask(request)
        except Refused as problem:
            return error(problem.status, str(problem))
        except UserError as problem:
            return error(400, str(problem))
        except Exception:
            log.exception("a request of %s failed", request.url.path)
            return error(500, "the server made a mistake, and its log says which; other requests are answered")
        return Response(found, media_type="image/png") if isinstance(found, bytes) else JSONResponse(found)

    return endpoint


def picture(given):
    """(bytes of an image or None, the name of a look)."""
    if ("image" in given) == ("look" in given):
        raise Refused(400, "expected one of the fields image (a file) and look (what an earlier answer called it)")
    return given.get("image"), text(given, "look") if "look" in given else None


def view(given):
    """The longest side of a view; 0: none."""
    return number(given, "view", 16, LONGEST, 0)


def opacity(given):
    return number(given, "opacity", 0.0, 1.0, 0.55)


def file(name, kind):
    data = (HERE / name).read_bytes()

    async def endpoint(request):
        return Response(data, media_type=kind)

    return endpoint


async def example(request):
    if not 0 <= request.path_params["number"] < examples.COUNT:
        raise HTTPException(404)
    return Response(examples.picture(request.path_params["number"]), media_type="image/png")


async def unknown(request, problem):
    sentences = {
        404: "there is nothing at this address; /openapi.json says what there is",
        405: f"this address does not take {request.method}; /openapi.json says what it takes",
    }
    return error(problem.status_code, sentences.get(problem.status_code, str(problem.detail)))
