"""``/api/jobs/``: hand in, list, follow, stop and delete jobs, as Ray's clients do."""

from __future__ import annotations

import asyncio
import codecs
import secrets
import string
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from shoal_common.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed, ResourceExhausted
from shoal_common.logs.blob_log import PART_BYTES, Piece
from shoal_common.logs.job_logs import PARTS_KEPT
from shoal_dashboard.context import Context
from shoal_dashboard.jobs.details import drivers_by_submission, of_all, of_driver, of_submission
from shoal_dashboard.jobs.jobs import Jobs
from shoal_dashboard.jobs.request import BadRequest, parse
from shoal_dashboard.rest.methods import by_method
from shoal_proto.v1 import gcs_pb2 as pb

#: One answer has at most so much of a log, in bytes; whoever wants more asks for pieces.
_WHOLE_BYTES = PART_BYTES * PARTS_KEPT
_PIECE_BYTES = 1 << 20
#: A question for output waits at most so long for some, in seconds, and looks so often.
_LONGEST_WAIT_S = 30.0
_LOOK_EVERY_S = 0.5


def routes(context: Context) -> list[BaseRoute]:
    endpoints = _Endpoints(context)
    one = "/api/jobs/{job_id:path}"
    return [
        by_method("/api/jobs/", get=endpoints.list, post=endpoints.submit),
        WebSocketRoute(f"{one}/logs/tail", endpoints.tail),
        by_method(f"{one}/logs/piece", get=endpoints.piece),
        by_method(f"{one}/logs", get=endpoints.logs),
        by_method(f"{one}/stop", post=endpoints.stop),
        by_method(one, get=endpoints.get, delete=endpoints.delete),
    ]


