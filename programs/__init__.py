"""Generative processes of visual scenes, one file each."""
