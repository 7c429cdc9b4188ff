"""Sizes that must fit each other, said in the words of these programs' options."""


def check_heads(num_heads: int, model_dim: int) -> None:
    """Checks that heads share the width of a model evenly; these programs know no other width.

    Raises:
      ValueError: they do not.

    Example:
      >>> check_heads(3, 128)
      Traceback (most recent call last):
      ValueError: num_heads=3 must be at least 1 and divide model_dim=128; change one of them
    """
    if num_heads < 1 or model_dim % num_heads:
        raise ValueError(
            f"num_heads={num_heads} must be at least 1 and divide model_dim={model_dim}; change "
            "one of them"
        )
