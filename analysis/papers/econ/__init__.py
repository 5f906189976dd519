"""ECON: von Kügelgen et al.: Towards causal generative scene models via competition of experts, 2020."""
