"""What is chosen by a word is found by it: both of its files are there, and no other word leads anywhere."""

import pytest

from ups.config.model import OPERATORS
from ups.config.stages.operator import LOSS_TERMS
from ups.config.training import OPTIMIZERS, SCHEDULES
from ups.kinds import kind_of, kinds_of, module_of, sections_of

PAIRS = {
    "ups.config.operators": ("ups.models.operators", "network"),
    "ups.config.optimizers": ("ups.training.optimizers", "optimizer"),
    "ups.config.schedules": ("ups.training.schedules", "shape"),
    "ups.config.loss_terms": ("ups.losses.terms", "term"),
    "ups.config.selections": ("ups.evaluation.selections", "selected"),
    "ups.problems.equations": ("ups.physics.generators", "generator"),
}


@pytest.mark.parametrize("settings", PAIRS)
def test_every_kind_has_its_other_file(settings):
    package, function = PAIRS[settings]
    for kind in kinds_of(settings):
        assert callable(getattr(module_of(package, kind), function)), kind


@pytest.mark.parametrize("sections", [OPERATORS, OPTIMIZERS, SCHEDULES])
def test_the_word_is_the_file_s_name(sections):
    for kind, section in sections.items():
        assert kind_of(section(kind=kind)) == kind


@pytest.mark.parametrize("kind", ["", "..", "operators.fno", "../fno", "os", "__init__"])
def test_no_other_word_leads_to_a_module(kind):
    with pytest.raises(ValueError, match="there is no"):
        module_of("ups.models.operators", kind)


def test_a_file_of_no_section_is_told():
    with pytest.raises(TypeError, match=r"ups\.losses\.terms\.gradient must define one section, not 0"):
        sections_of("ups.losses.terms")
    assert list(LOSS_TERMS) == ["gradient"]
