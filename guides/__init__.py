"""Amortized neural guides, one file a program, with the same stem."""
