"""Layers of the attention modules: pooling, omni-dimensional convolution, normalization."""
