"""Commands and functions that examine trained runs and Scenes: metrics, pictures, evaluation."""
