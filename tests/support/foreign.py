"""Small models of other libraries, with random weights from a seed, saved by the libraries themselves."""

from pathlib import Path
from typing import Any

import torch
from letters import letter_tokenizer

LETTERS = "abcdefghijkl"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def pipeline(folder: Path, *, lookup: bool = True) -> Path:
    """Save what stands in the folder of an aMUSEd: three networks, a tokenizer, a scheduler."""
    import diffusers
    import transformers

    (folder / "tokenizer").mkdir(parents=True)
    size = letter_tokenizer(transformers, folder / "tokenizer", 77)
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=20,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    transformers.CLIPTextModelWithProjection(text).save_pretrained(folder / "text_encoder")
    transformer = diffusers.UVit2DModel(
        hidden_size=16,
        cond_embed_dim=12,
        micro_cond_encode_dim=4,
        micro_cond_embed_dim=20,
        encoder_hidden_size=16,
        vocab_size=36,
        codebook_size=32,
        in_channels=24,
        block_out_channels=16,
        num_res_blocks=1,
        block_num_heads=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        sample_size=4,
    )
    torch.nn.init.normal_(transformer.mlm_layer.conv2.weight, std=0.3)  # else all codes are as likely
    transformer.save_pretrained(folder / "transformer")
    vqvae = diffusers.VQModel(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 8],
        latent_channels=6,
        num_vq_embeddings=32,
        norm_num_groups=4,
        mid_block_add_attention=False,
        lookup_from_codebook=lookup,
    )
    torch.nn.init.normal_(
        vqvae.quantize.embedding.weight, std=0.3
    )  # else so near to each other that none is used
    vqvae.save_pretrained(folder / "vqvae")
    diffusers.AmusedScheduler(mask_token_id=34).save_pretrained(folder / "scheduler")
    return folder


def language_model(folder: Path, kind: str = "bert") -> tuple[Path, Any]:
    """Save a masked language model of 12 letters, each a word; return the folder and the model."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *LETTERS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    named = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **named).save_pretrained(folder)
    sizes = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20)
    sizes |= dict(vocab_size=20, max_position_embeddings=32)  # three of which have no word
    torch.manual_seed(1)
    if kind == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(initializer_range=0.3, **sizes))
    else:  # whose positions are rotations, which no file holds
        theta = {"rope_type": "default", "rope_theta": 100.0}
        ends_ = dict(pad_token_id=0, cls_token_id=2, bos_token_id=2, sep_token_id=3, eos_token_id=3)
        config = transformers.ModernBertConfig(
            rope_parameters={"full_attention": theta, "sliding_attention": theta},
            initializer_range=0.3,
            **ends_,
            **sizes,
        )
        model = transformers.ModernBertForMaskedLM(config)
    model.eval().save_pretrained(folder)
    return folder, model
