"""The machine that trains: CUDA graphs, several processes, precision and layout of networks."""
