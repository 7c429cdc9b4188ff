"""Checks of sizes that must fit each other, with the names of the options."""


def check_heads(num_heads: int, model_dim: int) -> None:
    """Checks that the number of heads divides the width of the model.

    Raises:
      ValueError: it does not.

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
