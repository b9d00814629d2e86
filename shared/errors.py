"""The tree of errors that people can see, each with a stable code and whether trying again makes sense.

``code`` is for programs and never changes; the message is for people and names the thing, the value and what is
allowed. The last two class variables say how an error ends a connection: a WebSocket close code, an HTTP status.
"""

from typing import ClassVar


class AsrError(Exception):
    """Base of every error of this service that a client or an operator is shown."""

    code: ClassVar[str] = "internal_error"
    retry: ClassVar[bool] = False
    close_code: ClassVar[int] = 1011
    http_status: ClassVar[int] = 500


class ConfigError(AsrError):
    """A configuration file, flag or environment variable is wrong; holds every problem found."""

    code = "bad_config"

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CheckpointError(ConfigError):
    """A weights or tokenizer file is missing, or not what the configuration says; holds every problem found."""

    code = "bad_checkpoint"


class LinkError(AsrError):
    """Parts that arrived on the link are no message of the protocol."""

    code = "bad_link_message"


class ModelFaultError(AsrError):
    """The model or its device can no longer be trusted; the worker process should exit."""

    code = "model_fault"
    retry = True


class BadMessageError(AsrError):
    """A client's message is malformed, of an unknown type or out of bounds."""

    code = "bad_message"
    close_code = 1008
    http_status = 400


class BadProtocolError(BadMessageError):
    """What a client sends is no WebSocket frame, or none that a client may send."""

    code = "bad_protocol"
    close_code = 1002


class MessageTooLargeError(BadMessageError):
    """A client's message or body is longer than the limit."""

    code = "too_large"
    close_code = 1009
    http_status = 413


class BadAudioError(BadMessageError):
    """The audio itself cannot be decoded."""

    code = "bad_audio"


class DecodeTimeoutError(BadAudioError):
    """Decoding an audio file took longer than allowed."""

    code = "decode_timeout"
    http_status = 422


class UnsupportedEncodingError(BadMessageError):
    """A request body has a Content-Encoding."""

    code = "unsupported_encoding"
    http_status = 415


class SlowBodyError(BadMessageError):
    """A request body took longer to arrive than allowed."""

    code = "slow_body"
    http_status = 408


class UnauthorizedError(AsrError):
    """No key, or one that is not known."""

    code = "unauthorized"
    close_code = 1008
    http_status = 401


class IdleClientError(AsrError):
    """The client sent nothing meaningful for too long."""

    code = "idle"
    close_code = 1008
    http_status = 408


class ClientGoneError(AsrError):
    """The client closed the connection; nobody will read this."""

    code = "client_gone"
    http_status = 499


class NoFreeSlotError(AsrError):
    """Every slot of every worker is taken. The text is moshi-server's: clients compare it."""

    code = "no_free_slot"
    retry = True
    close_code = 1013
    http_status = 503

    def __init__(self, message: str = "no free channels") -> None:
        super().__init__(message)


class SlowConsumerError(AsrError):
    """The client does not read what it is sent; it is not told so, the connection is cut."""

    code = "slow_consumer"


class WorkerLostError(AsrError):
    """The worker that held the session died or was cut off."""

    code = "worker_lost"
    retry = True
    close_code = 1011
    http_status = 503


class RestartingError(AsrError):
    """The service is shutting down or restarting."""

    code = "restarting"
    retry = True
    close_code = 1012
    http_status = 503
