"""What is found in a network: the groups by hand, the user's rules, what is frozen and why."""

import pytest
import torch
from torch import nn

from evosearch.errors import InputError, TracingError
from evosearch.space.mask import ChannelGroup
from evosearch.surgery.discovery import Discovery, GroupRules, WidthRules, discover
from tests.surgery.cases import CASES, discovered
from tests.surgery.networks import Plain, Residual, conv, head


def places(group: ChannelGroup) -> dict[tuple[str, int], list[int]]:
    return {(m.tensor, m.dim): list(m.positions) for m in group.members}


def sizes(discovery: Discovery) -> dict[str, int]:
    return discovery.space.sizes


@pytest.mark.parametrize("name", CASES)
def test_every_pattern_has_its_groups_found_and_proven(name: str) -> None:
    discovery = discovered(name).discovery
    assert sizes(discovery) == dict(CASES[name].groups)
    assert [proof.group for proof in discovery.proofs] == list(sizes(discovery))
    assert all(proof.error <= 1e-9 and proof.effect > 1e-3 for proof in discovery.proofs)
    reasons = {part.name: part.reason for part in discovery.space.frozen}
    for module, reason in CASES[name].frozen.items():
        assert reason in reasons[module]


def test_members_of_a_plain_network() -> None:
    first, second = discovered("plain").discovery.space.groups
    four, six = list(range(4)), list(range(6))
    assert places(first) == {
        ("conv1.weight", 0): four,
        ("bn1.weight", 0): four,
        ("bn1.bias", 0): four,
        ("bn1.running_mean", 0): four,
        ("bn1.running_var", 0): four,
        ("conv2.weight", 1): four,
    }
    # The flattened 4 x 4 map: channel j feeds inputs 16 j to 16 j + 15.
    assert places(second) == {
        ("conv2.weight", 0): six,
        ("conv2.bias", 0): six,
        ("linear.weight", 1): list(range(96)),
    }


def test_a_residual_stream_is_one_group() -> None:
    stem = places(discovered("residual").discovery.space.groups[0])
    convolutions = {axis for axis in stem if axis[0].startswith(("stem", "conv", "project"))}
    assert convolutions == {
        ("stem.weight", 0),
        ("stem.bias", 0),
        ("conv1.weight", 1),
        ("conv2.weight", 0),
        ("conv3.weight", 1),
        ("project.weight", 1),
    }
    norms = {f"{bn}.{leaf}" for bn in ("bn", "bn2") for leaf in ("weight", "bias")}
    norms |= {f"{bn}.running_{leaf}" for bn in ("bn", "bn2") for leaf in ("mean", "var")}
    assert set(stem) - convolutions == {(tensor, 0) for tensor in norms}


def test_a_depthwise_convolution_passes_its_channels_through() -> None:
    group = places(discovered("depthwise").discovery.space.groups[0])
    assert group["3.weight", 0] == list(range(8))
    assert ("3.weight", 1) not in group
    # With two outputs per input, channel j owns outputs 2 j and 2 j + 1.
    assert group["6.weight", 0] == list(range(16))
    assert group["7.weight", 1] == list(range(16))


def test_a_concat_shifts_positions() -> None:
    stem, left, right = (places(g) for g in discovered("concat").discovery.space.groups)
    assert left["head.2.weight", 1] == [0, 1, 2, 3]
    assert stem["head.2.weight", 1] == [4, 5, 6, 7, 8, 9]
    assert right["bn.running_var", 0] == [10, 11, 12, 13, 14]


def test_a_module_that_is_called_twice_is_written_and_read_by_its_group() -> None:
    group = places(discovered("shared_module").discovery.space.groups[0])
    assert group["shared.weight", 0] == group["shared.weight", 1] == list(range(6))


def test_parts_that_only_training_reads_follow_the_width() -> None:
    stem = places(discovered("auxiliary").discovery.space.groups[0])
    assert stem["side.0.weight", 1] == list(range(8))


def test_whole_conv_groups_go_where_that_leaves_more_to_choose_from() -> None:
    stem = places(discovered("grouped_whole").discovery.space.groups[0])
    assert stem["stem.weight", 0] == list(range(16))  # two channels in each of eight groups
    assert stem["conv.weight", 0] == list(range(24))
    assert stem["conv.groups", 0] == list(range(8))
    assert ("conv.weight", 1) not in stem


def test_positions_are_tied_across_conv_groups() -> None:
    stem, conv, _ = (places(g) for g in discovered("grouped_positions").discovery.space.groups)
    assert stem["stem.weight", 0] == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    assert stem["conv.weight", 1] == list(range(6))
    assert conv["conv.weight", 0][:4] == [0, 12, 1, 13]


def test_a_padded_shortcut_ties_shifted_positions() -> None:
    stem = places(discovered("pad_literal").discovery.space.groups[0])
    assert stem["wide.weight", 0] == [2, 3, 4, 5]
    assert stem["after.weight", 1] == [2, 3, 4, 5]


def test_a_flip_reverses_positions() -> None:
    stem = places(discovered("flip").discovery.space.groups[0])
    assert stem["after.weight", 1] == list(range(7, -1, -1))


def test_a_fixed_cut_freezes_only_what_it_counts() -> None:
    stem = places(discovered("slice_literal").discovery.space.groups[0])
    assert stem["stem.weight", 0] == [8, 9, 10, 11]
    end = places(discovered("slice_from_the_end").discovery.space.groups[0])
    assert end["stem.weight", 0] == [0, 1, 2, 3]


