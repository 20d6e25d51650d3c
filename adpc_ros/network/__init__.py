"""What is computed: the anytime network as PyTorch modules, and its exact cost."""
