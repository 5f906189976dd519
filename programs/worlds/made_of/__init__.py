"""What worlds are made of: handwriting, a ray tracer, CLEVR's studio."""
