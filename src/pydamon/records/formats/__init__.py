"""Other tools' formats: found by content, read as records; written.

A `source.Source` is the opened file, `detect.open_foreign` finds the reader for it, `convert.convert` makes a record of
it. What the reports are given is a `convert.ImportedRecord`, by `records.joined.open_record`.
"""
