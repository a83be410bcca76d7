"""The collector's HTTP interface: nodes POST to /report; people and programs read everything else."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pxe_pack.choices import STAGES, STATES
from pxe_pack.collector import document
from pxe_pack.collector.access import SECURITY_HEADERS, RateLimit, Tokens, Visitors
from pxe_pack.collector.addresses import usual
from pxe_pack.collector.changes import Changes, TooManyError
from pxe_pack.collector.entries import Received
from pxe_pack.collector.fleet import LARGEST_PAGE, SORTS, Fleet, Query
from pxe_pack.collector.metrics import Metrics
from pxe_pack.collector.writer import BusyError, Writer

_log = logging.getLogger(__name__)
BODY_TIMEOUT = 5.0  # seconds in which a report has to be here
LONGEST_SPAN = 7 * 24 * 3600  # seconds of throughput in one answer
_STATIC = Path(__file__).parent / "static"
_OPEN = ("/report", "/healthz")  # everything else is for visitors


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the interface stands on."""

    writer: Writer
    fleet: Fleet
    changes: Changes
    metrics: Metrics
    tokens: Tokens
    visitors: Visitors
    rate_limit: RateLimit
    background: Sequence[Callable[[], Coroutine[None, None, None]]]  # what runs for as long as the collector does


def application(services: Services) -> Starlette:
    """The ASGI application."""
    pages = _Pages(services)
    routes = [
        Route("/report", _Reports(services).take, methods=["POST"]),
        Route("/healthz", pages.health),
        Route("/metrics", pages.metrics),
        Route("/", pages.index),
        Route("/nodes/{number}", pages.node_page),
        Route("/static/{name}", pages.static),
        Route("/events", pages.events),
        Route("/api/summary", pages.summary),
        Route("/api/nodes", pages.nodes),
        Route("/api/nodes/{number}", pages.node),
        Route("/api/grid", pages.grid),
        Route("/api/throughput", pages.throughput),
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(start()) for start in services.background]
        for task in tasks:
            task.add_done_callback(_end_with)
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    guard = Middleware(_Guard, visitors=services.visitors)
    handlers = {SQLAlchemyError: _no_database}
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan, exception_handlers=handlers)


def _end_with(task: asyncio.Task[None]) -> None:
    """End the collector if a part of it has ended by a bug: what started it starts it again."""
    if not task.cancelled() and (error := task.exception()):
        _log.critical("the collector ends: %s", error, exc_info=error)
        signal.raise_signal(signal.SIGTERM)


class _Guard:
    """Refuses visitors who may not see the page, and adds the security headers to each answer."""

    def __init__(self, app: ASGIApp, *, visitors: Visitors) -> None:
        self._app, self._visitors = app, visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        app: ASGIApp = self._app
        if scope["path"] not in _OPEN and (refusal := self._visitors.refusal(Request(scope))):
            app = self._refused(refusal)
        await app(scope, receive, send_with_headers)

    def _refused(self, refusal: str) -> Response:
        if not self._visitors.have_password:
            return PlainTextResponse(f"{refusal}\n", 403)
        return PlainTextResponse(f"{refusal}\n", 401, {"WWW-Authenticate": 'Basic realm="pxe-pack", charset="UTF-8"'})


