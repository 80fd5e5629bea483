"""What quantization costs and gains, beside its peers: one module a claim."""
