"""The plan of a store: the arithmetic of its shards, its identity, the order of its images."""

import numpy as np
import pytest
from helpers.stores import small_plan

from fastzss.store.plan import SHARD_BYTES, FeaturePlan, differences


@pytest.mark.parametrize("size", [(1, 8), (16, 128), (256, 768), (1369, 1024), (65536, 4096)], ids=str)
def test_shard_size_rule(size):
    patches, channels = size
    for n in [*range(1, 300), 1000, 4097, 5000, 61439, 61440, 61441, 118_287, 10**6, 10**8]:
        plan = FeaturePlan(images=n, patches=patches, channels=channels, grid=(1, patches))
        S = plan.shard_images
        assert S & (S - 1) == 0 and 1 <= S <= 4096
        assert n < 64 or plan.shards >= 16
        assert S == 1 or S * plan.bytes_per_image <= SHARD_BYTES * 2**0.5
        # twice as many would be too many: for 128 MiB, for 4096, or for 16 shards
        too_long = 2 * S * plan.bytes_per_image > SHARD_BYTES * 2**0.5
        assert too_long or 2 * S > 4096 or -(-n // (2 * S)) < 16
        assert [plan.rows(0).start, plan.rows(plan.shards - 1).stop] == [0, n]
        assert len(plan.rows(plan.shards - 1)) == n - (plan.shards - 1) * S


def test_shard_size_of_coco():
    plan = FeaturePlan(images=118_287, patches=256, channels=768, grid=(16, 16))
    assert (plan.shard_images, plan.shards, plan.rows(231)) == (512, 232, range(118_272, 118_287))
    assert plan.bytes_per_image == 256 * 768 + 256 * 2 + 768 * 2 + 1


def test_a_plan_survives_json_and_keeps_its_identity():
    plan = small_plan()
    again = FeaturePlan.from_json(plan.to_json())
    assert again == plan and again.identity == plan.identity
    # changes only with the bytes that a plan promises: a store that exists must stay readable
    assert plan.identity == "411a4cecfaae9eb1725d097654ab4a235e3211f5d1d8a7c5a26e70d139cadbb3"


def test_every_field_is_part_of_the_identity():
    plan = small_plan()
    changes = dict(images=71, patches=8, grid=(3, 2), channels=17, globals=("cls",), dtype="float16", vision={},
                   source={}, order_seed=4)  # fmt: skip
    others = [small_plan(**{name: value, **({"grid": (2, 4)} if name == "patches" else {})})
              for name, value in changes.items()]  # fmt: skip
    assert len({plan.identity, *(other.identity for other in others)}) == len(changes) + 1
    assert set(changes) == set(plan.to_json())


def test_differences_name_the_keys_and_both_values():
    other = small_plan(channels=17, vision={"model": "large", "weights": "00ff", "size": [224, 224]})
    assert differences(small_plan(), other) == [
        "channels is 16, now 17",
        'vision.licence is "Apache-2.0", now absent',
        'vision.model is "tiny", now "large"',
    ]
    assert differences(other, other) == []


@pytest.mark.parametrize(
    "wrong", [dict(images=0), dict(grid=(2, 2)), dict(dtype="fp8"), dict(globals=("cls", "cls"))], ids=str
)
def test_an_impossible_plan_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))[:4]):
        small_plan(**wrong)


def test_the_order_is_a_fixed_permutation():
    order = small_plan(images=1000, order_seed=7).order()
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert order[:6].tolist() == [187, 639, 56, 213, 630, 506]
    assert not np.array_equal(order, small_plan(images=1000, order_seed=8).order())
    # pseudo-random: neighbours in the source lie far apart
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
