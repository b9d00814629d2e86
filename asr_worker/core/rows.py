"""What the worker knows of its slots as numbers: one column for each fact, one entry for each slot.

Columns, because every step touches them for all active slots at once. What is not a number, and changes only now and
then (items that wait, the current word), is in ``stream.py``.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.units import SlotIndex

FAR: Final = 2**63 - 1
"""A frame index that no session reaches."""


class Rows:
    """Columns ``[n_slots]``; entries of free slots mean nothing."""

    def __init__(self, n_slots: int) -> None:
        def column(dtype: type = np.int64) -> NDArray[np.int64]:
            return np.zeros(n_slots, dtype)

        self.session = column()
        self.epoch = column()
        self.gateway = column()
        """Number of the gateway that owns the session."""
        self.next_frame = column()
        """Index of the next frame that the link must bring."""
        self.unacknowledged = column()
        """Frames that came and for which no credit was given back yet: waiting or in the step under way."""
        self.client_steps = column()
        """Client frames stepped since the last Init."""
        self.lease_steps = column()
        """Model steps since the last Init, silence included: the lease's own clock."""
        self.model_steps = column()
        """Model steps since the model's state was fresh."""
        self.last_client_step = column()
        """``lease_steps`` when the last client frame had been stepped."""
        self.silence = column()
        """Silent frames that come before any client frame."""
        self.replay = column()
        """Steps that another worker had made and that come before anything else."""
        self.barrier = column()
        """Index of the first frame that the first waiting item must not come behind; FAR if there is none."""
        self.is_leased = np.zeros(n_slots, np.bool_)
        self.is_live = np.zeros(n_slots, np.bool_)
        """Somebody speaks and waits for the words; a file's audio waits on purpose."""
        self.is_fresh = np.zeros(n_slots, np.bool_)
        """The model's state must be reset before the next step."""
        self.has_pieces = np.zeros(n_slots, np.bool_)
        """Pieces of a word wait for its end."""

    def start(self, slot: SlotIndex, first_frame: int) -> None:
        """Begin the stream of ``slot`` afresh, at frame ``first_frame`` of the link."""
        self.next_frame[slot] = first_frame
        for column in (
            self.unacknowledged,
            self.client_steps,
            self.lease_steps,
            self.model_steps,
            self.last_client_step,
            self.silence,
            self.replay,
        ):
            column[slot] = 0
        self.barrier[slot] = FAR
        self.is_leased[slot] = True
        self.is_fresh[slot] = True
        self.has_pieces[slot] = False

    def free(self, slot: SlotIndex) -> None:
        """End the lease of ``slot``."""
        self.is_leased[slot] = False
