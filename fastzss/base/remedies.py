"""What to do when a place far away does not answer: the words of many services, sorted."""


def reason(problem):
    return f"{type(problem).__name__}: {problem}".strip().split("\n")[0][:200]


def remedy(place, problem):
    """What to do about a place that does not answer."""
    words = f"{type(problem).__name__} {problem}".lower()
    protocol = place.partition(":")[0]
    if isinstance(problem, ImportError) or "install" in words:
        packages = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
        return f"`pip install {packages.get(protocol, f'fsspec[{protocol}]')}` teaches fsspec to read {protocol}://."
    if any(word in words for word in ("credential", "forbidden", "403", "401", "signature", "accesskey", "permission")):
        return "Check the credentials (for s3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE)."
    if isinstance(problem, FileNotFoundError) or any(
        word in words for word in ("404", "not found", "nosuch", "not exist")
    ):
        return "Nothing is there: check the name."
    return "Check the address and the network, then run the same command again."
