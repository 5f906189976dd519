"""DeNF: Unsupervised Scene-Decompositional Normalizing Flows, anonymous, under review."""
