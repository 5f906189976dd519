"""Small nets that learn from true scenes and judge what programs draw, and comparisons of two samples."""
