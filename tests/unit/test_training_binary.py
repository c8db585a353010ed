"""Binary layers: values, gradients, statistics."""

import copy

import pytest

torch = pytest.importorskip("torch")

from training.binary import (  # noqa: E402
    FC,
    BinaryConv2d,
    BinaryLinear,
    ConvP,
    MaskedBatchNorm,
    pooled_size,
    ste_sign,
)
from training.network import GAMMA_RANGE, Network  # noqa: E402
from training.options import NetworkOptions  # noqa: E402


def test_sign_of_zero_is_plus_one():
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 2.0])
    assert ste_sign(x).tolist() == [-1, -1, 1, 1, 1, 1]


def test_gradient_passes_straight_through_within_one():
    x = torch.tensor([-1.5, -1.0, -0.2, 0.0, 1.0, 1.0001], requires_grad=True)
    (ste_sign(x) * torch.arange(1.0, 7.0)).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]


def test_conv_uses_signs_and_pads_with_nothing():
    conv = BinaryConv2d(1, 1)
    with torch.no_grad():
        conv.latent.copy_(torch.tensor([[0.3, -0.2, 0.0], [1, -1, 0.1], [-0.9, 0.2, 0.5]]))
    picture = torch.full((1, 1, 3, 3), 255.0)
    signs = torch.tensor([[1.0, -1, 1], [1, -1, 1], [-1, 1, 1]])
    out = conv(picture)[0, 0]
    assert out[1, 1] == 255 * signs.sum()
    assert out[0, 0] == 255 * signs[1:, 1:].sum()


def test_byte_weights_are_whole_and_pass_the_gradient_through_the_rounding():
    conv = BinaryConv2d(2, 3, levels=63)
    with torch.no_grad():
        conv.latent.uniform_(-1, 1)
        conv.latent[0, 0, 0] = torch.tensor([-1.0, 0.0, 1.0])
    weights = conv.weights()
    assert torch.equal(weights, weights.round())
    assert weights[0, 0, 0].tolist() == [-63, 0, 63]
    assert torch.equal(conv.double().weights(), weights.double())
    weights.sum().backward()
    assert torch.equal(conv.latent.grad, torch.full_like(conv.latent, 63))


@pytest.mark.parametrize("size", [1, 2, 3, 16, 33])
def test_block_halves_rounding_up(size):
    out = ConvP(2, 3)(torch.rand(2, 2, size, 7))
    assert out.shape == (2, 3, pooled_size(size), 4)
    assert pooled_size(size) == (size + 1) // 2
    assert set(out.unique().tolist()) <= {-1.0, 1.0}


def test_absent_views_do_not_move_batch_norm():
    torch.manual_seed(0)
    x = torch.rand(8, 4, 5, 5)
    present = torch.tensor([[True, True]] * 4 + [[True, False]] * 4)
    norm = MaskedBatchNorm(4)
    first = norm(x, present)
    changed = x.clone()
    changed[4:, 2:] = 1e6
    again = MaskedBatchNorm(4)
    torch.testing.assert_close(again(changed, present)[:4], first[:4])
    torch.testing.assert_close(again.running_mean, norm.running_mean)
    torch.testing.assert_close(again.running_var, norm.running_var)
    # Within the views there: mean 0, variance 1.
    torch.testing.assert_close(first[:4, 2:].mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)


def test_batch_without_a_camera_leaves_its_statistics_alone():
    norm = MaskedBatchNorm(2)
    norm(torch.rand(4, 2, 3, 3), torch.tensor([[True, False]] * 4))
    assert norm.running_mean[0] != 0
    assert norm.running_mean[1] == 0
    assert norm.running_var[1] == 1


def test_separate_groups_do_not_see_each_other():
    torch.manual_seed(0)
    fc = FC(6, 3, groups=2).eval()
    x = torch.rand(4, 2, 6).sign()
    before = fc(x)
    x[:, 1] *= -1
    after = fc(x)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def network_after_a_wild_step(**options):
    shape = {"cameras": 2, "classes": 3, "height": 8, "width": 8, "channels": 3, "edges": ((0, 1),)}
    torch.manual_seed(0)
    network = Network(NetworkOptions(**shape, edge_filters=(3,), cloud_filters=(4,)))
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    for parameter in network.parameters():
        parameter.grad = 50 * torch.randn_like(parameter)
    optimizer.step()
    network.keep_trainable(**options)
    return network


def test_wild_step_leaves_latent_weights_and_gamma_where_the_sign_has_a_gradient():
    network = network_after_a_wild_step()
    low, high = GAMMA_RANGE
    for module in network.modules():
        if isinstance(module, BinaryConv2d | BinaryLinear):
            assert module.latent.abs().max() == 1
        if isinstance(module, ConvP):
            assert low <= module.norm.gamma.min() <= module.norm.gamma.max() <= high
            assert module.norm.beta.abs().max() > 1
        if isinstance(module, FC):
            # No sign follows an exit's norm: its gamma is how sure the exit is.
            assert module.norm.gamma.abs().max() > high


def test_what_is_in_range_is_left_alone():
    network = network_after_a_wild_step()
    before = copy.deepcopy(network.state_dict())
    network.keep_trainable()
    assert all(before[name].equal(value) for name, value in network.state_dict().items())


def test_gamma_runs_free_where_it_is_not_held():
    network = network_after_a_wild_step(hold_gamma=False)
    assert network.edges[0].blocks[0].norm.gamma.abs().max() > GAMMA_RANGE[1]
    assert network.edges[0].blocks[0].conv.latent.abs().max() == 1
