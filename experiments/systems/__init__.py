"""The models that are compared, and tokenizers and chat templates of Hugging Face checkpoints."""
