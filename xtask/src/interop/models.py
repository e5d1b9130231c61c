"""Small models of many architectures, from configurations, with random weights: nothing is downloaded."""

import torch


def _text(**more):
    return dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, **more)


def make(name, seed=0, **more):
    """The model called `name`."""
    import transformers as t

    torch.manual_seed(seed)
    gpt2 = dict(vocab_size=99, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    vision = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=16, patch_size=4)
    whisper = dict(
        vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=37, decoder_ffn_dim=37, num_mel_bins=8, max_source_positions=32, max_target_positions=32,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )
    made = {
        "BertModel": lambda: t.BertModel(t.BertConfig(**_text(**more))),
        "BertForSequenceClassification": lambda: t.BertForSequenceClassification(t.BertConfig(**_text(**more))),
        "GPT2LMHeadModel": lambda: t.GPT2LMHeadModel(t.GPT2Config(**{**gpt2, **more})),
        "LlamaForCausalLM": lambda: t.LlamaForCausalLM(t.LlamaConfig(**_text(**{"tie_word_embeddings": False, **more}))),
        "T5ForConditionalGeneration": lambda: t.T5ForConditionalGeneration(
            t.T5Config(vocab_size=99, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, **more)
        ),
        "ViTForImageClassification": lambda: t.ViTForImageClassification(t.ViTConfig(**vision, **more)),
        "CLIPModel": lambda: t.CLIPModel(
            t.CLIPConfig(
                text_config=_text(max_position_embeddings=16), vision_config={**vision}, projection_dim=16
            )
        ),
        "WhisperForConditionalGeneration": lambda: t.WhisperForConditionalGeneration(t.WhisperConfig(**whisper)),
        "MambaForCausalLM": lambda: t.MambaForCausalLM(t.MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=2, state_size=4)),
        "MixtralForCausalLM": lambda: t.MixtralForCausalLM(
            t.MixtralConfig(**_text(num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1))
        ),
    }
    return made[name]().eval()


ALL = [
    "BertForSequenceClassification", "GPT2LMHeadModel", "LlamaForCausalLM", "T5ForConditionalGeneration",
    "ViTForImageClassification", "CLIPModel", "WhisperForConditionalGeneration", "MambaForCausalLM", "MixtralForCausalLM",
]


def loaded(kind, folder):
    """A model of the same class from a folder, which must hold all of it and nothing else."""
    from case import Wrong

    model, info = kind.from_pretrained(folder, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(what):
            raise Wrong(f"from_pretrained: {what} {list(info[what])[:3]}")
    return model.eval()