class _Endpoints:
    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def _jobs(self) -> Jobs:
        return self._context.jobs

    async def submit(self, request: Request) -> Response:
        try:
            wanted = parse(await request.body(), _new_submission_id())
            made = await self._jobs.submit(wanted)
        except (BadRequest, InvalidRequest, NotFound) as error:
            return PlainTextResponse(str(error), 400)
        except AlreadyExists as error:
            return PlainTextResponse(str(error), 500)  # as Ray has it, and its clients expect
        except ResourceExhausted as error:
            return PlainTextResponse(str(error), 429)
        return JSONResponse({"job_id": made.submission_id, "submission_id": made.submission_id})

    async def list(self, request: Request) -> Response:
        jobs, submissions = await self._context.cluster.jobs(), await self._jobs.all()
        return JSONResponse(of_all(submissions, jobs, await self._addresses()))

    async def get(self, request: Request) -> Response:
        submission, driver = await self._find(request.path_params["job_id"])
        addresses = await self._addresses()
        if submission is not None:
            return JSONResponse(of_submission(submission, driver, addresses))
        if driver is not None:
            return JSONResponse(of_driver(driver, addresses))
        return _unknown(request)

    async def stop(self, request: Request) -> Response:
        submission, driver = await self._find(request.path_params["job_id"])
        if submission is None:
            return _not_submitted("stop", driver) if driver is not None else _unknown(request)
        return JSONResponse({"stopped": await self._jobs.stop(submission.submission_id)})

    async def delete(self, request: Request) -> Response:
        submission, driver = await self._find(request.path_params["job_id"])
        if submission is None:
            return _not_submitted("delete", driver) if driver is not None else _unknown(request)
        try:
            await self._jobs.delete(submission.submission_id)
        except PreconditionFailed as error:
            return PlainTextResponse(str(error), 400)
        return JSONResponse({"deleted": True})

    async def logs(self, request: Request) -> Response:
        submission, driver = await self._find(request.path_params["job_id"])
        if submission is None:
            return _not_submitted("show the output of", driver) if driver is not None else _unknown(request)
        log = await self._jobs.log(submission.submission_id)
        start = offset = await log.tail_offset(_WHOLE_BYTES)
        data = bytearray()
        while True:
            piece = await log.read(offset, _PIECE_BYTES)
            if not piece.data:
                break
            data += piece.data
            offset = piece.end
        text = data.decode("utf-8", "replace")
        return JSONResponse({"logs": _dropped(start) + text})

    async def piece(self, request: Request) -> Response:
        """``offset``, ``limit`` in bytes, ``wait_s``: for more than there is."""
        submission, driver = await self._find(request.path_params["job_id"])
        if submission is None:
            return _not_submitted("show the output of", driver) if driver is not None else _unknown(request)
        if unknown := request.query_params.keys() - {"offset", "limit", "wait_s"}:
            return PlainTextResponse(f"there is no {min(unknown)!r}: say offset, limit or wait_s", 400)
        try:
            offset = int(request.query_params.get("offset", "0"))
            limit = int(request.query_params.get("limit", str(_PIECE_BYTES)))
            wait_s = float(request.query_params.get("wait_s", "0"))
        except ValueError as error:
            return PlainTextResponse(f"offset, limit and wait_s are numbers: {error}", 400)
        if not (0 <= offset < 2**60 and limit >= 1 and wait_s >= 0):
            return PlainTextResponse("offset and wait_s must be 0 or more, limit 1 or more", 400)
        piece, ended = await self._next(
            submission.submission_id, offset, min(limit, _PIECE_BYTES), min(wait_s, _LONGEST_WAIT_S)
        )
        return JSONResponse(
            {"start": piece.start, "end": piece.end, "data": piece.data.hex(), "ended": ended and not piece.data}
        )

    async def tail(self, socket: WebSocket) -> None:
        submission, _ = await self._find(socket.path_params["job_id"])
        if submission is None:
            await socket.send_denial_response(PlainTextResponse("there is no such submitted job", 404))
            return
        await socket.accept()
        leaving = asyncio.create_task(_left(socket))
        try:
            async for text in self._follow(submission.submission_id):
                if leaving.done():
                    return
                await socket.send_text(text)
            await socket.close()
        except WebSocketDisconnect:
            return
        finally:
            leaving.cancel()
            await asyncio.wait([leaving])

    async def _follow(self, submission_id: str) -> AsyncIterator[str]:
        offset, decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            piece, ended = await self._next(submission_id, offset, _PIECE_BYTES, _LONGEST_WAIT_S)
            if piece.data:
                skipped = _dropped(piece.start - offset)
                offset = piece.end
                if text := skipped + decoder.decode(piece.data):
                    yield text
            elif ended:
                return

    async def _next(self, submission_id: str, offset: int, limit: int, wait_s: float) -> tuple[Piece, bool]:
        """What comes next, and whether the job had ended before that was read."""
        log = await self._jobs.log(submission_id)
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                ended = bool((await self._jobs.get(submission_id)).end_unix_ms)
            except NotFound:
                ended = True
            piece = await log.read(offset, limit)
            if piece.data or ended or asyncio.get_running_loop().time() >= deadline:
                return piece, ended
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _find(self, job_id: str) -> tuple[pb.SubmissionInfo | None, pb.JobInfo | None]:
        """By the id of a submission, or of a driver's job."""
        jobs = await self._context.cluster.jobs()
        driver = next((job for job in jobs if job.job_id.hex() == job_id), None)
        submission_id = driver.metadata.get("job_submission_id", "") if driver is not None else job_id
        try:
            submission = await self._jobs.get(submission_id) if submission_id else None
        except NotFound:
            submission = None
        if submission is not None and driver is None:
            driver = drivers_by_submission(jobs).get(submission_id)
        return submission, driver

    async def _addresses(self) -> dict[bytes, str]:
        return {node.node_id: node.host for node in await self._context.cluster.nodes()}


def _new_submission_id() -> str:
    """As Ray's clients make them."""
    return "raysubmit_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(16))


async def _left(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _dropped(size: int) -> str:
    return f"[{size:,} bytes before this are not kept any more]\n" if size > 0 else ""


def _unknown(request: Request) -> Response:
    return PlainTextResponse(f"Job {request.path_params['job_id']} does not exist", 404)


def _not_submitted(what: str, driver: pb.JobInfo) -> Response:
    return PlainTextResponse(f"Can only {what} jobs that were submitted, and {driver.job_id.hex()} is a driver's", 400)
