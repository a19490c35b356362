"""Tables, text and charts of a ledger."""
