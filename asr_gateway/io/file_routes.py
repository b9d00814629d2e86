"""What the routes for whole files differ in: where in a request the file is, and what an answer looks like.

``files.py`` does what is the same for all of them.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Final, Protocol

from aiohttp import web

from asr_gateway.core.dialect import Dialect
from asr_gateway.dialects import openai
from asr_gateway.io.http import error_response, with_retry
from asr_gateway.io.spool import BodyLimits, spooled_body
from asr_gateway.io.spooled_form import spooled_form
from shared.errors import AsrError, BadMessageError
from shared.messages import StepEvent

FORM_PATH: Final = "/v1/audio/transcriptions"
MODELS_PATH: Final = "/v1/models"


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in a file: the beginnings and ends of its words, and how long it was."""

    events: list[StepEvent]
    audio_s: float


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has arrived, the module that is to hear it, and how the request wants its answer."""

    file: IO[bytes]
    module: str
    answer: Callable[[Heard], web.Response]


class FileRoute(Protocol):
    """One kind of request with a file in it."""

    def check(self, request: web.Request) -> None:
        """Look at the headers, beside key and length.

        Raises:
            BadMessageError: they tell that this is no such request.
        """
        ...

    def received(self, request: web.Request, limits: BodyLimits) -> AbstractAsyncContextManager[Upload]:
        """Take in the whole request; its file lives as long as the context.

        Raises:
            AsrError: see ``spooled_body`` and ``spooled_form``; or it asks for something that is not offered.
        """
        ...

    def refusal(self, error: AsrError) -> web.Response:
        """Return the answer that says why there is none."""
        ...


class BodyRoute:
    """moshi-server's: the body is the file, the path tells the module, the answer is a list of messages."""

    def __init__(self, module: str, dialect: Dialect) -> None:
        self._module = module
        self._dialect = dialect

    def check(self, request: web.Request) -> None:
        """Refuse a form: it has a path of its own."""
        if request.content_type.startswith("multipart/"):
            message = (
                "the body must be the file itself, not a form: with curl use --data-binary @FILE instead of -F; "
                f"forms go to {FORM_PATH}"
            )
            raise BadMessageError(message)

    @asynccontextmanager
    async def received(self, request: web.Request, limits: BodyLimits) -> AsyncIterator[Upload]:
        """Take in the body."""
        async with spooled_body(request, limits) as file:
            yield Upload(file, self._module, self._answer)

    def _answer(self, heard: Heard) -> web.Response:
        return web.json_response([self._dialect.fields(event) for event in heard.events])

    def refusal(self, error: AsrError) -> web.Response:
        """Return the error as all routes but OpenAI's do."""
        return error_response(error)


class FormRoute:
    """OpenAI's: a form holds the file, the module's name and the shape of the answer."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules

    def check(self, request: web.Request) -> None:
        """Nothing more is in the headers than ``received`` looks at."""

    @asynccontextmanager
    async def received(self, request: web.Request, limits: BodyLimits) -> AsyncIterator[Upload]:
        """Take in the form."""
        async with spooled_form(request, limits) as form:
            asked = openai.read_form(form.fields, self._modules)
            yield Upload(form.file, asked.module, partial(self._answer, asked))

    def _answer(self, asked: openai.Asked, heard: Heard) -> web.Response:
        return _response(openai.answer(asked, heard.events, heard.audio_s), status=200)

    def refusal(self, error: AsrError) -> web.Response:
        """Return the error in OpenAI's shape."""
        return with_retry(_response(openai.error(error), status=error.http_status), error)

    async def models(self, _: web.Request) -> web.Response:
        """Answer which models there are."""
        return _response(openai.models(self._modules), status=200)

    async def model(self, request: web.Request) -> web.Response:
        """Answer what one model is."""
        try:
            return _response(openai.model(request.match_info["name"], self._modules), status=200)
        except BadMessageError as error:
            return self.refusal(error)


def _response(answer: openai.Answer, *, status: int) -> web.Response:
    return web.Response(text=answer.text, content_type=answer.content_type, charset="utf-8", status=status)
