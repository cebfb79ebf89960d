"""The text tower: packing captions into rows, the transformer, its weights in and out, and names read by it."""
