"""Generative processes of visual scenes, one file per process."""
