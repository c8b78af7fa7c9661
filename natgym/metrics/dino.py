"""DINOv2 features (Oquab et al. 2023), which Stein et al. (2023) recommend over Inception's; network by timm.

The weights are a local file: Meta's `dinov2_vit?14_pretrain.pth`, or timm's. Nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from generators.checkpoints import register
from natgym.metrics.weights import read_weights

SIDE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WIDTHS = {"small": 384, "base": 768, "large": 1024}


@dataclass(frozen=True)
class DINOv2Config:
    """Geometry of the network.

    Attributes:
        size: small, base or large.
    """

    size: str = "base"


@register(DINOv2Config)
class DINOv2(nn.Module):
    """Images (B, 1 or 3, H, W) in [0, 1] -> class-token features (B, d); it has no logits.

    Images are resized to 224 x 224 (bicubic, antialiased) and normalized by ImageNet's mean and spread.

    Raises:
        ValueError: its size is not known, or timm is not there.
    """

    meaning = "Frechet distance in DINOv2 class-token features (FD-DINOv2); not the Inception FID"

    def __init__(self, config: DINOv2Config) -> None:
        super().__init__()
        try:
            from timm import create_model
        except ImportError:
            raise ValueError("DINOv2 needs timm: pip install 'natgym[pretrained]'") from None
        if config.size not in WIDTHS:
            raise ValueError(f"DINOv2 size {config.size!r} is not one of {', '.join(WIDTHS)}")
        self.config = config
        self.num_features = WIDTHS[config.size]
        self.network: Any = create_model(
            f"vit_{config.size}_patch14_dinov2", pretrained=False, img_size=SIDE, num_classes=0
        )

    @classmethod
    def load(cls, path: Path | str, size: str = "base") -> DINOv2:
        """Read a local weights file of a size (small, base, large); ValueError if that is not what it is."""
        module = cls(DINOv2Config(size))
        from timm.models.vision_transformer import checkpoint_filter_fn

        network = module.network
        read_weights(network, path, f"DINOv2 {size}", lambda state: checkpoint_filter_fn(state, network))
        return module.eval()

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, None]:
        """Return features; grey images become three equal channels."""
        mean, spread = (
            images_BCHW.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        x = prepared(images_BCHW, (SIDE, SIDE), mean, spread)
        return self.network.forward_features(x)[:, 0], None


def prepared(images_BCHW: Tensor, size: tuple[int, int], mean_C11: Tensor, spread_C11: Tensor) -> Tensor:
    """Return images in [0, 1], grey or RGB, as a pretrained network takes them: resized and normalized."""
    x = images_BCHW.expand(-1, len(mean_C11), -1, -1)
    x = F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)
    return (x.clamp(0, 1) - mean_C11) / spread_C11  # bicubic weights overshoot at edges
