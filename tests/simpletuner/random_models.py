"""Writes a model of a published shape with random weights, since the weights do not change how long a step takes.

usage: random_models.py KIND FOLDER [DEVICE]
  KIND    sdxl: the shapes of stabilityai/stable-diffusion-xl-base-1.0, all of it (UNet of 2.57 billion parameters)
          flux: the shapes of black-forest-labs/FLUX.1-dev (transformer of 11.9 billion); of the second text encoder one
                layer of 24, since captions are encoded before the first step
          tiny-sdxl, tiny-flux: the same blocks a thousandth as large, for a host without a GPU
  DEVICE  where the weights are drawn (default: cuda if there is one)
The tokenizers are byte-level stand-ins, and a scheduler's settings are the published ones. Nothing is downloaded.
"""

import json
import pathlib
import sys
import time

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel

KIND, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
DEVICE = sys.argv[3] if len(sys.argv) > 3 else "cuda" if torch.cuda.is_available() else "cpu"
TINY = KIND.startswith("tiny-")
# Of CLIP's 49,408 words ours has a few hundred; the table of their vectors has its true size.
CLIP_WORDS, T5_WORDS = (1_024, 512) if TINY else (49_408, 32_128)


def save(part, make):
    """Draws the weights where they are drawn fastest."""
    begun = time.monotonic()
    # At once in two bytes each: in four, the largest of them leaves no room on a card of 80 GB.
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        model = make()
    torch.set_default_dtype(torch.float32)
    model = model.to(torch.bfloat16)
    count = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(FOLDER / part, safe_serialization=True, max_shard_size="100GB")
    print(f"{part}: {count:,} parameters in {time.monotonic() - begun:.1f} s", flush=True)


def byte_symbols():
    """A printable letter for each byte, in the order that byte-level vocabularies have."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in plain] + [chr(256 + place) for place in range(256 - len(plain))]


def clip_tokenizer(part):
    """A vocabulary of bytes and ends of words; returns its last word's number, which ends a caption."""
    words = byte_symbols()
    words = words + [f"{word}</w>" for word in words] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    folder = FOLDER / part
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    try:
        tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77, **marks)
    except TypeError:
        tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77, **marks)
    tokenizer.save_pretrained(folder)
    return len(words) - 1


def t5_tokenizer(part):
    """A vocabulary of single letters in the form that T5's tokenizer reads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = [chr(code) for code in range(32, 127)]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)] + [(letter, -3.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(words, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder = FOLDER / part
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    marks = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 0, "additional_special_tokens": []}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5TokenizerFast", "model_max_length": 512, **marks}))


def clip(part, kind, end, width, layers, heads, activation):
    settings = CLIPTextConfig(
        vocab_size=CLIP_WORDS, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        projection_dim=width, hidden_act=activation, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
    )
    save(part, lambda: kind(settings))


def vae(channels, scaling, **more):
    widths = [32, 32, 64, 64] if TINY else [128, 256, 512, 512]
    save("vae", lambda: AutoencoderKL(
        latent_channels=channels, sample_size=1024, scaling_factor=scaling, block_out_channels=widths, layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4, **more,
    ))


def index(pipeline, **parts):
    kinds = {part: [library, name] for part, (library, name) in parts.items()}
    (FOLDER / "model_index.json").write_text(json.dumps({"_class_name": pipeline, "_diffusers_version": "0.30.0", **kinds}))


def sdxl():
    end = clip_tokenizer("tokenizer")
    clip_tokenizer("tokenizer_2")
    one, two = (32, 64) if TINY else (768, 1_280)
    clip("text_encoder", CLIPTextModel, end, one, 2 if TINY else 12, 4 if TINY else 12, "quick_gelu")
    clip("text_encoder_2", CLIPTextModelWithProjection, end, two, 2 if TINY else 32, 4 if TINY else 20, "gelu")
    vae(4, 0.13025, force_upcast=True)
    widths, heads, depths = ([32, 64, 64], [2, 4, 4], [1, 1, 1]) if TINY else ([320, 640, 1_280], [5, 10, 20], [1, 2, 10])
    save("unet", lambda: UNet2DConditionModel(
        sample_size=128, block_out_channels=widths, attention_head_dim=heads, transformer_layers_per_block=depths,
        cross_attention_dim=one + two, layers_per_block=2, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=two + 6 * 256,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    ))
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading",
    ).save_pretrained(FOLDER / "scheduler")
    index(
        "StableDiffusionXLPipeline", scheduler=("diffusers", "EulerDiscreteScheduler"), text_encoder=("transformers", "CLIPTextModel"),
        text_encoder_2=("transformers", "CLIPTextModelWithProjection"), tokenizer=("transformers", "CLIPTokenizer"),
        tokenizer_2=("transformers", "CLIPTokenizer"), unet=("diffusers", "UNet2DConditionModel"), vae=("diffusers", "AutoencoderKL"),
    )


def flux():
    end = clip_tokenizer("tokenizer")
    t5_tokenizer("tokenizer_2")
    one, two = (32, 64) if TINY else (768, 4_096)
    clip("text_encoder", CLIPTextModel, end, one, 2 if TINY else 12, 4 if TINY else 12, "quick_gelu")
    save("text_encoder_2", lambda: T5EncoderModel(T5Config(
        vocab_size=T5_WORDS, d_model=two, d_kv=16 if TINY else 64, d_ff=128 if TINY else 10_240, num_layers=1,
        num_heads=4 if TINY else 64, feed_forward_proj="gated-gelu",
    )))
    vae(16, 0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
    layers, single, heads = (1, 1, 2) if TINY else (19, 38, 24)
    save("transformer", lambda: FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=layers, num_single_layers=single, attention_head_dim=128, num_attention_heads=heads,
        joint_attention_dim=two, pooled_projection_dim=one, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
    ))
    FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4_096,
    ).save_pretrained(FOLDER / "scheduler")
    index(
        "FluxPipeline", scheduler=("diffusers", "FlowMatchEulerDiscreteScheduler"), text_encoder=("transformers", "CLIPTextModel"),
        text_encoder_2=("transformers", "T5EncoderModel"), tokenizer=("transformers", "CLIPTokenizer"),
        tokenizer_2=("transformers", "T5TokenizerFast"), transformer=("diffusers", "FluxTransformer2DModel"), vae=("diffusers", "AutoencoderKL"),
    )


torch.manual_seed(0)
FOLDER.mkdir(parents=True, exist_ok=True)
{"sdxl": sdxl, "flux": flux}[KIND.removeprefix("tiny-")]()
