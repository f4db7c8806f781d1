"""From data sets to tasks, and from class ids to columns of heads."""

import pytest
import torch
from conftest import CPU

from datasets.tasks import class_groups, split_by_class
from models import encoders
from models.encoders import paper, resnet18, slim_resnet18
from models.learner import HEADS, Learner
from utils.config.schema import Config
from utils.run.build import build_learner, build_tasks
from utils.run.streams import generator
from utils.settings import BadInput, find


def test_groups_are_even_or_take_the_lone_class_in():
    assert class_groups(range(6), 2) == [(0, 1), (2, 3), (4, 5)]
    assert class_groups(range(7), 3) == [(0, 1, 2), (3, 4, 5, 6)]
    assert class_groups(range(5), 3) == [(0, 1, 2), (3, 4)]
    assert class_groups(range(3), 3) == [(0, 1, 2)]
    assert class_groups(range(3), 1) == [(0,), (1,), (2,)]
    with pytest.raises(BadInput, match="more than the data set's 4 classes"):
        class_groups(range(4), 5)
    with pytest.raises(BadInput, match="1 class only"):
        class_groups(range(1), 1)


@pytest.mark.parametrize("dev_split", [0.0, 0.25])
def test_every_sample_lands_in_one_task_and_one_part(data, dev_split):
    tasks = split_by_class(data, [(5, 0), (3, 1), (4, 2)], dev_split, torch.Generator(), CPU)
    assert [task.index for task in tasks] == [0, 1, 2]
    seen = []
    for task in tasks:
        for part in (task.train, task.test, *([task.dev] if dev_split else [])):
            assert set(part.y.tolist()) == set(task.classes)
        assert (task.dev is None) == (dev_split == 0)
        if task.dev:
            for c in task.classes:  # stratified: a quarter of each class's 24
                assert int((task.dev.y == c).sum()) == 6
        parts = [task.train] + ([task.dev] if task.dev else [])
        seen += [(x.numpy().tobytes(), int(y)) for part in parts for x, y in zip(part.x, part.y, strict=True)]
    whole = [(x.numpy().tobytes(), int(y)) for x, y in zip(data.train.x, data.train.y, strict=True)]
    assert sorted(seen) == sorted(whole)
    assert sum(len(task.test) for task in tasks) == len(data.test)


def config(**scenario) -> Config:
    tree = {"method": {"name": "naive"}, "scenario": {"dataset": {"name": "digits"}, **scenario}}
    return Config.model_validate(tree)


@pytest.mark.parametrize("build", [resnet18.build, slim_resnet18.build])
def test_building_an_encoder_leaves_its_running_statistics_at_their_start(build):
    encoder = build((3, 16, 16))
    norms = [part for part in encoder.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert norms and all(part.num_batches_tracked == 0 and (part.running_mean == 0).all() for part in norms)
    assert all(part.training for part in encoder.modules())


def class_learner(only_seen: bool) -> Learner:
    torch.manual_seed(0)
    return Learner(paper.build((1, 28, 28), 20), HEADS["linear"](0.0), "class", [(4, 0), (3, 1), (2, 5)], only_seen)


@pytest.mark.parametrize("only_seen", [True, False])
def test_classes_that_no_task_had_yet_take_part_only_if_asked_for(only_seen):
    learner, z, y = class_learner(only_seen), torch.randn(50, 20), torch.tensor([4, 0] * 25)
    with torch.no_grad():
        learner.heads[0].bias[5] = 10.0  # the likeliest of all
    assert (learner.predict(z, 0) == 5).all(), "before the first task all take part"
    learner.see(1)
    learner.cross_entropy(z, y).mean().backward()
    touched = (learner.heads[0].bias.grad != 0).nonzero()[:, 0].tolist()
    assert touched == ([0, 4] if only_seen else [0, 1, 2, 3, 4, 5])
    assert set(learner.predict(z, 2).tolist()) == ({0, 4} if only_seen else {5})
    assert torch.equal(learner.logits(z, 0), learner.logits(z, 2)), "whichever task"
    learner.see(3)
    assert (learner.predict(z, 0) == 5).all()


def groups_of(data, seed=0, **scenario) -> list[tuple[int, ...]]:
    return [task.classes for task in build_tasks(config(**scenario), data, seed, CPU)]


def test_a_shuffled_order_is_that_of_the_seed_and_has_not_changed(data):
    assert groups_of(data) == [(0, 1), (2, 3), (4, 5)]
    shuffled = {seed: groups_of(data, seed, class_order="shuffled") for seed in (0, 1)}
    assert shuffled == {0: [(5, 2), (0, 1), (3, 4)], 1: [(0, 4), (3, 2), (1, 5)]}
    assert groups_of(data, 0, class_order="shuffled", class_order_seed=1) == shuffled[1]


def test_a_base_task_and_increments_in_a_given_order(data):
    given = groups_of(data, labels_per_task=[3, 1, 2], class_order=[5, 0, 3, 1, 4, 2], type="class")
    assert given == [(5, 0, 3), (1,), (4, 2)]
    tasks = build_tasks(config(labels_per_task=[4, 2], class_order=[5, 0, 3, 1, 4, 2]), data, 0, CPU)
    assert [sorted(set(task.train.y.tolist())) for task in tasks] == [[0, 1, 3, 5], [2, 4]]
    for sizes, told in (([3, 2], "add up to 5, and .* 6 classes; write e.g. [3, 2, 1]"),
                        ([3, 2, 3], "add up to 8, and .* 6 classes; write e.g. [3, 2, 1]"),
                        ([6, 2], "add up to 8, and .* 6 classes; write e.g. [6]")):  # fmt: skip
        with pytest.raises(BadInput, match=told.replace("[", r"\[")):
            groups_of(data, labels_per_task=sizes, type="class")


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0, 1, 2, 3, 4], "missing: 5$"),
        ([0, 1, 2, 3, 4, 4], "twice: 4; missing: 5$"),
        ([1, 2, 3, 4, 5, 6], "unknown: 6; missing: 0$"),
    ],
)
def test_an_invalid_class_order_is_refused(data, order, told):
    with pytest.raises(BadInput, match=f"scenario.class_order: expected each of the 6 class ids, 0 to 5, once; {told}"):
        groups_of(data, class_order=order)


