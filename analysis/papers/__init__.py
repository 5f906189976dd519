"""The papers' own tables and figures, ours beside theirs, with one command per item."""