class _Reports:
    """Takes the reports of nodes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._answers: Counter = services.metrics.reports

    async def take(self, request: Request) -> Response:
        """Take one report. It is committed when it is answered with 204."""
        try:
            received = await self._received(request)
            (refusal,) = await self._services.writer.write(received)
            answer = _refused(403, refusal) if refusal else Response(status_code=204)
        except _RefusedError as error:
            answer = error.answer
        except BusyError as error:
            answer = _refused(503, str(error), retry_after=5)
        self._answers.labels(status=str(answer.status_code)).inc()
        return answer

    async def _received(self, request: Request) -> Received:
        """The report in a request. Raises _RefusedError."""
        address = usual(request.client.host) if request.client else ""
        if not self._services.rate_limit.allows(address):
            raise _RefusedError(_refused(429, "too many reports from this address", retry_after=2))
        tokens = self._services.tokens
        sender = tokens.sender(request.headers.get("authorization", ""))
        if sender is None:
            why = "the token is missing or unknown: report.header_credential holds it"
            none = "no reports are taken here: the layout was packed without `report: auto`, and no token is given"
            raise _RefusedError(_refused(401, why if tokens.are_known else none))
        try:
            report = document.read(await _body(request))
        except document.ReportError as error:
            raise _RefusedError(_refused(422, str(error))) from None
        if sender.mac and report.node["mac"] != sender.mac:
            raise _RefusedError(_refused(403, "this token is another node's"))
        return Received(report=report, address=address, layout=sender.layout, time=time.time())


class _Pages:
    """What visitors read."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._fleet = services.fleet

    async def index(self, _request: Request) -> Response:
        return FileResponse(_STATIC / "index.html")

    async def node_page(self, request: Request) -> Response:
        if _number(request) is None:
            return _refused(404, "there is no such page")
        return FileResponse(_STATIC / "node.html")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        known = {path.name: path for path in _STATIC.iterdir()}
        return FileResponse(known[name]) if name in known else _refused(404, "there is no such file")

    async def health(self, _request: Request) -> Response:
        """200 while the database can be read and written."""
        try:
            await run_in_threadpool(self._fleet.revision)
        except SQLAlchemyError:
            return _refused(503, "the database cannot be read")
        if self._services.writer.error:
            return _refused(503, "the database cannot be written")
        return JSONResponse({"status": "ok"})

    async def metrics(self, _request: Request) -> Response:
        body, kind = await run_in_threadpool(self._services.metrics.page)
        return Response(body, media_type=kind)

    async def summary(self, _request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._fleet.summary))

    async def nodes(self, request: Request) -> Response:
        query = _query(request)
        if isinstance(query, Response):
            return query
        return JSONResponse(await run_in_threadpool(self._fleet.nodes, query))

    async def grid(self, request: Request) -> Response:
        query = _query(request)
        if isinstance(query, Response):
            return query
        return JSONResponse(await run_in_threadpool(self._fleet.grid, query))

    async def node(self, request: Request) -> Response:
        number = _number(request)
        found = None if number is None else await run_in_threadpool(self._fleet.node, number)
        return JSONResponse(found) if found else _refused(404, "there is no such node")

    async def throughput(self, request: Request) -> Response:
        seconds = _whole(request, "seconds", default=3600, largest=LONGEST_SPAN)
        if seconds is None:
            return _refused(400, f"seconds is not a number from 1 to {LONGEST_SPAN}")
        points = await run_in_threadpool(lambda: self._fleet.throughput(seconds=seconds))
        return JSONResponse({"points": points, "seconds": seconds, "time": time.time()})

    async def events(self, _request: Request) -> Response:
        """The summary each time that something has changed, as server-sent events."""
        try:
            stream = self._services.changes.subscribe()
        except TooManyError:
            return _refused(503, "too many pages are open", retry_after=10)
        return StreamingResponse(stream, media_type="text/event-stream")


class _RefusedError(Exception):
    """A request is refused."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer


async def _body(request: Request) -> bytes:
    """The body. Raises _RefusedError if it is longer than a report may be, comes too slowly, or not all of it comes."""
    too_long = _RefusedError(_refused(413, f"a report has at most {document.MAX_BODY} bytes"))
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length) > document.MAX_BODY:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for piece in request.stream():
                body += piece
                if len(body) > document.MAX_BODY:
                    raise too_long
    except TimeoutError:
        raise _RefusedError(_refused(408, f"the report did not arrive within {BODY_TIMEOUT:g} s")) from None
    except ClientDisconnect:
        raise _RefusedError(_refused(400, "the report is incomplete")) from None
    return bytes(body)


def _query(request: Request) -> Query | Response:
    """The query in the URL; an answer that says what is wrong with it."""
    found = request.query_params
    page, size = _whole(request, "page", default=1), _whole(request, "size", default=100, largest=LARGEST_PAGE)
    choices = {"state": ("", *STATES), "stage": ("", *STAGES), "sort": ("", *SORTS)}
    for name, known in choices.items():
        if found.get(name, "") not in known:
            return _refused(400, f"{name} is none of {', '.join(filter(None, known))}")
    if page is None or size is None:
        return _refused(400, f"page is a number from 1, and size one from 1 to {LARGEST_PAGE}")
    text = {name: document.clean(found.get(key, "")) for name, key in {"cause": "cause", "text": "q"}.items()}
    return Query(
        state=found.get("state", ""), stage=found.get("stage", ""), sort=found.get("sort", "") or "state",
        is_descending=found.get("order") == "descending", page=page, size=size, **text,
    )  # fmt: skip


def _number(request: Request) -> int | None:
    """The number of a node in the path; None if none can have it: a database's largest has 19 digits."""
    text = request.path_params["number"]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004


def _whole(request: Request, name: str, *, default: int, largest: int = 1_000_000) -> int | None:
    text = request.query_params.get(name, str(default))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= largest else None  # noqa: PLR2004


def _refused(status: int, why: str, *, retry_after: int = 0) -> Response:
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return JSONResponse({"error": why}, status, headers)


def _no_database(_request: Request, _error: Exception) -> Response:
    return _refused(503, "the database cannot be read", retry_after=5)
