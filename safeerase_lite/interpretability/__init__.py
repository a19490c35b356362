"""What happens inside a model: gradients, attention, hidden states, and one direction of them.

Each function takes a model and tables of questions, and gives tensors or a tidy table. Whoever
calls decides the precision (`sl.autocast`).
"""