def test_a_class_without_images_is_refused(data):
    test_without_five = data.test.take(data.test.y != 5)
    lacking = type(data)(data.train, test_without_five, data.classes)
    with pytest.raises(BadInput, match="'c5' has no test images"):
        split_by_class(lacking, [(0, 5)], 0.0, torch.Generator(), CPU)


def make_learner(scenario: str, groups, dropout: float = 0.0) -> Learner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Learner(paper.build((1, 28, 28), None), HEADS["paper"](dropout), scenario, groups)


GROUPS = [(3, 0), (1, 4, 2)]


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_labels_map_to_columns_one_to_one_and_back(scenario):
    learner = make_learner(scenario, GROUPS)
    z = torch.randn(2, 100)
    for index, group in enumerate(GROUPS):
        columns = learner.columns(torch.tensor(group), index)
        width = learner.logits(z, index).shape[1]
        assert width == {"task": len(group), "class": 5, "domain": 3}[scenario]
        assert len(set(columns.tolist())) == len(group) and max(columns.tolist()) < width
        # what a head says in its column comes back as the global class it stands for
        head = learner.heads[index if scenario == "task" else 0]
        with torch.no_grad():
            head[-1].weight.zero_()
            for c, column in zip(group, columns, strict=True):
                head[-1].bias.copy_(torch.eye(width)[column])
                assert learner.predict(z, index).tolist() == [c, c]


def test_prediction_in_an_uneven_domain_stays_inside_the_task():
    learner = make_learner("domain", GROUPS)
    with torch.no_grad():
        learner.heads[0][-1].weight.zero_()
        learner.heads[0][-1].bias.copy_(torch.tensor([0.0, 1.0, 2.0]))  # the third column is of task 1 only
    assert learner.predict(torch.randn(1, 100), 0).tolist() == [0]


@pytest.mark.parametrize("scenario", ["task", "class", "domain"])
def test_mixed_cross_entropy_is_each_task_s_own(scenario):
    learner = make_learner(scenario, GROUPS)
    z, y = torch.randn(5, 100), torch.tensor([0, 1, 2, 3, 4])
    mixed = learner.cross_entropy(z, y)
    for index, group in enumerate(GROUPS):
        own = torch.isin(y, torch.tensor(group))
        expected = torch.nn.functional.cross_entropy(
            learner.logits(z[own], index), learner.columns(y[own], index), reduction="none"
        )
        torch.testing.assert_close(mixed[own], expected)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 17, 23), (3, 19, 24)])
@pytest.mark.parametrize("kind", ["paper", "mlp"])
def test_decoders_mirror_encoders_to_the_pixel(kind, shape):
    encoder = find(encoders, kind, "build").build(shape, None)
    assert encoder(torch.rand(2, *shape)).shape == (2, encoder.embedding_dim)
    assert encoder.mirror(7, shape)(torch.randn(2, 7)).shape == (2, *shape)


def test_the_paper_s_sizes():
    grey, colour = paper.build((1, 28, 28), None), paper.build((3, 32, 32), 400)
    assert (grey.feature_dim, grey.embedding_dim) == (24 * 6 * 6, 100)
    assert (colour.feature_dim, colour.embedding_dim) == (48 * 12 * 12, 400)
    with pytest.raises(ValueError, match="too small"):
        paper.build((3, 6, 6), None)


def test_streams_differ_by_name_and_seed():
    draws = {torch.rand(1, generator=generator(s, n)).item() for s in (0, 1) for n in ("order", "method")}
    assert len(draws) == 4


def test_resnets_are_the_usual_ones():
    full, slim = resnet18.build((3, 32, 32), None), slim_resnet18.build((3, 32, 32), None)
    assert (full.embedding_dim, slim.embedding_dim) == (512, 160)
    assert sum(p.numel() for p in full.parameters()) == 11_173_962 - (
        512 * 10 + 10
    )  # less the usual head of 10 classes
    assert slim(torch.rand(2, 3, 32, 32)).shape == (2, 160)
    assert slim_resnet18.build((1, 28, 28), 50)(torch.rand(2, 1, 28, 28)).shape == (2, 50)
    assert slim.mirror(7, (3, 32, 32))(torch.randn(2, 7)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("active", ["seen", "all"])
def test_active_classes_reach_the_classifier(data, active):
    scenario = config(type="class", active_classes=active)
    assert build_learner(scenario, build_tasks(scenario, data, 0, CPU), 0).only_seen is (active == "seen")
