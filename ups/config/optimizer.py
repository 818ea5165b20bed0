"""What the settings of all optimisers have in common: what else of a configuration goes with them."""

from typing import ClassVar

from ups.section import Section


class OptimizerSettings(Section):
    """Base of the settings of an optimiser.

    Attributes:
        no_graphs: why its steps are no CUDA graphs, before its name; empty: they are.
        no_shards: what it does that parts of a weight do not allow, behind its name; empty: nothing.
        library: that must be installed; empty: none but torch.
    """

    no_graphs: ClassVar[str] = ""
    no_shards: ClassVar[str] = ""
    library: ClassVar[str] = ""
