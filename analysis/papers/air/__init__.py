"""AIR and Discrete-AIR: Eslami et al., NeurIPS 2016; Wang, Jamnik, Liò, 2019."""
