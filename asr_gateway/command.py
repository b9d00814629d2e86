"""The command ``asr-gateway``: one gateway process, until SIGTERM or Ctrl-C; asked twice, it waits for no session."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import structlog
import uvloop

from asr_gateway.app import Gateway
from asr_gateway.audio.opus import OpusUnavailableError, load_opus
from asr_gateway.config import GatewaySettings, read_settings
from asr_gateway.io.listener import listening_socket, raise_descriptor_limit
from asr_gateway.io.watchdog import watched
from shared.allocator import keep_freed_memory
from shared.errors import ConfigError
from shared.flavour import flavour
from shared.log_events import (
    CONFIG_LOADED,
    CONFIG_WARNING_FOUND,
    PROCESS_STARTED,
    PROCESS_STOPPED,
    UNEXPECTED_ERROR_CAUGHT,
)
from shared.logs import open_logs

UNEXPECTED: Final = 70
"""Exit status of a fault of our own (EX_SOFTWARE)."""

KEPT_BYTES: Final = 64 << 20
"""Freed audio blocks that the process keeps instead of giving them back."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 stopped, 1 wrong settings, 70 a fault of its own."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
        with listening_socket(settings.gateway.host, settings.gateway.port) as listener:
            return _run(settings, listener)
    except ConfigError as error:
        print("\n".join(f"asr-gateway: {problem}" for problem in error.problems), file=sys.stderr)  # noqa: T201 a command
        return 1


def _run(settings: GatewaySettings, listener: socket.socket) -> int:
    with open_logs(
        process="gateway",
        log_dir=settings.log_dir,
        instance_name=settings.instance_name,
        level=settings.log_level,
        silent=settings.is_silent,
        secrets=settings.keys,
    ):
        log = structlog.get_logger()
        for warning in settings.warnings:
            log.warning(CONFIG_WARNING_FOUND, warning=warning)
        log.info(CONFIG_LOADED, file=str(settings.config_file), settings=repr(settings))
        try:
            load_opus()
        except OpusUnavailableError as error:
            # Most clients send plain samples; the others are told by the Error of their session.
            log.warning(CONFIG_WARNING_FOUND, warning=str(error))
        raise_descriptor_limit()
        keep_freed_memory(KEPT_BYTES)
        log.info(PROCESS_STARTED, pid=os.getpid(), flavour=flavour())
        try:
            uvloop.run(_serve(settings, listener))
        except Exception:
            log.exception(UNEXPECTED_ERROR_CAUGHT)
            return UNEXPECTED
        log.info(PROCESS_STOPPED)
        return 0


async def _serve(settings: GatewaySettings, listener: socket.socket) -> None:
    gateway, stop = Gateway(settings), asyncio.Event()

    def ask_to_stop() -> None:
        if stop.is_set():
            gateway.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ask_to_stop)
    # What was imported lives as long as the process: later collections need not look at it.
    gc.freeze()
    with watched():
        await gateway.run(listener, stop)
