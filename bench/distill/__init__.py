"""What distillation costs and gains: `python -m bench.distill`."""
