from hypothesis import given
from hypothesis import strategies as st

from ddnn.message import Publish
from edge_gateway.effects import Keep, in_order

EFFECTS = st.lists(
    st.one_of(
        st.builds(Keep, st.binary(min_size=1, max_size=5)),
        st.builds(Publish, st.just("t"), st.binary(max_size=5)),
    )
)


@given(EFFECTS)
def test_journal_is_written_once_and_before_any_message(effects):
    done = in_order(effects)
    kept = [effect.data for effect in effects if isinstance(effect, Keep)]
    assert [e for e in done if isinstance(e, Keep)] == [Keep(b"".join(kept))] * bool(kept)
    assert [e for e in done if isinstance(e, Publish)] == [
        e for e in effects if isinstance(e, Publish)
    ]
    assert not any(isinstance(effect, Keep) for effect in done[1:])
