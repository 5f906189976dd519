"""Use of the machine in training: CUDA graphs, several processes, precision and layout of networks."""
