"""Tables, text and charts of a ledger.

rows: which runs there are and what is missing. tables: their metrics and differences. texts, notes
and document: the same in words. formats: the files. plots: the charts of any table.
"""
