"""ZeroSeg behind the seam."""

from dataclasses import replace

from fastzss.methods.zeroseg.task import ZeroSegTask


class ZeroSeg:
    name = "zeroseg"
    task = ZeroSegTask
    free = ("teacher", "top5_filter", "logit_scale", "bg_thresh")  # the teacher is compared by what it is

    def going_on(self, config, record):
        return config if config.teacher else replace(config, teacher=record["teacher"]["views"])

    def model(self, run, vision, device):
        from fastzss.methods.zeroseg.model import model_of  # late: it reads names, which no training does

        return model_of(run, vision, device)

    def finish(self, run, config, device):
        return None


METHOD = ZeroSeg()
