"""The machine that trains: steps captured as CUDA graphs, several processes, precision and layout of networks."""
