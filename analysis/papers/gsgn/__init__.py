"""GSGN: Deng, Zhi, Lee, Ahn: Generative Scene Graph Networks, ICLR 2021."""
