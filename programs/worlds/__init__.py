"""Simulators: programs without learned parameters that return a Scene with the truth in it."""
