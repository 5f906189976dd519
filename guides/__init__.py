"""Amortized neural guides, one file per program, with the program's stem."""
