"""Tables, text and charts of a ledger. `report` writes them; `study` computes them."""
