"""`fastzss-cache info|status|verify|convert|merge|copy`: what is done to a store as a whole."""

from pathlib import Path

from fastzss.base.console import say
from fastzss.base.errors import UserError


def add_store(program):
    info = program.add("info", "Say what a store holds, and how far it is.", run_info)
    info.add_argument("store", type=Path)

    status = program.add("status", "Say how far an extraction is, who works on it, and how fast.", run_status)
    status.add_argument("store", type=Path)

    copy = program.add("copy", "Copy a store, from or to s3://, gs://, hf:// or a folder; it goes on where it was "
                       "stopped.", run_copy)  # fmt: skip
    copy.add_argument("store", type=Path)
    copy.add_argument("out", type=Path, metavar="OUT", help="where to")

    verify = program.add("verify", "Look for damage in a store; exit code 1 where there is some.", run_verify)
    verify.add_argument("store", type=Path)
    verify.add_argument("--level", type=int, default=2, help="0: records and sizes, 1: indices, "
                        "2: hashes of all files, 3: checksums of all images (default: %(default)s)")  # fmt: skip
    repair = "drop what is broken; the same extract command then writes exactly that again"
    verify.add_argument("--repair", action="store_true", help=repair)

    convert = program.add("convert", "Write a store in another form: the same features, byte for byte.", run_convert)
    convert.add_argument("store", type=Path)
    convert.add_argument("out", type=Path, metavar="OUT", help="folder of the new store")
    convert.add_argument("--format", metavar="X", help="zarr or webdataset; by default that of the store")
    convert.add_argument("--codec", metavar="X", help="none, or zstd: smaller, for keeping (default: none)")

    merge = program.add("merge", "Join stores that hold parts of one plan, without rewriting them.", run_merge)
    merge.add_argument("parts", nargs="+", type=Path, metavar="PART")
    merge.add_argument("out", type=Path, metavar="OUT", help="folder of the joined store")


def run_info(args):
    from fastzss.store.remote import local
    from fastzss.store.upkeep.info import store_info

    return store_info(local(args.store)) | {"path": name(args.store)}


def run_status(args):
    from fastzss.extraction.status import status

    return status(args.store)


def run_copy(args):
    from fastzss.store.remote import copy_store

    copied = copy_store(args.store, args.out)
    return {"from": name(args.store), "to": name(args.out), "bytes copied": copied}


def name(place):
    """A place as the user means it."""
    from fastzss.store.remote import address, is_far

    return address(place) if is_far(place) else str(place)


def run_verify(args):
    from fastzss.store.remote import local
    from fastzss.store.upkeep.info import store_info
    from fastzss.store.upkeep.repair import repair
    from fastzss.store.upkeep.verify import verify

    args.store = local(args.store)  # every byte of a store far away is fetched and compared
    damages = verify(args.store, args.level)
    result = {"path": str(args.store), "level": args.level, "damages": [str(damage) for damage in damages]}
    if damages and args.repair:
        result["dropped"] = repair(args.store, damages)
    elif damages:
        say(result, args.json)
        raise UserError(
            f"{args.store}: {len(damages)} damages. `fastzss-cache verify {args.store} --level {args.level} --repair` "
            f"drops what is broken; the same extract command then writes it again."
        )
    else:
        result |= {key: store_info(args.store)[key] for key in ("finished", "shards", "shards_written", "bytes")}
    return result


def run_convert(args):
    from fastzss.store.upkeep.transfer import convert

    return convert(args.store, args.out, args.format, args.codec)


def run_merge(args):
    from fastzss.store.upkeep.transfer import merge

    return merge(args.parts, args.out)
