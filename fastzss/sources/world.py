"""world:SPLIT,n=COUNT,seed=SEED: scenes of the built-in world, drawn on the spot."""

from dataclasses import dataclass, field

from fastzss import world
from fastzss.base.errors import UserError, nearest


@dataclass
class World:
    spec: str
    rest: str
    own: dict = field(default_factory=dict)
    settings = ()  # it reads its own
    listed = False
    form = "world:SPLIT,n=COUNT,seed=SEED"
    model = "tiny"  # the backbone such images are looked at with by default
    captions_first = False  # they are drawn with the images
    _captions: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        split, *settings = self.rest.split(",")
        if split not in world.SPLITS:
            hint = nearest(split, world.SPLITS)
            raise UserError(f'{self.spec}: no split "{split}"{hint}; expected {", ".join(world.SPLITS)}', code=2)
        values = {"n": 1200, "seed": 0}
        for setting in settings:
            key, _, value = setting.partition("=")
            if key not in values or not value.isdecimal():
                hint = nearest(key, values.keys() - {key})
                raise UserError(f'{self.spec}: "{setting}" is not understood{hint}; expected {self.form}', code=2)
            values[key] = int(value)
        if values["n"] == 0:
            raise UserError(f"{self.spec}: asks for no images; expected n of at least 1", code=2)
        self.split, self.seed = split, values["seed"]
        self.ids = [f"{split}-{self.seed}-{index:06d}" for index in range(values["n"])]

    def scene(self, index):
        return world.scene(self.split, index, self.seed)

    def image(self, index, enough=None):
        scene = self.scene(index)
        self._captions[index] = scene.captions  # drawing a scene is the cost; its captions come with it
        return scene.image

    def size(self, index):
        return self.image(index).size

    def captions(self, index):
        return self._captions.get(index) or self.scene(index).captions
