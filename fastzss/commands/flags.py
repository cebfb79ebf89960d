"""Flags that several commands share: which model, which patch memory."""

from pathlib import Path


def add_model_flags(parser):
    parser.add_argument("--device", help="cpu, cuda, ...; by default cuda where there is one")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the backbone's weights, where they have moved")
    parser.add_argument("--checkpoint", help="best, latest, or step-NNNNNN (default: best, where there is one)")


def model_of(args, device=None):
    """The model that a command's flags ask for; by default it has its run's own memory."""
    from fastzss.masks.patch_memory import load_memory
    from fastzss.methods.registry import load

    model = load(args.run, device or args.device, args.weights, args.checkpoint)
    if (memory := getattr(args, "memory", None)) is not None:
        model.memory = None if str(memory) == "none" else load_memory(memory, model.run)
    return model


def add_memory_flags(parser):
    parser.add_argument(
        "--memory", type=Path, metavar="PATH", help="a patch memory, or none (default: the run's own, where it has one)"
    )
