"""The one place that counts: parameters, multiply-accumulates (MACs), bytes, zeros, time and memory.

Conventions. A MAC is one multiplication and one addition, 2 FLOPs. MACs are those of convolutions (transposed ones
too), linear layers, attention projections and recurrent layers, and of every other matrix product or convolution of the
image's values with a tensor that the net holds; biases not counted. Norms, activations, pooling, elementwise scales and
the products inside attention (of the image's values with one another) have none. All counts are of one image.
"""

from ipbench.sparse.measure.counting import Count, Layer, count
from ipbench.sparse.measure.sizes import (
    begin_peak,
    entropy_bits,
    peak_memory,
    sparse_macs,
    spatial_zeros,
    stored_bytes,
    training_flops,
    two_stage_macs,
)
from ipbench.sparse.measure.timing import forward_memory, latency

__all__ = [
    "Count",
    "Layer",
    "begin_peak",
    "count",
    "entropy_bits",
    "forward_memory",
    "latency",
    "peak_memory",
    "sparse_macs",
    "spatial_zeros",
    "stored_bytes",
    "training_flops",
    "two_stage_macs",
]
