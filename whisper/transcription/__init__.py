"""A recording to its transcript, window after window."""
