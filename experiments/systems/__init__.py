"""The models that are compared, and what a checkpoint of Hugging Face needs for its text."""
