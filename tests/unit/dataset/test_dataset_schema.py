"""The columns of a fleet's data set."""

from pydamon.dataset import schema


def test_columns_have_different_names_that_sql_takes_unquoted() -> None:
    names = [column.name for column in schema.COLUMNS]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and name.islower() for name in names)


def test_idle_times_are_those_that_views_tell() -> None:
    from pydamon.views.live import WINDOWS_S

    assert set(schema.AGES_S) <= set(WINDOWS_S)
    assert set(schema.WINDOWS_S) <= set(WINDOWS_S)
    assert list(schema.AGES_S) == sorted(schema.AGES_S)


def test_buckets_are_crc_32_of_the_name() -> None:
    """The check value of CRC-32 (ISO-HDLC), of "123456789", is 0xCBF43926."""
    assert schema.bucket("123456789") == 0xCBF43926 % 64
    assert 0 <= schema.bucket("\udc80 of bytes that are no UTF-8") < schema.BUCKETS
