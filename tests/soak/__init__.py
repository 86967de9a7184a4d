"""Hours under load and faults: does a gateway grow, leak, lose or double?"""
