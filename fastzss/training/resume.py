"""Going on with a run: the same settings, the newest checkpoint."""

from dataclasses import replace

from fastzss.base.errors import UserError
from fastzss.methods import METHODS
from fastzss.methods.registry import method_of
from fastzss.training.schedule import Schedule
from fastzss.training.settings import of_others
from fastzss.training.step import MOMENTS

# Settings that do not change what is computed: they may differ when a run goes on, as the number of processes may.
FREE = (
    "out", "store", "device", "recipe", "resume", "loader", "log", "log_every", "checkpoint_every",
    "keep", "eval_every", "eval_protocol", "eval_data", "extend", "from_run", "memory",
)  # fmt: skip

DEFAULTS = {"hold_out": 0.0}  # of settings that there were not always: what a run did that does not record them


def settled(config, run, ranks):
    """(settings with nothing left open, sentences about the choice): as the run recorded them, whatever became of its
    store and of the machine since; of a new run as the method chooses.
    """
    method = method_of(config.method)
    if run.exists:
        record = fixed(run.config, run)
        recorded = {key: record["settings"][key] for key in config.left_open if key in record["settings"]}
        known = len(recorded) == len(config.left_open)  # not those of a run of another method
        config = method.going_on(replace(config, **recorded), record)
        if known:
            return config, []
    return method.choose(config, ranks) if config.left_open else (config, [])


def schedule_of(config, run):
    """The Schedule of a run, as long as it was planned, or extended by now."""
    ends = run.config.get("ends", [config.steps]) if run.exists else [config.steps]
    if config.extend is not None:
        done = run.state["step"] if run.exists and run.latest else 0
        if config.extend < ends[-1] or done < ends[-1] and config.extend not in ends:
            raise UserError(
                f"--extend {config.extend}: {run.path} has taken {done} of {ends[-1]} steps; "
                f"expected more than {ends[-1]}, of a run that is finished",
                code=2,
            )
        if config.extend > ends[-1]:
            ends = [*ends, config.extend]
    return Schedule(ends, config.peak, config.warmup)


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
    methods = [settings["settings"].get("method") for settings in (found, wanted)]
    if methods[0] != methods[1]:
        raise UserError(
            f"{run.path}: holds a run of the method {methods[0]}, and this is {methods[1]}; give another --out"
        )
    different = [
        f"{key} is {was!r}, now {now!r}"
        for part in wanted
        for key, was, now in pairs(part, found.get(part), wanted[part])
        if was != now
    ]
    if different:
        more = "; --extend goes on beyond its end" if different[0].startswith("steps ") else ""
        raise UserError(
            f"{run.path}: holds a run with other settings: {'; '.join(different)}. "
            f"Give another --out, or the settings it was begun with{more}"
        )
    return True


def fixed(record, run):
    """The part of a run's record that must be the same when it goes on."""
    try:
        method = record["settings"].get("method")
        free = {*FREE, *(method_of(method).free if method in METHODS else ()), *of_others(method)}
        settings = DEFAULTS | record["settings"]
        return {**record, "settings": {key: value for key, value in settings.items() if key not in free}}
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
    learned = [name for name, _ in trainer.learner.named_parameters()]  # buffers have no moments
    lacking = [f"{key}.{name}" for name in learned for key in ("step", *MOMENTS)]
    other = other or sorted(set(lacking) - moments.keys())
    if other:
        raise UserError(
            f"{run.latest}: is no checkpoint of this run: {other[0]} is not what {trainer.config.method} trains here; "
            f"was it written by another method? Give another --out"
        )
    trainer.restore(model, moments)
    return state["step"], state.get("best")
