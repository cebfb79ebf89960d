"""ZeroSeg: segments learn from what a CLIP vision encoder says of views; no text takes part in training."""
