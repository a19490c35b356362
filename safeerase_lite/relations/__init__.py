"""Object–relation–object tuples: unlearn the relation, keep who takes part in it.

Our reading of Relationship-Aware Safety Unlearning (arXiv 2603.14185).
"""
