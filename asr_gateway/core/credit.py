"""Credit: how many frames of a session may still be sent before its worker has to grant more.

A session spends one credit for each frame and stops at zero; a step of the worker grants one for the frame that it
consumed. The sum of credit, frames in flight and frames waiting at the worker is therefore always the window. The
worker counts the other side, for all sessions at once: ``Rows.unacknowledged``.
"""


class Credit:
    """Frames that may still be sent to one receiver."""

    __slots__ = ("available", "window")

    def __init__(self, window: int) -> None:
        """Start with a full window of ``window`` frames."""
        if window < 1:
            message = f"a credit window must be at least 1 frame, not {window}"
            raise ValueError(message)
        self.window = window
        self.available = window
        """Frames that may be sent now."""

    def spend(self, n_frames: int) -> None:
        """Use up credit for ``n_frames`` frames.

        Raises:
            ValueError: more than is available; the sender broke the protocol.
        """
        if n_frames > self.available:
            message = f"{n_frames} frames sent with credit for {self.available}"
            raise ValueError(message)
        self.available -= n_frames

    def grant(self, n_frames: int) -> None:
        """Add credit for ``n_frames`` consumed frames.

        Raises:
            ValueError: the window would overflow; the receiver granted what it never got.
        """
        if self.available + n_frames > self.window:
            message = f"{n_frames} frames granted beyond the window of {self.window}"
            raise ValueError(message)
        self.available += n_frames
