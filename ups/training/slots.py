"""What optimisers remember of a parameter: a tensor by name, which may consist of several."""

from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def inner_tensors(value: Tensor) -> dict[str, Tensor]:
    """The tensors that a tensor consists of, by the end of their names: itself, or codes and scales of one with fewer bits."""
    if not is_traceable_wrapper_subclass(value):
        return {"": value}
    names, _ = value.__tensor_flatten__()
    return {f":{name}": getattr(value, name) for name in names}
