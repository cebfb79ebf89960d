"""Training: batches -> losses -> optimiser -> run, on any number of processes; no method is named here.

settings.py    what can be set, and the recipes
loop.py        a run from its first step to its last
step.py        one step
resume.py      what must be the same when a run goes on
validation.py  mIoU inside a run
trackers.py    TensorBoard, W&B
forecast.py    what a training will be
sweep.py       runs of several settings, and a table of them
grid.py        which settings those are
judges.py      what they are compared by
"""
