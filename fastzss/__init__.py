"""Teach a text encoder to point.

A frozen vision transformer looks at every image once; its patch features go into a store; from then on training touches
text only.  The result segments any image into classes named in plain words.

    images ─► vision ─► extract ─► STORE ─► loader ─► BATCH ─► objective ─► training ─► RUN ─► segment ─► masks
    captions ─► mentions ──────────┘           text ─► ┘ ▲                               │
                                            bank ─► BANK ┘     protocols ─► evaluate ─► score ─► REPORT

    base        what every room may use: errors, settings, files, the machine, ranks, runs
    world       the built-in world: scenes, captions and true masks made on the spot
    sources     where images and captions come from         backbones   the frozen vision transformers
    captions    tokens with offsets, mentions of names       store       features, captions and concepts on disk
    text        the text tower on packed captions            bank        the concept bank
    masks       features + class names -> masks              methods     what is learned, and how: batches, losses
    extraction  images -> store                              training    batches -> losses -> optimiser -> run
    evaluation  masks against truth, by named protocols      pages       the report
    export      a run for other programs
    demo        the whole story                              commands    a file a command
    kernels     the fused operations, and what they mean

A module imports only from those before it on the way (tests/test_floors.py has the order).
"""

__version__ = "0.1.0"


def load(path, device=None, weights=None, checkpoint=None):
    """The model of a run: `load("runs/demo").segment("street.jpg", ["car", "road", "sky"])`.

    path: a run folder, or hf://ORG/NAME for what the hub has.
    """
    from fastzss.methods import registry  # late: nothing heavy is imported before it is needed

    return registry.load(path, device, weights, checkpoint)
