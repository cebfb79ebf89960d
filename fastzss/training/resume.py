"""Going on with a run: the same settings, the newest checkpoint."""

from fastzss.errors import UserError

# Settings that do not change what is computed: they may differ when a run goes on, as the number of processes may.
FREE = (
    "out", "store", "device", "recipe", "resume", "micro_batch", "loader", "log", "log_every", "checkpoint_every",
    "keep", "eval_every", "eval_protocol", "eval_data",
)  # fmt: skip


def check_same(run, record, resume):
    """Whether there is a run to go on with; refuses one of other settings, and what --resume does not want."""
    if (run.path / "features").is_dir():
        raise UserError(
            f"--out {run.path}: is a store, and a run needs a folder of its own; give another --out", code=2
        )
    if not run.exists:
        if resume == "must":
            raise UserError(f"{run.path}: holds no run, and --resume must wants one to go on with; leave --resume out")
        return False
    if resume == "never":
        raise UserError(f"{run.path}: holds a run already, and --resume never wants a new one; give another --out")
    found, wanted = fixed(run.config, run), fixed(record, run)
    if found["settings"].get("method") != wanted["settings"]["method"]:
        raise UserError(
            f"{run.path}: holds a run of the method {found['settings'].get('method')}, and this is "
            f"{wanted['settings']['method']}; give another --out"
        )
    different = [
        f"{key} is {was!r}, now {now!r}"
        for part in wanted
        for key, was, now in pairs(part, found.get(part), wanted[part])
        if was != now
    ]
    if different:
        raise UserError(
            f"{run.path}: holds a run with other settings: {'; '.join(different)}. "
            f"Give another --out, or the settings it was begun with"
        )
    return True


def fixed(record, run):
    """The part of a run's record that must be the same when it goes on."""
    try:
        return {**record, "settings": {key: value for key, value in record["settings"].items() if key not in FREE}}
    except (TypeError, KeyError, AttributeError):
        raise UserError(f"{run.path / 'config.yaml'}: is no record of a run; give another --out") from None


def pairs(part, found, wanted):
    if isinstance(wanted, dict) and isinstance(found, dict) and part != "vision":
        return [(key, found.get(key), wanted.get(key)) for key in {**found, **wanted}]
    return [(part, found, wanted)]


def restored(run, trainer):
    """Take up the newest checkpoint; returns (its step, the best evaluation until then)."""
    model, moments, state = run.load()
    own = trainer.learner.state_dict()
    other = sorted(own.keys() ^ model.keys()) or [name for name in own if own[name].shape != model[name].shape]
    lacking = [f"{key}.{name}" for name in own for key in ("step", "exp_avg", "exp_avg_sq")]
    other = other or sorted(set(lacking) - moments.keys())
    if other:
        raise UserError(
            f"{run.latest}: is no checkpoint of this run: {other[0]} is not what {trainer.config.method} trains here; "
            f"was it written by another method? Give another --out"
        )
    trainer.restore(model, moments)
    return state["step"], state.get("best")
