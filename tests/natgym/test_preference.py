"""The preference reward of docs/rewards.md, against transformers' networks of images and texts one by one."""

import re
from pathlib import Path

import pytest
import torch
from small_clip import small_clip

from generators.conditions import Labels
from natgym.rewards import AdversarialConfig, AdversarialReward, LearningSum, make_reward

transformers = pytest.importorskip("transformers", reason="the extra `pretrained` is not installed")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "rewards.md"


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_cosine_times_the_scale(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_clip(tmp_path / "pickscore", 32)
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    program = next(program for program in programs if "class Preference" in program)
    names: dict = {}
    exec(program[: program.index("\npreference = ")], names)
    images = torch.rand(5, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    condition = Labels(torch.arange(5) % 3, 3, ("a cat", "dog", "an old owl"))
    preference = names["Preference"]("pickscore")
    said = preference(images, condition)

    config = transformers.CLIPConfig.from_pretrained("pickscore")
    for part in (config.vision_config, config.text_config):
        part.projection_dim = config.projection_dim
    vision = transformers.CLIPVisionModelWithProjection.from_pretrained(
        "pickscore", config=config.vision_config
    )
    text = transformers.CLIPTextModelWithProjection.from_pretrained("pickscore", config=config.text_config)
    vision, text = vision.eval(), text.eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("pickscore")
    scale = transformers.CLIPModel.from_pretrained("pickscore").logit_scale.detach().double().exp()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    for row in range(5):
        pixels = ((images[row] * 255).floor() / 255 - mean) / std
        with torch.no_grad():
            seen = vision(pixel_values=pixels[None].expand(1, 3, 32, 32)).image_embeds[0].double()
            read = text(**tokenizer([condition.names[row]], return_tensors="pt")).text_embeds[0].double()
        expected = scale * (seen @ read) / (seen.norm() * read.norm())
        assert float(said[row]) == pytest.approx(float(expected), abs=1e-4)
    assert said.std() > 0.01, "images and texts differ"
    adversary = AdversarialReward((channels, 32, 32), 3, AdversarialConfig(channels=2))
    both = make_reward([(adversary, 2.0), (preference, 0.5)])
    assert isinstance(both, LearningSum)
    torch.testing.assert_close(both(images, condition), 2 * adversary(images, condition) + said / 2)
