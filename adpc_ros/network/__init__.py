# SPDX-License-Identifier: Apache-2.0
"""What is computed: the anytime network as PyTorch modules, and its exact cost."""
