"""Where images come from, in one protocol: simulated worlds, folders, clips and videos, published data sets."""
