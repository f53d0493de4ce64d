import pytest

from timfuse.downstream.downstream_section import DownstreamSection
from timfuse.runtime.config import load_config
from timfuse.runtime.errors import UserError


def test_a_kind_has_its_labels_and_its_own_network():
    assert (DownstreamSection().network, DownstreamSection().labels) == ("compact", "boxes")
    section = load_config(DownstreamSection, None, ["kind=segmentation"])
    assert (section.network, section.labels) == ("segformer-tiny", "masks")
    assert load_config(DownstreamSection, None, ["kind=segmentation", "network=mine"]).network == "mine"
    assert load_config(DownstreamSection, None, ["learning_rate=1"]).learning_rate == 1


@pytest.mark.parametrize("settings", [["kind=classification"], ["width=12"], ["learning_rate=0"], ["network=3"]])
def test_what_cannot_be_is_one_line_with_the_key(settings):
    with pytest.raises(UserError, match=settings[0].partition("=")[0]):
        load_config(DownstreamSection, None, settings)
