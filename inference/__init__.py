"""Training: estimators, objectives, schedules, checkpoints, data."""
