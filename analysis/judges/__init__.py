"""Small nets, trained on true scenes, that judge a program's scenes, and comparisons of two samples."""
