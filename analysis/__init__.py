"""Everything that reads a Scene: metrics, pictures, evaluation."""
