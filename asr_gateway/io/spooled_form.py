"""A form with one file (``multipart/form-data``): the file goes to the disk as it arrives, as bodies do.

Reading the parts is aiohttp's work; here are the bounds: one file, and so many other fields of so many bytes. Each
line that aiohttp reads costs it up to 0.1 ms, and it gives nobody else a turn meanwhile: so there may be few, too.

Parts of aiohttp that are not public are used as they are in 3.14, which pyproject.toml asks for.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Final

from aiohttp import BodyPartReader, MultipartReader, web

from asr_gateway.io.spool import BodyLimits, Spool, arriving, next_piece, opened_spool
from shared.errors import BadMessageError, MessageTooLargeError, UnsupportedEncodingError

FILE_FIELD: Final = "file"
MAX_FIELDS: Final = 32
MAX_FIELD_BYTES: Final = 64 << 10
"""Of all fields together; a long prompt has a thousand."""
_AS_THEY_ARE: Final = ("", "binary", "8bit", "7bit")
_PIECE_BYTES: Final = 64 << 10
_MAX_PREAMBLE_LINES: Final = 4
"""Before the first boundary; nobody sends any."""
_MAX_HEADER_LINES: Final = 16
"""Of a part; three are usual."""
_MAX_LINE_BYTES: Final = 8_190


class _Parts(MultipartReader):
    """aiohttp's, which would read an endless preamble to its end."""

    _n_preamble_lines = 0

    async def _readline(self) -> bytes:
        if self._at_bof:
            self._n_preamble_lines += 1
            if self._n_preamble_lines > _MAX_PREAMBLE_LINES:
                message = "it must begin with its boundary"
                raise ValueError(message)
        return await super()._readline()


@dataclass(frozen=True, slots=True)
class SpooledForm:
    """The file, and what the other fields say: for each name all values, in order."""

    file: IO[bytes]
    fields: dict[str, list[str]]


@asynccontextmanager
async def spooled_form(request: web.Request, limits: BodyLimits) -> AsyncIterator[SpooledForm]:
    """Take in the whole form; the file lives as long as the context.

    Raises:
        MessageTooLargeError: the file is too long, or the fields are.
        SlowBodyError: the form did not arrive in time.
        BadMessageError: it is broken, or no form with one file.
        UnsupportedEncodingError: the file in it is encoded in a way of its own.
        ClientGoneError: the client left.
        SpoolFullError: the disk cannot hold the file.
    """
    limits.check_announced(request.content_length)
    if request.content_type != "multipart/form-data":
        message = f"the body must be a form (multipart/form-data) with the field {FILE_FIELD}, not {_said(request)}"
        raise BadMessageError(message)
    async with opened_spool(limits) as spool:
        async with arriving(spool, limits):
            try:
                parts = _Parts(
                    request.headers, request.content, max_field_size=_MAX_LINE_BYTES, max_headers=_MAX_HEADER_LINES
                )
                fields = await _read(parts, spool, limits)
            except (ValueError, RuntimeError, AssertionError) as error:
                # What aiohttp raises for a form that breaks off, or whose boundaries are not where they belong.
                message = f"the form is malformed: {error}"
                raise BadMessageError(message[:200]) from error
        yield SpooledForm(spool.file, fields)


def _said(request: web.Request) -> str:
    return repr(request.headers.get("Content-Type", "nothing")[:80])


async def _read(parts: MultipartReader, spool: Spool, limits: BodyLimits) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    has_file, n_fields, room = False, 0, MAX_FIELD_BYTES
    while (part := await next_piece(parts.next(), limits)) is not None:
        if not isinstance(part, BodyPartReader) or not part.name:
            message = "each part of the form must be a field with a name"
            raise BadMessageError(message)
        if part.name == FILE_FIELD:
            if has_file:
                message = f"the form has more than one {FILE_FIELD}; send one file with each request"
                raise BadMessageError(message)
            has_file = True
            await _take_file(part, spool, limits)
            continue
        n_fields += 1
        if n_fields > MAX_FIELDS:
            message = f"the form has more than {MAX_FIELDS} fields beside its file"
            raise BadMessageError(message)
        value = await _take_field(part, room, limits)
        room -= len(value)
        await asyncio.sleep(0)
        fields.setdefault(part.name, []).append(_text(part.name, value))
    if not has_file:
        message = f"the form has no field {FILE_FIELD}: it must be the audio file itself"
        raise BadMessageError(message)
    return fields


async def _take_file(part: BodyPartReader, spool: Spool, limits: BodyLimits) -> None:
    for name, allowed in (("Content-Encoding", ("", "identity")), ("Content-Transfer-Encoding", _AS_THEY_ARE)):
        value = part.headers.get(name, "")
        if value.lower() not in allowed:
            message = f"{name} {value[:40]!r} of the {FILE_FIELD}: send it as it is, or in a compressed audio format"
            raise UnsupportedEncodingError(message)
    while not part.at_eof():
        await spool.add(await next_piece(part.read_chunk(_PIECE_BYTES), limits))
    await spool.flush()


async def _take_field(part: BodyPartReader, room: int, limits: BodyLimits) -> bytes:
    value = bytearray()
    while not part.at_eof():
        value += await next_piece(part.read_chunk(_PIECE_BYTES), limits)
        if len(value) > room:
            message = f"the fields of the form are longer than {MAX_FIELD_BYTES} bytes together"
            raise MessageTooLargeError(message)
    return bytes(value)


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        message = f"{name[:40]}: the field must be UTF-8; the audio belongs into the field {FILE_FIELD}"
        raise BadMessageError(message) from None
