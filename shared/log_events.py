"""The catalogue of log events: what can be searched for. Names are past tense; fields carry units (``audio_s``).

A session leaves one line when it ends (``SESSION_CLOSED``); nothing is logged for each frame at ``info``, and never a
transcript, audio or a key.
"""

from typing import Final

# Every process
CONFIG_LOADED: Final = "config_loaded"
CONFIG_WARNING_FOUND: Final = "config_warning_found"
PROCESS_STARTED: Final = "process_started"
PROCESS_STOPPED: Final = "process_stopped"
DRAIN_STARTED: Final = "drain_started"
DRAIN_TIMED_OUT: Final = "drain_timed_out"
LISTENING_STARTED: Final = "listening_started"
LINK_MESSAGE_REFUSED: Final = "link_message_refused"
LOG_LINES_DROPPED: Final = "log_lines_dropped"
UNEXPECTED_ERROR_CAUGHT: Final = "unexpected_error_caught"

# Gateway
SESSION_REFUSED: Final = "session_refused"
SESSION_CLOSED: Final = "session_closed"
SESSION_MOVED: Final = "session_moved"
FILE_TRANSCRIBED: Final = "file_transcribed"
FILE_REFUSED: Final = "file_refused"
DISCOVERY_FAILED: Final = "discovery_failed"
LINK_NOT_OPENED: Final = "link_not_opened"
WORKER_FOUND: Final = "worker_found"
WORKER_JOINED: Final = "worker_joined"
WORKER_REFUSED: Final = "worker_refused"
WORKER_LOST: Final = "worker_lost"

# Worker
MODEL_LOADED: Final = "model_loaded"
MODEL_WARMED_UP: Final = "model_warmed_up"
ADMISSION_DECIDED: Final = "admission_decided"
MODEL_FAILED: Final = "model_failed"
GATEWAY_JOINED: Final = "gateway_joined"
GATEWAY_REFUSED: Final = "gateway_refused"
GATEWAY_LOST: Final = "gateway_lost"
SESSION_EVICTED: Final = "session_evicted"
TOKEN_LOG_WRITTEN: Final = "token_log_written"  # noqa: S105 tokens of text, not of access
TOKEN_LOG_FAILED: Final = "token_log_failed"  # noqa: S105 as above
