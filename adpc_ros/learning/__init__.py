"""Data, training and evaluation of the network."""
