"""Features without classes: what is turned, and that telling it is learned."""

import pytest
import torch

from natgym.metrics.classifier import Rotated, RotationNet, RotationNetConfig, fit_rotations


def test_rotations_teach_features_without_classes() -> None:
    """Ramps from left to right: which way they run tells how they are turned."""
    random = torch.Generator().manual_seed(0)
    ramps = torch.linspace(0, 1, 8).expand(40, 1, 8, 8) * (
        0.5 + torch.rand(40, 1, 1, 1, generator=random) / 2
    )
    turned = Rotated(ramps)
    rows = torch.tensor([0, 5, 10, 159])
    expected = [ramps[row // 4].rot90(row % 4, (-2, -1)) for row in rows.tolist()]
    assert len(turned) == 160 and turned[rows].equal(torch.stack(expected))
    network = fit_rotations(
        RotationNetConfig(image_shape=(1, 8, 8), channels=8, features=6), ramps, updates=200
    )
    features_Bd, logits = network(turned[torch.arange(160)])
    assert logits is None and features_Bd.shape == (160, 6) and isinstance(network, RotationNet)
    told = super(RotationNet, network).forward(turned[torch.arange(160)])[1].argmax(1)
    assert (told == torch.arange(160) % 4).float().mean() > 0.9
    assert features_Bd.var(0).mean().item() == pytest.approx(1, rel=0.05)
    with pytest.raises(ValueError, match="images of 4 x 8 pixels can't be turned; make them square"):
        Rotated(ramps[..., :4])