def test_the_networks_output_is_frozen() -> None:
    frozen = {part.name: part for part in discovered("plain").discovery.space.frozen}
    assert frozen["linear"].size == 5
    assert frozen["linear"].reason == "network output"


def test_frozen_parameters_change_nothing() -> None:
    case = CASES["residual"]
    model = case.model().requires_grad_(requires_grad=False)
    found = discover(model, case.example(), GroupRules(), seed=3)
    assert found.space.groups == discovered("residual").discovery.space.groups


def test_the_same_seed_gives_the_same_discovery() -> None:
    case = CASES["concat"]
    again = discover(case.model(), case.example(), GroupRules(), seed=3)
    assert again == discovered("concat").discovery


# The user's rules


def with_rules(rules: GroupRules) -> Discovery:
    return discover(CASES["residual"].model(), CASES["residual"].example(), rules, seed=3)


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (("stem",), {"conv1": 6, "project": 10}),
        (("conv2",), {"conv1": 6, "project": 10}),  # a later writer of the same stream
        (("conv*",), {}),
        (("conv[13]",), {"stem": 8}),
        (("head.2",), {"stem": 8, "conv1": 6, "project": 10}),  # frozen already
        (("bn1",), {"stem": 8, "conv1": 6, "project": 10}),  # writes no channels of its own
    ],
)
def test_exclude_keeps_the_output_channels_of_the_modules_it_names(
    patterns: tuple[str, ...], left: dict[str, int]
) -> None:
    if not left:
        with pytest.raises(InputError, match=r"nothing can be pruned.*excluded by 'conv\*'"):
            with_rules(GroupRules(exclude=patterns))
        return
    discovery = with_rules(GroupRules(exclude=patterns))
    assert sizes(discovery) == left
    excluded = {"stem": 8, "conv1": 6, "project": 10}.keys() - left.keys()
    reasons = {part.name: part.reason for part in discovery.space.frozen}
    assert all(reasons[name] == f"excluded by {patterns[0]!r}" for name in excluded)


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match=r"pattern 'layer9\.\*' matches no module"):
        with_rules(GroupRules(exclude=("stem", "layer9.*")))


def test_width_rules_reach_every_group_and_small_groups_stay_whole() -> None:
    discovery = with_rules(GroupRules(multiple_of=4, min_keep=6))
    assert {g.name: g.legal_widths() for g in discovery.space.groups} == {
        "stem": (8,),
        "project": (8, 10),
    }
    reasons = {part.name: part.reason for part in discovery.space.frozen}
    assert reasons["conv1"] == "min_keep = 6"


def test_a_single_channel_is_no_choice_whatever_the_rules() -> None:
    model = nn.Sequential(conv(3, 1), nn.ReLU(), conv(1, 6), nn.ReLU(), head(6)).eval()
    for rules in (GroupRules(), GroupRules(min_keep=3)):
        found = discover(model, (torch.randn(2, 3, 8, 8),), rules, seed=3)
        reasons = {part.name: part.reason for part in found.space.frozen}
        assert reasons["0"] == "a single channel"
        assert sizes(found) == {"2": 6}


# What cannot be traced, and what must not change


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if float(x.sum()) > 0 else x


def test_a_model_that_cannot_be_exported_is_one_clear_line() -> None:
    with pytest.raises(TracingError, match=r"^Branching cannot be traced by torch\.export: ") as e:
        discover(Branching(), (torch.ones(2, 3),), GroupRules(), seed=3)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("training", [True, False])
def test_discovery_leaves_the_model_as_it_was(training: bool) -> None:
    model = CASES["residual"].model().train(training)
    model.bn.eval()  # mixed modes come back as they were
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[int] = []
    hook = model.conv1.register_forward_hook(lambda *_: seen.append(1))
    discover(model, CASES["residual"].example(), GroupRules(), seed=3)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert list(model.conv1._forward_hooks) == [hook.id]


def test_random_state_is_not_touched() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    discover(Residual().eval(), CASES["residual"].example(), GroupRules(), seed=3)
    torch.manual_seed(0)
    assert torch.equal(before, torch.get_rng_state())


def test_prunable_share_counts_layers_with_a_prunable_side() -> None:
    discovery = discovered("plain").discovery
    assert discovery.space.prunable_share == 1  # the classifier reads prunable channels
    model = Plain().eval()
    half = discover(model, (torch.randn(2, 3, 8, 8),), GroupRules(exclude=("conv1",)), seed=3)
    conv1, conv2, linear = 4 * 27 * 64, 6 * 36 * 16, 96 * 5
    assert half.space.prunable_share == (conv2 + linear) / (conv1 + conv2 + linear)


def test_rules_for_some_groups_take_the_place_of_those_for_all() -> None:
    rules = GroupRules(
        multiple_of=2,
        only={"*": WidthRules(min_keep=3), "conv1": WidthRules(multiple_of=4, min_keep=2)},
    )
    groups = {group.name: group for group in with_rules(rules).space.groups}
    assert groups["conv1"].multiple_of == 4
    assert groups["conv1"].min_keep == 2
    others = [group for name, group in groups.items() if name != "conv1"]
    assert others
    assert {(group.multiple_of, group.min_keep) for group in others} == {(1, 3)}
    with pytest.raises(InputError, match=r"\[groups\] only: pattern 'nothing' matches no module"):
        with_rules(GroupRules(only={"nothing": WidthRules()}))
