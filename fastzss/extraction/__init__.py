"""Extraction: images -> vision -> store, then captions -> mentions; each image is looked at once.

settings.py   what can be set
flow.py       from the first image to a finished store
features.py   the backbone at work: batches, the thread that writes
claims.py     who makes which shard
crops.py      several crops of an image
unreadable.py the log of images that cannot be read
captions.py, concepts.py   the text layers
forecast.py   what an extraction will be
"""
