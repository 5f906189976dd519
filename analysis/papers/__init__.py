"""What the papers' own tables and figures measure: ours beside theirs, one command per item."""
