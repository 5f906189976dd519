"""Trainings as the command line runs them: measured at their end."""

from analysis.evaluate import Judge
from inference import svi


def train(run):
    return svi.train(run, Judge())
