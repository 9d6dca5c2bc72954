# SPDX-License-Identifier: Apache-2.0
"""Streams of a pod at another place: its agent connects to its ports, not serve. The tests are those of pods here."""
import pytest
from test_remote import serve  # noqa: F401  (its handler is a plugin of its own; agents call in over TLS)
from test_streaming import (  # noqa: F401
    Box,
    test_a_client_of_forwards_that_vanishes,
    test_a_slow_forward_does_not_stop_the_others,
    test_both_outputs_and_the_code,
    test_forward,
    test_forward_bulk,
    test_forward_keeps_half_closes,
    test_forward_many_at_a_time,
    test_forward_over_plain_websocket,
    test_forward_to_a_port_where_nothing_listens,
    test_forward_to_ipv6,
    test_input_until_its_end,
)


@pytest.fixture(scope="module")
def box(serve):  # noqa: F811
    box = Box(serve)
    yield box
    serve.client.remove_everything()
