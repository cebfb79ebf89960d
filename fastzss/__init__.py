"""Teach a text encoder to point.

A frozen vision transformer looks at every image once; its patch features go into a store; from then on training touches
text only.  The result segments any image into classes named in plain words.

    images ─► vision ─► extract ─► STORE ─► loader ─► BATCH ─► objective ─► training ─► RUN ─► segment ─► masks
    captions ─► mentions ──────────┘           text ─► ┘ ▲                               │
                                            bank ─► BANK ┘     protocols ─► evaluate ─► score ─► REPORT

    world      scenes, captions and true masks made on the spot      images     where images and captions come from
    captions   tokens with offsets, mentions of names                vision     the frozen backbone
    store      features, captions and concepts on disk               text       the text tower on packed captions
    batch      a training step's captions, end to end                bank       the concept bank
    loader     store -> shuffled batches                             objective  batch + text -> losses
    runs       the run folder                                        training   loader -> objective -> optimiser -> run
    readout    names -> vectors                                      index      the nearest of many vectors (FAISS)
    segment    features + class names -> masks                       evaluate   masks against truth
    naming     what is in an image, without a class list             memory     what patches of the store are called
    kernels    the fused operations, and what they mean              ranks      processes that share the work

A module imports only from those before it on the way (tests/test_floors.py has the order).
"""

__version__ = "0.1.0"


def load(path, device=None, weights=None):
    """The model of a run folder: `load("runs/demo").segment("street.jpg", ["car", "road", "sky"])`."""
    from fastzss import segment  # late: nothing heavy is imported before it is needed

    return segment.load(path, device, weights)
