"""GNM: Jiang, Ahn: Generative Neurosymbolic Machines, NeurIPS 2020."""
